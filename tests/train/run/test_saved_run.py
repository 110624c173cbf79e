"""A run is whole: it is opened with the words and the text that it is of, or not at all."""

import json
import shutil

import numpy as np
import pytest

from common.files.tensors import read_tensors
from train import evaluate, generate, neural_cache, rnnlm, torch_weights
from train.run.saved_run import open_model, open_run

WORDS = ["red", "green", "blue", "black", "white", "grey", "pink", "brown"]
LINES = [" ".join(WORDS[(i * k + i) % 8] for k in range(9)) for i in range(120)]
SIZES = {"batch_size": 4, "time_size": 5, "hidden_size": 8, "wordvec_size": 8, "epochs": 1}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of my.txt, named as from the folder in which it lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(LINES) + "\n")
    rnnlm.main(rnnlm.Options(corpus="my.txt", out=tmp_path / "run", **SIZES))
    return tmp_path / "run"


def evaluated(capsys, run, **options):
    capsys.readouterr()
    evaluate.main(evaluate.Options(run, **options))
    return capsys.readouterr().out


def written(capsys, run):
    capsys.readouterr()
    generate.main(generate.Options(run, length=12))
    return capsys.readouterr().out


def test_the_folder_holds_words_text_and_machine(run):
    config = json.loads((run / "config.json").read_text())
    assert json.loads((run / "vocabulary.json").read_text())["words"][:3] == [
        "red",
        "<eos>",
        "green",
    ]
    assert config["corpus"]["splits"]["train"]["tokens"] > 800
    assert config["machine"].keys() >= {"compiled", "reason", "threads", "blas"}
    assert config["options"]["seed"] == 1
    assert config["options"]["corpus"] == str(run.parent / "my.txt")
    _, about = read_tensors(run / "weights.safetensors")
    assert about["vocabulary"] == config["corpus"]["vocabulary"]
    results = json.loads((run / "results.json").read_text())
    assert results["corpus"] and results["python"]


def test_one_line_in_front_of_the_text_and_nothing_is_measured(run, capsys):
    before = written(capsys, run)
    text = run.parent / "my.txt"
    text.write_text("pink red\n" + text.read_text())
    for command in (evaluate, neural_cache):
        with pytest.raises(
            ValueError, match=r"is a run of another text: the vocabulary, train"
        ) as e:
            command.main(command.Options(run))
        assert "--corpus" in str(e.value)
    assert written(capsys, run) == before


def test_the_same_words_in_another_text_are_told_apart_by_their_split(run):
    text = run.parent / "my.txt"
    text.write_text(text.read_text() + "red red red\n" * 20)
    with pytest.raises(ValueError, match=r"another text: train .* tokens then, .* now\), valid"):
        open_run(run)


def test_a_run_that_was_moved_and_a_text_that_was_moved_are_found(
    run, tmp_path, monkeypatch, capsys
):
    before = evaluated(capsys, run)
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = shutil.move(run, other / "moved")
    monkeypatch.chdir(other)
    assert evaluated(capsys, moved) == before
    shutil.move(tmp_path / "my.txt", other / "text of mine.txt")
    with pytest.raises(FileNotFoundError, match=r"my\.txt.*--corpus or --data-dir"):
        open_run(moved)
    assert evaluated(capsys, moved, corpus="text of mine.txt") == before
    rnnlm.main(
        rnnlm.Options(**SIZES | {"epochs": 2}, corpus="text of mine.txt", resume=moved, out=None)
    )


def test_writing_and_exporting_need_no_text(run, capsys):
    (run.parent / "my.txt").unlink()
    assert len(written(capsys, run).split()) > 5
    file = run.parent / "exported.safetensors"
    torch_weights.export_weights(torch_weights.ExportOptions(run, file))
    assert file.exists()


def test_another_my_txt_in_the_way_does_not_lend_its_words(run, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "my.txt").write_text("uno due tre quattro cinque\n" * 100)
    monkeypatch.chdir(other)
    assert "uno" not in written(capsys, run)
    assert "valid" in evaluated(capsys, run)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "vocabulary.json").write_text("[]"), "not the JSON of a vocabulary"),
        (lambda run: (run / "weights.safetensors").unlink(), "has no weights yet"),
        (lambda run: shutil.copy(run.parent / "x.json", run / "vocabulary.json"), "vocabulary"),
    ],
)
def test_a_folder_that_does_not_fit_itself_is_refused(run, spoil, message):
    words = json.loads((run / "vocabulary.json").read_text())
    words["words"] = words["words"][::-1]
    (run.parent / "x.json").write_text(json.dumps(words))
    spoil(run)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_model(run)


def test_a_run_of_the_version_before_opens_with_a_note_and_writes_nothing_unknown(run, capsys):
    (run / "vocabulary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    del config["corpus"], config["machine"]
    (run / "config.json").write_text(json.dumps(config))
    model, corpus = open_run(run)
    assert "made by a version before words were kept" in capsys.readouterr().err
    assert model.params[0].shape[0] == corpus.vocab_size
    with pytest.raises(FileNotFoundError, match="made by a version before words were kept"):
        open_model(run)


def test_resuming_elsewhere_says_what_computes_otherwise(run, capsys):
    config = json.loads((run / "config.json").read_text())
    config["versions"]["numpy"], config["machine"]["blas"] = "1.0", ["another BLAS, 7 threads"]
    (run / "config.json").write_text(json.dumps(config))
    text = str(run.parent / "my.txt")
    rnnlm.main(rnnlm.Options(**SIZES | {"epochs": 2}, corpus=text, resume=run))
    err = capsys.readouterr().err
    assert f"note: NumPy 1.0 when the run began, {np.__version__} now" in err
    assert "note: BLAS ['another BLAS, 7 threads']" in err


def test_the_level_shows_in_the_name_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(LINES) + "\n")
    rnnlm.main(rnnlm.Options(corpus="my.txt", level="char", **SIZES))
    rnnlm.main(rnnlm.Options(corpus="my.txt", **SIZES))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "rnnlm-my-1",
        "rnnlm-my-char-1",
    ]
