"""``python -m train.memory`` from options to run folder, on a short sentence."""

import json

import numpy as np
import pytest

from train import memory
from train.memory import ALPHABET, SENTENCE, VARIANTS, Options, compare, encode

QUICK = {"sentence": "to be, or not", "starts": 2, "epochs": 40, "hidden_size": 12}


def run(tmp_path, **options):
    out = tmp_path / "run"
    memory.main(Options(out=out, **{**QUICK, **options}))
    return out


def test_every_variant_leaves_its_numbers_and_one_figure_shows_them(tmp_path, capsys):
    out = run(tmp_path)
    names = {"config.json", "log.jsonl", "checkpoint.safetensors", "results.json", "memory.png"}
    assert {path.name for path in out.iterdir()} == names
    networks = json.loads((out / "results.json").read_text())["networks"]
    assert len(networks) == 2 * len(VARIANTS)
    for network in networks:
        assert np.isfinite(network["loss"])
        for recitation in network["recitations"].values():
            assert 0 <= recitation["given_back"] <= recitation["right"] <= 14
            assert len(recitation["said"]) == 14
    fed = [list(network["recitations"]) for network in networks]
    assert fed == 6 * [["one-hot", "raw"]] + 6 * [["one-hot"]]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log] == 2 * len(VARIANTS) * [20, 40]
    printed = capsys.readouterr().out
    assert "14 letters with the end mark ($), alphabet 10, hidden units 12" in printed
    assert all(f"{variant.name}: loss" in printed for variant in VARIANTS)
    assert "published" not in printed  # that was another sentence
    assert printed.endswith(f"memory saved to {out / 'memory.png'}\n")


def test_one_seed_writes_one_result(tmp_path):
    results = [
        (run(tmp_path / name, epochs=3, seed=seed) / "results.json").read_text()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert results[0] == results[1] != results[2]


def test_the_built_in_sentence_stands_beside_what_was_published(tmp_path, capsys):
    run(tmp_path, sentence=SENTENCE, epochs=2, starts=1)
    printed = capsys.readouterr().out
    assert "69 letters with the end mark ($), alphabet 35" in printed
    assert printed.count("  published ") == 3
    assert "hello pytorch. how eonn ceml r yr" in printed


def test_the_published_recitations_are_counted():
    published = [v.published_recitation for v in VARIANTS if v.published_recitation]
    assert [len(said) for said in published] == [68, 68, 68]
    assert [compare(s, s, SENTENCE).given_back for s in published] == [19, 4, 1]


@pytest.mark.parametrize(
    ("said", "given_back", "right"),
    [("abc", 3, 3), ("abx", 2, 2), ("xbc", 0, 2), ("ab", 2, 2), ("", 0, 0)],
)
def test_letters_count_up_to_the_first_mistake_and_in_all(said, given_back, right):
    assert compare(said, said, "abc") == memory.Recitation(said, given_back, right)


def test_the_marks_are_no_letters_of_the_alphabet():
    ids, letters = encode(Options())
    assert (len(letters), letters[-2:]) == (35, ["^", "$"])
    assert "".join(letters[i] for i in ids) == f"^{SENTENCE}$"
    assert "".join(letters[:-2]) == ALPHABET
    ids, letters = encode(Options(sentence="01$^é"))
    assert len(letters) == 7
    assert len(set(ids)) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sentence": ""}, "expected a sentence of one letter or more"),
        ({"alphabet": "abc"}, "token 't' is not among the 5 tokens"),
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        ({"starts": 0}, "--starts: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_sentence_of_one_letter_is_enough(tmp_path):
    out = run(tmp_path, sentence="a", epochs=1, starts=1)
    networks = json.loads((out / "results.json").read_text())["networks"]
    assert all(np.isfinite(network["loss"]) for network in networks) and networks


@pytest.mark.slow
def test_each_way_to_feed_answers_back_is_what_the_table_says(tmp_path):
    out = run(tmp_path, sentence=SENTENCE, starts=1, epochs=300, hidden_size=35)
    networks = json.loads((out / "results.json").read_text())["networks"]
    for network in networks:
        said = network["recitations"]["one-hot"]
        whole = said["said"] == SENTENCE + "$"
        assert (said["given_back"] == said["right"] == 69) == whole
        assert not whole or network["whole_from"] in range(20, 301, 20)
