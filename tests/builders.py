"""Small layers, models and numbers for the tests, in the shapes' alphabet of the project."""

import contextlib
import copy

import numpy

from common import layers, time_layers
from common.np import np, to_cpu
from common.time_layers.clusters import WordClusters
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm

N, T, D, H, V = 2, 3, 4, 5, 7
PATIENCE = 600  # seconds; no machine is so slow: what takes longer hangs

MODELS = {
    "SimpleRnnlm": SimpleRnnlm,
    "Rnnlm": Rnnlm,
    "BetterRnnlm": BetterRnnlm,
    "AwdRnnlm": AwdRnnlm,
}

CELLS = ["RNN", "LSTM", "GRU", "GRU with recurrent bias"]
TIME_CELLS = [f"Time{name}" for name in CELLS]
WITH_LOSS = ["SoftmaxWithLoss", "SigmoidWithLoss", "TimeSoftmaxWithLoss", "TimeSigmoidWithLoss"]
ONE_STEP = ["MatMul", "Affine", "Softmax", "Sigmoid", "Dropout", "Embedding", *CELLS]
ATTENTIONS = ["TimeAttention", "TimeGeneralAttention", "TimeAdditiveAttention"]
TIME_LAYERS = [
    *["TimeEmbedding", "TimeAffine", "TimeDropout", "TimeDropout variational"],
    *["TimeEmbedding with dropout", "TimeEmbedding sparse"],
    *["TimeActivationPenalty", "TimeWeightDrop"],
    *["TimeAdaptiveEmbedding", "TimeAdaptiveOutput"],
    *[*TIME_CELLS, "TimeBiLSTM"],
    *ATTENTIONS,
]
LAYERS = [*ONE_STEP, *TIME_LAYERS, *WITH_LOSS]


def generator(seed=0):
    return numpy.random.default_rng(seed)


def floats(rng, *shape, dtype="float64"):
    """Standard normal numbers on the current backend."""
    return np.asarray(rng.standard_normal(shape).astype(dtype))


def ids(rng, high, *shape):
    """Integers below ``high`` on the current backend."""
    return np.asarray(rng.integers(0, high, shape))


def spoil(y):
    """Change an array in place, unless it refuses."""
    with contextlib.suppress(ValueError):
        y += 1


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def same(actual, expected):
    """Fails unless the two are equal in every bit."""
    numpy.testing.assert_array_equal(to_cpu(actual), to_cpu(expected), strict=True)


def close(actual, expected, tolerance=1e-12):
    """Fails unless the two have one shape and differ by at most ``tolerance``."""
    actual, expected = to_cpu(actual), to_cpu(expected)
    assert actual.shape == expected.shape
    numpy.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def weights(rng, num_gates, bias_blocks=None, dtype="float64"):
    """Wx (D, kH), Wh (H, kH) and b of a recurrent layer with k gates."""
    blocks = num_gates if bias_blocks is None else bias_blocks
    shapes = (D, num_gates * H), (H, num_gates * H), (blocks * H,)
    return [floats(rng, *shape, dtype=dtype) for shape in shapes]


def layer_class(name):
    """The class of ``"TimeGRU with recurrent bias"`` and the like."""
    kind = name.split()[0]
    return getattr(time_layers if kind.startswith("Time") else layers, kind)


def cell_weights(name, dtype="float64", seed=0):
    """Weights for a cell or its time layer by name."""
    blocks = 4 if "recurrent bias" in name else None
    return weights(generator(seed), layer_class(name).num_gates, blocks, dtype)


def layer_and_inputs(name, dtype="float64"):
    """A layer by name with random parameters, and a tuple of inputs that its ``forward`` takes."""
    rng, cls = generator(), layer_class(name)
    steps = (N, T) if name.startswith("Time") else (N,)
    kind = cls.__name__.removeprefix("Time")

    def array(*shape):
        return floats(rng, *shape, dtype=dtype)

    if kind in ("RNN", "LSTM", "GRU"):
        num_states = 0 if name.startswith("Time") else 1 + (kind == "LSTM")
        states = [array(N, H) for _ in range(num_states)]
        return cls(*cell_weights(name, dtype)), (array(*steps, D), *states)
    if kind == "BiLSTM":
        left, right = weights(rng, 4, dtype=dtype), weights(rng, 4, dtype=dtype)
        return cls(*left, *right), (array(N, T, D),)
    if kind == "WeightDrop":
        lstm = time_layers.TimeLSTM(*cell_weights("TimeLSTM", dtype))
        return cls(lstm, 0.4, generator(3)), (array(N, T, D),)
    if kind == "ActivationPenalty":
        return cls(alpha=2.0, beta=1.0), (array(N, T, D),)
    if name in ATTENTIONS:  # a decoder of T steps looks at an encoder of T + 1
        shapes = {"GeneralAttention": [(D, D)], "AdditiveAttention": [(D, H), (D, H), (H,)]}
        params = (array(*shape) for shape in shapes.get(kind, []))
        return cls(*params), (array(N, T + 1, D), array(N, T, D))
    if kind == "Embedding":
        options = {"dropout_ratio": 0.4, "rng": generator(3)} if "dropout" in name else {}
        options |= {"sparse": True} if "sparse" in name else {}
        return cls(array(V, D), **options), (ids(rng, V, *steps),)
    if kind.startswith("Adaptive"):
        clusters = WordClusters(V, (2, 4))
        clusters.set_counts(rng.permutation(V))
        if kind == "AdaptiveOutput":
            return cls.build(D, clusters, rng, dtype), (array(N, T, D),)
        every_cluster = np.arange(N * T).reshape(N, T)
        return cls.build(D, clusters, 1.0, rng, dtype), (every_cluster,)
    if kind == "MatMul":
        return cls(array(D, H)), (array(*steps, D),)
    if kind == "Affine":
        return cls(array(D, H), array(H)), (array(*steps, D),)
    if kind == "Dropout":
        options = {"variational": True} if "variational" in name else {}
        return cls(0.4, rng=generator(3), **options), (array(*steps, D),)
    if kind == "SoftmaxWithLoss":
        return cls(), (array(*steps, V), ids(rng, V, *steps))
    if kind == "SigmoidWithLoss":
        return cls(), (array(N, T), ids(rng, 2, N, T))
    return cls(), (array(*steps, D),)  # Softmax, Sigmoid


def gradients_for(outputs):
    """Random gradients (dy, ...) for what ``forward`` returned; 1 for a loss."""
    rng = generator(9)
    return tuple(
        floats(rng, *y.shape, dtype=y.dtype) if y.shape else 1.0 for y in as_tuple(outputs)
    )


def run(layer, inputs):
    """One forward and one backward pass: outputs, gradients given, gradients returned."""
    outputs = layer.forward(*inputs)
    douts = gradients_for(outputs)
    return as_tuple(outputs), douts, as_tuple(layer.backward(*douts))


def awd_rnnlm(strength, wordvec_size=D, hidden_size=H, **options):
    """AwdRnnlm with every dropout ratio, and both weights of penalties, at ``strength``."""
    places = ["embed_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"]
    ratios = dict.fromkeys([*places, "alpha", "beta"], strength)
    return AwdRnnlm(V, wordvec_size, hidden_size, **ratios | options)


def tiny_model(name, dtype="float32", seed=0, dropout_ratio=0.0, scale=None):
    """A language model of V words; with a scale all its weights are normal numbers of that size.

    In AwdRnnlm ``dropout_ratio`` is the strength of every regularization.
    """
    if name == "AwdRnnlm":
        model = awd_rnnlm(dropout_ratio, num_layers=2, rng=seed, dtype=dtype)
    elif name == "BetterRnnlm":
        model = BetterRnnlm(V, H, H, dropout_ratio, seed, dtype)
    else:
        model = MODELS[name](V, D, H, seed, dtype)
    rng = generator(seed + 1)
    if scale is not None:
        for param in model.params:
            param[...] = scale * floats(rng, *param.shape, dtype=dtype)
    return model


def snapshot(model):
    """Copies of all parameters."""
    return copy.deepcopy([to_cpu(param) for param in model.params])
