"""The compiled output layer: on the CPU S = exp(X W + b) by panels of columns, on a GPU with loss.

R rows, H inputs, V classes: X (R, H), W (H, V), b (V,), S (R, V).
"""

from __future__ import annotations

from collections.abc import Sequence

from common import kernels
from common.kernels import SMALL_PRODUCT, Library, Workspace, address, device, in_order
from common.np import Array, Scalar, np

__all__ = ["CompiledScores", "ScoresWithLoss", "compiled_scores"]

PARTS = 8  # of the classes at most, taken by the threads


def compiled_scores(
    num_rows: int, params: Sequence[Array], grads: Sequence[Array], workspace: Workspace
) -> CompiledScores | None:
    """The compiled form, if it pays for so many rows and the arrays of the layer allow it."""
    (W, b), (dW, db) = params, grads
    library = kernels.library(in_order(W), b, db) if num_rows >= kernels.FEW_ROWS else None
    if library is None or W.strides != dW.strides or W.dtype != dW.dtype:
        return None
    if not (kernels.writeable(dW, db) and dW.flags.aligned) or kernels.shares_memory(dW, W, b):
        return None
    return CompiledScores(params, grads, workspace, library)


class CompiledScores:
    """S by panels of neighbouring columns, as ``common/kernels/c/output.c`` writes and reads it.

    Args:
        params: W and b.
        grads: dW and db, which ``products`` writes.
        workspace: where S is.
        library: the kernels.
    """

    def __init__(
        self,
        params: Sequence[Array],
        grads: Sequence[Array],
        workspace: Workspace,
        library: Library,
    ) -> None:
        self.W, self.b = params
        self.dW, self.db = grads
        self.workspace, self.library = workspace, library
        self.strides = [stride // self.W.itemsize for stride in self.W.strides]
        self.columns = library.panel_columns()
        self.chunk = library.output_chunk()
        self._turn = 0

    def _threads(self, R: int) -> int:
        return kernels.num_threads() if R * self.W.size >= SMALL_PRODUCT else 1

    def _panels(self, columns: int) -> int:
        return -(-columns // self.columns)

    def exponentials(self, X: Array, keep: bool = True, scores: Array | None = None) -> Array:
        """Compute S = exp(X W + b); return its row sums (R,).

        Args:
            X: (R, H).
            keep: whether ``products`` will be asked for; the sums alone need no room for S.
            scores: where X W + b is wanted, an array (R, V) that takes it.
        """
        (R, H), V = X.shape, len(self.b)
        panels, threads = self._panels(V), self._threads(R)
        X = np.require(X, self.W.dtype, ["C", "ALIGNED"])
        self._turn = self.workspace.begin()
        room = (panels, R, self.columns)
        self.S = self.workspace.empty(room, self.W.dtype) if keep else None
        sums = np.empty((-(-panels // self.chunk), R))
        work = np.empty((threads, H + R, self.columns), dtype=X.dtype)
        X_at, W_at, *rest = map(address, (X, self.W, self.b, self.S, sums, scores, work))
        self.library.output_forward(X_at, W_at, *self.strides, *rest, R, H, V, threads)
        return sums.sum(axis=0)

    def products(self, X: Array, scale: Array) -> Array:
        """Write dW = (scale * X)' S and db = scale' S; return S W'. ``scale`` is (R, 1)."""
        if self.workspace.turn != self._turn:  # other layers' arrays are in its place by now
            self.exponentials(X)
        (R, H), V = X.shape, len(self.b)
        Xt = self.workspace.empty((H + 1, R), X.dtype)
        np.multiply(X.T, scale.T, out=Xt[:H])
        Xt[H] = scale[:, 0]
        panels, threads = self._panels(V), self._threads(R)
        parts = min(PARTS, -(-panels // self.chunk))
        dX = np.zeros((R, H), dtype=X.dtype)
        of_thread = self._panels(H) * self.chunk * self.columns**2 + R * H
        work = self.workspace.empty((min(threads, parts), of_thread), X.dtype)
        arrays = (Xt, self.W, self.S, self.dW, self.db, dX, work)
        Xt_at, W_at, *rest = map(address, arrays)
        self.library.output_backward(Xt_at, W_at, *self.strides, *rest, R, H, V, parts, len(work))
        return dX


class ScoresWithLoss:
    """S = X W on a GPU, and the softmax with loss of S + b, whose gradient takes the place of S.

    Args:
        params: W and b.
        grads: dW and db, which ``backward`` writes.
        workspace: where S is.
    """

    def __init__(
        self, params: Sequence[Array], grads: Sequence[Array], workspace: Workspace
    ) -> None:
        self.W, self.b = params
        self.dW, self.db = grads
        self.workspace = workspace

    def forward(self, X: Array, ts: Array, ignore_label: int, keep: bool) -> Scalar | None:
        """The mean loss, a float64 scalar; None where there is no kernel for such arrays.

        Args:
            X: (T N, H), the sequences of a step side by side.
            ts: targets (N, T) on the GPU.
            ignore_label: the target that counts for nothing.
            keep: whether ``backward`` will be asked for.
        """
        if not device.takes_scores(ts, X, self.b):
            return None
        self._arguments = X, ts, ignore_label, keep
        self._turn = self.workspace.begin()
        self.S = self.workspace.empty((len(X), len(self.b)), self.W.dtype)
        np.matmul(X, self.W, out=self.S)
        loss, _ = device.softmax_with_loss(self.S, self.b, ts, ignore_label, keep)
        return loss

    def backward(self, dout: float) -> Array:
        """Write dW and db; return the gradient of X."""
        if self.workspace.turn != self._turn:  # other layers' arrays are in the place of S by now
            self.forward(*self._arguments)
        X, *_ = self._arguments
        kernels.product(X.T, self.S, out=self.dW)
        self.S.sum(axis=0, out=self.db)
        dX = np.matmul(self.S, self.W.T)
        if not isinstance(dout, int) or dout != 1:  # it may be a number on the device
            for gradient in (self.dW, self.db, dX):
                gradient *= dout
        return dX
