"""The last word of a sentence: the published three, and the user's own."""

import json

import pytest

from train import last_word
from train.last_word import PUBLISHED_COSTS, Options, main


def run(tmp_path, **options):
    out = tmp_path / "run"
    main(Options(out=out, **options))
    return out, json.loads((out / "results.json").read_text())


def test_three_sentences_end_right_at_a_cost_below_that_which_was_published(tmp_path, capsys):
    out, results = run(tmp_path)
    assert results["cost"] < 0.003
    assert results["right"] == results["sentences"] == 3
    assert results["said"] == ["i like dog", "i love coffee", "i hate milk"]
    assert list(results["costs"]) == [str(step) for step in PUBLISHED_COSTS]
    costs = list(results["costs"].values())
    assert costs == sorted(costs, reverse=True)
    assert results["costs"]["5000"] == results["cost"]

    printed = capsys.readouterr().out
    for step, cost in results["costs"].items():
        assert f"step {step}  cost {cost:.6f}" in printed
    assert "i like -> dog (9" in printed
    assert printed.endswith(f"last_word saved to {out / 'last_word.png'}\n")
    names = {"config.json", "log.jsonl", "weights.safetensors", "results.json", "last_word.png"}
    assert names == {path.name for path in out.iterdir()}
    assert (out / "last_word.png").stat().st_size < 80_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_the_cost_does_not_hang_on_a_lucky_start(tmp_path, seed):
    _, results = run(tmp_path, seed=seed)
    assert results["cost"] < 0.003
    assert results["right"] == 3


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(tmp_path):
    weights = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        out, _ = run(tmp_path / name, seed=seed, steps=20)
        weights.append((out / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_sentences_of_your_own_may_be_longer_or_have_two_words(tmp_path):
    sentences = ("the sky is blue", "the grass is green")
    _, results = run(tmp_path / "four", sentences=sentences, steps=600, lr=0.01)
    assert tuple(results["said"]) == sentences
    _, results = run(tmp_path / "two", sentences=("hello world",), steps=50, lr=0.01)
    assert results["said"] == ["hello world"]
    assert results["costs"] == {}


def test_a_beginning_with_two_endings_is_right_once_at_most(tmp_path, capsys):
    _, results = run(tmp_path, sentences=("a b", "a c"), steps=100)
    assert results["right"] == 1
    assert "; the sentence has " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sentences": ()}, "at least one sentence, got none"),
        ({"sentences": ("hello",)}, "two words or more in a sentence, got 'hello'"),
        ({"sentences": ("a b c", "a b c d")}, "one length; 'a b c' has 3 words, 'a b c d' has 4"),
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"steps": 0}, "--steps: expected 1 or more, got 0"),
        ({"lr": -1.0}, "learning rate"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert not (tmp_path / "run").exists()


def test_the_published_costs_stand_beside_the_published_sentences_only(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(last_word, "draw", lambda costs, published, *_: drawn.append(published))
    run(tmp_path / "theirs", steps=1)
    run(tmp_path / "own", steps=1, sentences=("a b",))
    assert drawn == [PUBLISHED_COSTS, {}]
