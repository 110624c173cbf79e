"""What a GPU computes in float32 against the same in float64 on the CPU, kernel by kernel.

Each check runs a layer or a pass as models do, at sizes where a kernel is chosen, and at odd ones.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy

from common import config
from common.kernels.passes import add_rows, norm, scale
from common.kernels.philox import keep
from common.np import np, to_cpu
from common.optimizer import SGD, UniqueParameters, clip_grads
from common.time_layers import (
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeOutputWithLoss,
    TimeRNN,
    TimeWeightDrop,
)
from models import BetterRnnlm

__all__ = ["Check", "checks", "in_one_line", "watched"]

Arrays = list[Any]

PATIENCE = 90  # seconds of a check, float64 on the CPU among them


@dataclass(frozen=True)
class Check:
    """What one comparison has found.

    Attributes:
        name: what was computed, and its sizes.
        error: the largest difference from float64, relative to the largest element there.
        tolerance: the largest error that passes.
        failure: what was raised in place of a result.
    """

    name: str
    error: float
    tolerance: float
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def _window(kind: Any, N: int, T: int, D: int, H: int) -> Callable[[str], Arrays]:
    """Forward and backward of two windows of a recurrent layer, the state carried."""

    def run(dtype: str) -> Arrays:
        rng = numpy.random.default_rng(1)
        layer = kind.build(D, H, rng, dtype)
        layer.stateful = True
        found: Arrays = []
        for _ in range(2):
            xs, dhs = (rng.standard_normal((N, T, width)) for width in (D, H))
            found += [layer.forward(np.asarray(xs.astype(dtype)))]
            found += [layer.backward(np.asarray(dhs.astype(dtype))), *map(np.array, layer.grads)]
        return found

    return run


def _dropping(build: Callable[[str], Any], *shape: int) -> Callable[[str], Arrays]:
    """Forward and backward of two windows of a layer that drops; ids where its table is large."""

    def run(dtype: str) -> Arrays:
        rng, layer = numpy.random.default_rng(7), build(dtype)
        found: Arrays = []
        for _ in range(2):
            is_table = isinstance(layer, TimeEmbedding)
            xs = rng.integers(0, len(layer.params[0]), shape[:2]) if is_table else None
            numbers = rng.standard_normal(shape).astype(dtype)
            ys = layer.forward(np.asarray(numbers) if xs is None else xs)
            dys = rng.standard_normal(ys.shape).astype(dtype)
            dxs = layer.backward(np.asarray(dys))
            found += [np.array(ys), *map(np.array, layer.grads)] + ([dxs] if xs is None else [])
        return found

    return run


def _layers_that_drop(width: int, V: int) -> dict[str, Callable[[str], Any]]:
    def table(dtype: str) -> TimeEmbedding:
        W = numpy.random.default_rng(8).standard_normal((V, width)).astype(dtype)
        return TimeEmbedding(np.asarray(W), 0.1, numpy.random.default_rng(9))

    def lstm(dtype: str) -> TimeWeightDrop:
        layer = TimeLSTM.build(width, width, numpy.random.default_rng(8), dtype)
        return TimeWeightDrop(layer, 0.5, numpy.random.default_rng(9))

    return {
        "dropout": lambda dtype: TimeDropout(0.5, rng=numpy.random.default_rng(9)),
        "dropout for all steps": lambda dtype: TimeDropout(0.4, True, numpy.random.default_rng(9)),
        "embedding with dropout": table,
        "weight drop": lstm,
    }


def _output(N: int, T: int, H: int, V: int) -> Callable[[str], Arrays]:
    """Loss and gradients of the output layer, some targets ignored."""

    def run(dtype: str) -> Arrays:
        rng = numpy.random.default_rng(2)
        W, b, xs = (rng.standard_normal(s).astype(dtype) for s in ((H, V), (V,), (N, T, H)))
        ts = rng.integers(-1, V, (N, T))
        layer = TimeOutputWithLoss(TimeAffine(np.asarray(W * H**-0.5), np.asarray(b)))
        loss: Any = layer.forward(np.asarray(xs), ts)
        return [np.asarray(loss), layer.backward(), *layer.output.grads]

    return run


def _embedding(N: int, T: int, D: int, V: int) -> Callable[[str], Arrays]:
    """Rows of a table and their gradient, few ids many times."""

    def run(dtype: str) -> Arrays:
        rng = numpy.random.default_rng(3)
        W, dys = (rng.standard_normal(s).astype(dtype) for s in ((V, D), (N, T, D)))
        layer = TimeEmbedding(np.asarray(W))
        ys = layer.forward(numpy.minimum(rng.geometric(8 / V, (N, T)) - 1, V - 1))
        layer.backward(np.asarray(dys))
        return [ys, *layer.grads]

    return run


def _rows(R: int, D: int, V: int) -> Callable[[str], Arrays]:
    def run(dtype: str) -> Arrays:
        rng = numpy.random.default_rng(4)
        table, rows = (np.asarray(rng.standard_normal(s).astype(dtype)) for s in ((V, D), (R, D)))
        add_rows(table, np.asarray(rng.integers(0, V, R)), rows)
        return [table]

    return run


def _passes(size: int) -> Callable[[str], Arrays]:
    def run(dtype: str) -> Arrays:
        x = np.asarray(numpy.random.default_rng(5).standard_normal(size).astype(dtype))
        length = norm([x])
        scale(x, 0.37)
        return [length, x]

    return run


def _update(V: int, H: int) -> Callable[[str], Arrays]:
    """Clipping and descent over all parameters of a model with a tied weight."""

    def run(dtype: str) -> Arrays:
        rng = numpy.random.default_rng(6)
        model = BetterRnnlm(V, H, H, rng=1, dtype=dtype)
        for grad in model.grads:
            numbers = rng.standard_normal(grad.size).astype(dtype)
            grad[...] = np.asarray(numbers).reshape(grad.shape)
        unique = UniqueParameters(model.params, model.grads)
        length = clip_grads(unique.grads, 0.25)
        SGD(0.7, weight_decay=0.01).update(unique.params, unique.grads)
        return [length, *model.params]

    return run


def _masks(ratio: float, N: int, T: int, D: int) -> Callable[[str], Arrays]:
    return lambda dtype: [keep(ratio, (N, T, D), 1 << 63 | 77, 3, 1 << 20, 5)]


def cases(width: int = 650, V: int = 10_000) -> dict[str, tuple[Callable[[str], Arrays], float]]:
    """What is compared, by name, and the tolerance of each.

    Args:
        width: of the larger layers.
        V: vocabulary.
    """
    found: dict[str, tuple[Callable[[str], Arrays], float]] = {}
    for kind in (TimeRNN, TimeLSTM, TimeGRU):
        odd = (3, 7, 37, 41), (1, 1, 5, 9)
        for N, T, D, H in ((20, 35, 100, 100), (20, 35, width, width), *odd):
            found[f"{kind.__name__} N={N} T={T} D={D} H={H}"] = (_window(kind, N, T, D, H), 1e-4)
    if width >= 650:
        found["TimeLSTM N=20 T=35 D=400 H=1150"] = (_window(TimeLSTM, 20, 35, 400, 1150), 1e-4)
    for name, build in _layers_that_drop(width, V).items():
        found[name] = (_dropping(build, 20, 35, width), 1e-4)
    for N, T, H, classes in ((20, 35, width, V), (3, 5, 33, 1029), (1, 500, 100, V)):
        name = f"output with loss N={N} T={T} H={H} V={classes}"
        found[name] = (_output(N, T, H, classes), 1e-4)
    found[f"embedding V={V} D={width}"] = (_embedding(20, 35, width, V), 1e-5)
    found[f"rows of a table V={V}"] = (_rows(701, 37, V), 1e-5)
    for size in (1, 4097, V * 101):
        found[f"norm and scale, {size} elements"] = (_passes(size), 1e-5)
    found[f"clip and descend H={width // 2}"] = (_update(V // 10, width // 2), 1e-5)
    for ratio in (0.5, 0.3):
        found[f"masks of {ratio}"] = (_masks(ratio, 20, 35, width), 0.0)
    return found


def checks(
    width: int = 650,
    V: int = 10_000,
    looser: float = 1.0,
    begins: Callable[[str], object] = lambda name: None,
) -> Iterator[Check]:
    """Compare every case, one after the other; ``config.GPU`` is on.

    A case that raises is one that does not pass; the others are asked all the same.

    Args:
        width: as for ``cases``.
        V: likewise.
        looser: what the tolerances are multiplied by, where products round more.
        begins: is told the name of each before it is computed.
    """
    for name, (run, tolerance) in cases(width, V).items():
        begins(name)
        try:
            with watched(PATIENCE):
                there = [to_cpu(array) for array in run("float32")]
                with _on_cpu():
                    here = run("float64")
            error, failure = max(map(_difference, there, here)), ""
        except Exception as raised:  # by the compiler, the driver, or the layer
            error, failure = float("inf"), in_one_line(raised)
        yield Check(name, error, looser * tolerance, failure)


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Inside, more than so many seconds end the process, which says in which line it was.

    Blocks that wait for each other for ever never give the device back, nor the host.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def in_one_line(error: Exception) -> str:
    """Its kind and what it says, shortened."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _difference(found: numpy.ndarray, exact: Any) -> float:
    """The largest, relative to the largest element of ``exact``; infinite where shapes differ."""
    found, exact = (numpy.asarray(x).astype("float64") for x in (found, exact))
    if found.shape != exact.shape:
        return float("inf")
    return float(abs(found - exact).max() / max(abs(exact).max(), 1e-30))


@contextmanager
def _on_cpu() -> Iterator[None]:
    kept, config.GPU = config.GPU, False
    try:
        yield
    finally:
        config.GPU = kept
