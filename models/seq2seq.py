"""From one sequence to another: an encoder reads, a decoder writes what it makes of it.

    Seq2seq                    PeekySeq2seq                AttentionSeq2seq

              y  y  y             h>y h>y h>y                 a>y a>y a>y
              |  |  |               |   |   |                   |   |   |
    h--h--h=>h--h--h     h--h--h=>h---h---h         h--h--h=>h---h---h
    |  |  |   |  |  |    |  |  |  h>| h>| h>|       |  |  |   |   |   |
    x  x  x   _  y  y    x  x  x    _   y   y       x  x  x   _   y   y

=> takes the encoder's last h to the decoder, whose c begins at zero. In PeekySeq2seq that h stands
beside every input of the decoder's LSTM and of its output layer. In AttentionSeq2seq the output
layer sees a, a weighted sum of all the encoder's h, with other weights at each step.

Shapes: N batch, S steps read, T steps written, D input width, H hidden width, V ids.
"""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import Layer, batch_first, check_sizes, normal, zeros
from common.base_model import BaseModel
from common.functions import log_softmax
from common.kernels import share_workspace
from common.np import Array, Scalar, array_of, np, to_cpu
from common.time_layers import TimeAffine, TimeEmbedding, TimeLSTM, TimeSoftmaxWithLoss
from common.time_layers.attention import ATTENTIONS, TimeAttention

__all__ = ["AttentionSeq2seq", "PeekySeq2seq", "Seq2seq"]

Rng = numpy.random.Generator


class _LayerOfLayers(Layer):
    """Has the parameters of its ``layers``, each under the name of its layer and its own."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        names = []
        for layer in layers:
            self.params += layer.params
            self.grads += layer.grads
            names += [f"{layer.kind}.{name}" for name in layer.param_names]
        self.param_names = tuple(names)


class Encoder(_LayerOfLayers):
    """Embedding and LSTM. A padded step is not read: it changes no state.

    Args:
        V, D, H: sizes.
        rng: draws the weights.
        dtype: of the weights.
        pad_id: the id of padding, before, behind or between what is read; None for none.
    """

    def __init__(self, V: int, D: int, H: int, rng: Rng, dtype: str, pad_id: int | None) -> None:
        self.embedding = TimeEmbedding(normal(rng, (V, D), 0.01, dtype))
        self.lstm: Any = TimeLSTM.build(D, H, rng, dtype)
        super().__init__(self.embedding, self.lstm)
        self.pad_id = pad_id

    def forward(self, xs: Array) -> tuple[Array, Array, Array | None]:
        """Ids (N, S) -> the h of every step and of the last, and which steps were read.

        Returns:
            (N, S, H), zero where there is padding; (N, H); (N, S), true where there is none, or
            None for all.

        Raises:
            TypeError, ValueError: for what ``TimeEmbedding`` refuses, or a row of padding alone.
        """
        if self.pad_id is None:
            hs = self.lstm.forward(self.embedding.forward(xs))
            self.cache = (hs.shape, None, None)
            return hs, hs[:, -1], None
        xs = array_of(xs)
        self.embedding.expect_shape("xs", xs, "N", "S")
        self.embedding.expect_ids("xs", xs, len(self.embedding.params[0]))
        if isinstance(xs, numpy.ndarray) and (xs == self.pad_id).all(axis=1).any():
            raise ValueError(f"{type(self).__name__}: expected an id beside padding in each row")
        xs = np.asarray(xs)
        (N, S), steps = xs.shape, np.arange(xs.shape[1])
        mask = xs != self.pad_id
        # What is read moves to the front, in order; the LSTM cannot see what comes behind it.
        rows, order = np.arange(N)[:, None], np.where(mask, steps, steps + S).argsort(axis=1)
        places = np.maximum(mask.cumsum(axis=1) - 1, 0)  # where each step has moved to
        hs = self.lstm.forward(self.embedding.forward(xs[rows, order]))
        self.cache = (hs.shape, order, places[:, -1])
        return hs[rows, places] * mask[..., None], hs[rows[:, 0], places[:, -1]], mask

    def backward(self, dhs: Array | None, dh: Array) -> None:
        """(N, S, H), None for zeros, and (N, H) -> nothing, since ids have no gradient."""
        shape, order, last = self.saved()
        N, S, _ = shape
        if dhs is None:
            dhs = np.zeros(shape, dtype=dh.dtype)
        elif order is None:
            dhs = dhs.copy()
        else:
            was_read = np.arange(S) <= last[:, None]
            dhs = dhs[np.arange(N)[:, None], order] * was_read[..., None]
        dhs[np.arange(N), -1 if last is None else last] += dh
        self.embedding.backward(self.lstm.backward(dhs))


class Decoder(_LayerOfLayers):
    """Embedding, LSTM and output layer; the LSTM begins from the encoder's last h.

    Args:
        V, D, H: sizes.
        rng: draws the weights.
        dtype: of the weights.
        attention: a layer between the LSTM and the output layer, or None.
    """

    peeks = False  # whether the encoder's last h stands beside the inputs of LSTM and output layer

    def __init__(
        self,
        V: int,
        D: int,
        H: int,
        rng: Rng,
        dtype: str,
        attention: type[TimeAttention] | None = None,
    ) -> None:
        width_in, width_out = D + self.peeks * H, H + (self.peeks or attention is not None) * H
        self.embedding = TimeEmbedding(normal(rng, (V, D), 0.01, dtype))
        self.lstm: Any = TimeLSTM.build(width_in, H, rng, dtype)
        self.lstm.stateful = True
        between = [] if attention is None else [attention.build(H, H, rng, dtype)]
        self.affine = TimeAffine(
            normal(rng, (width_out, V), width_out**-0.5, dtype), zeros(V, dtype)
        )
        super().__init__(self.embedding, self.lstm, *between, self.affine)
        self.between = between

    @property
    def kind(self) -> str:
        """What a weight file calls every decoder."""
        return "decoder"

    def begin(self, hs: Array, h: Array, mask: Array | None) -> None:
        """Begin to write, from what the encoder has read: hs (N, S, H), h (N, H), mask (N, S)."""
        self.cache = (hs, h, mask)
        self.lstm.set_state(h)

    def take(self, rows: Array) -> None:
        """Go on with the states of these rows, one for each row that is written."""
        self.lstm.set_state(*(array[rows] for array in self.lstm.state))

    def forward(self, ids: Array) -> Array:
        """The ids before each of T steps (N, T) -> scores (N, T, V); the next call goes on."""
        return self.affine.forward(self.lstm.forward(self.embedding.forward(ids)))

    def backward(self, dscores: Array) -> tuple[Array | None, Array]:
        """(N, T, V) -> the gradients of hs (N, S, H), None for zeros, and of h (N, H)."""
        self.embedding.backward(self.lstm.backward(self.affine.backward(dscores)))
        return None, self.lstm.dh


class PeekyDecoder(Decoder):
    """Its LSTM and its output layer see the encoder's last h at every step. Cho et al. (2014)."""

    peeks = True

    def forward(self, ids: Array) -> Array:
        """See ``Decoder``."""
        h = self.saved()[1][:, None]
        hs = self.lstm.forward(_beside(h, self.embedding.forward(ids)))
        return self.affine.forward(_beside(h, hs))

    def backward(self, dscores: Array) -> tuple[Array | None, Array]:
        """See ``Decoder``."""
        dout = self.affine.backward(dscores)
        H = dout.shape[2] // 2
        din = self.lstm.backward(dout[..., H:])
        self.embedding.backward(din[..., H:])
        return None, self.lstm.dh + (dout[..., :H] + din[..., :H]).sum(axis=1)


class AttentionDecoder(Decoder):
    """Its output layer sees a weighted sum of the encoder's h, and the LSTM's own h beside it."""

    @property
    def attention(self) -> TimeAttention:
        """The layer that weighs."""
        return self.between[0]

    def forward(self, ids: Array) -> Array:
        """See ``Decoder``."""
        hs_enc, _, mask = self.saved()
        hs = self.lstm.forward(self.embedding.forward(ids))
        return self.affine.forward(_beside(self.attention.forward(hs_enc, hs, mask), hs))

    def backward(self, dscores: Array) -> tuple[Array | None, Array]:
        """See ``Decoder``."""
        dout = self.affine.backward(dscores)
        H = dout.shape[2] // 2
        dhs_enc, dhs = self.attention.backward(dout[..., :H])
        dhs += dout[..., H:]
        self.embedding.backward(self.lstm.backward(dhs))
        return dhs_enc, self.lstm.dh


def _beside(first: Array, second: Array) -> Array:
    """(N, T or 1, H) and (N, T, D) -> (N, T, H + D), with time first in memory."""
    (N, T, D), H = second.shape, first.shape[2]
    both = np.empty((T, N, H + D), dtype=second.dtype)
    both[..., :H] = first.swapaxes(0, 1)
    both[..., H:] = second.swapaxes(0, 1)
    return batch_first(both)


class Seq2seq(BaseModel):
    """An encoder whose last h is where the decoder begins. Sutskever et al. (2014).

    While it learns, the decoder reads the right ids (teacher forcing); while it writes, its own.
    Nothing is carried from one batch to the next.

    Args:
        vocab_size: V, of both sequences.
        wordvec_size: D.
        hidden_size: H.
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.
        pad_id: the id that fills rows up: not read by the encoder, not counted as a target; None
            where every id counts.

    Attributes:
        vocabulary_hash: as of ``LanguageModel``.

    Raises:
        ValueError: for a size below 1, or a ``pad_id`` out of range.
    """

    vocabulary_hash: str = ""

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        rng: Rng | int | None = None,
        dtype: str = "float32",
        *,
        pad_id: int | None = None,
    ) -> None:
        who, V, D, H = type(self).__name__, vocab_size, wordvec_size, hidden_size
        check_sizes(who, vocab_size=V, wordvec_size=D, hidden_size=H)
        if pad_id is not None and not 0 <= pad_id < V:
            raise ValueError(f"{who}: expected pad_id in 0..{V - 1}, got {pad_id}")
        rng = numpy.random.default_rng(rng)
        self.encoder = Encoder(V, D, H, rng, dtype, pad_id)
        self.decoder = self._build_decoder(V, D, H, rng, dtype)
        self.compose(
            [self.encoder, self.decoder], TimeSoftmaxWithLoss(-1 if pad_id is None else pad_id)
        )
        share_workspace([self.encoder.lstm, self.decoder.lstm])

    def _build_decoder(self, V: int, D: int, H: int, rng: Rng, dtype: str) -> Decoder:
        return Decoder(V, D, H, rng, dtype)

    def predict(  # type: ignore[override]
        self, xs: Array, ts: Array, train_flg: bool = False
    ) -> Array:
        """Scores (N, T, V) of what follows each id but the last of ``ts``.

        Args:
            xs: ids that are read (N, S).
            ts: ids that are written (N, T + 1), the one that every answer begins with included.
            train_flg: whether ``forward`` asks, and ``backward`` may follow.

        Raises:
            TypeError: for ids that are not integers.
            ValueError: where shapes do not fit, or an id is out of range.
        """
        xs, ts = array_of(xs), array_of(ts)
        if ts.ndim != 2 or ts.shape[1] < 2 or len(ts) != len(xs):
            raise ValueError(
                f"{type(self).__name__}: expected ts of shape ({len(xs)}, T + 1), the start and "
                f"what follows it, got {ts.shape}"
            )
        self._goes_back, self._trains = False, train_flg
        self.decoder.begin(*self.encoder.forward(xs))
        return self.decoder.forward(ts[:, :-1])

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a scalar: of ``ts[:, 1:]``, for the scores that ``predict`` gives."""
        ts = array_of(ts)
        return self.loss_of(self.predict(xs, ts, train_flg), self.targets_of(ts))

    def targets_of(self, ts: Array) -> Array:
        """What is to be written, (N, T) of ``ts`` (N, T + 1): all but the start."""
        return ts[:, 1:]

    def backward(self, dout: float = 1) -> None:
        """Write every gradient; ids have none.

        Raises:
            RuntimeError: where the model has predicted or written since ``forward``.
        """
        self.encoder.backward(*self.decoder.backward(self.loss_gradient(dout)))

    def generate(
        self,
        xs: Array,
        start_id: int,
        sample_size: int,
        beam_size: int = 1,
        end_id: int | None = None,
    ) -> list[int]:
        """The answer to one sequence (1, S); arguments and errors as for ``generate_batch``.

        Returns:
            ``sample_size`` ids after the start; fewer where ``end_id``, the last, comes before.
        """
        xs = array_of(xs)
        if len(xs) != 1:
            raise ValueError(
                f"{type(self).__name__}.generate: expected one sequence (1, S), got {xs.shape}; "
                "generate_batch takes several"
            )
        ids = self.generate_batch(xs, start_id, sample_size, beam_size, end_id)[0].tolist()
        return ids[: ids.index(end_id) + 1] if end_id in ids else ids

    def generate_batch(
        self,
        xs: Array,
        start_id: int,
        sample_size: int,
        beam_size: int = 1,
        end_id: int | None = None,
    ) -> numpy.ndarray:
        """Write an answer to each sequence, step by step, the likeliest that a beam search finds.

        Of all continuations of the ``beam_size`` likeliest beginnings so many are kept again
        (Sutskever et al. 2014, section 3.2). A beam of 1 is greedy, one of V ** (T - 1) misses
        nothing.

        Args:
            xs: ids (N, S).
            start_id: the id that every answer begins with.
            sample_size: T, ids to write.
            beam_size: beginnings that are kept.
            end_id: the id behind which nothing follows; rows are filled up with it.

        Returns:
            Ids (N, T), on the CPU; the start is left out.

        Raises:
            TypeError: for ids that are not integers.
            ValueError: for a size out of range, an id out of range, or scores that are not numbers.
        """
        who, K = f"{type(self).__name__}.generate", beam_size
        check_sizes(who, beam_size=K)
        check_sizes(who, least=0, sample_size=sample_size)
        self._goes_back = False
        hs, h, mask = self.encoder.forward(xs)
        N, V = len(h), len(self.decoder.embedding.params[0])
        if end_id is not None and not 0 <= end_id < V:
            raise ValueError(f"{who}: expected end_id in 0..{V - 1}, got {end_id}")
        if K > 1:  # the K rows of a sequence stand together
            rows = np.asarray(numpy.arange(N).repeat(K))
            hs, h, mask = hs[rows], h[rows], None if mask is None else mask[rows]
        self.decoder.begin(hs, h, mask)
        written = numpy.full((N, K, 1), start_id)
        log_p = numpy.full((N, K), -numpy.inf)
        log_p[:, 0] = 0  # the beginnings are all the same: one counts
        for _ in range(sample_size):
            scores = self.decoder.forward(written[..., -1].reshape(N * K, 1))
            of_next = to_cpu(log_softmax(scores[:, 0].astype("float64"))).reshape(N, K, -1)
            if numpy.isnan(of_next).any():
                raise ValueError(f"{who}: expected scores that are numbers, got NaN")
            if end_id is not None:
                of_next = _after_end(of_next, written, end_id)
            of_all = (log_p[..., None] + of_next).reshape(N, K * V)
            best = numpy.argsort(-of_all, axis=1, kind="stable")[:, :K]
            log_p = numpy.take_along_axis(of_all, best, axis=1)
            parents, ids = best // V, best % V
            if K > 1:
                self.decoder.take(np.asarray((numpy.arange(N)[:, None] * K + parents).reshape(-1)))
            beginnings = numpy.take_along_axis(written, parents[..., None], axis=1)
            written = numpy.concatenate([beginnings, ids[..., None]], axis=2)
        return written[:, 0, 1:]


def _after_end(log_p: numpy.ndarray, written: numpy.ndarray, end_id: int) -> numpy.ndarray:
    """log p (N, K, V) of the next id, where behind an ``end_id`` comes another, for certain."""
    certain = numpy.full(log_p.shape[2], -numpy.inf)
    certain[end_id] = 0
    ended = (written[..., 1:] == end_id).any(axis=2)
    return numpy.where(ended[..., None], certain, log_p)


class PeekySeq2seq(Seq2seq):
    """A decoder that sees the encoder's last h at every step. Cho et al. (2014).

    Arguments, inputs and answers are those of ``Seq2seq``.
    """

    def _build_decoder(self, V: int, D: int, H: int, rng: Rng, dtype: str) -> Decoder:
        return PeekyDecoder(V, D, H, rng, dtype)


class AttentionSeq2seq(Seq2seq):
    """A decoder that looks at every step of the encoder. Bahdanau et al. (2015).

    ``decoder.attention.attention_weights`` (N, T, S) are those of the last pass.

    Args:
        vocab_size, wordvec_size, hidden_size, rng, dtype, pad_id: as for :class:`Seq2seq`.
        score: "dot", "general" or "additive" (``common.time_layers.attention``).

    Raises:
        ValueError: for a size below 1, a ``pad_id`` out of range, or another score.
    """

    decoder: AttentionDecoder

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        rng: Rng | int | None = None,
        dtype: str = "float32",
        *,
        pad_id: int | None = None,
        score: str = "dot",
    ) -> None:
        if score not in ATTENTIONS:
            raise ValueError(
                f"{type(self).__name__}: expected a score of {', '.join(ATTENTIONS)}, got {score!r}"
            )
        self.score = score
        super().__init__(vocab_size, wordvec_size, hidden_size, rng, dtype, pad_id=pad_id)

    def _build_decoder(self, V: int, D: int, H: int, rng: Rng, dtype: str) -> Decoder:
        return AttentionDecoder(V, D, H, rng, dtype, ATTENTIONS[self.score])
