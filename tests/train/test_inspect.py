"""The command that makes a page: figures of the page, what is refused, what is left behind."""

import json
import re

import numpy as np
import pytest

from common.util import eval_perplexity_exact
from datasets.stream import tokens_of
from tests.train.inspection.test_packing import unpacked
from train import inspect, rnnlm
from train.inspection.activations import activations
from train.run.saved_run import open_run

TEXT = 'The cat sat on the mat .\nthe dog said " go on " to the cat in 1987 .\n' * 60
SIZES = {"wordvec_size": 8, "hidden_size": 6, "epochs": 1, "batch_size": 5, "time_size": 10}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs by name; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cats.txt").write_text(TEXT, encoding="utf-8")
    found = {}
    kinds = {"one": {}, "two": {"seed": 2}, "fewer": {"max_vocab": 8}, "chars": {"level": "char"}}
    for name, options in kinds.items():
        found[name] = folder / name
        rnnlm.main(
            rnnlm.Options(corpus=str(folder / "cats.txt"), out=found[name], **SIZES | options)
        )
    return found


def page_of(tmp_path, *runs, **options):
    """The data of the page that the command makes."""
    out = tmp_path / "page.html"
    inspect.main(inspect.Options(runs, out=out, **options))
    text = out.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def array(packed, *shape):
    values = unpacked(packed)
    return values.reshape(shape) if shape else values


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_page_has_the_exact_perplexity_of_the_text(split, runs, tmp_path, capsys):
    data = page_of(tmp_path, runs["one"], split=split)
    model, corpus = open_run(runs["one"])
    ids = getattr(corpus, split)
    exact = eval_perplexity_exact(model, ids, corpus.first_id)
    (run,) = data["runs"]
    assert dict(run["facts"])["perplexity of this text"] == f"{exact:,.2f}"
    assert 2 ** array(run["surprisal"]).mean() == pytest.approx(exact, rel=1e-5)
    assert [data["words"][i] for i in array(data["tokens"])] == [corpus.id_to_word[i] for i in ids]
    assert f"perplexity {exact:.2f} of this text" in capsys.readouterr().out


def test_a_unit_on_the_page_is_what_it_held_after_the_token(runs, tmp_path):
    data = page_of(tmp_path, runs["one"])
    model, corpus = open_run(runs["one"])
    (layer,) = activations(model, np.concatenate([[corpus.first_id], corpus.test]))
    (shown,) = data["runs"][0]["layers"]
    assert shown["name"] == "layer 1 (lstm)"
    names = [(each["name"], each["label"], "left" in each) for each in shown["quantities"]]
    assert names == [
        ("h", "h (output)", False),
        ("c", "c (cell)", False),
        ("f", "f (forget gate)", True),
        ("g", "g (candidate)", False),
        ("i", "i (input gate)", True),
        ("o", "o (output gate)", True),
    ]
    T, H = len(corpus.test), SIZES["hidden_size"]
    for each in shown["quantities"]:
        values = {**layer.states, **layer.gates}[each["name"]][1:]
        low, step = array(each["low"]), array(each["step"])
        again = low + step * array(each["codes"], H, T).T
        assert (abs(again - values) <= 0.501 * step + 1e-7).all()
        if "left" in each:
            np.testing.assert_allclose(array(each["left"]), (values < 0.1).mean(axis=0), atol=1e-6)


def test_the_units_that_were_found_are_there_in_the_finest_steps(runs, tmp_path):
    options = {"megabytes": 0.001, "word_class": ("year=[0-9]{4}",)}
    data = page_of(tmp_path, runs["one"], **options)
    (run,) = data["runs"]
    assert run["steps"] == 5  # a page of a kilobyte cannot be
    names = [each["name"] for each in data["properties"]]
    assert names == ["quotation marks", "place in the line", "capital letters", "year"]
    model, corpus = open_run(runs["one"])
    (layer,) = activations(model, np.concatenate([[corpus.first_id], corpus.test]))
    for found, about in zip(run["found"], data["properties"], strict=True):
        assert about["measure"] in ("AUC", "rank correlation")
        for unit in found["units"]:
            values = layer.states[unit["quantity"]][1:, unit["number"]]
            fine = unit["fine"]
            again = array(fine["low"]) + array(fine["step"]) * array(fine["codes"])
            assert (abs(again - values) <= 0.501 * array(fine["step"])).all()


def test_a_text_of_ones_own_is_shown_as_written_and_read_as_the_model_can(runs, tmp_path):
    (tmp_path / "own.txt").write_text("the zebra sat\non it", encoding="utf-8")
    data = page_of(tmp_path, runs["fewer"], text=str(tmp_path / "own.txt"))
    words = data["words"]
    assert [words[i] for i in array(data["tokens"])] == [
        "the",
        "zebra",
        "sat",
        "<eos>",
        "on",
        "it",
        "<eos>",
    ]
    read = [words[i] for i in array(data["ids"])]
    assert read[1] == "<unk>" and array(data["unknown"])[1] == 1
    assert data["about"] == "All 7 tokens of own.txt, read from left to right."


def test_no_more_of_a_text_is_taken_than_was_asked_for(runs, tmp_path):
    data = page_of(tmp_path, runs["one"], tokens=5)
    assert len(array(data["tokens"])) == 5
    assert data["about"].startswith("The first 5 tokens of the test text of cats")
    (tmp_path / "own.txt").write_text(TEXT, encoding="utf-8")
    longer = page_of(tmp_path, runs["one"], text=str(tmp_path / "own.txt"), tokens=9)
    assert len(array(longer["tokens"])) == 9 and longer["about"].startswith("The first 9 ")


def test_two_runs_stand_side_by_side(runs, tmp_path):
    data = page_of(tmp_path, runs["one"], runs["two"])
    alone = [page_of(tmp_path, runs[name])["runs"][0] for name in ("one", "two")]
    for run, expected in zip(data["runs"], alone, strict=True):
        assert run["name"] == expected["name"]
        assert run["surprisal"] == expected["surprisal"]
    assert data["runs"][0]["surprisal"] != data["runs"][1]["surprisal"]


def test_characters(runs, tmp_path):
    data = page_of(tmp_path, runs["chars"], word_class=("cat=cat",))
    (run,) = data["runs"]
    text = "".join(data["words"][i] for i in array(data["tokens"]))
    assert text in TEXT and data["level"] == "char"
    assert dict(run["facts"]).keys() >= {"bits a character"}
    assert data["properties"][3]["members"] == 3 * text.count("cat")
    assert tokens_of(text, open_run(runs["chars"])[1].vocabulary) == list(text)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "expected one run or two, got 0"),
        (["one", "two", "one"], {}, "expected one run or two, got 3"),
        (["one", "fewer"], {}, "its vocabulary has 8 tokens and not"),
        (["one", "chars"], {"split": "valid"}, "its level is char and not word"),
        (["one", "fewer"], {"text": "{text}"}, "cannot stand beside .*its vocabulary has 8 tokens"),
        (["one"], {"text": "x", "split": "test"}, "either --text or --split, got both"),
        (["one"], {"text": "x", "corpus": "y"}, "--corpus and --data-dir find the text of --split"),
        (["one"], {"text": "nowhere.txt"}, "no such file: nowhere.txt"),
        (["one"], {"tokens": 0}, "--tokens: expected 1 or more, got 0"),
        (["one"], {"megabytes": 0}, "--megabytes: expected a number above 0, got 0"),
        (["one"], {"word_class": ("digits",)}, "--word-class: expected NAME=REGEX"),
        (["one"], {"out": "nowhere/page.html"}, "--out: expected a file in a folder that is there"),
    ],
)
def test_what_cannot_be_shown_is_refused(names, options, message, runs, tmp_path):
    out = tmp_path / options.pop("out", "page.html")
    (tmp_path / "own.txt").write_text("the cat", encoding="utf-8")
    if "text" in options:
        options["text"] = options["text"].replace("{text}", str(tmp_path / "own.txt"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inspect.main(inspect.Options(tuple(runs[name] for name in names), out=out, **options))
    assert not out.exists()
