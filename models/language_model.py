"""What every language model can do besides training: continue a text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy

from common.base_model import BaseModel
from common.gates import LSTM_GATES, split_gates
from common.layer import Recurrent
from common.np import Array, np, to_cpu
from common.products import blas_at_rest
from common.sampling import check_sampling, sample_id
from common.util import evaluation

__all__ = ["LanguageModel", "check_sizes", "normal", "recurrent", "zeros"]


def check_sizes(who: str, **sizes: int) -> None:
    """Raise ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{who}: expected {name} of 1 or more, got {size}")


def normal(rng: numpy.random.Generator, shape: tuple[int, ...], scale: float, dtype: str) -> Array:
    """Normal random weights, drawn on the CPU so that every device begins at the same numbers.

    Drawn in float64 a few rows at a time, so that twice the memory is not needed in passing.
    """
    weights = numpy.empty(shape, dtype=dtype)
    for rows in numpy.array_split(weights, max(1, weights.size >> 16)):
        rows[...] = scale * rng.standard_normal(rows.shape)
    return np.asarray(weights)


def zeros(size: int, dtype: str) -> Array:
    """A bias of zeros (size,)."""
    return np.zeros(size, dtype=dtype)


def recurrent(
    cell: type[Recurrent],
    D: int,
    H: int,
    rng: numpy.random.Generator,
    dtype: str,
    forget_bias: float = 0.0,
) -> Recurrent:
    """A stateful recurrent time layer, Wx scaled by 1 / sqrt(D) and Wh by 1 / sqrt(H).

    Biases are zero, but those of an LSTM's forget gate are ``forget_bias``: above zero, the layer
    begins by remembering (Jozefowicz et al. 2015).

    Raises:
        ValueError: for a ``forget_bias`` other than 0 where there is no forget gate.
    """
    width = cell.num_gates * H
    Wx = normal(rng, (D, width), D**-0.5, dtype)
    Wh = normal(rng, (H, width), H**-0.5, dtype)
    b = zeros(width, dtype)
    if forget_bias:
        if cell.num_gates != len(LSTM_GATES):
            raise ValueError(
                f"{cell.__name__}: expected forget_bias 0, since there is no forget gate; "
                f"got {forget_bias}"
            )
        forget, *_ = split_gates(b, LSTM_GATES)
        forget[...] = forget_bias
    return cell(Wx, Wh, b, stateful=True)  # type: ignore[call-arg]


class LanguageModel(BaseModel):
    """Predicts the next token at every step: ``forward(xs, ts)`` with ids (N, T) is the loss.

    The last layer makes the scores. ``predict`` returns them; ``forward`` and ``backward`` leave
    it to the loss layer, which shares its weights and needs the scores only on the way.
    """

    @property
    def penalty(self) -> Array:
        """What the layers' penalties added to the loss of the last ``forward``, a scalar.

        0 after an evaluation, and for a model without such layers. The perplexity of a window is
        exp(loss - penalty).
        """
        return sum(layer.penalty for layer in self.layers if hasattr(layer, "penalty"))

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Array:
        """The loss, a scalar, for ids ``xs`` and the ids ``ts`` that follow them, both (N, T).

        While training it includes ``penalty``.
        """
        hs = self.run(self.layers[:-1], xs, train_flg)
        self.loss_layer.train_flg = train_flg
        return self.loss_layer.forward(hs, ts) + self.penalty

    def backward(self, dout: float = 1) -> None:
        """Write every gradient; ``dout`` scales those of the penalties too."""
        dhs = self.loss_layer.backward(dout)
        for layer in reversed(self.layers[:-1]):
            if hasattr(layer, "penalty"):
                layer.dout = dout
            dhs = layer.backward(dhs)

    def set_output_bias(self, counts: Array) -> None:
        """Let the model begin at the frequencies of the tokens, ready to learn what differs.

        The output bias becomes log((count + 1) / sum(count + 1)): with every other score at zero,
        the softmax is then the unigram distribution, a token that never occurs counted once.

        Args:
            counts: how often each id occurs in the training text (V,), from ``np.bincount``.

        Raises:
            ValueError: for another shape, or a count that is negative or not finite.
        """
        bias = self.layers[-1].params[-1]
        counts = to_cpu(counts).astype("float64")
        if counts.shape != bias.shape:
            raise ValueError(
                f"{type(self).__name__}.set_output_bias: expected counts of shape {bias.shape}, "
                f"got {counts.shape}"
            )
        if not (numpy.isfinite(counts).all() and counts.min() >= 0):
            raise ValueError(
                f"{type(self).__name__}.set_output_bias: expected finite counts of 0 or more, "
                f"got {counts.min()} to {counts.max()}"
            )
        bias[...] = np.asarray(numpy.log((counts + 1) / (counts + 1).sum()))

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
        unread = np.asarray([ids])
        ids = list(ids)
        with evaluation(self), blas_at_rest(self.layers[-1].params[0]):
            for _ in range(length):
                scores = to_cpu(self.predict(unread)[0, -1])
                if len(skip):
                    scores[skip] = -numpy.inf
                chosen = (
                    int(scores.argmax())
                    if greedy
                    else sample_id(scores, rng, temperature, top_k, top_p)
                )
                ids.append(chosen)
                unread = np.asarray([[chosen]])
                if chosen in stop_ids:
                    break
        return ids
