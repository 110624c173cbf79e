"""The step-by-step functions against published outputs, and how long each cell remembers.

python -m train.step_by_step
python -m train.step_by_step --keep-bias 0    # gates that keep half of the state at every step
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from common import step_by_step
from common.gradient_check import Report, check_gradients
from common.np import Array, np, to_cpu
from common.plotting import BLACK, BLUE, GREEN, RED, color_scale, readable, show_or_save
from train.published_values import STEP_BY_STEP, TOLERANCE, Case
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.options import check_counts

KINDS = ("rnn", "lstm", "gru")
COLORS = {"rnn": BLUE, "lstm": GREEN, "gru": RED}
GATES = {"rnn": "", "lstm": "fico", "gru": "rzc"}
RESULTS = {
    "rnn_cell_forward": ("a_next", "yt"),
    "rnn_forward": ("a", "y_pred"),
    "lstm_cell_forward": ("a_next", "c_next", "yt"),
    "lstm_forward": ("a", "y", "c"),
}
INPUT_SIZE = 3  # n_x of the drawn sequence


@dataclass(frozen=True)
class Options:
    """Compare the outputs of the step-by-step functions with the published ones.

    Then run one sequence through an untrained RNN, LSTM and GRU: some steps of noise, then zeros;
    the loss reads the last step only. The figure shows the hidden units after every step, and below
    them the norm of the gradient at every step.
    """

    hidden_size: int = 16
    """Hidden units n_a, the rows of the figure."""
    time_size: int = 40
    """Steps T, the columns of the figure."""
    input_steps: int = 6
    """Steps of noise at the beginning; the input is zero after them."""
    keep_bias: float = 3.0
    """Bias of the gate that keeps the state (bf, bz): at 3 it keeps 95 % a step, at 0 half."""
    scale: float = 0.8
    """Size of the recurrent weights: about the factor of the RNN's state from step to step."""
    verbose: bool = False
    """Print every number of the published outputs instead of the first of each line."""
    seed: int = 1
    """Decides the sequence and the weights of the figure, not the published example."""
    out: Path | None = None
    """Folder of the run; runs/step_by_step-NUMBER if not named."""


class Row(NamedTuple):
    """A published number and the computed one; ``difference`` is the largest of their line."""

    function: str
    part: str
    published: float
    computed: float
    difference: float

    @property
    def ok(self) -> bool:
        """Whether the two agree; a computed NaN does not."""
        return self.difference <= TOLERANCE


class Trace(NamedTuple):
    """The states of one cell along the sequence, and the gradients on the way back."""

    states: numpy.ndarray
    """a after every step (n_a, T)."""
    norms: dict[str, list[float]]
    """The norm of da, and of dc where there is one, before the first and after every step."""


def outputs(function: str, arguments: dict[str, Array]) -> dict[str, Array]:
    """The results of a function by name; before a backward function its forward one is called."""
    forward = function.replace("backward", "forward")
    given = [arguments[k] for k in ("x", "xt", "a0", "a_prev", "c_prev") if k in arguments]
    *results, caches = getattr(step_by_step, forward)(*given, arguments)
    if function != forward:
        given = [arguments[k] for k in ("da", "da_next", "dc_next") if k in arguments]
        return getattr(step_by_step, function)(*given, caches)
    named = dict(zip(RESULTS[function], results, strict=True))
    return named if "_cell" in function else {**named, "x": caches[1]}


def compare(function: str, case: Case, verbose: bool = False) -> list[Row]:
    """A row for every published line of a function's results, or for every number of it."""
    returned = outputs(function, {k: np.asarray(v) for k, v in case.arguments().items()})
    rows = []
    for part, printed in case.values.items():
        published = numpy.array(printed.split(), dtype=float)
        name, *index = re.findall(r"\w+", part)
        computed = numpy.ravel(to_cpu(returned[name])[tuple(map(int, index))])
        differences = abs(computed - published)
        if verbose:
            columns = (published, computed, differences)
            rows += [Row(function, part, *map(float, row)) for row in zip(*columns, strict=True)]
        else:
            first, worst = (float(published[0]), float(computed[0])), float(differences.max())
            rows.append(Row(function, part, *first, worst))
    return rows


def draw_parameters(
    kind: str, n_a: int, rng: numpy.random.Generator, scale: float = 1.0, keep_bias: float = 0.0
) -> dict[str, Array]:
    """Random weights by the keys of ``common.step_by_step``; the output layer (one unit) is 0."""

    def weights() -> tuple[numpy.ndarray, numpy.ndarray]:
        recurrent = rng.standard_normal((n_a, n_a)) * scale / n_a**0.5
        return recurrent, rng.standard_normal((n_a, INPUT_SIZE))

    parameters = {"Wya" if kind == "rnn" else "Wy": np.zeros((1, n_a)), "by": np.zeros((1, 1))}
    if kind == "rnn":
        parameters["Waa"], parameters["Wax"] = map(np.asarray, weights())
        parameters["ba"] = np.zeros((n_a, 1))
    for gate in GATES[kind]:
        parameters[f"W{gate}"] = np.asarray(numpy.concatenate(weights(), axis=1))
        parameters[f"b{gate}"] = np.full((n_a, 1), keep_bias if gate in "fz" else 0.0)
    return parameters


def check_gru() -> Report:
    """Check the GRU's gradients against differences; no published values exist for the GRU."""
    rng = numpy.random.default_rng(1)
    arrays = draw_parameters("gru", 5, rng) | {
        "x": np.asarray(rng.standard_normal((INPUT_SIZE, 2, 4))),
        "a0": np.asarray(rng.standard_normal((5, 2))),
    }
    da = np.asarray(rng.standard_normal((5, 2, 4)))

    def forward() -> tuple:
        return step_by_step.gru_forward(arrays["x"], arrays["a0"], arrays)

    gradients = step_by_step.gru_backward(da, forward()[-1])
    pairs = {name: (arrays[name[1:]], d) for name, d in gradients.items()}
    return check_gradients("gru_backward", lambda: float((forward()[0] * da).sum()), pairs)


def follow(kind: str, x: Array, parameters: dict[str, Array], da_last: Array) -> Trace:
    """Run one sequence forward, then carry the gradient of its last state back to the first.

    Args:
        kind: rnn, lstm or gru.
        x: the sequence (n_x, 1, T).
        parameters: of the functions of that kind.
        da_last: gradient of the state after the last step (n_a, 1).
    """
    a, *_, (caches, _) = getattr(step_by_step, f"{kind}_forward")(
        x, np.zeros_like(da_last), parameters
    )
    names = ["da", "dc"] if kind == "lstm" else ["da"]
    carried = [da_last, np.zeros_like(da_last)][: len(names)]
    norms = {"da": [float(np.linalg.norm(da_last))]}
    for cache in reversed(caches):
        gradients = getattr(step_by_step, f"{kind}_cell_backward")(*carried, cache)
        carried = [gradients[f"{name}_prev"] for name in names]
        for name, gradient in zip(names, carried, strict=True):
            norms.setdefault(name, []).append(float(np.linalg.norm(gradient)))
    return Trace(to_cpu(a[:, 0]), {name: values[::-1] for name, values in norms.items()})


def draw(traces: dict[str, Trace], input_steps: int) -> None:
    """Draw the hidden states above, a panel for each cell, and the gradient norms of all below."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    T = traces["rnn"].states.shape[1]
    figure = plt.figure(figsize=(12, 8), layout="constrained")
    grid = figure.add_gridspec(2, len(traces))
    below = figure.add_subplot(grid[1, :])
    panels: list[Any] = []
    for kind, trace in traces.items():
        panel = figure.add_subplot(grid[0, len(panels)])
        panels.append(panel)
        n_a = len(trace.states)
        order = trace.states[:, min(input_steps, T) - 1].argsort()
        image = panel.imshow(
            trace.states[order],
            extent=(0.5, T + 0.5, 0.5, n_a + 0.5),
            vmin=-1,
            vmax=1,
            cmap=color_scale(RED, "white", BLUE),
            aspect="auto",
            interpolation="nearest",
        )
        panel.set_title(kind.upper(), color=COLORS[kind], fontweight="bold")
        panel.tick_params(labelleft=not panels[1:])
        panel.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        for name, norms in trace.norms.items():
            below.plot(
                range(len(norms)),
                norms,
                color=COLORS[kind],
                linestyle="-" if name == "da" else "--",
                label=f"{kind.upper()} {name}: {norms[0]:.1g} at the first step",
            )
    for panel in (*panels, below):
        panel.axvline(input_steps + 0.5, color=BLACK, linestyle=":")
    panels[0].set_ylabel("hidden unit")
    figure.colorbar(image, ax=panels, label="state a", ticks=[-1, 0, 1])
    below.set_yscale("log")
    below.set_xlim(0, T)
    below.set_xlabel("time step")
    below.set_ylabel("gradient norm")
    below.set_title("How much of the gradient of the last state comes back")
    below.grid()
    below.legend(loc="lower right", labelcolor="linecolor")
    figure.suptitle(
        f"What a cell holds: {input_steps} steps of noise (to the dotted line), then silence"
    )


def print_rows(rows: list[Row]) -> None:
    """Print the table."""
    print(f"{'function':<20}{'part':<15}{'published':>13}{'computed':>13}{'difference':>13}")
    for row in rows:
        print(
            f"{row.function:<20}{row.part:<15}{row.published:13.8f}{row.computed:13.8f}"
            f"{row.difference:13.1e}  {'ok' if row.ok else 'OFF'}"
        )


def main(options: Options) -> None:
    """Run the command; exit code 1 where a computed value differs from the published one."""
    check_counts(options, "hidden_size", "time_size", "input_steps")
    if not numpy.isfinite([options.scale, options.keep_bias]).all():
        raise ValueError(
            "step_by_step: expected scale and keep_bias to be finite, "
            f"got {options.scale} and {options.keep_bias}"
        )
    numpy.empty((options.hidden_size, options.hidden_size))  # say now that there is no room for it
    run = RunFolder.create("step_by_step", "", options)

    print("The published example, printed with 8 decimals. For a line of several numbers the table")
    print("shows the first number and the largest difference; --verbose shows every number:")
    rows = [
        row
        for function, case in STEP_BY_STEP.items()
        for row in compare(function, case, options.verbose)
    ]
    print_rows(rows)
    gru = check_gru()
    right = sum(row.ok for row in rows)
    print(f"{right} of {len(rows)} met to {TOLERANCE:.0e}")
    print(f"no values are published for the GRU; by differences: {str(gru).splitlines()[0]}")

    rng = numpy.random.default_rng(options.seed)
    n_a, T = options.hidden_size, options.time_size
    x = rng.standard_normal((INPUT_SIZE, 1, T))
    x[:, :, options.input_steps :] = 0
    da_last = rng.standard_normal((n_a, 1))
    da_last /= numpy.linalg.norm(da_last)
    traces = {}
    for kind in KINDS:
        parameters = draw_parameters(kind, n_a, rng, options.scale, options.keep_bias)
        traces[kind] = follow(kind, np.asarray(x), parameters, np.asarray(da_last))

    print(f"\n{options.input_steps} steps of noise, then zeros until step {T}:")
    print(f"{'cell':<6}{'|a| after the noise':>26}{'|a| at the end':>18}{'|da| at the start':>20}")
    for kind, trace in traces.items():
        sizes = numpy.linalg.norm(trace.states, axis=0)
        begin = sizes[min(options.input_steps, T) - 1]
        print(f"{kind:<6}{begin:26.3f}{sizes[-1]:18.3f}{trace.norms['da'][0]:20.1e}")

    ok = right == len(rows) and gru.ok
    results = {
        "ok": ok,
        "published": [
            {
                "function": row.function,
                "part": row.part,
                "published": row.published,
                "computed": row.computed,
                "difference": row.difference,
                "ok": row.ok,
            }
            for row in rows
        ],
        "gru_worst_relative_error": gru.error,
        "gradient_norms": {kind: trace.norms for kind, trace in traces.items()},
    }
    run.write_json(run.results_file, results)
    with readable():
        draw(traces, options.input_steps)
        show_or_save(run.path / "step_by_step.png")
    if not ok:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, Options)
