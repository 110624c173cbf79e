"""What every language model can do besides training: continue a text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy

from common.base_model import BaseModel
from common.layer import Recurrent
from common.np import Array, np, to_cpu
from common.sampling import check_sampling, sample_id
from common.util import evaluation

__all__ = ["LanguageModel", "check_sizes", "normal", "recurrent", "zeros"]


def check_sizes(who: str, **sizes: int) -> None:
    """Raise ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{who}: expected {name} of 1 or more, got {size}")


def normal(rng: numpy.random.Generator, shape: tuple[int, ...], scale: float, dtype: str) -> Array:
    """Normal random weights, drawn on the CPU so that every device begins at the same numbers."""
    return np.asarray((scale * rng.standard_normal(shape)).astype(dtype))


def zeros(size: int, dtype: str) -> Array:
    """A bias of zeros (size,)."""
    return np.zeros(size, dtype=dtype)


def recurrent(
    cell: type[Recurrent], D: int, H: int, rng: numpy.random.Generator, dtype: str
) -> Recurrent:
    """A stateful recurrent time layer, Wx scaled by 1 / sqrt(D) and Wh by 1 / sqrt(H)."""
    width = cell.num_gates * H
    Wx = normal(rng, (D, width), D**-0.5, dtype)
    Wh = normal(rng, (H, width), H**-0.5, dtype)
    return cell(Wx, Wh, zeros(width, dtype), stateful=True)  # type: ignore[call-arg]


class LanguageModel(BaseModel):
    """Predicts the next token at every step: ``forward(xs, ts)`` with ids (N, T) is the loss.

    The last layer makes the scores. ``predict`` returns them; ``forward`` and ``backward`` leave
    it to the loss layer, which shares its weights and needs the scores only on the way.
    """

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Array:
        """The loss, a scalar, for ids ``xs`` and the ids ``ts`` that follow them, both (N, T)."""
        hs = self.run(self.layers[:-1], xs, train_flg)
        return self.loss_layer.forward(hs, ts)

    def backward(self, dout: float = 1) -> None:
        """Write every gradient."""
        dhs = self.loss_layer.backward(dout)
        for layer in reversed(self.layers[:-1]):
            dhs = layer.backward(dhs)

    def generate(
        self,
        start_ids: int | Sequence[int],
        length: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
        skip_ids: Collection[int] = (),
        stop_ids: Collection[int] = (),
        rng: numpy.random.Generator | int | None = None,
    ) -> list[int]:
        """Continue ``start_ids``, one token at a time; the training state is left alone.

        Args:
            start_ids: what the model reads first, at least one id.
            length: how many ids to add.
            temperature: below 1 sharpens the distribution, above 1 flattens it.
            top_k: draw from the k most likely ids only.
            top_p: draw from the fewest ids whose probabilities reach p.
            greedy: always take the most likely id; nothing is drawn.
            skip_ids: ids that are never chosen, such as ``<unk>``.
            stop_ids: stop after one of these.
            rng: a generator or a seed.

        Returns:
            The start and what was added.

        Raises:
            ValueError: for an empty start, an id out of range, or a setting out of range.
        """
        ids = numpy.atleast_1d(start_ids).tolist()
        if not ids:
            raise ValueError(f"{type(self).__name__}.generate: expected at least one start id")
        check_sampling(temperature, top_k, top_p)
        num_ids = len(self.layers[-1].params[-1])
        skip = numpy.unique(numpy.asarray(list(skip_ids), dtype=int))
        if len(skip) and not (skip[0] >= 0 and skip[-1] < num_ids > len(skip)):
            raise ValueError(
                f"{type(self).__name__}.generate: expected skip_ids in 0..{num_ids - 1}, and not "
                f"all of them; got {len(skip)} ids, {skip[0]}..{skip[-1]}"
            )
        rng = numpy.random.default_rng(rng)
        unread = ids
        ids = list(ids)
        with evaluation(self):
            for _ in range(length):
                scores = to_cpu(self.predict(np.asarray([unread]))[0, -1]).copy()
                scores[skip] = -numpy.inf
                chosen = (
                    int(scores.argmax())
                    if greedy
                    else sample_id(scores, rng, temperature, top_k, top_p)
                )
                ids.append(chosen)
                unread = [chosen]
                if chosen in stop_ids:
                    break
        return ids
