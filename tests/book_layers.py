"""What every layer, function and rule of ``common`` gives for the same numbers, into one file.

python -P book_layers.py FILE; ``common`` is the one that PYTHONPATH leads to, the book's or ours.
"""

import sys

import numpy as np

from common import functions, optimizer, time_layers
from common.util import clip_grads

N, T, D, H, V = 3, 4, 5, 6, 7
IDS = np.arange(N * T).reshape(N, T) % V
IGNORED = np.where(IDS == 3, -1, IDS)
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f")


def gates(k, seed=0):
    return floats(D, k * H, seed=seed), floats(H, k * H, seed=seed + 1), floats(k * H, seed=seed)


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def passes(layer, *inputs):
    """Outputs, gradients of inputs, and gradients of parameters of one pass there and back."""
    ys = as_tuple(layer.forward(*inputs))
    dys = [floats(*np.shape(y), seed=7) if np.ndim(y) else 2.0 for y in ys]
    dxs = as_tuple(layer.backward(*dys))
    return [np.array(a) for a in (*ys, *dxs, *layer.grads) if a is not None]


def windows(layer, xs):
    """Two windows, one from a given h, one from zeros, and what the state says."""
    arrays = passes(layer, xs) + passes(layer, xs)
    layer.set_state(floats(N, H, seed=3))
    arrays += [*passes(layer, xs), np.array(layer.h), np.array(layer.dh)]
    layer.reset_state()
    return arrays + passes(layer, xs)


def descents(rule):
    """A weight after four updates, the last two by half the learning rate."""
    opt, param = rule(lr=0.1), floats(D, H)
    for k in range(4):
        if k == 2:
            opt.lr = 0.05
        opt.update([param], [0.01 * floats(D, H, seed=k)])
    return [param]


def clipped():
    grads = [floats(D, H), floats(H)]
    clip_grads(grads, 1.0)
    return grads


def all_of_them():
    layers, xs = time_layers, floats(N, T, D)
    x, h, c, scores = xs[:, 0], floats(N, H), floats(N, H, seed=1), floats(N, T, V)
    out = {
        "MatMul": passes(layers.MatMul(floats(D, H)), x),
        "Affine": passes(layers.Affine(floats(D, H), floats(H)), x),
        "Softmax": passes(layers.Softmax(), x),
        "Sigmoid": passes(layers.Sigmoid(), x),
        "SoftmaxWithLoss": passes(layers.SoftmaxWithLoss(), scores[:, 0], IDS[:, 0])
        + passes(layers.SoftmaxWithLoss(), scores[:, 0], np.eye(V)[IDS[:, 0]]),
        "SigmoidWithLoss": passes(layers.SigmoidWithLoss(), x[:, 0], IDS[:, 0] % 2),
        "Dropout": [layers.Dropout(0.5).forward(x, train_flg=False)],
        "Embedding": passes(layers.Embedding(floats(V, D)), IDS[:, 0])
        + passes(layers.Embedding(floats(V, D)), IDS),
        "TimeEmbedding": passes(layers.TimeEmbedding(floats(V, D)), IDS),
        "TimeAffine": passes(layers.TimeAffine(floats(D, H), floats(H)), xs),
        "TimeBiLSTM": passes(layers.TimeBiLSTM(*gates(4), *gates(4, seed=5)), xs),
        "TimeSoftmaxWithLoss": passes(layers.TimeSoftmaxWithLoss(), scores, IGNORED),
        "TimeSigmoidWithLoss": passes(layers.TimeSigmoidWithLoss(), scores[:, :, 0], IDS % 2),
        "clip_grads": clipped(),
        "cross_entropy_error": [np.array(functions.cross_entropy_error(abs(x), IDS[:, 0] % D))],
    }
    dropout = layers.TimeDropout(0.5)
    dropout.train_flg = False
    out["TimeDropout"] = [dropout.forward(xs)]
    for name, k in GATES.items():
        states = (h, c) if name == "LSTM" else (h,)
        out[name] = passes(getattr(layers, name)(*gates(k)), x, *states)
        out[f"Time{name}"] = windows(getattr(layers, f"Time{name}")(*gates(k), stateful=True), xs)
    for name in ("sigmoid", "relu", "softmax"):
        out[name] = [getattr(functions, name)(x)]
    for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"):
        out[name] = descents(getattr(optimizer, name))
    return out


if __name__ == "__main__":
    print(time_layers.__file__, file=sys.stderr)
    named = {
        f"{name} {k}": a for name, arrays in all_of_them().items() for k, a in enumerate(arrays)
    }
    np.savez(sys.argv[1], **named)
