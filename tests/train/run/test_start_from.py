"""A run that begins with the weights and the words of another."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from common.files.tensors import read_tensors
from tests.train.processes import expect_same_run, log_of
from tests.train.run.interrupting import Broken, after_iterations, break_at
from train import evaluate, generate, rnnlm, simple_rnnlm
from train.run.saved_options import saved_options
from train.run.saved_run import open_run

OLD = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 120
NEW = "the dog sat on the cat .\nthe bird ran to the mat .\n" * 60
SIZES = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 4, "time_size": 7, "epochs": 2}


def options(tmp_path, text, out, **changes):
    path = tmp_path / f"{text}.txt"
    return rnnlm.Options(corpus=str(path), out=tmp_path / out, **{**SIZES, **changes})


@pytest.fixture
def base(tmp_path):
    """The folder of a run of the old text, whose last line has a word that training lacks."""
    for name, text in {"old": OLD + "the fish sat .\n", "new": NEW}.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    rnnlm.main(options(tmp_path, "old", "base"))
    return tmp_path / "base"


def words_of(run):
    return json.loads((run / "vocabulary.json").read_text())["words"]


def config_of(run):
    return json.loads((run / "config.json").read_text())


def weights_before_the_first_update(tmp_path, monkeypatch, **changes):
    """The parameters of the model, by name, when the trainer asks for its first gradient."""
    seen = {}

    def look(trainer):
        seen.update((name, param.copy()) for name, param in trainer.model.named_params().items())
        raise Broken

    with monkeypatch.context() as context, pytest.raises(Broken):
        context.setattr("common.trainer.RnnlmTrainer._gradients", lambda self, *_: look(self))
        rnnlm.main(options(tmp_path, "new", "looked", **changes))
    return seen


def test_it_begins_with_the_weights_and_keeps_the_words(base, tmp_path, monkeypatch, capsys):
    begun = weights_before_the_first_update(
        tmp_path, monkeypatch, start_from=base, unigram_bias=True, average="ema"
    )
    assert f"starts from the best weights of {base}" in capsys.readouterr().out
    kept, _ = read_tensors(base / "weights.safetensors")
    assert begun.keys() == kept.keys()
    for name, tensor in kept.items():
        assert (begun[name] == tensor).all()
    run = tmp_path / "looked"
    assert words_of(run) == words_of(base)
    assert "bird" not in words_of(run)
    assert config_of(run)["started_from"] == {
        "run": str(base),
        "weights": hashlib.sha256((base / "weights.safetensors").read_bytes()).hexdigest(),
    }
    assert (
        "<unk> for tokens that the vocabulary lacks: 6.25 % of train"
        in config_of(run)["corpus"]["about"]
    )


def test_what_was_learned_is_there_from_the_first_iteration(base, tmp_path):
    rnnlm.main(options(tmp_path, "old", "again", epochs=1, start_from=base))
    anew, again = (log_of(run)[0]["perplexity"] for run in (base, tmp_path / "again"))
    assert again < 2 and anew > 10


def test_it_is_measured_and_writes_as_any_run(base, tmp_path, capsys):
    run = tmp_path / "tuned"
    rnnlm.main(options(tmp_path, "new", "tuned", start_from=base))
    shutil.rmtree(base)  # nothing of it is needed
    results = json.loads((run / "results.json").read_text())
    capsys.readouterr()
    evaluate.main(evaluate.Options(run))
    assert f"{results['test_exact']:8.2f}" in capsys.readouterr().out
    generate.main(generate.Options(run, length=5))
    model, corpus = open_run(run)
    assert corpus.vocab_size == model.params[0].shape[0]
    (tmp_path / "new.txt").write_text(NEW.replace("bird", "dog"), encoding="utf-8")
    with pytest.raises(ValueError, match="is a run of another text: train"):
        open_run(run)


def test_a_run_from_such_a_run(base, tmp_path):
    rnnlm.main(options(tmp_path, "new", "second", start_from=base, epochs=1))
    rnnlm.main(options(tmp_path, "old", "third", start_from=tmp_path / "second", epochs=1))
    assert words_of(tmp_path / "third") == words_of(base)
    assert config_of(tmp_path / "third")["started_from"]["run"] == str(tmp_path / "second")


# ---- what does not fit ----


def refused(error, message, arguments, script=rnnlm):
    with pytest.raises(error, match=message):
        script.main(arguments)
    assert not arguments.out.exists()


def test_other_shapes_are_listed(base, tmp_path):
    refused(
        ValueError,
        rf"--start-from {base}: .* does not fit Rnnlm:\n"
        r"  embedding\.W: expected \(11, 6\) float32, got \(11, 8\) float32\n  lstm\.Wx: expected",
        options(tmp_path, "new", "tuned", start_from=base, wordvec_size=6),
    )
    simple = simple_rnnlm.Options(
        corpus=str(tmp_path / "new.txt"), out=tmp_path / "tuned", start_from=base, **SIZES
    )
    refused(ValueError, "lstm.Wx is not known\n(.*\n)*.*rnn.Wx is missing", simple, simple_rnnlm)


def test_words_that_nothing_stands_for_are_listed(tmp_path):
    (tmp_path / "old.txt").write_text(OLD, encoding="utf-8")  # without <unk>
    (tmp_path / "new.txt").write_text(NEW, encoding="utf-8")
    rnnlm.main(options(tmp_path, "old", "base"))
    tuned = options(tmp_path, "new", "tuned", start_from=tmp_path / "base")
    refused(ValueError, "1 of its tokens are not among the 10 of .* '<unk>' .*: 'bird'$", tuned)


def test_another_level_no_weights_and_no_run(base, tmp_path):
    tuned = options(tmp_path, "new", "tuned", start_from=base)
    refused(ValueError, "level 'char', those of the vocabulary", replace(tuned, level="char"))
    refused(ValueError, "--max-vocab: with --start-from the words", replace(tuned, max_vocab=8))
    refused(FileNotFoundError, "not the folder of a run", replace(tuned, start_from=tmp_path))
    (base / "weights.safetensors").unlink()
    refused(FileNotFoundError, "has no weights yet", tuned)
    (base / "vocabulary.json").unlink()
    refused(FileNotFoundError, r"has no vocabulary\.json", tuned)


# ---- going on ----


@pytest.mark.parametrize("iteration", [10, 40])
def test_a_run_that_was_broken_off_goes_on_without_the_other(
    iteration, base, tmp_path, monkeypatch
):
    rnnlm.main(options(tmp_path, "new", "unbroken", start_from=base))

    def stop(trainer):
        if trainer.iteration == iteration:
            raise Broken

    with monkeypatch.context() as context, pytest.raises(Broken):
        after_iterations(context, stop)
        rnnlm.main(options(tmp_path, "new", "run", start_from=base, checkpoint_every=1e-9))
    before = config_of(tmp_path / "run")["started_from"]
    shutil.rmtree(base)
    rnnlm.main(saved_options("rnnlm", rnnlm.Options, tmp_path / "run"))
    expect_same_run(tmp_path / "run", tmp_path / "unbroken")
    assert config_of(tmp_path / "run")["started_from"] == before


def test_before_the_first_checkpoint_it_begins_anew_with_the_same_weights_or_not_at_all(
    base, tmp_path, monkeypatch
):
    rnnlm.main(options(tmp_path, "new", "unbroken", start_from=base))
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "RnnlmTrainer._gradients", 5)
        rnnlm.main(options(tmp_path, "new", "run", start_from=base))
    again = saved_options("rnnlm", rnnlm.Options, tmp_path / "run")
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "RnnlmTrainer._gradients", 5)
        rnnlm.main(again)
    weights = (base / "weights.safetensors").read_bytes()
    rnnlm.main(replace(saved_options("rnnlm", rnnlm.Options, base), epochs=3))
    assert (base / "weights.safetensors").read_bytes() != weights
    with pytest.raises(ValueError, match=f"{base}: its weights have changed since .*run began"):
        rnnlm.main(again)
    (base / "weights.safetensors").write_bytes(weights)
    rnnlm.main(again)
    expect_same_run(tmp_path / "run", tmp_path / "unbroken")
