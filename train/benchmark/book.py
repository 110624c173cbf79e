"""The side of the book: its training loop and layers, written anew, as the baseline.

One Python object per time step with its own gradients, every product inside the time loop,
``np.add.at`` for the embedding, softmax and loss as separate passes, fresh memory for every
result, tied weights found by comparing their values after each backward pass.
Saito, Deep Learning from Scratch 2, chapters 5 and 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from train.benchmark.workloads import Sizes, TokenIds, training_chunk

__all__ = ["Model", "Side", "merge_tied"]


class BookLayer:
    """Parameters and their gradients."""

    def __init__(self, *params: np.ndarray) -> None:
        self.params = list(params)
        self.grads = [np.zeros_like(param) for param in params]


class EmbeddingStep(BookLayer):
    """The embedding of one time step."""

    def forward(self, ids: np.ndarray) -> np.ndarray:
        """Ids (N,) -> (N, D)."""
        self.ids = ids
        return self.params[0][ids]

    def backward(self, dy: np.ndarray) -> None:
        """Clear the whole gradient and add row by row."""
        (dW,) = self.grads
        dW[...] = 0
        np.add.at(dW, self.ids, dy)


class LSTMStep(BookLayer):
    """One time step of an LSTM, gates in the order f, g, i, o."""

    def forward(self, x: np.ndarray, h_prev: np.ndarray, c_prev: np.ndarray) -> tuple:
        """(N, D), (N, H), (N, H) -> h, c."""
        Wx, Wh, b = self.params
        A = x @ Wx + h_prev @ Wh + b
        A_f, A_g, A_i, A_o = np.split(A, 4, axis=1)
        f, g, i, o = sigmoid(A_f), np.tanh(A_g), sigmoid(A_i), sigmoid(A_o)
        c = f * c_prev + g * i
        h = o * np.tanh(c)
        self.cache = (x, h_prev, c_prev, f, g, i, o, c)
        return h, c

    def backward(self, dh: np.ndarray, dc_next: np.ndarray) -> tuple:
        """(N, H), (N, H) -> dx, dh_prev, dc_prev."""
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, f, g, i, o, c = self.cache
        tanh_c = np.tanh(c)
        dc = dc_next + dh * o * (1 - tanh_c**2)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        di = dc * g * i * (1 - i)
        do = dh * tanh_c * o * (1 - o)
        dA = np.hstack((df, dg, di, do))
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dA
        self.grads[2][...] = dA.sum(axis=0)
        return dA @ Wx.T, dA @ Wh.T, dc * f


class Embedding(BookLayer):
    """The embeddings of T time steps."""

    def forward(self, xs: np.ndarray) -> np.ndarray:
        """Ids (N, T) -> (N, T, D)."""
        N, T = xs.shape
        W = self.params[0]
        ys = np.empty((N, T, W.shape[1]), dtype=W.dtype)
        self.steps = []
        for t in range(T):
            step = EmbeddingStep(W)
            ys[:, t] = step.forward(xs[:, t])
            self.steps.append(step)
        return ys

    def backward(self, dys: np.ndarray) -> None:
        """Add up T whole gradients."""
        total = np.zeros_like(self.grads[0])
        for t, step in enumerate(self.steps):
            step.backward(dys[:, t])
            total += step.grads[0]
        self.grads[0][...] = total


class LSTM(BookLayer):
    """T time steps of an LSTM that keeps its state."""

    def __init__(self, *params: np.ndarray) -> None:
        super().__init__(*params)
        self.reset_state()

    def reset_state(self) -> None:
        """Start again from a zero state."""
        self.h: Any = None
        self.c: Any = None

    def forward(self, xs: np.ndarray) -> np.ndarray:
        """(N, T, D) -> (N, T, H)."""
        N, T, _ = xs.shape
        Wh = self.params[1]
        hs = np.empty((N, T, len(Wh)), dtype=Wh.dtype)
        if self.h is None:
            self.h, self.c = np.zeros_like(hs[:, 0]), np.zeros_like(hs[:, 0])
        self.steps = []
        for t in range(T):
            step = LSTMStep(*self.params)
            self.h, self.c = step.forward(xs[:, t], self.h, self.c)
            hs[:, t] = self.h
            self.steps.append(step)
        return hs

    def backward(self, dhs: np.ndarray) -> np.ndarray:
        """(N, T, H) -> (N, T, D)."""
        N, T, _ = dhs.shape
        D = len(self.params[0])
        dxs = np.empty((N, T, D), dtype=dhs.dtype)
        dh = np.zeros_like(dhs[:, 0])
        dc = np.zeros_like(dh)
        totals = [np.zeros_like(grad) for grad in self.grads]
        for t in reversed(range(T)):
            dxs[:, t], dh, dc = self.steps[t].backward(dhs[:, t] + dh, dc)
            for total, grad in zip(totals, self.steps[t].grads, strict=True):
                total += grad
        for grad, total in zip(self.grads, totals, strict=True):
            grad[...] = total
        return dxs


class Dropout(BookLayer):
    """Inverted dropout; the mask is kept for the backward pass."""

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, xs: np.ndarray) -> np.ndarray:
        """Any shape."""
        keep = np.random.rand(*xs.shape) > self.ratio  # noqa: NPY002
        self.mask = keep.astype(xs.dtype) * (1 / (1 - self.ratio))
        return xs * self.mask

    def backward(self, dys: np.ndarray) -> np.ndarray:
        """dxs = dys * mask."""
        return dys * self.mask


class Affine(BookLayer):
    """ys = xs W + b; here the book too takes all steps in one product."""

    def forward(self, xs: np.ndarray) -> np.ndarray:
        """(N, T, H) -> (N, T, V)."""
        N, T, H = xs.shape
        W, b = self.params
        self.xs = xs
        return (xs.reshape(N * T, H) @ W + b).reshape(N, T, -1)

    def backward(self, dys: np.ndarray) -> np.ndarray:
        """(N, T, V) -> (N, T, H)."""
        N, T, H = self.xs.shape
        W, _ = self.params
        dys = dys.reshape(N * T, -1)
        self.grads[0][...] = self.xs.reshape(N * T, H).T @ dys
        self.grads[1][...] = dys.sum(axis=0)
        return (dys @ W.T).reshape(N, T, H)


class SoftmaxWithLoss:
    """Mean of -log softmax(xs)[t]; targets of -1 are not counted."""

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """(N, T, V), (N, T) -> the loss."""
        N, T, V = xs.shape
        ys = softmax(xs.reshape(N * T, V))
        counts = ts.reshape(N * T) != -1
        log_p = np.log(ys[np.arange(N * T), ts.reshape(N * T)]) * counts
        self.cache = (ys, ts.reshape(N * T), counts, (N, T, V))
        return -log_p.sum() / counts.sum()

    def backward(self) -> np.ndarray:
        """Gradient of the scores (N, T, V)."""
        ys, ts, counts, shape = self.cache
        ys[np.arange(len(ts)), ts] -= 1
        ys *= 1.0
        ys /= counts.sum()
        ys *= counts[:, None]
        return ys.reshape(shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) of each row, one pass over x for each operation."""
    x = x - x.max(axis=1, keepdims=True)
    x = np.exp(x)
    x /= x.sum(axis=1, keepdims=True)
    return x


class Model:
    """Rnnlm or BetterRnnlm with an LSTM, built on the weights in ``params``.

    Args:
        sizes: which model.
        params: in the order of the models of Time Layers: embedding (V, D); Wx, Wh and b of each
            LSTM; the output's weight (H, V), unless it is tied, and its bias (V,).
    """

    def __init__(self, sizes: Sizes, params: list[np.ndarray]) -> None:
        embed_W, *recurrent = params[: 1 + 3 * sizes.L]
        lstms = [LSTM(*recurrent[k : k + 3]) for k in range(0, len(recurrent), 3)]
        self.layers: list[Any] = [Embedding(embed_W), *lstms]
        if sizes.model == "BetterRnnlm":
            output = Affine(embed_W.T, params[-1])
            self.layers = [
                each for layer in self.layers for each in (layer, Dropout(sizes.dropout))
            ]
        else:
            output = Affine(*params[-2:])
        self.layers.append(output)
        self.loss_layer = SoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """Mean loss of ids and targets, both (N, T)."""
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self) -> None:
        """Write the gradients of all parameters."""
        dout = self.loss_layer.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)

    def reset_state(self) -> None:
        """Start again from a zero state."""
        for layer in self.layers:
            if isinstance(layer, LSTM):
                layer.reset_state()


def merge_tied(
    params: list[np.ndarray], grads: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each weight once: weights of equal values, also transposed, count as tied."""
    params, grads = params[:], grads[:]
    i = 0
    while i < len(params):
        j = i + 1
        while j < len(params):
            if params[i] is params[j]:
                share = grads[j]
            elif (
                params[i].T.shape == params[j].shape
                and params[i].ndim == 2
                and np.all(params[j] == params[i].T)
            ):
                share = grads[j].T
            else:
                j += 1
                continue
            grads[i] += share
            del params[j], grads[j]
        i += 1
    return params, grads


def get_batch(ids: np.ndarray, first: int, N: int, T: int, length: int) -> np.ndarray:
    """Columns first .. first + T of N streams of ``length`` ids, copied one id at a time."""
    batch = np.empty((N, T), dtype="int32")
    for t in range(T):
        for n in range(N):
            batch[n, t] = ids[n * length + first + t]
    return batch


class Side:
    """Trains by the book's loop."""

    def __init__(self, sizes: Sizes, ids: TokenIds, threads: int) -> None:
        rng = np.random.default_rng(1)
        V, D, H = sizes.V, sizes.D, sizes.H

        def normal(rows: int, columns: int, scale: float) -> np.ndarray:
            return (scale * rng.standard_normal((rows, columns))).astype("float32")

        params = [normal(V, D, 0.01)]
        for k in range(sizes.L):
            width = D if k == 0 else H
            params += [normal(width, 4 * H, width**-0.5), normal(H, 4 * H, H**-0.5)]
            params.append(np.zeros(4 * H, dtype="float32"))
        if sizes.model == "Rnnlm":
            params.append(normal(H, V, H**-0.5))
        params.append(np.zeros(V, dtype="float32"))
        self.sizes, self.train_ids = sizes, ids.train
        self.model = Model(sizes, params)
        self.chunks_read = 0

    def step(self, count: int) -> float:
        """Train on the next ``count`` windows; the state is carried from window to window."""
        N, T = self.sizes.N, self.sizes.T
        chunk = training_chunk(self.train_ids, self.chunks_read, N * T * count)
        self.chunks_read += 1
        self.model.reset_state()
        total = 0.0
        for k in range(count):
            xs = get_batch(chunk[:-1], k * T, N, T, count * T)
            ts = get_batch(chunk[1:], k * T, N, T, count * T)
            total += self.model.forward(xs, ts)
            self.model.backward()
            params, grads = merge_tied(self.model.params, self.model.grads)
            clip(grads, 0.25)
            for param, grad in zip(params, grads, strict=True):
                param -= 1.0 * grad
        return total / count


def clip(grads: list[np.ndarray], max_norm: float) -> None:
    """Scale all gradients in place so that their norm is at most ``max_norm``."""
    total = 0.0
    for grad in grads:
        total += np.sum(grad**2)
    rate = max_norm / (np.sqrt(total) + 1e-6)
    if rate < 1:
        for grad in grads:
            grad *= rate
