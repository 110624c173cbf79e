"""What every language model can do: learn the next token, and continue a text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial, reduce
from itertools import islice
from typing import Any

import numpy

from common import kernels
from common.base_layer import KeptState, Layer, TimeRecurrent, check_sizes
from common.base_model import BaseModel
from common.kernels.passes import draw
from common.np import Array, Scalar, np, plus, to_cpu
from common.perplexity.protocols import evaluation, windows
from common.time_layers import (
    TimeAffine,
    TimeBidirectional,
    TimeEmbedding,
    TimeOutputWithLoss,
    time_layer,
)

__all__ = [
    "Choice",
    "LanguageModel",
    "Stream",
    "check_sampling",
    "likeliest_id",
    "recurrent",
    "sample_id",
    "set_gate_bias",
    "tied_output",
]

Choice = Callable[[numpy.ndarray], int]  # the id that is written, by the scores (V,) of all
Stream = Iterator[tuple[int, numpy.ndarray]]  # such ids, each with the scores

PROMPT_WINDOW = 500  # steps of a prompt that are read at once
BLOCK = 128  # ids whose weights are summed before one of them is looked for


def recurrent(
    cell: Any, D: int, H: int, rng: numpy.random.Generator, dtype: str, forget_bias: float = 0.0
) -> KeptState:
    """A stateful recurrent time layer with its initial weights.

    Args:
        cell: a name, a time layer or a cell (``common.time_layers.time_layer``).
        D: input width.
        H: width of the output.
        rng: draws the weights.
        dtype: of the weights.
        forget_bias: where the biases of a forget gate begin; above zero, the layer begins by
            remembering (Jozefowicz et al. 2015).

    Raises:
        TypeError: for a layer that reads in both directions.
        ValueError: for a ``forget_bias`` other than 0 where there is no forget gate.
    """
    is_time_layer = isinstance(cell, type) and issubclass(cell, TimeRecurrent)
    layer = (cell.build if is_time_layer else partial(_from_left, cell))(D, H, rng, dtype)
    layer.stateful = True
    if forget_bias:
        _set_forget_bias(layer, forget_bias)
    return layer


def _from_left(cell: Any, *sizes: Any) -> KeptState:
    if isinstance(cell, type) and issubclass(cell, TimeBidirectional):
        raise TypeError(
            f"{cell.__name__}: a language model reads from left to right; from the right it would "
            "see the words that it predicts"
        )
    return time_layer(cell, *sizes)


def _set_forget_bias(layer: KeptState, forget_bias: float) -> None:
    if "f" not in layer.gates:
        raise ValueError(
            f"{type(layer).__name__}: expected forget_bias 0, since there is no forget gate; "
            f"got {forget_bias}"
        )
    set_gate_bias(layer, "f", forget_bias)


def set_gate_bias(layer: KeptState, gate: str, bias: float) -> None:
    """Set the biases of one of the layer's ``gates``."""
    b, H = layer.params[layer.param_names.index("b")], layer.state_sizes[0]
    k = layer.gates.index(gate)
    b[k * H : (k + 1) * H] = bias


def tied_output(embedding: TimeEmbedding) -> TimeAffine:
    """An output layer whose weight is the embedding's, transposed, with one gradient for both.

    The output layer is first in the backward pass and writes the gradient; the embedding adds.

    Raises:
        ValueError: for an embedding whose gradient is rows alone.
    """
    (W,) = embedding.params
    output = TimeAffine(W.T, np.zeros(len(W), dtype=W.dtype))
    output.grads[0] = embedding.grads[0].T
    embedding.accumulate = True
    return output


class LanguageModel(BaseModel):
    """Predicts the next token at every step: ``forward(xs, ts)`` with ids (N, T) is the loss.

    The last layer makes the scores, which ``predict`` returns. A ``TimeOutputWithLoss`` holds that
    layer: ``forward`` and ``backward`` then leave it to the loss layer, which needs the scores only
    on the way.

    Attributes:
        vocabulary_hash: stands for the words behind the ids. Weights that are saved carry it, and
            those of other words are not loaded; "" where the words are not known.
    """

    vocabulary_hash: str = ""

    @property
    def layers_below_loss(self) -> list[Any]:
        """The layers whose output the loss layer reads."""
        return self.layers[:-1] if isinstance(self.loss_layer, TimeOutputWithLoss) else self.layers

    @property
    def reads_ids_on_host(self) -> bool:
        """Whether a layer looks at ids: those of a text then stay on the host."""
        layers = [*self.layers, self.loss_layer]
        return any(getattr(layer, "reads_ids_on_host", False) for layer in layers)

    @property
    def penalty(self) -> Scalar:
        """What the layers' penalties added to the loss of the last ``forward``, a scalar.

        0 after an evaluation, and for a model without such layers. The perplexity of a window is
        exp(loss - penalty).
        """
        return reduce(plus, (x.penalty for x in self.layers if isinstance(x, Layer)), 0.0)

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a scalar, for ids ``xs`` and the ids ``ts`` that follow them, both (N, T).

        While training it includes ``penalty``.
        """
        hs = self.run(self.layers_below_loss, xs, train_flg)
        self.loss_layer.train_flg = train_flg
        return plus(self.loss_of(hs, ts), self.penalty)

    def backward(self, dout: float = 1) -> Any:
        """Write every gradient; ``dout`` scales those of the penalties too."""
        for _ in self.backward_by_layer(dout, dout):
            pass

    def backward_by_layer(self, dout: float, of_penalties: float) -> Iterator[Layer]:
        """As ``backward``, one layer at a time: yields each once its gradients are written."""
        dhs = self.loss_gradient(dout)
        below = self.layers_below_loss
        yield from self.layers[len(below) :]  # whose gradients the loss layer has written
        for layer in reversed(below):
            layer.dout = of_penalties
            dhs = layer.backward(dhs)
            yield layer

    def expect_ids(self, xs: Array, ts: Array) -> None:
        """Check the ids of a text on the host, as the layers check those of a window there.

        Args:
            xs: ids of any shape.
            ts: targets of any shape.

        Raises:
            TypeError: where they are not integers.
            ValueError: where one is out of range.
        """
        num_ids = self.layers[-1].num_classes
        self.layers[0].expect_ids("xs", xs, num_ids)
        if isinstance(ts, numpy.ndarray):
            ts = ts[ts != self.loss_layer.ignore_label]
        self.loss_layer.expect_ids("ts", ts, num_ids)

    def set_output_bias(self, counts: Array) -> None:
        """Let the model begin at the frequencies of the tokens, ready to learn what differs.

        The output bias becomes log((count + 1) / sum(count + 1)): with every other score at zero,
        the softmax is then the unigram distribution, a token that never occurs counted once. An
        adaptive output has biases of clusters, too, with which it is that distribution.

        Args:
            counts: how often each id occurs in the training text (V,), from ``np.bincount``.

        Raises:
            ValueError: for another shape, or a count that is negative or not finite.
        """
        counts, V = to_cpu(counts).astype("float64"), self.layers[-1].num_classes
        if counts.shape != (V,):
            raise ValueError(
                f"{type(self).__name__}.set_output_bias: expected counts of shape ({V},), "
                f"got {counts.shape}"
            )
        if not (numpy.isfinite(counts).all() and counts.min() >= 0):
            raise ValueError(
                f"{type(self).__name__}.set_output_bias: expected finite counts of 0 or more, "
                f"got {counts.min()} to {counts.max()}"
            )
        self.layers[-1].set_bias(numpy.log((counts + 1) / (counts + 1).sum()))

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
        check_sampling(*(settings := (temperature, top_k, top_p)))
        check_sizes(f"{type(self).__name__}.generate", least=0, length=length)
        rng = numpy.random.default_rng(rng)
        choose = likeliest_id if greedy else lambda scores: sample_id(scores, rng, *settings)
        with evaluation(self), kernels.blas_at_rest(self.layers[-1].params[0]):
            for chosen, _ in islice(self.stream(ids, choose, skip_ids), length):
                ids.append(chosen)
                if chosen in stop_ids:
                    break
        return ids

    def stream(self, ids: list[int], choose: Choice, skip_ids: Collection[int]) -> Stream:
        """Read ``ids`` from the state in which the model is, then write one after the other.

        Args:
            ids: at least one.
            choose: an id by its score, from the scores (V,).
            skip_ids: ids that are never chosen: their scores are -inf then.

        Yields:
            Without end: an id, and the scores (V,) of all. It is read once the next is asked for.

        Raises:
            ValueError: for an id out of range, or where no id can be chosen.
        """
        num_ids = self.layers[-1].num_classes
        skip = numpy.unique(numpy.asarray(list(skip_ids), dtype=int))
        if len(skip) and not (skip[0] >= 0 and skip[-1] < num_ids > len(skip)):
            raise ValueError(
                f"{type(self).__name__}.generate: expected skip_ids in 0..{num_ids - 1}, and not "
                f"all of them; got {len(skip)} ids, {skip[0]}..{skip[-1]}"
            )
        unread = numpy.asarray([ids])
        for window in windows(len(ids) - 1, PROMPT_WINDOW):  # its scores are not asked for
            self.run(self.layers[:-1], unread[:, window], train_flg=False)
        while True:
            scores = to_cpu(self.predict(unread[:, -1:])[0, -1])
            skipped, scores[skip] = scores[skip], -numpy.inf
            chosen, scores[skip] = choose(scores), skipped
            yield chosen, scores
            unread = numpy.asarray([[chosen]])


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError for a setting that makes no distribution."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"sampling: expected a temperature above 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sampling: expected top_k of 1 or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"sampling: expected top_p in (0, 1], got {top_p}")


def likeliest_id(scores: numpy.ndarray) -> int:
    """The id of the highest score; the first of several.

    Raises:
        ValueError: for scores that make no distribution: with NaN, or nothing above -inf.
    """
    chosen = int(scores.argmax())
    _check_distribution(numpy.isfinite(scores[chosen]))
    return chosen


def sample_id(
    scores: numpy.ndarray,
    rng: numpy.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw an id from softmax(scores / temperature), cut to its most likely part.

    Args:
        scores: (V,); -inf for an id that must not be drawn.
        rng: where the draw comes from.
        temperature: below 1 sharpens, above 1 flattens.
        top_k: keep the k most likely ids (Fan et al. 2018).
        top_p: keep the fewest ids whose probabilities reach p (Holtzman et al. 2020).

    Raises:
        ValueError: for scores that make no distribution: with NaN, or nothing above -inf.
    """
    by = max(1e-30, min(1 / temperature, 1e30))  # 0 and -inf times it stay what they are
    library = kernels.library(scores) if top_k is None and top_p is None else None
    if library is not None:
        drawn = draw(library, scores, by, rng.random())
        _check_distribution(drawn >= 0)
        return drawn
    most = scores.max()
    _check_distribution(numpy.isfinite(most))
    with numpy.errstate(over="ignore"):  # to -inf, which has probability 0
        p = numpy.exp((scores - most) * by)
    if top_k is not None or top_p is not None:
        _cut(p, scores, top_k, top_p)
    return _draw(p, rng)


def _cut(p: numpy.ndarray, scores: numpy.ndarray, top_k: int | None, top_p: float | None) -> None:
    """Set all but the most likely ids of the weights ``p`` (V,) to 0, in place.

    Their scores tell them apart where a high temperature makes their weights equal.
    """
    p /= p.sum()
    order = numpy.argsort(-scores, kind="stable")
    if top_k is not None:
        p[order[top_k:]] = 0
        p /= p.sum()
    if top_p is not None:
        before = numpy.cumsum(p[order]) - p[order]  # probability of all that are likelier
        p[order[1:][before[1:] >= top_p]] = 0  # the likeliest stays, however small top_p is


def _check_distribution(right: bool) -> None:
    if not right:
        raise ValueError("sampling: expected scores without NaN and with one above -inf")


def _draw(weights: numpy.ndarray, rng: numpy.random.Generator) -> int:
    """An id, each as likely as its weight (V,) is large: first its block, then its place there.

    The running sum of all V weights takes longer than their exponentials; this needs two short
    ones.
    """
    starts = numpy.arange(0, len(weights), BLOCK)
    up_to = numpy.add.reduceat(weights, starts).cumsum(dtype=numpy.float64)
    at = rng.random() * up_to[-1]
    block = int(up_to.searchsorted(at, side="right"))
    if block:
        at -= up_to[block - 1]
    first = block * BLOCK
    inside = weights[first : first + BLOCK]
    place = int(inside.cumsum(dtype=numpy.float64).searchsorted(at, side="right"))
    if place == len(inside):  # the two sums round differently: it is the last possible id
        place = int(numpy.flatnonzero(inside)[-1])
    return first + place
