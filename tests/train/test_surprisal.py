"""A line for every token of a text: what stands in it, when it comes, and what all add up to."""

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from common.perplexity.protocols import eval_perplexity_exact
from datasets.vocabulary import EOS
from tests.builders import PATIENCE
from tests.train.processes import ROOT
from train import evaluate, rnnlm, surprisal
from train.run.saved_run import open_model, open_run
from train.surprisal import COLUMNS, Options, escaped, in_windows

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\na bird saw the dog\n" * 80
SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 5, "time_size": 10}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run by words, one by characters, one of a source of symbols; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT.replace("bird saw", "once said", 1), encoding="utf-8")
    for name, options in {
        "word": {"corpus": str(folder / "text.txt"), "max_vocab": 10},
        "char": {"corpus": str(folder / "text.txt"), "level": "char", "max_vocab": 15},
        "symbol": {"corpus": "markov"},
    }.items():
        rnnlm.main(rnnlm.Options(**options, out=folder / name, **SIZES))
    return folder


@pytest.fixture
def printed(runs, capsys):
    """Rows of a run's surprisals as the command prints them, and what it says at the end."""

    def printed(level="word", **options):
        capsys.readouterr()
        surprisal.main(Options(runs / level, **options))
        out, err = capsys.readouterr()
        if options.get("json"):
            return [json.loads(line) for line in out.splitlines()], err
        reader = csv.DictReader(
            io.StringIO(out), delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n"
        )
        rows = list(reader)
        assert tuple(reader.fieldnames) == COLUMNS and all(None not in row for row in rows)
        return rows, err

    return printed


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "it.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def bits_of(rows):
    return np.array([float(row["surprisal"]) for row in rows])


def places(rows):
    return [(int(row["sentence_id"]), int(row["token_id"])) for row in rows]


@pytest.mark.parametrize("level", ["word", "char", "symbol"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_mean_over_a_split_is_the_perplexity_that_evaluate_prints(
    level, split, runs, printed, capsys
):
    rows, err = printed(level, split=split, json=True)
    evaluate.main(evaluate.Options(runs / level))
    shown = re.search(rf"^{split} +([\d.]+)", capsys.readouterr().out, re.MULTILINE)[1]
    model, corpus = open_run(runs / level)
    tokens = getattr(corpus, split)
    exact = eval_perplexity_exact(model, tokens, corpus.first_id)
    assert 2 ** bits_of(rows).mean() == pytest.approx(exact, rel=1e-12)
    assert f"{exact:.2f}" == shown and f"perplexity {shown}\n" in err
    assert f"{len(tokens):,} tokens, " in err
    assert [row["token"] for row in rows] == [corpus.vocabulary.words[i] for i in tokens]


def test_the_columns_say_what_the_model_expected(runs, printed):
    rows, err = printed(split="test", best=3)
    objects, _ = printed(split="test", best=3, json=True)
    _, corpus = open_run(runs / "word")
    assert places(rows) == places(objects) and places(rows)[:7] == [(1, k) for k in range(1, 8)]
    for row, same in zip(rows, objects, strict=True):
        assert row["token"] == same["token"] and row["best"] == " ".join(same["best"])
        assert row["unk"] == str(int(same["unk"])) and int(row["rank"]) == same["rank"]
        assert float(row["surprisal"]) == pytest.approx(same["surprisal"], rel=1e-7)
        assert float(row["entropy"]) == pytest.approx(same["entropy"], rel=1e-7)
        assert len(same["best"]) == len(same["best_surprisal"]) == 3
        assert same["best_surprisal"] == sorted(same["best_surprisal"])
        if same["rank"] <= 3:
            assert same["best"][same["rank"] - 1] == same["token"]
            at = same["best_surprisal"][same["rank"] - 1]
            assert at == pytest.approx(same["surprisal"], rel=1e-4, abs=1e-5)
    assert corpus.vocab_size == 10
    unknown = sum(row["unk"] for row in objects) / len(objects)
    assert 0 < unknown < 1 and f"{100 * unknown:.3g} % of them <unk>" in err


@pytest.mark.parametrize("level", ["word", "char"])
def test_a_file_of_the_test_text_gives_the_lines_of_the_split(level, printed, runs, write):
    _, corpus = open_run(runs / level)
    of_split, summary = printed(level, split="test")
    lines = TEXT.splitlines(keepends=True)
    content = "".join(lines[-(corpus.test == corpus.eos_id).sum() :])
    for file in (content, content.replace("\n", "\r\n"), "\ufeff" + content.removesuffix("\n")):
        rows, said = printed(level, text=write(file))
        assert said == summary
        known = [row for row, same in zip(rows, of_split, strict=True) if row["unk"] == "0"]
        assert known == [row for row in of_split if row["unk"] == "0"]
        assert bits_of(rows).tolist() == bits_of(of_split).tolist()


def test_a_word_that_the_model_does_not_know_stands_there_as_it_is_written(printed, write):
    rows, _ = printed(text=write("the zebra sat\n"))
    assert [(row["token"], row["unk"]) for row in rows] == [
        *(("the", "0"), ("zebra", "1"), ("sat", "0"), (EOS, "0"))
    ]
    rows, said = printed(text=write("zebra zebra\n"))
    assert said.startswith("3 tokens, 66.7 % of them <unk>; mean surprisal ")


def test_each_sentence_alone_costs_what_it_costs_per_sentence(printed, write):
    lines = ["the cat sat on the mat .", "", "the dog ran", "the cat " * 600]  # beyond a window
    rows, _ = printed(text=write("\n".join(lines) + "\n"), per_sentence=True)
    alone = [row for line in lines if line for row in printed(text=write(line))[0]]
    expected = bits_of(alone)
    found = bits_of([row for row in rows if row["sentence_id"] != "2"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert places(rows)[7:10] == [(1, 8), (2, 1), (3, 1)]
    carried, _ = printed(text=write("\n".join(lines) + "\n"))
    np.testing.assert_allclose(bits_of(carried)[:8], bits_of(rows)[:8], rtol=1e-5)  # the first line
    assert bits_of(carried)[8] != bits_of(rows)[8]


def test_characters_that_would_end_a_column_or_a_line_are_escaped(printed, write):
    rows, _ = printed("char", text=write("a\t\\ \u2028\n"))
    assert [row["token"] for row in rows] == ["a", r"\t", r"\\", r"\x20", r"\u2028", r"\n"]
    for row in rows:
        assert len(row["best"].split(" ")) == 5
    objects, _ = printed("char", text=write("a\t\\ \u2028\n"), json=True)
    assert [row["token"] for row in objects] == ["a", "\t", "\\", " ", "\u2028", "\n"]


@pytest.mark.parametrize("token", ["\\n", "a b", "\x85", "é", "👩\u200d💻", "\x00", "'", "\u05e9"])
def test_what_is_escaped_is_a_string_of_python(token):
    assert not re.search(r"\s", escaped(token))
    assert ast.literal_eval(f'"{escaped(token)}"') == token


def test_symbols_without_an_end_of_line_are_one_sentence(printed, write):
    rows, _ = printed("symbol", text=write("abcab\nacb\n"))
    assert [row["token"] for row in rows] == list("abcabacb")
    assert places(rows) == [(1, k) for k in range(1, 9)]
    same, _ = printed("symbol", text=write("abcabacb\n"), per_sentence=True)
    assert same == rows


def test_no_guesses_and_more_than_there_are(printed, write):
    rows, _ = printed(text=write("the cat\n"), best=0)
    assert {row["best"] for row in rows} == {""}
    rows, _ = printed(text=write("the cat\n"), best=99)
    assert {len(set(row["best"].split())) for row in rows} == {10}


def test_the_model_keeps_its_state_and_the_folder_its_files(runs, printed, write):
    before = {path: path.read_bytes() for path in (runs / "word").iterdir()}
    printed(text=write("the cat\n"))
    assert {path: path.read_bytes() for path in (runs / "word").iterdir()} == before
    model, vocabulary = open_model(runs / "word")
    model.forward(*np.zeros((2, 2, 3), int))
    kept = model.get_state()
    list(
        surprisal.scored(model, vocabulary, surprisal.split_pieces(np.zeros(9, int), vocabulary), 5)
    )
    for now, was in zip(*model.get_state(), *kept, strict=True):
        np.testing.assert_array_equal(now, was)


def test_the_folder_alone_is_enough_for_a_text_of_ones_own(runs, printed, write):
    (runs / "text.txt").rename(runs / "moved.txt")
    try:
        rows, _ = printed(text=write("the cat\n"))
        assert len(rows) == 3
        of_split, _ = printed(split="test", corpus=str(runs / "moved.txt"))
        with pytest.raises(FileNotFoundError, match="--corpus or --data-dir"):
            printed(split="test")
    finally:
        (runs / "moved.txt").rename(runs / "text.txt")
    assert printed(split="test")[0] == of_split


@pytest.mark.parametrize(
    ("level", "content", "message"),
    [
        ("word", b"", "it.txt: expected text, got 0 bytes"),
        ("word", b" \n\n", "it.txt: expected text, got 3 bytes"),
        ("word", b"the\ncaf\xe9\n", "it.txt: line 2: byte 0xe9 is not UTF-8"),
        ("symbol", b"abc\nxyz\n", "it.txt: token 'x' is not among the 8 tokens"),
        ("char", b"abc\xff", "it.txt: line 1: byte 0xff is not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_read_is_an_error_that_names_it(
    level, content, message, printed, write
):
    with pytest.raises(ValueError, match=message):
        printed(level, text=write(content))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected a text: either --text FILE"),
        ({"text": "x", "split": "test"}, "expected a text: either --text FILE"),
        ({"text": "x", "corpus": "ptb"}, "--corpus and --data-dir find the text of --split"),
        ({"text": "x", "data_dir": ROOT}, "--corpus and --data-dir find the text of --split"),
        ({"split": "test", "best": -1}, "--best: expected 0 or more, got -1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message, printed):
    with pytest.raises(ValueError, match=message):
        printed(**options)


def test_windows_are_full_but_where_the_text_pauses_or_a_sentence_ends():
    def piece(*ids, pauses=False):
        return SimpleNamespace(tokens=[str(i) for i in ids], ids=np.array(ids, int), pauses=pauses)

    def cut(*pieces, end=None):
        found = list(in_windows(pieces, 3, end))
        assert all(tokens == [str(i) for i in ids] for tokens, ids in found)
        return [ids.tolist() for _, ids in found]

    assert cut(piece(1, 2), piece(3, 4, 5, 6, 7), piece(pauses=True)) == [[1, 2, 3], [4, 5, 6], [7]]
    assert cut(piece(1, 2, pauses=True), piece(3, 4), piece(5, pauses=True)) == [[1, 2], [3, 4, 5]]
    assert cut(piece(1, 0, 0, 2, 3, 4, 5), piece(0, pauses=True), end=0) == [
        *([1, 0], [0], [2, 3, 4], [5, 0])
    ]
    assert cut(piece(pauses=True)) == []


def start(runs, *arguments, level="word", **more):
    command = [sys.executable, "-m", "train.surprisal", str(runs / level), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def test_a_line_that_is_typed_is_answered_before_the_next_one(runs):
    process = start(runs, "--text", "-", stdin=subprocess.PIPE)
    with process:
        process.stdin.write("the cat\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(4)]  # it hangs here if nothing comes
        assert [line.split("\t")[2] for line in lines] == ["token", "the", "cat", EOS]
        process.stdin.write("sat")
        process.stdin.close()
        assert [line.split("\t")[:3] for line in process.stdout] == [
            ["2", "1", "sat"],
            ["2", "2", EOS],
        ]
        assert "5 tokens, 0 % of them <unk>; " in process.stderr.read()
        assert process.wait(PATIENCE) == 0


def test_a_reader_that_has_enough_ends_the_command_quietly(runs):
    """An endless text: the command ends because nobody reads, or never."""
    reader, writer = os.pipe()
    process = start(runs, "--text", "-", stdin=reader)
    os.close(reader)
    with process:
        os.write(writer, b"the cat sat\n" * 1000)
        assert process.stdout.readline().startswith("sentence_id")
        process.stdout.close()
        with pytest.raises(BrokenPipeError):
            while True:
                os.write(writer, b"the cat sat\n")
        os.close(writer)
        said = process.stderr.read()
        assert "tokens" not in said and "rror" not in said
        assert process.wait(PATIENCE) == 0


def test_standard_input_that_is_no_text_is_one_line(runs):
    process = start(runs, "--text", "-", stdin=subprocess.DEVNULL)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert err.endswith("error: text: standard input: expected text, got 0 bytes without any\n")
