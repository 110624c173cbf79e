"""Texts that a run makes up: streams, prompts from files, probabilities, what is refused."""

import json
import math

import numpy as np
import pytest

from common.perplexity.per_token import token_losses
from tests.train.processes import TEXT
from train import generate, rnnlm
from train.run.saved_run import open_model

SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 4, "time_size": 7}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs by level; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cats.txt").write_text(TEXT, encoding="utf-8")
    found = {}
    for level in ("word", "char"):
        found[level] = folder / level
        options = {"corpus": str(folder / "cats.txt"), "level": level, "out": found[level]}
        rnnlm.main(rnnlm.Options(**SIZES, **options, max_vocab=9 if level == "word" else None))
    return found


@pytest.fixture
def printed(runs, capsys):
    """What the command prints, by its options."""

    def run(level="word", **options):
        capsys.readouterr()
        generate.main(generate.Options(runs[level], **options))
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("level", ["word", "char"])
@pytest.mark.parametrize("prompt", ["", "the cat"])
def test_a_seed_gives_the_text_that_the_model_generates(level, prompt, runs, printed):
    model, vocabulary = open_model(runs[level])
    unk = vocabulary.word_to_id.get("<unk>")
    skip = [] if unk is None else [unk]
    for seed in (1, 2):
        start = vocabulary.encode(prompt) or [vocabulary.first_id]
        ids = model.generate(start, 30, temperature=0.9, skip_ids=skip, rng=seed)
        text = vocabulary.decode(ids if prompt else ids[1:])
        assert printed(level, prompt=prompt, length=30, temperature=0.9, seed=seed) == text + "\n"


def test_several_texts_are_separate_different_and_the_first_is_that_of_the_seed(printed):
    one = printed(length=30, seed=3)
    several = printed(length=30, seed=3, count=3)
    assert several.startswith("--- 1 of 3 ---\n" + one + "--- 2 of 3 ---\n")
    texts = [part.split("---\n")[1] for part in several.split("--- ")[1:] if "---\n" in part]
    assert len(texts) == len(set(texts)) == 3
    assert printed(length=30, seed=3, count=3) == several
    other = printed(length=30, seed=4, count=3)
    assert not set(texts) & {part.split("---\n")[-1] for part in other.split("--- ")}


def test_a_prompt_may_come_from_a_file_whose_last_line_is_gone_on_with(printed, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("the cat sat .\nthe dog\n", encoding="utf-8")
    text = printed(prompt_file=file, length=10)
    assert text.startswith("the cat sat .\nthe dog ")
    assert text == printed(prompt="the cat sat .\nthe dog", length=10)


def test_words_that_training_has_not_seen_are_named(runs, capsys):
    generate.main(generate.Options(runs["word"], prompt="the zebra and the Cat", length=3))
    assert "note: <unk> stands for zebra, and, Cat, which" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["word", "char"])
def test_probabilities_are_those_with_which_a_text_is_measured(level, runs, printed):
    options = {"prompt": "the cat", "length": 25, "temperature": 0.5, "top_k": 4}
    found = json.loads(printed(level, json=True, **options))
    model, vocabulary = open_model(runs[level])
    assert found["prompt"] == "the cat"
    assert found["text"] + "\n" == printed(level, **options)
    ids = vocabulary.encode("the cat") + [token["id"] for token in found["tokens"]]
    assert vocabulary.decode(ids) == found["text"]
    assert [vocabulary.words[token["id"]] for token in found["tokens"]] == [
        token["token"] for token in found["tokens"]
    ]
    losses = token_losses(model, np.asarray(ids[1:]), ids[0])[-25:]
    expected = [math.exp(-loss) for loss in losses]
    assert [token["probability"] for token in found["tokens"]] == pytest.approx(expected, rel=1e-4)

    lines = printed(level, show_probabilities=True, **options).splitlines()
    assert [float(line.split()[0]) for line in lines] == pytest.approx(expected, abs=2e-6)
    if level == "word":
        assert [line.split()[1] for line in lines] == [t["token"] for t in found["tokens"]]
    else:
        assert any(line.endswith("' '") for line in lines)


def test_objects_of_several_texts_are_a_line_each(printed):
    found = [json.loads(line) for line in printed(json=True, count=3, length=4).splitlines()]
    assert [len(each["tokens"]) for each in found] == [4, 4, 4]
    assert {each["prompt"] for each in found} == {""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count: expected 1 or more, got 0"),
        ({"length": -1}, "--length: expected 0 or more, got -1"),
        ({"prompt": "a", "prompt_file": "b"}, "expected --prompt or --prompt-file, got both"),
        ({"json": True, "show_probabilities": True}, "which has them too; got both"),
        ({"interactive": True, "count": 2}, "--interactive: expected no --count"),
        ({"interactive": True, "json": True}, "--interactive: expected no --count"),
        ({"interactive": True, "length": 0}, "--length: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run_is_opened(options, message):
    with pytest.raises(ValueError, match=message):
        generate.main(generate.Options("nowhere", **options))


def test_a_prompt_that_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        generate.main(generate.Options(runs["word"], prompt_file=tmp_path / "none.txt"))
