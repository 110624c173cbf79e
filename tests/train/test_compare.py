"""Runs compared on one text: figures known by hand, what is refused, what is left behind."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from common.perplexity.paired_bootstrap import Difference, Group
from common.util import eval_perplexity_exact
from datasets.corpus import corpus_from_tokens
from datasets.vocabulary import Vocabulary
from train import compare, evaluate, rnnlm
from train.compare import by_frequency, by_place, group_table, run_table, sentences, verdict
from train.run.folder import RunFolder
from train.run.saved_run import open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 140
SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 5, "time_size": 10}


def trained(folder, name, text=TEXT, **options):
    """The folder of a short run on a text of its own."""
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    out = folder / name
    rnnlm.main(rnnlm.Options(corpus=str(folder / f"{name}.txt"), out=out, **SIZES | options))
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs by name; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    names = {
        "one": {},
        "two": {"seed": 2},
        "chars": {"level": "char"},
        "chars two": {"level": "char", "seed": 2},
        "fewer": {"max_vocab": 6},
        "longer": {"text": TEXT + TEXT},
        "reversed": {"text": "\n".join(TEXT.split("\n")[::-1][1:]) + "\n"},
    }
    return {name: trained(folder, name, **options) for name, options in names.items()}


def compared(out, *paths, **options):
    """What the command leaves in results.json."""
    compare.main(compare.Options(tuple(paths), out=out, **{"resamples": 200, **options}))
    return json.loads((out / "results.json").read_text())


def with_frequencies(run, out, q):
    """A copy of a run whose model foretells every id by ``q`` (V,), whatever came before."""
    model, _ = open_run(run)
    for param in model.params:
        param[...] = 0
    model.params[-1][...] = np.log(q)
    out.mkdir()
    for name in ("config.json", "vocabulary.json"):
        (out / name).write_bytes((run / name).read_bytes())
    model.save_params(out / "weights.safetensors")
    return out


def test_models_whose_likelihoods_are_known(runs, tmp_path, capsys):
    _, corpus = open_run(runs["one"])
    V = corpus.vocab_size
    q = np.full(V, 0.5 / (V - 1))
    q[corpus.eos_id] = 0.5
    flat = with_frequencies(runs["one"], tmp_path / "flat", np.full(V, 1 / V))
    ends = with_frequencies(runs["one"], tmp_path / "ends", q)
    results = compared(tmp_path / "out", flat, ends)

    share = (corpus.test == corpus.eos_id).mean()  # every sentence has 8 tokens, one of them ends
    assert (V, share) == (10, 1 / 8)
    of_end, of_others = math.log(0.1 / 0.5), math.log(0.1 / (0.5 / 9))
    expected = share * of_end + (1 - share) * of_others
    first, second = results["text"][0]["runs"]
    assert first == {"perplexity": pytest.approx(10)}
    assert second["perplexity"] == pytest.approx(10 * math.exp(expected), rel=1e-5)
    assert second["nll_difference"] == pytest.approx(expected, rel=1e-5)
    assert second["interval"] == pytest.approx([expected] * 2, rel=1e-5)  # all sentences are alike
    assert second["ratio_interval"] == pytest.approx([math.exp(expected)] * 2, rel=1e-5)
    assert (second["wins"], second["claimed"]) == (0.0, True)
    groups = {group["name"]: group["runs"][1] for group in results["frequency"]}
    assert groups.keys() == {"commonest 100", "<eos>"}
    assert groups["<eos>"]["nll_difference"] == pytest.approx(of_end, rel=1e-5)
    assert (groups["<eos>"]["wins"], groups["commonest 100"]["wins"]) == (1.0, 0.0)
    places = {group["name"]: group["runs"][1] for group in results["place"]}
    assert list(places) == ["1", "2", "3 to 4", "5 to 8"]
    assert places["1"]["nll_difference"] == pytest.approx(of_others, rel=1e-5)
    mixed = (of_end + 3 * of_others) / 4
    assert places["5 to 8"]["nll_difference"] == pytest.approx(mixed, rel=1e-5)
    assert f"a difference is claimed: {ends} is worse than {flat}" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_perplexities_are_the_exact_ones_and_the_folder_is_a_run_of_its_own(
    split, runs, tmp_path, capsys
):
    results = compared(tmp_path / "out", runs["one"], runs["two"], split=split)
    shown = capsys.readouterr().out
    exact = []
    for name, found in zip(("one", "two"), results["text"][0]["runs"], strict=True):
        model, corpus = open_run(runs[name])
        exact.append(eval_perplexity_exact(model, getattr(corpus, split), corpus.first_id))
        assert found["perplexity"] == pytest.approx(exact[-1], rel=1e-5)
        assert f"{found['perplexity']:.2f}" in shown
    second = results["text"][0]["runs"][1]
    assert second["ratio"] == pytest.approx(exact[1] / exact[0], rel=1e-5)
    assert second["interval"][0] < second["nll_difference"] < second["interval"][1]
    tokens = len(getattr(corpus, split))
    for kind in ("text", "frequency", "place"):
        assert sum(group["tokens"] for group in results[kind]) == tokens == results["tokens"]
    assert results["verdicts"][0] in shown and f"{split} text of one" in shown
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["script"] == "compare" and config["options"]["resamples"] == 200
    assert config["options"]["runs"] == [str(runs["one"]), str(runs["two"])]
    assert config["corpus"]["vocabulary"] == corpus.vocabulary.hash()
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_against_itself_is_no_difference(runs, tmp_path, capsys):
    results = compared(tmp_path / "out", runs["one"], runs["one"])
    for kind in ("text", "frequency", "place"):
        for group in results[kind]:
            second = group["runs"][1]
            assert (second["nll_difference"], second["interval"]) == (0.0, [0.0, 0.0])
            assert (second["ratio"], second["wins"], second["claimed"]) == (1.0, 0.5, False)
    assert f"no difference claimed between {runs['one']} and" in capsys.readouterr().out


def test_a_seed_draws_the_same_sentences_again(runs, tmp_path):
    found = [
        compared(tmp_path / str(k), runs["one"], runs["two"], seed=seed)
        for k, seed in enumerate((1, 1, 2))
    ]
    assert found[0] == found[1] != found[2]


def test_every_run_is_compared_with_the_first(runs, tmp_path, capsys):
    results = compared(tmp_path / "out", runs["one"], runs["two"], runs["one"])
    first, second, third = results["text"][0]["runs"]
    assert third.pop("nll_difference") == 0 != second["nll_difference"]
    assert third["perplexity"] == first["perplexity"] and len(results["verdicts"]) == 2
    assert "#3 / #1" in capsys.readouterr().out


def test_characters_have_lines_and_bits(runs, tmp_path, capsys):
    results = compared(tmp_path / "out", runs["chars"], runs["chars two"])
    shown = capsys.readouterr().out
    for run in results["text"][0]["runs"]:
        assert run["perplexity_bits"] == math.log2(run["perplexity"])
        assert f"{run['perplexity_bits']:.3f}" in shown
    assert [group["name"] for group in results["frequency"]] == ["commonest 100", "end of line"]
    assert "bits per character" in shown and "by place in the line" in shown
    compared(tmp_path / "words", runs["one"], runs["two"])
    assert "bits" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["one"], {}, "expected two runs or more, got 1"),
        (["one", "two"], {"resamples": 0}, "--resamples: expected 1 or more, got 0"),
        (["one", "two"], {"seed": -1}, "--seed: expected 0 or more, got -1"),
        (["one", "chars"], {}, "its level is char and not word, its vocabulary has 15 tokens"),
        (["one", "fewer"], {}, "has 6 tokens and not 10, its id 3 is '<unk>' and not 'on'"),
        (["one", "reversed"], {}, "one: its id 1 is 'dog' and not 'cat'; expected"),
        (["one", "longer"], {}, r"its test text is another one \(\d+ tokens, there \d+\)"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_there_is_a_folder(
    names, options, message, runs, tmp_path
):
    with pytest.raises(ValueError, match=message):
        compared(tmp_path / "out", *(runs[name] for name in names), **options)
    assert not (tmp_path / "out").exists()


def test_a_text_of_few_sentences_is_refused(runs, tmp_path, monkeypatch):
    def open_short(path, *where):
        model, corpus = open_run(path, *where)
        return model, replace(corpus, test=corpus.test[: 8 * 9])

    monkeypatch.setattr(compare, "open_run", open_short)
    with pytest.raises(ValueError, match=r"--split test: expected 10 sentences or more .* got 9"):
        compared(tmp_path / "out", runs["one"], runs["two"])
    assert compared(tmp_path / "valid", runs["one"], runs["two"], split="valid")


def test_a_text_that_lies_elsewhere_is_named(runs, tmp_path):
    results = compared(
        tmp_path / "out", runs["one"], runs["two"], corpus=str(runs["one"].parent / "two.txt")
    )
    assert results == compared(tmp_path / "again", runs["one"], runs["two"])


# ---- the groups ----


def test_a_sentence_ends_with_its_end():
    sentence_of, place = sentences(np.array([4, 5, 0, 0, 6, 0, 7]), 0)
    assert sentence_of.tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert place.tolist() == [1, 2, 3, 1, 1, 2, 1]
    sentence_of, place = sentences(np.array([4, 5, 0]), None)
    assert (sentence_of.tolist(), place.tolist()) == ([0, 0, 0], [1, 2, 3])


def test_words_are_ranked_by_the_training_text(monkeypatch):
    monkeypatch.setattr(compare, "COMMON", 1)
    monkeypatch.setattr(compare, "LESS_COMMON", 3)
    train = ["b", "a", "a", "<eos>", "c", "c", "c", "d", "d", "a", "a", "<eos>", "e", "<eos>"]
    test = ["d", "e", "x", "a", "b", "c", "<eos>"]
    corpus = corpus_from_tokens("my", train, test, test, level="word")
    groups = by_frequency(corpus, corpus.test)
    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        "commonest 1": [3],
        "2 to 3": [0, 5],
        "the rest": [1, 4],
        "<unk>": [2],
        "<eos>": [6],
    }


@pytest.mark.parametrize(
    ("level", "last"), [("word", {33, 34, 64, 65, 128, 129, 500}), ("char", {129, 500})]
)
def test_every_place_is_in_one_group(level, last):
    places = np.array([1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 34, 64, 65, 128, 129, 500])
    groups = {name: set(places[m].tolist()) for name, m in by_place(places, level).items()}
    assert sum(map(len, groups.values())) == len(places)
    assert (groups["1"], groups["2"], groups["3 to 4"]) == ({1}, {2}, {3, 4})
    assert groups["5 to 8"] == {5, 8} and groups["17 to 32"] == {17, 32}
    assert list(groups.items())[-1] == (f"{min(last)} and on", last)


# ---- what is printed ----


def test_a_difference_is_claimed_where_the_interval_leaves_out_zero():
    none = verdict(Difference(-0.01, (-0.03, 0.01), 0.8), "b", "a")
    assert none == (
        "no difference claimed between a and b: the 95 % interval of the ratio of their "
        "perplexities, 0.9704 to 1.0101, holds 1"
    )
    better = verdict(Difference(-0.02, (-0.03, -0.01), 1.0), "b", "a")
    assert better == (
        "a difference is claimed: b is better than a on this text, with 0.9802 times its "
        "perplexity (95 % interval 0.9704 to 0.9900)"
    )
    assert "b is worse than a" in verdict(Difference(0.02, (0.01, 0.03), 0.0), "b", "a")


def test_a_group_of_few_sentences_shows_no_interval():
    words = Vocabulary(("a",), "word")
    known = Difference(-0.02, (-0.03, -0.01), 1.0)
    unknown = Difference(0.5, (-math.inf, math.inf), math.nan)
    [head, row] = group_table("title", [Group("rare", 3, [10.0, 16.487], [unknown])], words)
    assert head.split() == ["title", "tokens", "#1", "#2", "#2", "/", "#1", "95", "%", "interval"]
    assert row.split() == ["rare", "3", "10.00", "16.49", "1.6487", "-"]
    *_, row = run_table(Group("all", 3, [10.0, 9.802], [known]), ["a", "b"], words)
    assert "b  " in row and row.endswith("100.0 %") and "-0.0300 to -0.0100" in row


def test_a_comparison_is_not_a_run_that_can_be_measured(runs, tmp_path):
    compared(tmp_path / "out", runs["one"], runs["two"])
    assert RunFolder.open(tmp_path / "out")[1]["script"] == "compare"
    with pytest.raises(ValueError, match="trains language models, got 'compare'"):
        evaluate.main(evaluate.Options(tmp_path / "out"))
