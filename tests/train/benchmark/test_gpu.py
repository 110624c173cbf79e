"""The benchmark of a GPU, on the double of CuPy with a clock of its own and on small models."""

import itertools
import json
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from common import config
from common import np as np_module
from common.kernels import passes
from train.benchmark import gpu, gpu_checks
from train.benchmark.gpu_checks import Check, checks
from train.benchmark.gpu_steps import MODELS, Steps, milliseconds, parts_of_a_step
from train.benchmark.machine import describe_machine

SMALL = [
    replace(model, D=4, H=4 if model.name == "BetterRnnlm" else 6, N=2, T=3, V=11)
    for model in MODELS
]
BY_NAME = pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)


class Clock:
    """Every mark is a millisecond after the one before."""

    def __init__(self):
        self.ticks = itertools.count()

    def mark(self):
        return next(self.ticks)

    def milliseconds(self, begin, end):
        return float(end - begin)


# ---- checks ----


@pytest.mark.usefixtures("waits")
def test_every_kernel_passes_its_check_on_the_double():
    found = list(checks(width=12, V=400))
    assert [check.name for check in found if not check.passed] == []
    assert len({check.name for check in found}) == len(found) > 15


@pytest.mark.usefixtures("waits")
def test_a_wrong_kernel_fails_its_check(monkeypatch):
    def wrong_on_a_gpu(table, ids, rows):
        passes.add_rows(table, ids, rows * 1.001 if config.GPU else rows)

    monkeypatch.setattr(gpu_checks, "add_rows", wrong_on_a_gpu)
    failed = [check.name for check in checks(width=12, V=400) if not check.passed]
    assert failed == ["rows of a table V=400"]


@pytest.mark.usefixtures("waits")
def test_a_kernel_that_cannot_be_launched_fails_its_check_and_no_other(monkeypatch):
    def refused(arrays):
        raise RuntimeError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE:\ntoo many blocks")

    monkeypatch.setattr(gpu_checks, "norm", refused)
    begun: list[str] = []
    found = list(checks(width=12, V=400, begins=begun.append))
    assert [check.name for check in found] == begun
    failed = [check for check in found if not check.passed]
    assert [check.name.split(",")[0] for check in failed] == ["norm and scale"] * 3
    assert failed[0].failure.startswith("RuntimeError: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO")


def test_what_hangs_ends_the_process_and_says_where():
    code = (
        "import time\n"
        "from train.benchmark.gpu_checks import watched\n"
        "def wait_for_a_block(): time.sleep(60)\n"
        "with watched(0.1): wait_for_a_block()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in wait_for_a_block" in done.stderr


def test_what_is_not_a_number_does_not_pass():
    assert not Check("x", float("nan"), 1.0).passed
    assert Check("x", 0.0, 0.0).passed


# ---- steps ----


@pytest.mark.usefixtures("waits")
@BY_NAME
def test_a_step_is_measured_in_turns_and_taken_apart(model):
    steps, clock = Steps(model), Clock()
    before = steps.trainer.iteration
    samples = milliseconds({"time_layers": steps}, {"time_layers": clock}, 4, 3)
    assert samples == {"time_layers": [0.25] * 3}
    assert steps.trainer.iteration == before + 1 + 3 * 4
    parts = parts_of_a_step(steps, clock, 2)
    assert parts["embedding1 forward"] == parts["lstm1 backward"] == 1
    assert {"clip", "update", "the rest"} < set(parts)
    assert sum(parts.values()) == pytest.approx(2 * parts["whole"])
    assert not any("forward" in vars(layer) for layer in steps.model.layers)  # all is put back


@pytest.mark.usefixtures("waits")
def test_the_measured_steps_wait_for_nothing(waits):
    steps = Steps(SMALL[1])
    waits.clear()
    steps(5)
    assert waits == []


@pytest.mark.usefixtures("waits")
def test_a_model_that_raises_is_noted_and_the_others_are_measured(monkeypatch):
    class Refused(Steps):
        def __init__(self, model):
            if model.name == "BetterRnnlm":
                raise MemoryError("5 GiB")
            super().__init__(model)

    monkeypatch.setattr(gpu, "Steps", Refused)
    monkeypatch.setattr(gpu, "CupyEvents", Clock)
    report = gpu.GpuReport({})
    gpu.measure(report, SMALL, 4, 1, with_torch=False)
    assert set(report.steps) == {"Rnnlm", "AwdRnnlm"}
    assert report.notes == {"BetterRnnlm": {"time_layers": "MemoryError: 5 GiB"}}


@BY_NAME
def test_pytorch_trains_a_network_of_the_same_size(model, monkeypatch):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from train.benchmark import gpu_torch

    monkeypatch.setattr(gpu_torch, "MAX_GRAD", 1e9)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = gpu_torch.Steps(model, "cpu")
        before = [param.detach().clone() for param in steps.parameters]
        steps(2)
    finally:
        torch.set_num_threads(threads)
    for old, new in zip(before, steps.parameters, strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new)
    ours = sum(param.size for param in model.build().params)
    theirs = sum(param.numel() for param in steps.parameters)
    biases = sum(lstm.bias_hh_l0.numel() * lstm.num_layers for lstm in steps.network.lstms)
    assert theirs - biases == ours


# ---- the report ----


def test_the_report_is_printed_drawn_and_ready_for_json(tmp_path):
    report = gpu.GpuReport({"gpu": "one"})
    report.checks = [Check("right", 0.0, 1.0), Check("wrong", 2.0, 1.0)]
    report.tests = {"passed": 3}
    report.steps = {"Rnnlm": {"time_layers": [9.0, 2.0], "torch": [4.0]}}
    report.notes = {"Rnnlm": {"torch_graph": "cannot be captured"}}
    report.parts = {"Rnnlm": {"lstm1 forward": 1.0, "the rest": -0.1, "whole": 0.9}}
    text = str(report)
    assert "1 of 2 checks passed\n  wrong: error 2.0e+00, 1e+00 at most" in text
    assert "tests: passed 3" in text
    (row,) = (line.split() for line in text.splitlines() if line.startswith("Rnnlm "))
    assert row == ["Rnnlm", "2.000", "4.000", "-"]
    assert "Rnnlm, PyTorch, CUDA graph: cannot be captured" in text
    report.draw(tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    assert [check["passed"] for check in report.as_dict()["checks"]] == [True, False]


def test_pytest_is_asked_for_the_tests_of_a_gpu_and_its_counts_are_read(monkeypatch):
    def run(command, **options):
        assert command[1:5] == ["-m", "pytest", "-q", "-m"]
        assert options["timeout"] == 40
        assert options["env"]["TIMELAYERS_DOUBLE"] == "0"  # the double would pass in its place
        return types.SimpleNamespace(
            returncode=1, stdout="F.\n1 failed, 12 passed, 3 skipped in 2.0s\n", stderr=""
        )

    monkeypatch.setattr(gpu.subprocess, "run", run)
    found = gpu.run_tests(40)
    assert {key: found[key] for key in ("passed", "failed", "skipped")} == {
        "passed": 12,
        "failed": 1,
        "skipped": 3,
    }
    assert "1 failed" in found["said"]


def test_tests_that_take_too_long_are_broken_off(monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout, output=b"....", stderr=b" in test_x")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.run_tests(40) == {"broken off after": "40 s", "said": ".... in test_x"}


# ---- training in pieces ----


class Training:
    """Stands for a training that needs ``pieces`` calls."""

    def __init__(self, folder, pieces):
        self.folder, self.pieces, self.commands = folder, pieces, []

    def __call__(self, command, **options):
        self.commands.append(command[3:])
        self.folder.mkdir(exist_ok=True)
        (self.folder / "checkpoint.safetensors").touch()
        self.stopped = False
        return self

    def wait(self, seconds=None):
        self.pieces -= not self.stopped
        if self.pieces and not self.stopped:
            raise subprocess.TimeoutExpired("train", seconds)
        if not self.stopped:
            (self.folder / "config.json").write_text("{}")
            (self.folder / "results.json").write_text('{"test_exact": 75.5}')
        return 0

    def send_signal(self, number):
        self.stopped = True


def test_a_training_goes_on_piece_by_piece_until_it_is_finished(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    training = Training(folder, 3)
    monkeypatch.setattr(gpu.subprocess, "Popen", training)
    options = gpu.Options(train=True, out=folder)
    said = []
    for _ in range(4):
        assert gpu.train_a_piece(options) == 0
        said.append(capsys.readouterr().out.split(":")[0])
    assert said == ["not finished", "not finished", "finished", "finished"]
    new = ["--gpu", "--corpus", "ptb", "--epochs", "40", "--out", str(folder)]
    assert training.commands == [new, *[["--gpu", "--resume", str(folder)]] * 2]


# ---- the command ----


def test_a_machine_where_a_package_is_not_installed_is_described():
    found = describe_machine("no-such-package")
    assert found["no-such-package"] == "not installed"


@pytest.mark.parametrize("name", ["repeats", "count", "minutes"])
def test_an_option_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=f"--{name}"):
        gpu.main(gpu.Options(**{name: 0}))


@pytest.mark.usefixtures("waits")
def test_the_command_writes_one_json_and_one_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPY_TF32", "0")
    monkeypatch.setattr(gpu, "MODELS", SMALL)
    monkeypatch.setattr(gpu, "checks", lambda **more: checks(12, 400, **more))
    monkeypatch.setattr(gpu, "describe_gpu", lambda with_torch: {"gpu": "a double"})
    monkeypatch.setattr(gpu, "CupyEvents", Clock)
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: {"passed": 1})
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)  # PyTorch is measured on a GPU alone
    gpu.main(gpu.Options(count=4, repeats=2, json=tmp_path / "a.json", figure=tmp_path / "a.png"))
    found = json.loads((tmp_path / "a.json").read_text())
    assert all(check["passed"] for check in found["checks"])
    assert found["steps"] == {model.name: {"time_layers": [0.25] * 2} for model in SMALL}
    assert set(found["parts"]) == {model.name for model in SMALL}
    assert found["tests"] == {"passed": 1}
    assert (tmp_path / "a.png").exists()
    assert "of AwdRnnlm, ms" in capsys.readouterr().out


def test_without_a_gpu_the_command_says_so(monkeypatch):
    monkeypatch.setattr(config, "GPU", False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("CUPY_TF32", "0")
    np_module._cupy.cache_clear()
    with pytest.raises(RuntimeError, match=r"^config\.GPU is on, but CuPy is not installed"):
        gpu.main(gpu.Options())
