"""The output layer, softmax and loss: what a language model spends most of its time on.

R = T N rows, H inputs, V classes: X (R, H), W (H, V), b (V,), S (R, V).
"""

from __future__ import annotations

from typing import Any

import numpy

from common import kernels
from common.base_layer import Layer, batch_first, time_major
from common.kernels.output import CompiledScores, ScoresWithLoss, compiled_scores
from common.kernels.passes import add_rows, subtract_at
from common.np import Array, Scalar, array_of, np, on_device

SAFE_SUMS = (1e-20, 1e30)  # far from 0 and from overflow, in the backward pass too
_Losses = tuple[Array, "Scores | CompiledScores", Array]


class TimeAffine(Layer):
    """ys = xs W + b at every step.

    Args:
        W: (H, V); the transposed view of an embedding (V, H) where the two are tied.
        b: (V,).

    Attributes:
        num_classes: V.
    """

    param_names = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.expect_shape("W", W, "H", "V")
        self.expect_shape("b", b, W.shape[1])
        self.num_classes = W.shape[1]

    def forward(self, x: Array) -> Array:
        """(N, T, H) -> (N, T, V)."""
        W, b = self.params
        self.expect_shape("x", x, "N", "T", len(W))
        xs = time_major(x, W.dtype)
        T, N, _ = xs.shape
        self.cache = (xs,)
        ys = kernels.product(xs.reshape(T * N, -1), W, bias=b)
        return batch_first(ys.reshape(T, N, -1))

    def backward(self, dout: Array) -> Array:
        """(N, T, V) -> dx (N, T, H)."""
        W, _ = self.params
        dW, db = self.grads
        (xs,) = self.saved()
        T, N, H = xs.shape
        self.expect_shape("dout", dout, N, T, W.shape[1])
        dys = time_major(dout, W.dtype).reshape(T * N, -1)
        kernels.product(xs.reshape(T * N, H).T, dys, out=dW)
        db[...] = dys.sum(axis=0)
        return batch_first(kernels.product(dys, W.T).reshape(T, N, H))

    def set_bias(self, log_p: numpy.ndarray) -> None:
        """With every other score at zero, let softmax give the log-probabilities ``log_p`` (V,)."""
        self.params[1][...] = np.asarray(log_p)


def check_targets(layer: Layer, ts: Array, shape: tuple[int, int, int], ignore_label: int) -> Array:
    """Targets (N, T), or one-hot (N, T, V), as class ids (N, T).

    Raises:
        ValueError: in the layer's name, where the shape does not fit (N, T, V) or a target is out
            of range.
    """
    N, T, V = shape
    ts = array_of(ts)
    if ts.ndim == 3:
        layer.expect_shape("ts", ts, N, T, V)
        ts = ts.argmax(axis=2)
    layer.expect_shape("ts", ts, N, T)
    layer.expect_ids("ts", ts if on_device(ts) else ts * (ts != ignore_label), V)
    return ts


def read_targets(
    layer: Layer, ts: Array, shape: tuple[int, int, int], ignore_label: int
) -> tuple[Array, Array]:
    """What ``check_targets`` returns as class ids (T N,), 0 if ignored, and which of them count."""
    ts = check_targets(layer, ts, shape, ignore_label).swapaxes(0, 1)
    counts = ts != ignore_label  # on the host, if they are there
    return np.asarray(ts * counts).reshape(-1), np.asarray(counts).reshape(-1)


class TimeSoftmaxWithLoss(Layer):
    """Mean of -log softmax(xs)[t] over all targets but those equal to ``ignore_label``.

    Where every target is ignored the loss is 0, and so is its gradient.

    Args:
        ignore_label: the target that counts for nothing.
    """

    def __init__(self, ignore_label: int = -1) -> None:
        super().__init__()
        self.ignore_label = ignore_label

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """Scores (N, T, V) and targets (N, T), or one-hot (N, T, V) -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        self.expect_shape("xs", xs, "N", "T", "V")
        N, T, V = xs.shape
        ts, counts = read_targets(self, ts, (N, T, V), self.ignore_label)
        num_targets = np.maximum(counts.sum(), 1)
        rows = np.arange(T * N)
        xs = time_major(xs).reshape(T * N, V)
        most = xs.max(axis=1, keepdims=True)
        ys = xs - most
        log_p = xs[rows, ts].astype("float64") - most[:, 0]  # their distance may exceed float32
        np.exp(ys, out=ys)
        sums = ys.sum(axis=1, keepdims=True)
        log_p -= np.log(sums[:, 0])
        ys /= sums
        self.cache = (ys, ts, counts, num_targets, (T, N, V))
        return np.where(counts, -log_p, 0).sum(dtype="float64") / num_targets

    def backward(self, dout: float = 1) -> Array:
        """dxs (N, T, V) = (softmax(xs) - onehot(ts)) * dout / (number of targets that count)."""
        ys, ts, counts, num_targets, shape = self.saved()
        scale = counts.astype(ys.dtype) * (dout / num_targets).astype(ys.dtype)
        dxs = ys * scale[:, None]
        dxs[np.arange(len(ts)), ts] -= scale
        return batch_first(dxs.reshape(shape))


class TimeOutputWithLoss(Layer):
    """The loss of ``TimeSoftmaxWithLoss`` on the scores of a ``TimeAffine``, in fewer passes.

    With S = exp(X W + b), s its row sums and w = dout / (number of targets),

        dX = (w / s) * (S W') - w * W'[ts],  dW = (w / s * X)' S - ...,  db = (w / s) S - ...

    so S is written once and never divided, subtracted from or copied: what belongs to a row is
    applied to the small matrix beside it, and the one-hot part is a sum of few rows. The usual
    shift by the row maximum is left out unless a sum shows that it is needed.

    ``train_flg`` says whether ``backward`` may follow: if not, S need not be kept. A model sets it,
    and lets its layers share their ``workspace``: a second backward pass then computes S again.

    Args:
        output: the layer whose W and b are used, and whose gradients are written.
        ignore_label: the target that counts for nothing.
    """

    def __init__(self, output: Layer, ignore_label: int = -1) -> None:
        super().__init__()
        self.output = output
        self.ignore_label = ignore_label
        self.workspace: kernels.Workspace = kernels.Workspace()

    def begin(self, xs: Array, ts: Array) -> tuple[Array, ...]:
        """Inputs (N T, H), targets (N T,), which of them count, and their columns and scores."""
        W, b = self.output.params
        H, V = W.shape
        self.expect_shape("xs", xs, "N", "T", H)
        self.cache = None
        ts, counts = read_targets(self, ts, (*xs.shape[:2], V), self.ignore_label)
        xs = time_major(xs, W.dtype).reshape(-1, H)
        of_targets = W.T[ts]  # (N T, H)
        return xs, ts, counts, of_targets, (xs * of_targets).sum(axis=1) + b[ts]

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """Inputs (N, T, H) of the output layer, targets (N, T) or one-hot -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        shape, W = xs.shape, self.output.params[0]
        if on_device(W) and (loss := self._forward_on_device(xs, ts)) is not None:
            return loss
        xs, ts, counts, of_targets, log_p = self.begin(xs, ts)
        num_targets = np.maximum(counts.sum(), 1)
        losses, scores, sums = self._losses(xs, ts, log_p)
        if self.train_flg:
            self.cache = (xs, ts, counts, num_targets, of_targets, scores, sums, shape)
        return np.where(counts, losses, 0).sum(dtype="float64") / num_targets

    def _losses(self, xs: Array, ts: Array, log_p: Array, keep_scores: bool = False) -> _Losses:
        """The loss of each row, and S with its sums and, if wanted, the scores themselves.

        ``log_p`` has the scores of the targets, and is changed.
        """
        arrays = self.output.params, self.output.grads, self.workspace
        scores: Scores | CompiledScores = compiled_scores(len(xs), *arrays) or Scores(*arrays)
        # On a GPU a shift is faster than looking.
        sums = None if on_device(xs) else scores.exponentials(xs, self.train_flg, keep_scores)
        # Without a shift a sum may overflow, or all its terms underflow. Neither goes unseen.
        if sums is not None and SAFE_SUMS[0] < sums.min() and sums.max() < SAFE_SUMS[1]:
            log_p -= np.log(sums)
        else:
            scores = shifted = Scores(*arrays)
            sums, of_largest = shifted.shifted_exponentials(xs, ts, keep_scores)
            log_p = of_largest - np.log(sums)
        # Without a shift, log_p and the sums come from products that round differently: the loss of
        # a certain target may come out as -1e-6.
        return np.maximum(-log_p, 0), scores, sums

    def losses_and_scores(self, xs: Array, ts: Array) -> tuple[Array, Array]:
        """The losses (N T,) whose mean ``forward`` would be, and all scores (N T, V), time first.

        The scores lie in the workspace, until the next pass. No backward pass may follow.

        Args:
            xs: inputs (N, T, H) of the output layer.
            ts: targets (N, T); the loss of one that is ignored is 0.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        xs, ts, counts, _, log_p = self.begin(xs, ts)  # which empties the cache
        losses, scores, _ = self._losses(xs, ts, log_p, keep_scores=True)
        return np.where(counts, losses, 0), scores.scores

    def backward(self, dout: float = 1) -> Array:
        """Write dW and db of the output layer; return dxs (N, T, H)."""
        if self.cache is not None and isinstance(self.cache[0], ScoresWithLoss):
            return self._backward_on_device(dout)
        dW, db = self.output.grads
        xs, ts, counts, num_targets, of_targets, scores, sums, (N, T, H) = self.saved()
        weight = (counts * (dout / num_targets)).astype(dW.dtype)[:, None]  # w, 0 where ignored
        by_sum = weight / sums.astype(dW.dtype)[:, None]

        dxs = scores.products(xs, by_sum)  # writes dW and db
        dxs *= by_sum
        dxs -= weight * of_targets
        add_rows(dW.T, ts, -weight * xs)
        subtract_at(db, ts, weight[:, 0])
        return batch_first(dxs.reshape(T, N, H))

    def _forward_on_device(self, xs: Array, ts: Array) -> Scalar | None:
        """``forward`` in three launches; None where there is no kernel for such arrays."""
        W, _ = self.output.params
        self.expect_shape("xs", xs, "N", "T", len(W))
        N, T, H = xs.shape
        ts = check_targets(self, ts, (N, T, W.shape[1]), self.ignore_label)
        scores = ScoresWithLoss(self.output.params, self.output.grads, self.workspace)
        X = time_major(xs, W.dtype).reshape(T * N, H)
        self.cache = None
        loss = scores.forward(X, np.asarray(ts), self.ignore_label, self.train_flg)
        if loss is not None and self.train_flg:
            self.cache = (scores, (T, N, H))
        return loss

    def _backward_on_device(self, dout: float) -> Array:
        scores, shape = self.saved()
        return batch_first(scores.backward(dout).reshape(shape))


class Scores:
    """S = exp(X W + b) row by row, and the products with it.

    ``common.kernels.output.CompiledScores`` does the same by panels of columns.

    Args:
        params: W and b.
        grads: dW and db, which ``products`` writes.
        workspace: where S is.
    """

    scores: Any = None  # X W + b, where it is wanted

    def __init__(
        self, params: list[Array], grads: list[Array], workspace: kernels.Workspace
    ) -> None:
        self.W, self.b = params
        self.dW, self.db = grads
        self.workspace = workspace
        self._turn = 0
        self._shifted = False
        self._targets: Array = np.zeros(0, dtype=int)

    def exponentials(self, X: Array, keep: bool = True, scores: bool = False) -> Array:
        """Compute S = exp(X W + b) and, if wanted, ``scores`` X W + b; return the row sums (R,)."""
        self._shifted = False
        self._score(X, scores)
        return self._exponentiate(self.b)

    def shifted_exponentials(
        self, X: Array, ts: Array, scores: bool = False
    ) -> tuple[Array, Array]:
        """S = exp(X W + b - m), where m, each row's largest score, brings the largest to 1.

        Returns:
            The row sums (R,), and what the scores of the classes ``ts`` (R,) are above m: 0 or
            less, from the same product, so that no loss comes out below 0.
        """
        self._shifted, self._targets = True, ts
        self._score(X, scores)
        self.S += self.b
        shifts = self.S.max(axis=1)
        of_targets = self.S[np.arange(len(ts)), ts].astype("float64") - shifts
        return self._exponentiate(-shifts[:, None]), of_targets

    def _score(self, X: Array, scores: bool) -> None:
        self._turn = self.workspace.begin()
        self.S = self.workspace.empty((len(X), len(self.b)), self.W.dtype)
        kernels.product(X, self.W, out=self.S)
        self.scores = self.S + self.b if scores else None

    def _exponentiate(self, added: Array) -> Array:
        """S := exp(S + added), (V,) or (R, 1); return the row sums."""
        sums = np.empty(len(self.S), dtype=self.W.dtype)

        def work(rows: slice) -> None:
            block = self.S[rows]
            with numpy.errstate(over="ignore"):  # the caller looks for it in the sums
                block += added if added.ndim == 1 else added[rows]
                np.exp(block, out=block)
                block.sum(axis=1, out=sums[rows])

        kernels.over_rows(work, self.S)
        return sums

    def products(self, X: Array, scale: Array) -> Array:
        """Write dW = (scale * X)' S and db = scale' S; return S W'. ``scale`` is (R, 1)."""
        if self.workspace.turn != self._turn:  # other layers' arrays are in its place by now
            if self._shifted:
                self.shifted_exponentials(X, self._targets)
            else:
                self.exponentials(X)
        kernels.product((scale * X).T, self.S, out=self.dW)
        self.db[...] = scale[:, 0] @ self.S
        return kernels.product(self.S, self.W.T)
