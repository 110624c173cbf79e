"""Check every hand-written gradient against differences of the loss.

python -m train.check_gradients
python -m train.check_gradients --only lstm --verbose
python -m train.check_gradients --cell package.module:Class     # a cell of your own
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy

from common import layers, time_layers
from common.base_layer import Layer
from common.gradient_check import Report, check_layer, check_model
from common.masks import Masks
from common.np import Array, np
from common.time_layers.clusters import WordClusters
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm, seq2seq, shapes
from models.char_rnn import CharRnn
from models.memory import ConcatReciter, Reciter
from train.run.command import run_command

N, T, D, H, V = 2, 3, 4, 5, 7
# What the names of layers with a window of their own stand for in one step.
ONE_STEP: dict[str, type[Layer]] = {"rnn": layers.RNN, "lstm": layers.LSTM, "gru": layers.GRU}
CASES: dict[str, Callable[[], Report]] = {}
# The checks of any cell, by a name that lacks the cell's.
CELL_CASES: dict[str, Case] = {}

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


def case_of_cells(name: str) -> Callable[[Case], Case]:
    """Register a check of every cell: of those in the box, and of the one that --cell names."""

    def register(check: Case) -> Case:
        CELL_CASES[name] = check
        return case(*(f"{name} {each}" for each in time_layers.cell_names()))(check)

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
    over_time = name.startswith("Time")
    layer = getattr(time_layers if over_time else layers, name)()
    if "Sigmoid" in name:
        return check_layer(layer, floats(rng, N, T), ids(rng, 2, N, T), rng=rng)
    shape = (N, T) if over_time else (N,)
    targets = ids(rng, V, *shape)
    if over_time:
        targets[1, 1] = -1
    return check_layer(layer, floats(rng, *shape, V), targets, rng=rng)


@case("TimeMeanSquaredError")
def squared_error(name: str, rng: numpy.random.Generator) -> Report:
    """Its targets are numbers, here whole ones: nothing asks for their gradient."""
    ts = ids(rng, 3, N, T, V)
    return check_layer(time_layers.TimeMeanSquaredError(), floats(rng, N, T, V), ts, rng=rng)


@case("Dropout", "TimeDropout", "TimeDropout variational")
def dropout(name: str, rng: numpy.random.Generator) -> Report:
    """The mask is drawn anew in each forward pass, so each is made the same one."""
    if name == "Dropout":
        layer: Any = layers.Dropout(0.4, rng)
    else:
        layer = time_layers.TimeDropout(0.4, "variational" in name, rng)

    def repeat() -> None:
        layer.masks.passes = 0

    x = floats(rng, N, D) if name == "Dropout" else floats(rng, N, T, D)
    return check_layer(layer, x, rng=rng, prepare=repeat, subject=name)


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


@case("TimeEmbedding", "TimeEmbedding sparse", "TimeAffine")
def time_layer(name: str, rng: numpy.random.Generator) -> Report:
    """Layers without a state; the ids repeat, so rows of dW are sums."""
    if "Embedding" in name:
        embedding = time_layers.TimeEmbedding(floats(rng, 4, D), sparse="sparse" in name)
        return check_layer(embedding, ids(rng, 4, N, T), rng=rng, subject=name)
    layer = time_layers.TimeAffine(floats(rng, H, V), floats(rng, V))
    return check_layer(layer, floats(rng, N, T, H), rng=rng)


@case("TimeEmbedding with dropout")
def embedding_dropout(name: str, rng: numpy.random.Generator) -> Report:
    """Some words are dropped, the same in each forward pass."""
    layer = time_layers.TimeEmbedding(floats(rng, V, D), 0.4, rng)

    def repeat() -> None:
        layer.masks.passes = 0

    return check_layer(layer, ids(rng, V, N, 2 * T), rng=rng, prepare=repeat, subject=name)


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


@case("TimeOutputWithLoss", "TimeSampledOutputWithLoss")
def output_with_loss(name: str, rng: numpy.random.Generator) -> Report:
    """The scores stay inside; W and b belong to the output layer. One target is ignored.

    Of the classes of the second one the sample is the same in every pass.
    """
    output = time_layers.TimeAffine(floats(rng, H, V), floats(rng, V))
    layer = time_layers.TimeOutputWithLoss(output)

    def prepare() -> None:
        for masks in vars(layer).values():
            if isinstance(masks, Masks):
                masks.passes = 3

    if name == "TimeSampledOutputWithLoss":
        layer = time_layers.TimeSampledOutputWithLoss(output, V // 2, rng)
    targets = ids(rng, V, N, T)
    targets[1, 1] = -1

    def gradients_of_output() -> dict[str, tuple[Array, Array]]:
        names = output.param_names
        return dict(zip(names, zip(output.params, output.grads, strict=True), strict=True))

    xs = floats(rng, N, T, H)
    return check_layer(layer, xs, targets, rng=rng, prepare=prepare, extra=gradients_of_output)


def word_clusters(rng: numpy.random.Generator) -> WordClusters:
    """A head of two words and two clusters, the words in an order that is drawn."""
    clusters = WordClusters(V, (2, 4))
    clusters.set_counts(rng.permutation(V))
    return clusters


@case("TimeAdaptiveOutput", "TimeAdaptiveOutputWithLoss", "TimeAdaptiveEmbedding")
def adaptive(name: str, rng: numpy.random.Generator) -> Report:
    """Narrow clusters of three and two units; one target is ignored."""
    clusters, widths = word_clusters(rng), (H, 3, 2)
    tails = list(zip(clusters.sizes[1:], widths[1:], strict=True))
    if name == "TimeAdaptiveEmbedding":
        params = [floats(rng, clusters.head_size, D)]
        for n, d in tails:
            params += [floats(rng, n, d), floats(rng, d, D)]
        layer = time_layers.TimeAdaptiveEmbedding(clusters, *params)
        return check_layer(layer, ids(rng, V, N, 2 * T), rng=rng)
    params = [floats(rng, H, clusters.head_size), floats(rng, clusters.head_size)]
    for n, d in tails:
        params += [floats(rng, H, d), floats(rng, d, n), floats(rng, n)]
    output = time_layers.TimeAdaptiveOutput(clusters, *params)
    xs = floats(rng, N, 2 * T, H)
    if name == "TimeAdaptiveOutput":
        return check_layer(output, xs, rng=rng)
    targets = ids(rng, V, N, 2 * T)
    targets[1, 1] = -1

    def gradients_of_output() -> dict[str, tuple[Array, Array]]:
        pairs = zip(output.params, output.grads, strict=True)
        return dict(zip(output.param_names, pairs, strict=True))

    layer_with_loss = time_layers.TimeAdaptiveOutputWithLoss(output)
    return check_layer(layer_with_loss, xs, targets, rng=rng, extra=gradients_of_output)


@case("TimeAttention", "TimeGeneralAttention", "TimeAdditiveAttention", "TimeAttention with mask")
def attention(name: str, rng: numpy.random.Generator) -> Report:
    """Two inputs; with a mask, one step of one sequence may not be looked at."""
    K = {"TimeGeneralAttention": D, "TimeAdditiveAttention": D}.get(name, H)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "TimeGeneralAttention": [(K, H)],
        "TimeAdditiveAttention": [(K, V), (H, V), (V,)],
    }
    layer_class = getattr(time_layers, name.split()[0])
    layer = layer_class(*(floats(rng, *shape) for shape in shapes.get(name, [])))
    inputs = [floats(rng, N, T + 1, H), floats(rng, N, T, K)]
    if "mask" in name:
        mask = np.ones((N, T + 1), dtype=bool)
        mask[0, -1] = False
        inputs.append(mask)
    return check_layer(layer, *inputs, rng=rng, subject=name)


def second_window(layer: Any, rng: numpy.random.Generator, subject: str) -> Report:
    """The second of two windows, from the state that the first one left; masks drawn alike."""
    layer.forward(floats(rng, N, T, D))
    state = layer.get_state()
    sides = [(layer.left, "left "), (layer.right, "right ")] if hasattr(layer, "left") else []

    def prepare() -> None:
        layer.set_state(*state)
        for each in layer.sublayers():
            if hasattr(each, "masks"):
                each.masks.passes = 1

    def gradients_of_state() -> dict[str, tuple[Array, Array]]:
        pairs = [
            (f"{side}{name}0", gradient)
            for each, side in sides or [(layer, "")]
            for name, gradient in zip(each.state_names, each.dstate, strict=True)
        ]
        return {name: (array, d) for array, (name, d) in zip(state, pairs, strict=True)}

    return check_layer(
        layer,
        floats(rng, N, T, D),
        rng=rng,
        prepare=prepare,
        extra=gradients_of_state,
        subject=f"{subject}, second window",
    )


@case(
    *("TimeRNN", "TimeRNN relu", "TimeLSTM", "TimeGRU", "TimeGRU with recurrent bias"),
    "TimeBiLSTM",
)
def time_recurrent(name: str, rng: numpy.random.Generator) -> Report:
    """Layers with a window of their own."""
    layer_class = getattr(time_layers, name.split()[0])
    if name == "TimeBiLSTM":
        layer = layer_class(*recurrent_weights(rng, 4), *recurrent_weights(rng, 4), stateful=True)
    else:
        weights = recurrent_weights(rng, layer_class.num_gates, 4 if "bias" in name else None)
        layer = layer_class(*weights, stateful=True, **relu(name))
    return second_window(layer, rng, name)


def found_cell(name: str, rng: numpy.random.Generator) -> Any:
    """A cell of that name with weights that leave nothing at 0 or 1.

    Raises:
        ValueError: for a name that is not known or not one of a cell, or a cell whose ``build``
            gives other weights than float64.
    """
    kind: Any = ONE_STEP.get(name) or time_layers.cell_named(name)
    try:
        cell = getattr(kind, "build", kind)(D, H, rng, "float64")
        time_layers.TimeCell(cell)
    except TypeError as error:
        raise ValueError(f"cell {name!r}: {error}") from error
    for param in cell.params:
        if param.dtype != np.float64:
            raise ValueError(
                f"cell {name!r}: expected build to give weights of its dtype, float64, "
                f"got {param.dtype}"
            )
        param[...] = 0.5 * floats(rng, *param.shape)
    return cell


@case_of_cells("cell")
def one_step_of_a_cell(name: str, rng: numpy.random.Generator) -> Report:
    """One step; the states before it are inputs like any other."""
    cell = found_cell(name.split()[1], rng)
    states = [floats(rng, N, size) for size in cell.state_sizes]
    return check_layer(cell, floats(rng, N, D), *states, rng=rng, subject=name)


@case_of_cells("TimeCell")
def time_cell(name: str, rng: numpy.random.Generator) -> Report:
    """Any cell over T steps."""
    layer = time_layers.TimeCell(found_cell(name.split()[1], rng), stateful=True)
    return second_window(layer, rng, name)


@case_of_cells("TimeBidirectional")
def both_directions(name: str, rng: numpy.random.Generator) -> Report:
    """One cell from the left, one from the right."""
    sides = [time_layers.TimeCell(found_cell(name.split()[1], rng), True) for _ in range(2)]
    return second_window(time_layers.TimeBidirectional(*sides), rng, name)


@case_of_cells("TimeWeightDrop")
def weight_drop(name: str, rng: numpy.random.Generator) -> Report:
    """The recurrent weights, or every matrix where there are none, with elements dropped."""
    inner = time_layers.TimeCell(found_cell(name.split()[1], rng), stateful=True)
    return second_window(time_layers.TimeWeightDrop(inner, 0.4, rng), rng, name)


@case("TimeWeightDrop TimeRNN", "TimeWeightDrop TimeLSTM", "TimeWeightDrop TimeGRU")
def weight_drop_of_a_window(name: str, rng: numpy.random.Generator) -> Report:
    """The same around the layers with a window of their own."""
    inner = getattr(time_layers, name.split()[1])
    layer = inner(*recurrent_weights(rng, inner.num_gates), stateful=True)
    return second_window(time_layers.TimeWeightDrop(layer, 0.4, rng), rng, name)


@case_of_cells("TimeStack")
@case(
    *("TimeStack rnn relu", "TimeStack lstm bidirectional"),
    *("TimeStack gru bidirectional without bias", "TimeStack lstm with dropout"),
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

    def repeat() -> None:
        for between in layer.dropouts:
            between.masks.passes = 0

    def forward(xs: Array, *state: Array) -> tuple[Array, ...]:
        ys = layer.forward(xs, state)
        return ys, *(layer.state or ())

    def backward(dys: Array, *d_final: Array) -> tuple[Array, ...]:
        dxs = layer.backward(dys, d_final)
        return dxs, *(layer.dstate or ())

    flat_layer = SimpleNamespace(
        params=layer.params,
        grads=layer.grads,
        param_names=layer.param_names,
        forward=forward,
        backward=backward,
    )
    sizes = layer.one_way[0].state_sizes
    state = [floats(rng, 2 * layer.directions, N, size) for size in sizes]
    xs = floats(rng, N, T, D)
    return check_layer(flat_layer, xs, *state, rng=rng, prepare=repeat, subject=name)


@case_of_cells("BetterRnnlm of")
@case("SimpleRnnlm", "Rnnlm", "Rnnlm sparse", "BetterRnnlm", "AwdRnnlm")
@case("AwdRnnlm with projection", "AwdRnnlm with sampled classes", "AwdRnnlm with adaptive softmax")
@case("BetterRnnlm with adaptive softmax", "BetterRnnlm with adaptive softmax untied")
def language_model(name: str, rng: numpy.random.Generator) -> Report:
    """The second of two windows; with the masks, penalties and tied weight that the model has."""
    seed = int(rng.integers(1 << 30))
    cutoffs = (2, 4) if "adaptive" in name else ()
    if name.startswith("AwdRnnlm"):
        more: dict[str, Any] = {"projection": "projection" in name, "dtype": "float64"}
        more["sampled_classes"] = V // 2 if "sampled" in name else 0
        more["cutoffs"] = cutoffs
        model: Any = AwdRnnlm(V, D, H, num_layers=2, rng=seed, **more)
    elif name.startswith("BetterRnnlm"):
        options: dict[str, Any] = {"cell": name.split()[-1]} if " of " in name else {}
        options |= {"tied": "untied" not in name, "cutoffs": cutoffs}
        model = BetterRnnlm(V, H, H, dropout_ratio=0.3, rng=seed, dtype="float64", **options)
    else:
        kind: type[Rnnlm] = SimpleRnnlm if name == "SimpleRnnlm" else Rnnlm
        model = kind(V, D, H, seed, "float64", sparse="sparse" in name)
    for param in model.params:  # the embedding starts near zero, where errors could hide
        param[...] = 0.5 * floats(rng, *param.shape)
    model.forward(ids(rng, V, N, T), ids(rng, V, N, T))
    state = model.get_state()

    def prepare() -> None:
        model.set_state(state)
        for masks in model.masks():
            masks.passes = 1

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


@case("Seq2seq", "PeekySeq2seq", "AttentionSeq2seq")
@case("Seq2seq with padding", "PeekySeq2seq with padding", "AttentionSeq2seq with padding")
@case("AttentionSeq2seq with general score", "AttentionSeq2seq with additive score")
def sequence_to_sequence(name: str, rng: numpy.random.Generator) -> Report:
    """T + 1 steps are read and T written; padding stands on either side, and behind an answer."""
    kind, _, more = name.partition(" with ")
    options: dict[str, Any] = {"pad_id": 0} if more == "padding" else {}
    if more.endswith(" score"):
        options["score"] = more.removesuffix(" score")
    model = getattr(seq2seq, kind)(V, D, H, rng, "float64", **options)
    for param in model.params:
        param[...] = 0.5 * floats(rng, *param.shape)
    xs, ts = 1 + ids(rng, V - 1, N, T + 1), 1 + ids(rng, V - 1, N, T + 1)
    if more == "padding":
        xs[0, 0] = xs[1, -1] = ts[1, -1] = 0
    return check_model(model, xs, ts, subject=name)


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


def checks_of(cell: str) -> dict[str, Callable[[], Report]]:
    """Every check of that cell alone; weight drop only where there is a matrix to drop from."""
    made = found_cell(cell, numpy.random.default_rng(7))
    matrix = any(param.ndim == 2 for param in made.params)
    return {
        f"{name} {cell}": partial(_run, check, f"{name} {cell}")
        for name, check in CELL_CASES.items()
        if matrix or name != "TimeWeightDrop"
    }


def nearest(part: str, names: Iterable[str]) -> str:
    """The three names, or words of names, that are most like ``part``."""
    known = {word.lower(): word for name in names for word in (name, *name.split())}
    return ", ".join(known[n] for n in difflib.get_close_matches(part.lower(), known, cutoff=0))


@dataclass(frozen=True)
class Options:
    """Check every layer, cell and model against central differences in float64, a line each."""

    only: str = ""
    """Check only those whose name contains this; by default all."""
    cell: str | None = None
    """Check only this cell, alone and in every layer and model that takes any: module:Class for
    your own, or a name as for the training scripts; by default all of them."""
    verbose: bool = False
    """Print the worst element of every array."""


def main(options: Options) -> None:
    """Run the command; exit code 1 if a gradient is wrong."""
    checks = CASES if options.cell is None else checks_of(options.cell)
    chosen = [check for name, check in checks.items() if options.only.lower() in name.lower()]
    if not chosen:
        raise ValueError(
            f"--only {options.only}: expected part of the name of one of {len(checks)} checks; "
            f"nearest are {nearest(options.only, checks)}"
        )
    reports = []
    for check in chosen:
        reports.append(report := check())
        print(report if options.verbose or not report.ok else str(report).splitlines()[0])
    right = sum(report.ok for report in reports)
    worst = max(reports, key=lambda report: numpy.nan_to_num(report.error, nan=numpy.inf))
    print(
        f"{right} of {len(reports)} right, worst relative error {worst.error:.1e} ({worst.subject})"
    )
    if right < len(reports):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, Options)
