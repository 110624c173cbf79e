"""Take in a weight file of the book: a pickled list of float16 arrays without names.

python -m train.import_book BetterRnnlm.pkl --model better_rnnlm
python -m train.evaluate runs/better_rnnlm-imported-1

The file is read as data: nothing in it is run. See common/files/book_pickle.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.files.book_pickle import read_array_list
from common.files.model_state import name_weights
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
    arrays = read_array_list(options.file)
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


if __name__ == "__main__":
    run_command(main, Options)
