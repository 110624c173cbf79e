"""All that a GPU is asked for in one go: right numbers, tests, times beside PyTorch, a figure.

python -m train.benchmark gpu
python -m train.benchmark gpu --train --data-dir PTB     # and again, until it says finished

It needs a CUDA device, CuPy and, to compare with, PyTorch; no network and no corpus, but for
``--train``. A machine that reaches no package index may lack tyro, pooch, safetensors,
threadpoolctl, Matplotlib, pytest or hypothesis. Carry their wheels, made by the same Python:

    pip wheel --wheel-dir wheels ".[test]"                               # here
    pip install --no-index --find-links wheels --no-deps wheels/*.whl    # there, what is missing
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import config, kernels
from common.np import np, to_gpu
from common.plotting import BLACK, BLUE, GREY, PALETTE, PURPLE, RED, readable, save
from train.benchmark.gpu_checks import Check, checks, in_one_line, watched
from train.benchmark.gpu_steps import (
    MODELS,
    CupyEvents,
    Events,
    GpuModel,
    Steps,
    mean,
    milliseconds,
    parts_of_a_step,
)
from train.benchmark.machine import describe_machine
from train.benchmark.report import aligned
from train.run.folder import RunFolder, require_finished

ROOT = Path(__file__).parents[2]
LEFT_OVER = 20  # seconds to write a checkpoint, or the figure
PATIENCE = 150  # seconds of the measurements of a model
SIDES = {
    "time_layers": ("Time Layers", BLUE),
    "torch": ("PyTorch, cuDNN", RED),
    "torch_graph": ("PyTorch, CUDA graph", PURPLE),
}
PARTS = (*PALETTE, GREY, BLACK)  # of a step, one colour each


@dataclass(frozen=True)
class Options:
    """Check the kernels of a GPU against float64, run the tests there, measure training steps
    against PyTorch and where their time goes; under nine minutes. With --train, train BetterRnnlm
    on the Penn Treebank, a piece at a time."""

    minutes: float = 9.0
    """Be done by then; the tests get what the rest leaves."""
    repeats: int = 7
    """Measurements of each side, in turns."""
    count: int = 50
    """Steps in one measurement."""
    tf32: bool = False
    """Let products of float32 round their factors to 10 bits, here and in PyTorch."""
    tests: bool = True
    """Run the tests that are marked gpu."""
    only: str = ""
    """Measure only models whose name contains this; by default all."""
    json: Path | None = None
    """Write all results to this file; results.json of the run if not given."""
    figure: Path | None = None
    """Draw the figure here; gpu.png of the run if not given."""
    out: Path | None = None
    """Folder of the run; runs/benchmark_gpu-NUMBER if not given, with --train runs/gpu-train."""
    train: bool = False
    """Train BetterRnnlm for --epochs epochs instead, as long as --minutes; call again to go on."""
    epochs: int = 40
    """For --train."""
    data_dir: Path | None = None
    """For --train: folder with the files of the Penn Treebank, if $TIMELAYERS_DATA does not name
    it."""


@dataclass
class GpuReport:
    """What has been found so far.

    Attributes:
        machine: the device and the versions.
        checks: of the kernels.
        tests: what pytest said.
        steps: by model and side the milliseconds of every measurement.
        notes: by model and side why it was not measured, or not to the end.
        parts: by model the milliseconds of each part of a step.
    """

    machine: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    tests: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = [{**vars(check), "passed": check.passed} for check in self.checks]
        return {**vars(self), "checks": found, "kernels": kernels.status()}

    def __str__(self) -> str:
        lines = [f"{key}: {value}" for key, value in self.machine.items()]
        wrong = [check for check in self.checks if not check.passed]
        lines += ["", f"{len(self.checks) - len(wrong)} of {len(self.checks)} checks passed"]
        lines += [f"  {check.name}: {_wrong(check)}" for check in wrong]
        if self.tests:
            lines += ["tests: " + ", ".join(f"{k} {v}" for k, v in self.tests.items())]
        if self.steps:
            lines += ["", *aligned([("ms a step", *_names()), *self._rows()], left=["ms a step"])]
        for model, notes in self.notes.items():
            lines += [f"{model}, {SIDES[side][0]}: {note}" for side, note in notes.items()]
        for model, parts in self.parts.items():
            lines += ["", f"a step of {model}, ms"]
            lines += [f"  {part:28} {value:8.3f}" for part, value in parts.items()]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (model, *(f"{mean(sides[side]):.3f}" if side in sides else "-" for side in SIDES))
            for model, sides in self.steps.items()
        ]

    def draw(self, path: Path) -> None:
        """Save a figure: steps beside PyTorch's, and what they are made of."""
        with readable():
            figure = Figure(figsize=(16, 7.5), layout="constrained")
            of_steps, of_parts = figure.subplots(1, 2)
            _draw_steps(of_steps, self.steps)
            _draw_parts(of_parts, self.parts)
            save(figure, path, dpi=100)


def _wrong(check: Check) -> str:
    return check.failure or f"error {check.error:.1e}, {check.tolerance:.0e} at most"


def _names() -> list[str]:
    return [name for name, _ in SIDES.values()]


def _draw_steps(axes: Axes, steps: Mapping[str, Mapping[str, list[float]]]) -> None:
    """A bar for each side, one group a model."""
    for row, sides in enumerate(steps.values()):
        for k, (side, (name, color)) in enumerate(SIDES.items()):
            if side in sides:
                label = name if row == 0 else None
                axes.barh(row + 0.25 * (k - 1), mean(sides[side]), 0.25, color=color, label=label)
    axes.set_yticks(range(len(steps)), list(steps))
    axes.invert_yaxis()
    axes.set_xlabel("ms a training step")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if steps:
        axes.legend()


def _draw_parts(axes: Axes, parts: Mapping[str, Mapping[str, float]]) -> None:
    """A stacked bar a model: the share of each kind of layer, both ways."""
    colors: dict[str, Any] = {}
    for row, of_model in enumerate(parts.values()):
        shares: dict[str, float] = {}
        for part, value in of_model.items():
            if part != "whole":
                kind = re.sub(r"\d* (forward|backward)$", "", part)
                shares[kind] = shares.get(kind, 0.0) + max(value, 0.0)
        left, total = 0.0, sum(shares.values()) or 1.0
        for kind, value in shares.items():
            label = None if kind in colors else kind
            color = colors.setdefault(kind, PARTS[len(colors) % len(PARTS)])
            axes.barh(row, value / total, 0.6, left=left, color=color, label=label)
            left += value / total
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.set_xlabel("share of a step")
    if parts:
        axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def measure(
    report: GpuReport, models: Sequence[GpuModel], count: int, repeats: int, with_torch: bool
) -> None:
    """Steps of every model and side, then the parts of our own; fills the report.

    Of a model that raises, the report says why; the others are measured all the same.
    """
    for model in models:
        try:
            with watched(PATIENCE):
                _measure_one(report, model, count, repeats, with_torch)
        except Exception as error:  # a launch that the driver refuses, or too little memory
            report.notes.setdefault(model.name, {})["time_layers"] = in_one_line(error)


def _measure_one(
    report: GpuReport, model: GpuModel, count: int, repeats: int, with_torch: bool
) -> None:
    steps = Steps(model)
    work: dict[str, Any] = {"time_layers": steps}
    events: dict[str, Events] = {"time_layers": CupyEvents()}
    if with_torch:
        _add_torch(report, model, work, events)
    report.steps[model.name] = milliseconds(work, events, count, repeats)
    report.parts[model.name] = parts_of_a_step(steps, events["time_layers"], count)


def _add_torch(
    report: GpuReport, model: GpuModel, work: dict[str, Any], events: dict[str, Events]
) -> None:
    from train.benchmark import gpu_torch

    for side, kind in (("torch", gpu_torch.Steps), ("torch_graph", gpu_torch.Graph)):
        try:
            steps = kind(model)
            steps(1)
        except RuntimeError as error:  # not every step can be captured
            report.notes.setdefault(model.name, {})[side] = in_one_line(error)
        else:
            work[side], events[side] = steps, gpu_torch.TorchEvents()


def run_tests(seconds: float) -> dict[str, Any]:
    """What pytest says of the tests that are marked gpu, in a process of its own, on the device.

    A test that takes a minute is named; where a package is missing, the other tests run.

    Args:
        seconds: after which they are broken off.
    """
    if missing := [name for name in ("pytest", "hypothesis") if find_spec(name) is None]:
        return {"not run": f"{' and '.join(missing)} missing"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "-o", "faulthandler_timeout=60"]
    env = {**os.environ, "TIMELAYERS_DOUBLE": "0"}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        said = b"".join(part for part in (error.stdout, error.stderr) if isinstance(part, bytes))
        return {"broken off after": f"{seconds:.0f} s", "said": said.decode()[-2000:]}
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", _last(done.stdout))}
    words = "passed", "failed", "skipped", "error", "errors"
    found = {word: counts[word] for word in words if word in counts}
    found["seconds"] = round(time.monotonic() - begin)
    if done.returncode:
        found["said"] = (done.stdout + done.stderr)[-2000:]  # type: ignore[assignment]
    return found


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def describe_gpu(with_torch: bool) -> dict[str, Any]:
    """The device, its driver, and the versions of what computes."""
    cupy: Any = np
    number = cupy.cuda.Device().id
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    found = {
        "gpu": properties["name"].decode(),
        "compute capability": cupy.cuda.Device().compute_capability,
        "multiprocessors": properties["multiProcessorCount"],
        "memory": f"{properties['totalGlobalMem'] / 2**30:.0f} GiB",
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }
    return found | describe_machine(*(["torch"] if with_torch else []))


def train_a_piece(options: Options) -> int:
    """Train BetterRnnlm until it is done or the minutes are over; the exit code of the command."""
    folder = options.out or Path("runs/gpu-train")
    results = folder / "results.json"
    if results.exists():
        print(_finished(folder))
        return 0
    command = [sys.executable, "-m", "train.better_rnnlm", "--gpu"]
    if (folder / "checkpoint.safetensors").exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--corpus", "ptb", "--epochs", str(options.epochs), "--out", str(folder)]
    if options.data_dir is not None:
        command += ["--data-dir", str(options.data_dir)]
    process = subprocess.Popen(command, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        code = process.wait(60 * options.minutes - LEFT_OVER)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it writes a checkpoint and ends
        process.wait()
        print(f"not finished: call the same again to go on with {folder}")
        return 0
    if code == 0:
        print(_finished(folder))
    return code


def _finished(folder: Path) -> str:
    return f"finished: test perplexity {require_finished(folder)['test_exact']:.2f} ({folder})"


def _check(options: Options) -> None:
    if options.repeats < 1 or options.count < 4:
        raise ValueError(
            f"expected --repeats of 1 or more and --count of 4 or more, got {options.repeats} and "
            f"{options.count}"
        )
    if not options.minutes > 1:
        raise ValueError(f"--minutes: expected more than 1, got {options.minutes}")


def main(options: Options) -> None:
    """Run the command.

    Raises:
        ValueError: for an option out of range.
        RuntimeError: where there is no GPU, or what it computes is wrong.
    """
    _check(options)
    end = time.monotonic() + 60 * options.minutes
    os.environ["CUPY_TF32"] = "1" if options.tf32 else "0"
    config.GPU = True
    to_gpu(numpy.zeros(1))  # says what is missing
    if options.train:
        if code := train_a_piece(options):
            raise RuntimeError(f"the training has ended with exit code {code}")
        return
    models = [model for model in MODELS if options.only.lower() in model.name.lower()]
    with_torch = find_spec("torch") is not None
    if with_torch:
        from train.benchmark import gpu_torch

        gpu_torch.use_tf32(options.tf32)
    run = RunFolder.create("benchmark_gpu", "", options)
    report = GpuReport({"tf32": options.tf32, **describe_gpu(with_torch)})

    def keep() -> None:
        run.write_json(options.json or run.results_file, report.as_dict())

    def begins(name: str) -> None:  # what hangs is named
        print(name, end=": ", flush=True)

    for check in checks(looser=100.0 if options.tf32 else 1.0, begins=begins):
        report.checks.append(check)
        said = f"right, {check.error:.1e}" if check.passed else f"WRONG, {_wrong(check)}"
        print(said, flush=True)
        keep()
    measure(report, models, options.count, options.repeats, with_torch)
    keep()
    if options.tests:
        report.tests = run_tests(max(30.0, end - time.monotonic() - LEFT_OVER))
        keep()
    print(report)
    figure_file = options.figure or run.path / "gpu.png"
    report.draw(figure_file)
    print(f"figure saved to {figure_file}")
    if not all(check.passed for check in report.checks):
        raise RuntimeError("a kernel computes wrong numbers on this GPU; see above")
    if unmeasured := [name for name, notes in report.notes.items() if "time_layers" in notes]:
        raise RuntimeError(f"not measured on this GPU: {', '.join(unmeasured)}; see above")
