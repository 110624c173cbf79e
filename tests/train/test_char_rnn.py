"""``python -m train.char_rnn`` from options to run folder, on runs of moments."""

import json

import numpy as np
import pytest

from train import char_rnn
from train.char_rnn import Options, load_corpora, to_sequences, words_of

QUICK = {"starts": 2, "samples": 3, "iterations": 15}


def run(tmp_path, **options):
    out = tmp_path / "run"
    char_rnn.main(Options(out=out, **{**QUICK, **options}))
    return out


def test_both_corpora_leave_losses_samples_and_one_figure(tmp_path, capsys):
    out = run(tmp_path)
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "log.jsonl",
        "checkpoint.safetensors",
        "results.json",
        "char_rnn.png",
    }
    results = json.loads((out / "results.json").read_text())
    for corpus in ("vector", "ectoaxg"):
        for rule in ("one_step", "full"):
            starts = results[corpus][rule]["starts"]
            assert [start["start"] for start in starts] == [1, 2]
            assert all(len(start["samples"]) == 3 for start in starts)
            right = sum(start["right"] for start in starts)
            assert results[corpus][rule]["samples_right"] == right
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 * 2 * 2
    assert list(log[0]["loss"]) == ["2", "3", "5", "6", "8", "9", "11", "12", "14", "15"]
    printed = capsys.readouterr().out
    assert "vector: words 1, alphabet 7, hidden units 50" in printed
    assert "ectoaxg: words 15, alphabet 10, hidden units 30" in printed
    assert printed.endswith(f"char_rnn saved to {out / 'char_rnn.png'}\n")


def test_both_rules_begin_from_the_same_weights(tmp_path):
    results = json.loads((run(tmp_path, iterations=1) / "results.json").read_text())
    for corpus in ("vector", "ectoaxg"):
        one_step, full = (
            [start["loss"] for start in results[corpus][rule]["starts"]]
            for rule in ("one_step", "full")
        )
        assert one_step[0] != one_step[1]
        # The first word's loss comes before any update, and is most of the first mean.
        np.testing.assert_allclose(one_step, full, rtol=0.02)


def test_one_seed_writes_one_result(tmp_path):
    results = [
        (run(tmp_path / name, corpus="vector", seed=seed) / "results.json").read_text()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert results[0] == results[1] != results[2]


def test_own_words_and_a_longer_prompt(tmp_path, capsys):
    out = run(tmp_path, words=("banana", "bandana", "$ü$"), prompt="ban", iterations=60)
    results = json.loads((out / "results.json").read_text())
    for start in results["words"]["full"]["starts"]:
        assert all(sample.startswith("ban") for sample in start["samples"])
    assert "words: words 3, alphabet 7, hidden units 30" in capsys.readouterr().out


def test_a_file_gives_one_word_a_line_in_any_script(tmp_path):
    path = tmp_path / "fruit.txt"
    path.write_bytes("\ufeffapple pie\r\n귤\r\n".encode())
    (corpus,) = load_corpora(Options(file=path))
    assert corpus.name == "fruit"
    assert words_of(corpus) == ["apple pie", "귤"]
    xs, ts = to_sequences(corpus)[1]
    assert corpus.decode(xs[0]) == "귤" and corpus.decode(ts[0]) == "\n"


def test_the_newline_is_a_word_of_its_own():
    (corpus,) = load_corpora(Options(corpus="vector"))
    (xs, ts), (last_xs, last_ts) = to_sequences(corpus)
    assert (corpus.decode(xs[0]), corpus.decode(ts[0])) == ("vector", "ector\n")
    assert corpus.decode(last_xs[0]) == corpus.decode(last_ts[0]) == "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": ()}, "expected at least one word after --words, got none"),
        ({"words": ("a", "")}, "word 2 of 2 in words is empty"),
        ({"words": ("a\n",)}, "word 2 of 2 in words is empty"),
        ({"prompt": "q"}, "token 'q' is not among the 7 tokens"),
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"iterations": 0}, "--iterations: expected 1 or more, got 0"),
        ({"starts": 0}, "--starts: expected 1 or more, got 0"),
        ({"samples": -1}, "--samples: expected 1 or more, got -1"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\ncaf\xe9\n", r"words\.txt: line 2: byte 0xe9 is not UTF-8"),
        (b"", r"words\.txt: expected text"),
        (b"one\n\nthree\n", "word 2 of 3 in words is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, file=path)
    with pytest.raises(ValueError, match="expected --words or --file, got both"):
        run(tmp_path, file=path, words=("a",))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nowhere\.txt"):
        run(tmp_path, file=tmp_path / "nowhere.txt")


def test_a_loss_that_explodes_stops_with_advice(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(RuntimeError, match="smaller learning rate"):
        run(tmp_path, corpus="vector", lr=1e38, max_grad=1e38)


@pytest.mark.slow
def test_the_published_losses_of_full_bptt_are_met_on_the_second_list(tmp_path):
    out = run(tmp_path, corpus="ectoaxg", starts=1, iterations=1000)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (full,) = (record["loss"] for record in log if record["rule"] == "full")
    published = {"100": 0.006938, "500": 0.000796, "1000": 0.000363}
    for iteration, loss in published.items():
        assert 0.5 < full[iteration] / loss < 2  # other initial weights
