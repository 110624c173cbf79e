"""The event file of a run says what its log says, each figure once, however often it goes on."""

import json
import struct
from dataclasses import replace

import pytest

from common.files.tensors import read_tensors
from tests.train.processes import TEXT, log_of
from tests.train.run.interrupting import Broken, after_iterations
from train import rnnlm
from train.run import tensorboard
from train.run.saved_options import saved_options
from train.run.tensorboard import EventFile

SIZES = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 8, "time_size": 11, "log_interval": 7}
TAGS = {
    "train/loss": "loss",
    "train/perplexity": "perplexity",
    "train/learning_rate": "lr",
    "valid/perplexity": "valid",
}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(text_file, out, **changes):
    rnnlm.main(rnnlm.Options(corpus=str(text_file), out=out, epochs=3, **{**SIZES, **changes}))


def resumed(out, **changes):
    rnnlm.main(replace(saved_options("rnnlm", rnnlm.Options, out), **changes))


def files(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


def events(folder):
    """(tag, step, value, time) of every figure in the event files of a folder.

    A file is a row of records: length (8 bytes), its checksum (4), an Event, its checksum (4).
    """
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in files(folder):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found.append((value.tag, event.step, value.simple_value, event.wall_time))
    return found


def expect_what_the_log_says(folder):
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for tag, name in TAGS.items():
        got = [event for event in events(folder) if event[0] == tag]
        expected = [record for record in log if name in record]
        assert [step for _, step, *_ in got] == [record["step"] for record in expected]
        values = [record[name] for record in expected]
        assert [value for *_, value, _ in got] == pytest.approx(values, rel=1e-6)
        since = [time - got[0][-1] for *_, time in got]
        seconds = [record["seconds"] - expected[0]["seconds"] for record in expected]
        assert since == pytest.approx(seconds, abs=1e-3)


class TestARun:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("tensorboardX")

    def test_that_was_never_broken_off(self, text_file, tmp_path):
        for name in ("with", "without"):
            run(text_file, tmp_path / name, tensorboard=name == "with")
        expect_what_the_log_says(tmp_path / "with")
        assert files(tmp_path / "without") == []
        assert log_of(tmp_path / "with") == log_of(tmp_path / "without")
        (first, _), (second, _) = (
            read_tensors(tmp_path / name / "weights.safetensors") for name in ("with", "without")
        )
        assert all((first[name] == second[name]).all() for name in first)

    def test_that_goes_on_again_and_again(self, text_file, tmp_path, monkeypatch):
        out = tmp_path / "run"
        for iteration in (10, 25, 26, 45):

            def stop(trainer, iteration=iteration):
                if trainer.iteration == iteration:
                    raise Broken

            with monkeypatch.context() as context, pytest.raises(Broken):
                after_iterations(context, stop)
                if out.exists():
                    resumed(out)
                else:
                    run(text_file, out, tensorboard=True, checkpoint_every=0.0)
        resumed(out)
        expect_what_the_log_says(out)
        assert len(files(out)) <= 2
        assert sum(path.stat().st_size > 0 for path in files(out)) == 1

    def test_that_wants_it_later_has_all_of_its_log_in_it(self, text_file, tmp_path):
        run(text_file, tmp_path / "run")
        resumed(tmp_path / "run", epochs=4, tensorboard=True)
        expect_what_the_log_says(tmp_path / "run")
        assert max(step for _, step, *_ in events(tmp_path / "run")) == 80

    def test_that_wants_it_no_more(self, text_file, tmp_path):
        run(text_file, tmp_path / "run", tensorboard=True)
        before = events(tmp_path / "run")
        resumed(tmp_path / "run", epochs=4, tensorboard=False)
        assert events(tmp_path / "run") == before


def test_a_figure_that_is_not_finite_is_left_out_and_an_older_line_has_the_time_before(tmp_path):
    pytest.importorskip("tensorboardX")
    file = EventFile(tmp_path, [{"step": 1, "loss": 2.0}], seconds=50.0)
    file.add({"step": 2, "valid": 3.0, "seconds": 40.0})
    file.add({"step": 3, "loss": None, "lr": 0.5})
    file.close()
    found = events(tmp_path)
    assert [event[:3] for event in found] == [
        ("train/loss", 1, 2.0),
        ("valid/perplexity", 2, 3.0),
        ("train/learning_rate", 3, 0.5),
    ]
    assert [round(event[-1] - found[0][-1], 3) for event in found] == [0, 40, 40]


def test_what_is_not_installed_is_said_before_there_is_a_folder(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--tensorboard: tensorboardX, .* is not installed") as e:
        run(text_file, tmp_path / "run", tensorboard=True)
    assert 'pip install -e ".[tensorboard]"' in str(e.value)
    assert not (tmp_path / "run").exists()
