"""Small models, texts and windows on which the sides are compared."""

from dataclasses import replace

import numpy as np
import pytest

from train.benchmark import time_layers
from train.benchmark.workloads import Sizes, TokenIds

SMALL = Sizes(N=3, T=5, D=4, H=6, V=11)
LARGE = Sizes("BetterRnnlm", N=3, T=5, D=6, H=6, V=11)
ADAPTIVE = Sizes(N=3, T=5, D=32, H=32, V=11, cutoffs=(3, 7))
ENDS = pytest.mark.parametrize(
    "sizes",
    [SMALL, LARGE, ADAPTIVE, replace(ADAPTIVE, tied=True)],
    ids=["Rnnlm", "BetterRnnlm", "adaptive", "adaptive, tied"],
)
BOTH = pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=lambda sizes: sizes.model)


def some_ids(V=11):
    rng = np.random.default_rng(2)
    train, test = (rng.integers(0, V, size, dtype="int32") for size in (400, 800))
    return TokenIds(train, test, 3, V)


def model_of(sizes, dtype):
    """The model of Time Layers with weights far from zero, where errors would show."""
    model = time_layers.build_model(sizes, dtype)
    rng = np.random.default_rng(3)
    for param in model.params:
        param[...] = 0.5 * rng.standard_normal(param.shape)
    if sizes.cutoffs:  # of the clusters PyTorch has no biases
        for part in model.layers[-1].parts[1:]:
            part.params[1][...] = 0
    return model


def two_windows(sizes):
    rng = np.random.default_rng(4)
    return [rng.integers(0, sizes.V, (2, sizes.N, sizes.T)) for _ in range(2)]
