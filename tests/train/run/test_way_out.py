"""Nothing that a run has done is lost on its way out: vanished readers, links, endless numbers."""

import json
import os
import signal
import subprocess
import sys

import pytest

from common.files.tensors import read_tensors
from common.perplexity import protocols
from tests.builders import PATIENCE
from tests.train.processes import ROOT, SIZES, TEXT, Process, finish, new_run
from train import rnnlm
from train.run.checkpoint import resume
from train.run.folder import RunFolder


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def options(text_file, out, **changes):
    sizes = {name.replace("-", "_"): value for name, value in SIZES.items()}
    return rnnlm.Options(**sizes | {"corpus": str(text_file), "out": out, "epochs": 1} | changes)


def command(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        cwd=ROOT,
        timeout=PATIENCE,
        **more,
    )


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_whose_reader_has_gone_is_kept_all_the_same(signum, text_file, tmp_path):
    out = tmp_path / "run"
    arguments = new_run(text_file, out, epochs=3, **{"checkpoint-every": 0})
    process = Process("rnnlm", *arguments, places=[("update", 5)])
    process.wait_for_place()
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signum)
    process.go_on()
    assert process.wait(PATIENCE) == 128 + signum
    _, about = read_tensors(out / "checkpoint.safetensors")
    assert about["checkpoint"]["trainer"]["iteration"] == 5
    process.connection.close()
    code, printed, err = finish(Process("rnnlm", "--resume", out))
    assert (code, err) == (0, "")
    assert "goes on after iteration 5" in printed


def test_letters_that_the_terminal_lacks_are_escaped_and_nothing_is_lost(tmp_path):
    text = tmp_path / "jp.txt"
    text.write_text("ねこがいる。いぬもいる。\n" * 300, encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    arguments = new_run(text, tmp_path / "run", epochs=1, level="char")
    done = command("train.rnnlm", *arguments, env=env)
    assert done.returncode == 0, done.stderr
    assert rb"\u3044" in done.stdout
    assert (tmp_path / "run" / "results.json").exists()
    assert (tmp_path / "run" / "curve.png").exists()


def test_the_results_are_there_before_the_model_writes(text_file, tmp_path, monkeypatch):
    def fails(*arguments, **more):
        raise RuntimeError("no sample")

    monkeypatch.setattr("models.language_model.LanguageModel.generate", fails)
    with pytest.raises(RuntimeError, match="no sample"):
        rnnlm.main(options(text_file, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] == 1


def test_a_checkpoint_does_not_grow_with_the_age_of_the_run(text_file, tmp_path, capsys):
    sizes = []
    for epochs in (1, 9):
        out = tmp_path / str(epochs)
        rnnlm.main(options(text_file, out, epochs=epochs, log_interval=1))
        header = (out / "checkpoint.safetensors").read_bytes()[:8]
        sizes.append(int.from_bytes(header, "little"))
        assert len((out / "log.jsonl").read_text().splitlines()) > 60 * epochs
    assert sizes[1] < sizes[0] + 1000  # eight more validations; 500 more reports


def test_a_perplexity_without_end_is_a_run_that_failed(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "perplexity_of", lambda mean_nll: float("inf"))
    with pytest.raises(RuntimeError, match="the validation perplexity is inf"):
        rnnlm.main(options(text_file, tmp_path / "run"))
    for file in (tmp_path / "run").glob("*.json*"):
        assert "Infinity" not in file.read_text() and "NaN" not in file.read_text()


def test_what_json_cannot_say_is_null(tmp_path):
    run = RunFolder(tmp_path)
    run.log({"loss": float("inf"), "step": 3})
    run.write_json(run.results_file, {"test": float("nan"), "more": [{"x": float("-inf")}]})
    assert json.loads(run.log_file.read_text()) == {"loss": None, "step": 3}
    assert json.loads(run.results_file.read_text()) == {"test": None, "more": [{"x": None}]}


@pytest.mark.parametrize("name", ["log.jsonl", "run.lock"])
def test_a_link_in_the_folder_does_not_lead_out_of_it(name, text_file, tmp_path):
    foreign = tmp_path / "foreign.txt"
    foreign.write_text("mine\n")
    out = tmp_path / "run"
    out.mkdir()
    (out / name).symlink_to(foreign)
    with pytest.raises(OSError, match=name):
        rnnlm.main(options(text_file, out))
    assert foreign.read_text() == "mine\n"


def test_a_dangling_link_named_runs_is_an_error_and_no_loop(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="runs"):
        rnnlm.main(options(text_file, None))


def test_a_log_that_was_emptied_is_told_and_the_run_goes_on(text_file, tmp_path, capsys):
    out = tmp_path / "run"
    rnnlm.main(options(text_file, out))
    (out / "log.jsonl").write_text("")
    rnnlm.main(options(text_file, out, epochs=2, resume=out))
    assert "log.jsonl is not as the run left it" in capsys.readouterr().err
    assert json.loads((out / "results.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("missing", ["trainer", "best", "valid_points", "log", "options"])
def test_a_forged_checkpoint_is_refused_in_one_line(missing, text_file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    rnnlm.main(options(text_file, out))
    module = sys.modules[resume.__module__]
    read = module.read_checkpoint
    monkeypatch.setattr(
        module, "read_checkpoint", lambda f: {k: v for k, v in read(f).items() if k != missing}
    )
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: not a checkpoint of this"):
        rnnlm.main(options(text_file, out, epochs=2, resume=out))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--hidden-size", "1000000000"], "there is not enough memory for this"),
        (["--cell", "lstn"], "cell 'lstn': expected rnn, lstm, gru"),
        (["--out", "{file}"], "there is a file of that name; name a folder"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, message, text_file, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [a.format(file=tmp_path / "file") for a in arguments]
    done = command("train.rnnlm", "--corpus", text_file, "--out", tmp_path / "run", *arguments)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert line.startswith("error: ") and message in line


def test_ctrl_c_before_a_command_has_begun_says_nothing():
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.argv = ['-m']; import train;"
        "os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_a_full_device_ends_in_one_line_and_not_in_success(tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "train.export_log", str(kept_log(tmp_path))],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device\n"


def kept_log(folder):
    """A run folder with a config and a log."""
    (folder / "config.json").write_text('{"script": "rnnlm", "options": {}}')
    (folder / "log.jsonl").write_text('{"epoch": 1, "step": 1, "valid": 2.0}\n')
    return folder


def test_with_standard_error_closed_no_file_of_a_run_takes_its_place():
    opened = (
        "import os; from train.run import command; command._keep_standard_streams();"
        "print(os.open(os.devnull, os.O_RDONLY))"
    )
    shell = f'exec "{sys.executable}" -c "{opened}" 2>&-'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, cwd=ROOT, timeout=PATIENCE)
    assert int(done.stdout) > 2


@pytest.mark.parametrize("name", ["log.jsonl", "weights.safetensors", "results.json"])
def test_a_folder_with_a_file_of_another_run_is_refused(name, text_file, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("of another run")
    with pytest.raises(FileExistsError, match=f"holds {name} of another run"):
        rnnlm.main(options(text_file, out))
    assert (out / name).read_text() == "of another run"


def test_going_back_leaves_the_log_of_a_copy_of_the_folder_alone(tmp_path):
    run = RunFolder(tmp_path)
    run.log({"step": 1})
    state = run.log_state()
    run.log({"step": 2})
    os.link(run.log_file, tmp_path / "copy")
    assert run.go_back(state) == [{"step": 1}]
    assert (tmp_path / "copy").read_text().count("\n") == 2


def test_a_figure_that_is_not_finite_is_written_and_fails_the_command(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(RuntimeError, match="expected finite figures, got test_exact inf"):
        run.write_results({"test_exact": float("inf"), "epochs": 1})
    assert json.loads(run.results_file.read_text()) == {"test_exact": None, "epochs": 1}
