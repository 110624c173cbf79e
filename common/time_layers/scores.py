"""S = exp(X W + b) of an output layer, and the products with it: compiled, or the NumPy lines.

R rows, H inputs, V classes: X (R, H), W (H, V), b (V,), S (R, V).
"""

from __future__ import annotations

import numpy

from common import native
from common.np import Array, np
from common.parallel import num_threads, over_rows
from common.time_layers.vocabulary import TimeAffine
from common.workspace import Workspace

SMALL_PRODUCT = 1 << 22  # multiply-adds; waking a thread takes about as long
PARTS = 8  # of the classes at most, taken by the threads


def make_scores(
    output: TimeAffine, workspace: Workspace, compiled: bool = True
) -> NumpyScores | CompiledScores:
    """The fastest form that the layer's arrays allow."""
    W, b = output.params
    dW, db = output.grads
    kernels = native.library(native.in_order(W), b, db) if compiled else None
    if kernels is None or W.strides != dW.strides or W.dtype != dW.dtype:
        return NumpyScores(output, workspace)
    return CompiledScores(output, workspace, kernels)


class NumpyScores:
    """S row by row.

    Args:
        output: the layer whose W and b are used, and whose dW and db are written.
        workspace: where S is.
    """

    def __init__(self, output: TimeAffine, workspace: Workspace) -> None:
        self.W, self.b = output.params
        self.dW, self.db = output.grads
        self.workspace = workspace
        self._turn = 0
        self._shifted = False

    def exponentials(self, X: Array, keep: bool = True) -> Array:
        """Compute S = exp(X W + b); return its row sums (R,).

        Args:
            X: (R, H).
            keep: whether ``products`` will be asked for; a sum alone may need no room for S.
        """
        self._shifted = False
        self._score(X)
        return self._exponentiate(self.b)

    def shifted_exponentials(self, X: Array) -> tuple[Array, Array]:
        """S = exp(X W + b - shifts), where each row's largest becomes 1: row sums, shifts (R,)."""
        self._shifted = True
        self._score(X)
        self.S += self.b
        shifts = self.S.max(axis=1)
        return self._exponentiate(-shifts[:, None]), shifts

    def _score(self, X: Array) -> None:
        self.S = self._make_room(len(X), len(self.b))
        np.matmul(X, self.W, out=self.S)

    def _make_room(self, *shape: int) -> Array:
        self._turn = self.workspace.begin()
        return self.workspace.empty(shape, self.W.dtype)

    def _restore(self, X: Array) -> None:
        """Have S back: a second backward pass finds other layers' arrays in its place."""
        if self.workspace.turn != self._turn:
            (self.shifted_exponentials if self._shifted else self.exponentials)(X)

    def _exponentiate(self, added: Array) -> Array:
        """S := exp(S + added), (V,) or (R, 1); return the row sums."""
        sums = np.empty(len(self.S), dtype=self.W.dtype)

        def work(rows: slice) -> None:
            block = self.S[rows]
            block += added if added.ndim == 1 else added[rows]
            with numpy.errstate(over="ignore"):  # the caller looks for it in the sums
                np.exp(block, out=block)
                block.sum(axis=1, out=sums[rows])

        over_rows(work, self.S)
        return sums

    def products(self, X: Array, scale: Array) -> Array:
        """Write dW = (scale * X)' S and db = scale' S; return S W'. ``scale`` is (R, 1)."""
        self._restore(X)
        np.matmul((scale * X).T, self.S, out=self.dW)
        self.db[...] = scale[:, 0] @ self.S
        return self.S @ self.W.T


class CompiledScores(NumpyScores):
    """S by panels of neighbouring columns, as ``common/native/output.c`` writes and reads it."""

    def __init__(self, output: TimeAffine, workspace: Workspace, kernels: native.Kernels) -> None:
        super().__init__(output, workspace)
        self.kernels = kernels
        self.strides = [stride // self.W.itemsize for stride in self.W.strides]
        self.columns = kernels.panel_columns()
        self.chunk = kernels.output_chunk()

    def _threads(self, R: int) -> int:
        return num_threads() if R * self.W.size >= SMALL_PRODUCT else 1

    def _panels(self, columns: int) -> int:
        return -(-columns // self.columns)

    def exponentials(self, X: Array, keep: bool = True) -> Array:
        """As ``NumpyScores`` does; S is kept by panels, or not at all."""
        self._shifted = False
        (R, H), V = X.shape, len(self.b)
        panels, threads = self._panels(V), self._threads(R)
        X = np.ascontiguousarray(X)
        self.S = self._make_room(panels, R, self.columns) if keep else None
        sums = np.empty((-(-panels // self.chunk), R))
        work = np.empty((threads, H + R, self.columns), dtype=X.dtype)
        X_at, W_at, *rest = map(native.address, (X, self.W, self.b, self.S, sums, work))
        self.kernels.output_forward(X_at, W_at, *self.strides, *rest, R, H, V, threads)
        return sums.sum(axis=0)

    def products(self, X: Array, scale: Array) -> Array:
        """Write dW = (scale * X)' S and db = scale' S; return S W'. ``scale`` is (R, 1)."""
        self._restore(X)
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
        Xt_at, W_at, *rest = map(native.address, arrays)
        self.kernels.output_backward(Xt_at, W_at, *self.strides, *rest, R, H, V, parts, len(work))
        return dX
