"""Check every hand-written gradient against differences of the loss.

python -m train.check_gradients
python -m train.check_gradients --only lstm --verbose
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy

from common import layers, time_layers
from common.gradient_check import Report, check_layer, check_model
from common.np import Array, np
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm, shapes
from models.char_rnn import CharRnn
from models.memory import ConcatReciter, Reciter
from train.run.command import run_command

N, T, D, H, V = 2, 3, 4, 5, 7
CASES: dict[str, Callable[[], Report]] = {}

Case = Callable[[str, numpy.random.Generator], Report]


def _run(check: Case, name: str) -> Report:
    return check(name, numpy.random.default_rng(7))


def case(*names: str) -> Callable[[Case], Case]:
    """Register a check under one or more names; it is called with the name and a generator."""

    def register(check: Case) -> Case:
        for name in names:
            CASES[name] = partial(_run, check, name)
        return check

    return register


def floats(rng: numpy.random.Generator, *shape: int) -> Array:
    """Standard normal float64 numbers."""
    return np.asarray(rng.standard_normal(shape))


def ids(rng: numpy.random.Generator, high: int, *shape: int) -> Array:
    """Integers below ``high``."""
    return np.asarray(rng.integers(0, high, shape))


def recurrent_weights(
    rng: numpy.random.Generator, num_gates: int, bias_blocks: int | None = None
) -> list[Array]:
    """Wx, Wh and b of a recurrent layer."""
    blocks = num_gates if bias_blocks is None else bias_blocks
    shapes = (D, num_gates * H), (H, num_gates * H), (blocks * H,)
    return [floats(rng, *shape) for shape in shapes]


@case("MatMul", "Affine", "Embedding", "Softmax", "Sigmoid")
def one_step(name: str, rng: numpy.random.Generator) -> Report:
    """Layers with one input and one output."""
    shapes: dict[str, list[tuple[int, ...]]] = {
        "MatMul": [(D, H)],
        "Affine": [(D, H), (H,)],
        "Embedding": [(V, D)],
    }
    layer = getattr(layers, name)(*(floats(rng, *shape) for shape in shapes.get(name, [])))
    x = ids(rng, V, 6) if name == "Embedding" else floats(rng, 6, D)
    return check_layer(layer, x, rng=rng)


@case("SoftmaxWithLoss", "SigmoidWithLoss", "TimeSoftmaxWithLoss", "TimeSigmoidWithLoss")
def with_loss(name: str, rng: numpy.random.Generator) -> Report:
    """Layers that end in a scalar; one target of TimeSoftmaxWithLoss is ignored."""
    shape = (N, T) if name.startswith("Time") else (N,)
    if "Softmax" in name:
        layer = getattr(time_layers if name.startswith("Time") else layers, name)()
        targets = ids(rng, V, *shape)
        if name.startswith("Time"):
            targets[1, 1] = -1
        return check_layer(layer, floats(rng, *shape, V), targets, rng=rng)
    layer = getattr(time_layers if name.startswith("Time") else layers, name)()
    shape = (N, T)
    return check_layer(layer, floats(rng, *shape), ids(rng, 2, *shape), rng=rng)


@case("TimeMeanSquaredError")
def squared_error(name: str, rng: numpy.random.Generator) -> Report:
    """Its targets are numbers, here whole ones: nothing asks for their gradient."""
    ts = ids(rng, 3, N, T, V)
    return check_layer(time_layers.TimeMeanSquaredError(), floats(rng, N, T, V), ts, rng=rng)


@case("Dropout", "TimeDropout", "TimeDropout variational")
def dropout(name: str, rng: numpy.random.Generator) -> Report:
    """The mask is drawn anew in each forward pass, so each begins with the same generator."""
    if name == "Dropout":
        layer: Any = layers.Dropout(0.4)
    else:
        layer = time_layers.TimeDropout(0.4, variational="variational" in name)

    def reseed() -> None:
        layer.rng = numpy.random.default_rng(3)

    x = floats(rng, N, D) if name == "Dropout" else floats(rng, N, T, D)
    return check_layer(layer, x, rng=rng, prepare=reseed, subject=name)


def relu(name: str) -> dict[str, Any]:
    """The option of an RNN that ``name`` asks for. No draw here comes near the kink at 0."""
    return {"nonlinearity": "relu"} if "relu" in name else {}


@case("RNN", "RNN relu", "LSTM", "GRU", "GRU with recurrent bias")
def cell(name: str, rng: numpy.random.Generator) -> Report:
    """One step; the states before it are inputs like any other."""
    cell_class = getattr(layers, name.split()[0])
    weights = recurrent_weights(rng, cell_class.num_gates, 4 if "bias" in name else None)
    states = [floats(rng, N, H) for _ in range(2 if name == "LSTM" else 1)]
    layer = cell_class(*weights, **relu(name))
    return check_layer(layer, floats(rng, N, D), *states, rng=rng, subject=name)


@case("TimeEmbedding", "TimeAffine")
def time_layer(name: str, rng: numpy.random.Generator) -> Report:
    """Layers without a state; the ids repeat, so rows of dW are sums."""
    if name == "TimeEmbedding":
        return check_layer(time_layers.TimeEmbedding(floats(rng, 4, D)), ids(rng, 4, N, T), rng=rng)
    layer = time_layers.TimeAffine(floats(rng, H, V), floats(rng, V))
    return check_layer(layer, floats(rng, N, T, H), rng=rng)


@case("TimeEmbedding with dropout")
def embedding_dropout(name: str, rng: numpy.random.Generator) -> Report:
    """Some words are dropped; each forward pass begins with the same generator."""
    layer = time_layers.TimeEmbedding(floats(rng, V, D), 0.4)

    def reseed() -> None:
        layer.rng = numpy.random.default_rng(3)

    return check_layer(layer, ids(rng, V, N, 2 * T), rng=rng, prepare=reseed, subject=name)


@case("TimeActivationPenalty", "TimeActivationPenalty temporal")
def activation_penalty(name: str, rng: numpy.random.Generator) -> Report:
    """The penalty is a second output, whose gradient is the one of the loss."""
    weights = {"beta": 2.0} if "temporal" in name else {"alpha": 3.0, "beta": 2.0}
    layer = time_layers.TimeActivationPenalty(**weights)

    def backward(dys: Array, dpenalty: Array) -> Array:
        layer.dout = float(dpenalty)
        return layer.backward(dys)

    two_outputs = SimpleNamespace(
        params=[],
        grads=[],
        param_names=(),
        forward=lambda xs: (layer.forward(xs), np.asarray(layer.penalty)),
        backward=backward,
    )
    return check_layer(two_outputs, floats(rng, N, T, D), rng=rng, subject=name)


@case("TimeOutputWithLoss")
def output_with_loss(name: str, rng: numpy.random.Generator) -> Report:
    """The scores stay inside; W and b belong to the output layer. One target is ignored."""
    output = time_layers.TimeAffine(floats(rng, H, V), floats(rng, V))
    layer = time_layers.TimeOutputWithLoss(output)
    targets = ids(rng, V, N, T)
    targets[1, 1] = -1

    def gradients_of_output() -> dict[str, tuple[Array, Array]]:
        names = output.param_names
        return dict(zip(names, zip(output.params, output.grads, strict=True), strict=True))

    return check_layer(layer, floats(rng, N, T, H), targets, rng=rng, extra=gradients_of_output)


@case(
    *("TimeRNN", "TimeRNN relu", "TimeLSTM", "TimeGRU", "TimeGRU with recurrent bias"),
    "TimeBiLSTM",
)
def time_recurrent(name: str, rng: numpy.random.Generator) -> Report:
    """The second of two windows, from the state that the first one left."""
    layer_class = getattr(time_layers, name.split()[0])
    if name == "TimeBiLSTM":
        layer = layer_class(*recurrent_weights(rng, 4), *recurrent_weights(rng, 4), stateful=True)
        parts = [(layer.left, "left "), (layer.right, "right ")]
    else:
        weights = recurrent_weights(rng, layer_class.num_gates, 4 if "bias" in name else None)
        layer = layer_class(*weights, stateful=True, **relu(name))
        parts = [(layer, "")]
    layer.forward(floats(rng, N, T, D))
    state = layer.get_state()

    def gradients_of_state() -> dict[str, tuple[Array, Array]]:
        owners = [(part, side + s) for part, side in parts for s in part.state_names]
        return {
            f"{label}0": (array, getattr(part, "d" + label[-1]))
            for array, (part, label) in zip(state, owners, strict=True)
        }

    return check_layer(
        layer,
        floats(rng, N, T, D),
        rng=rng,
        prepare=lambda: layer.set_state(*state),
        extra=gradients_of_state,
        subject=f"{name}, second window",
    )


@case("TimeWeightDrop rnn", "TimeWeightDrop lstm", "TimeWeightDrop gru")
def weight_drop(name: str, rng: numpy.random.Generator) -> Report:
    """The second of two windows; each forward pass begins with the same generator."""
    inner = getattr(time_layers, f"Time{name.split()[1].upper()}")
    weights = recurrent_weights(rng, inner.num_gates)
    layer: Any = time_layers.TimeWeightDrop(inner(*weights, stateful=True), 0.4)
    layer.forward(floats(rng, N, T, D))
    state = layer.get_state()

    def prepare() -> None:
        layer.set_state(*state)
        layer.rng = numpy.random.default_rng(3)

    xs = floats(rng, N, T, D)
    return check_layer(layer, xs, rng=rng, prepare=prepare, subject=f"{name}, second window")


@case(
    *("TimeStack rnn", "TimeStack rnn relu", "TimeStack lstm", "TimeStack gru"),
    *("TimeStack lstm bidirectional", "TimeStack gru bidirectional without bias"),
    "TimeStack lstm with dropout",
)
def stack(name: str, rng: numpy.random.Generator) -> Report:
    """Two layers, from a given state; what comes out are the outputs and the final state."""
    layer = time_layers.TimeStack(
        D,
        H,
        num_layers=2,
        cell=name.split()[1],
        bias="without bias" not in name,
        dropout=0.4 if "dropout" in name else 0.0,
        bidirectional="bidirectional" in name,
        rng=rng,
        dtype="float64",
        **relu(name),
    )

    def reseed() -> None:
        for between in layer.dropouts:
            between.rng = numpy.random.default_rng(3)

    def flat(result: tuple[Array, tuple[Array, ...]]) -> tuple[Array, ...]:
        return result[0], *result[1]

    flat_layer = SimpleNamespace(
        params=layer.params,
        grads=layer.grads,
        param_names=layer.param_names,
        forward=lambda xs, *state: flat(layer.forward(xs, state)),
        backward=lambda dys, *d_final: flat(layer.backward(dys, d_final)),
    )
    state = [floats(rng, 2 * layer.directions, N, H) for _ in layer.parts[0].state_names]
    xs = floats(rng, N, T, D)
    return check_layer(flat_layer, xs, *state, rng=rng, prepare=reseed, subject=name)


@case("SimpleRnnlm", "Rnnlm", "BetterRnnlm", "AwdRnnlm", "AwdRnnlm with projection")
def language_model(name: str, rng: numpy.random.Generator) -> Report:
    """The second of two windows; with the masks, penalties and tied weight that the model has."""
    seed = int(rng.integers(1 << 30))
    if name.startswith("AwdRnnlm"):
        wide: dict[str, Any] = {"projection": "projection" in name, "dtype": "float64"}
        model: Any = AwdRnnlm(V, D, H, num_layers=2, rng=seed, **wide)
    elif name == "BetterRnnlm":
        model = BetterRnnlm(V, H, H, dropout_ratio=0.3, rng=seed, dtype="float64")
    else:
        model = {"SimpleRnnlm": SimpleRnnlm, "Rnnlm": Rnnlm}[name](V, D, H, seed, "float64")
    for param in model.params:  # the embedding starts near zero, where errors could hide
        param[...] = 0.5 * floats(rng, *param.shape)
    model.forward(ids(rng, V, N, T), ids(rng, V, N, T))
    state = model.get_state()

    def prepare() -> None:
        model.set_state(state)
        for layer in model.layers:
            if hasattr(layer, "rng"):
                layer.rng = numpy.random.default_rng(3)

    xs, ts = ids(rng, V, N, T), ids(rng, V, N, T)
    return check_model(model, xs, ts, prepare, subject=f"{name}, second window")


@case("CharRnn", "Reciter", "Reciter with squared error", "ConcatReciter")
def one_hot_model(name: str, rng: numpy.random.Generator) -> Report:
    """Whole sequences from a zero state; the loss of CharRnn is a sum."""
    model_class = {"CharRnn": CharRnn, "ConcatReciter": ConcatReciter}.get(name, Reciter)
    options: dict[str, Any] = {"loss": "squared"} if "squared" in name else {}
    model = model_class(V, H, rng=0, dtype="float64", **options)
    for param in model.params:
        param[...] = 0.5 * floats(rng, *param.shape)
    return check_model(model, ids(rng, V, N, T), ids(rng, V, N, T), subject=name)


@case("OneToOne", "OneToMany", "ManyToOne", "ReadThenWrite", "StepByStep")
def shape_of_recurrence(name: str, rng: numpy.random.Generator) -> Report:
    """What these models read are numbers, which have a gradient too."""
    S = T + 1
    num_answers = {"OneToMany": [S], "ReadThenWrite": [S]}.get(name, [])
    model: Any = getattr(shapes, name)(D, H, V, *num_answers, rng=rng, dtype="float64")
    model.param_names = tuple(model.named_params())
    for param in model.params:
        param[...] = floats(rng, *param.shape)
    steps_read = [] if name.startswith("OneTo") else [T]
    steps_answered = [T] if name == "StepByStep" else num_answers
    xs, ts = floats(rng, N, *steps_read, D), ids(rng, V, N, *steps_answered)
    return check_layer(model, xs, ts, rng=rng, subject=name)


@dataclass(frozen=True)
class Options:
    """Check every layer, cell and model against central differences in float64, a line each."""

    only: str = ""
    """Check only those whose name contains this."""
    verbose: bool = False
    """Print the worst element of every array."""


def main(options: Options) -> None:
    """Run the command; exit code 1 if a gradient is wrong."""
    chosen = {name: check for name, check in CASES.items() if options.only.lower() in name.lower()}
    if not chosen:
        raise ValueError(f"--only {options.only}: expected part of one of {', '.join(CASES)}")
    wrong = 0
    for check in chosen.values():
        report = check()
        wrong += not report.ok
        print(report if options.verbose or not report.ok else str(report).splitlines()[0])
    print(f"{len(chosen) - wrong} of {len(chosen)} right")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, Options)
