"""Take in a weight file of the book: a pickled list of float16 arrays without names.

python -m train.import_book BetterRnnlm.pkl --model better_rnnlm
python -m train.evaluate runs/better_rnnlm-imported-1

The file is read as data: nothing in it is run. See common/files/book_pickle.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from common.files.book_pickle import read_array_list
from common.np import Array
from models.language_model import LanguageModel
from train.run.command import run_command
from train.run.import_weights import ImportOptions, keep_as_run


@dataclass(frozen=True)
class Options(ImportOptions):
    """Make a run of the book's weight file, for train.evaluate and train.generate.

    The list holds embed_W, then Wx, Wh and b of each recurrent layer (gates f, g, i, o), then
    affine_W and affine_b. Where the output weight is tied to embed_W it may stand there again,
    transposed, or be left out.
    """


def main(options: Options) -> None:
    """Run the command."""
    arrays = [array.astype("float32") for array in read_array_list(options.file)]
    if len(arrays) < 3 or arrays[0].ndim != 2:
        raise ValueError(
            f"{options.file}: expected embed_W (V, D), then Wx, Wh, b, and more; "
            f"got the shapes {', '.join(str(array.shape) for array in arrays) or 'of no array'}"
        )
    (V, D), H = arrays[0].shape, len(arrays[2])
    num_values = sum(array.size for array in arrays)
    keep_as_run(
        options,
        (V, D, H),
        num_values,
        lambda model: name_weights(model, arrays, options.file),
    )


def name_weights(
    model: LanguageModel, arrays: Sequence[Array], source: str | os.PathLike
) -> dict[str, Array]:
    """The book's list under the names of ``model``, whose weights have the same order.

    Args:
        model: says which weights are expected; it is not changed.
        arrays: the list; the tied output weight (H, V) may stand before the last bias.
        source: the file that an error names.

    Raises:
        ValueError: for another number of arrays, or a tied weight that is not embed_W.
    """
    names = list(model.named_params())
    arrays = list(arrays)
    is_tied = "affine.W" not in names
    if is_tied and len(arrays) == len(names) + 1:
        again = arrays.pop(-2)
        if again.shape != arrays[0].T.shape or not (again == arrays[0].T).all():
            raise ValueError(
                f"{source}: array {len(arrays) - 1} is not embed_W transposed, to which "
                f"{type(model).__name__} ties it"
            )
    if len(arrays) != len(names):
        raise ValueError(
            f"{source}: expected {len(names)} arrays for {type(model).__name__} "
            f"({', '.join(names)}), got {len(arrays)}"
        )
    return dict(zip(names, arrays, strict=True))


if __name__ == "__main__":
    run_command(main, Options)
