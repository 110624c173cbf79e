"""Pairs of texts: those that are made, those of a file, and what is no pair."""

import re
from datetime import date

import numpy as np
import pytest

from datasets import sequence
from datasets.sequence import additions, dates, get_vocab, load_data, load_pairs

WIDTHS = {"addition.txt": (7, 5), "date.txt": (29, 11)}
every_name = pytest.mark.parametrize("name", WIDTHS)


def texts_of(pairs):
    """All pairs as texts, those for the test at the end."""
    return [
        (pairs.decode(x), pairs.decode(t))
        for xs, ts in ((pairs.x_train, pairs.t_train), (pairs.x_test, pairs.t_test))
        for x, t in zip(xs, ts, strict=True)
    ]


def write(tmp_path, text):
    path = tmp_path / "pairs.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- what is made ----


@every_name
def test_a_name_is_made_in_the_widths_of_the_book_nine_of_ten_to_learn_from(name):
    pairs = load_pairs(name, examples=1000)
    S, T = WIDTHS[name]
    assert pairs.x_train.shape == (900, S) and pairs.t_train.shape == (900, T)
    assert pairs.x_test.shape == (100, S) and pairs.t_test.shape == (100, T)
    for ids in (pairs.x_train, pairs.t_train, pairs.x_test, pairs.t_test):
        assert ids.dtype == np.int32
    assert set(pairs.t_train[:, 0]) == set(pairs.t_test[:, 0]) == {pairs.start_id}


@every_name
def test_there_are_fifty_thousand_pairs_unless_another_number_is_asked_for(name):
    (x_train, t_train), (x_test, t_test) = load_data(name)
    assert [len(ids) for ids in (x_train, t_train, x_test, t_test)] == [45_000] * 2 + [5_000] * 2
    assert len(load_data(name, examples=77)[0][0]) == 70


@every_name
def test_a_seed_makes_the_same_pairs_and_another_seed_others(name):
    first, again, other = (load_pairs(name, seed, examples=200) for seed in (5, 5, 6))
    assert texts_of(first) == texts_of(again) and first.hash() == again.hash()
    assert len({*texts_of(first)} & {*texts_of(other)}) < 20 and first.hash() != other.hash()
    assert texts_of(load_pairs(name, None, 200)) != texts_of(load_pairs(name, None, 200))


@every_name
def test_no_question_comes_twice(name):
    questions = [question for question, _ in texts_of(load_pairs(name, examples=20_000))]
    assert len(set(questions)) == len(questions) == 20_000


def test_every_sum_is_right_and_the_numbers_have_one_to_three_digits():
    pairs = additions(3000)
    lengths = np.zeros((4, 4))
    for question, answer in pairs:
        a, b = question.split("+")
        assert int(a) + int(b) == int(answer)
        assert [str(int(a)), str(int(b))] == [a, b.strip()]
        assert (len(question), len(answer)) == (7, 4)
        lengths[len(a), len(b.strip())] += 1
    assert (lengths[2:, 2:] > 200).all() and (lengths[1, 2:] > 100).all()
    assert {frozenset(q.strip().split("+")) for q, _ in pairs}.__len__() == 3000  # nor turned round


@pytest.mark.parametrize("digits", [1, 2, 5])
def test_sums_have_as_many_digits_as_asked_for(digits):
    pairs = additions(20, digits)
    assert {len(question) for question, _ in pairs} == {2 * digits + 1}
    assert {len(answer) for _, answer in pairs} == {digits + 1}
    assert max(len(part) for question, _ in pairs for part in question.split("+")) > digits - 1


def test_every_date_is_the_day_that_its_text_says():
    forms = {
        r"(?P<m>\d+)/(?P<d>\d+)/(?P<y>\d\d)": 0,
        r"(?P<month>[a-z]{3,}) (?P<d>\d+), (?P<y>\d{4})": 0,
        r"(?P<d>\d+) (?P<month>[a-z]{3,}) (?P<y>\d{4})": 0,
        r"(?P<weekday>[a-z]+), (?P<month>[a-z]{3,}) (?P<d>\d+), (?P<y>\d{4})": 0,
    }
    cases = {"lower": 0, "title": 0, "upper": 0}
    for question, answer in dates(2000):
        assert (len(question), len(answer)) == (29, 10)
        day = date.fromisoformat(answer)
        text = question.rstrip()
        for case in cases:
            cases[case] += text == getattr(text, case)() and "/" not in text
        (form,) = (form for form in forms if re.fullmatch(form, text, re.IGNORECASE))
        forms[form] += 1
        said = re.fullmatch(form, text.lower()).groupdict()
        assert int(said["d"]) == day.day and int(said["y"]) % 100 == day.year % 100
        if "m" in said:
            assert int(said["m"]) == day.month
        else:
            assert said["month"] in (f"{day:%B}".lower(), f"{day:%b}".lower())
        if "weekday" in said:
            assert said["weekday"] == f"{day:%A}".lower()
        assert 1970 <= day.year <= 2029
    assert min(forms.values()) > 300 and min(cases.values()) > 400


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: additions(0), "additions: expected 1 to 250250 examples of 3 digits at most, got"),
        (lambda: additions(250_251), "expected 1 to 250250 examples .* got 250251"),
        (lambda: additions(28, digits=1), "expected 1 to 27 examples of 1 digits at most, got 28"),
        (lambda: additions(5, digits=0), "additions: expected 1 to 9 digits, got 0"),
        (lambda: dates(0), "dates: expected 1 to 200000 examples, got 0"),
        (lambda: dates(200_001), "dates: expected 1 to 200000 examples, got 200001"),
        (lambda: load_pairs("date.txt", examples=9), "date.txt: expected 10 pairs or more, .* 9"),
    ],
)
def test_a_number_of_examples_that_cannot_be_made_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_half_of_all_sums_can_be_had():
    assert len(set(additions(27, digits=1))) == 27
    assert len(set(additions(2525, digits=2))) == 2525


# ---- texts and ids ----


def test_get_vocab_speaks_of_what_was_loaded_last(monkeypatch):
    monkeypatch.setattr(sequence, "_loaded", None)
    with pytest.raises(RuntimeError, match="get_vocab: expected load_data to be called first"):
        get_vocab()
    load_data("date.txt", examples=500)
    (x_train, t_train), _ = load_data("addition.txt", examples=500)
    char_to_id, id_to_char = get_vocab()
    assert set(char_to_id) == set("0123456789+ _")
    assert id_to_char == {k: char for char, k in char_to_id.items()}
    assert sorted(id_to_char) == list(range(13))
    question, answer = ("".join(id_to_char[k] for k in ids[3]) for ids in (x_train, t_train))
    assert eval(question.strip()) == int(answer[1:])


def test_a_reader_of_the_book_may_name_the_file_by_keyword():
    (x_train, _), _ = load_data(file_name="date.txt", seed=3, examples=20)
    assert x_train.shape == (18, 29)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_cannot_shuffle_is_refused(seed):
    with pytest.raises(ValueError, match=rf"sequence: expected a seed from 0 to .*, got {seed}$"):
        load_pairs("addition.txt", seed, 20)


def test_the_call_without_a_name_loads_additions():
    (x_train, _), _ = load_data()
    assert x_train.shape == (45_000, 7)


def test_ids_count_the_characters_in_the_order_of_a_file(tmp_path):
    lines = [f"b{k}_a" for k in range(10)]
    pairs = load_pairs(write(tmp_path, "\n".join(lines)))
    assert "".join(pairs.char_to_id) == "b0_a123456789"
    assert pairs.decode(pairs.t_test[0]) == "_a"


# ---- a file of one's own ----


def test_a_file_comes_back_filled_up_with_blanks_whatever_its_script(tmp_path):
    lines = [
        f"{word} {k}_{k}{'!' * k}" for k, word in enumerate(["eins", "zwei", "drei", "귤"] * 5)
    ]
    pairs = load_pairs(write(tmp_path, "\ufeff" + "\r\n".join(lines) + "\r\n"))
    S, T = max(len(line.split("_")[0]) for line in lines), 1 + 2 + 19
    assert pairs.x_train.shape == (18, S) and pairs.t_test.shape == (2, T)
    expected = {(s.ljust(S), f"_{t}".ljust(T)) for s, t in (line.split("_") for line in lines)}
    assert set(texts_of(pairs)) == expected


def test_a_file_in_the_format_of_the_book_keeps_its_widths_and_order(tmp_path):
    lines = [f"{question}_{answer}" for question, answer in additions(300, seed=1)]
    path = write(tmp_path, "\n".join(lines) + "\n")
    shuffled = texts_of(load_pairs(path, seed=1984))
    order = np.arange(300)
    np.random.RandomState(1984).shuffle(order)  # what the book does
    assert [q + a for q, a in shuffled] == [lines[k] for k in order]
    assert texts_of(load_pairs(path, seed=2)) != shuffled


def test_a_name_is_never_a_file_unless_it_is_written_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date.txt").write_text("\n".join(f"{k}_x" for k in range(10)))
    assert load_pairs("date.txt", examples=10).x_train.shape == (9, 29)
    assert load_pairs("./date.txt").x_train.shape == (9, 1)


FINE = "\n".join(f"{k}_{k}" for k in range(12))


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        (f"{FINE}\n5+5=10", 13, "5+5=10"),
        (f"1_2_3\n{FINE}", 1, "1_2_3"),
        (f"1__3\n{FINE}", 1, "1__3"),
        (f"_5\n{FINE}", 1, "_5"),
        (f"  _5\n{FINE}", 1, "  _5"),
        (f"5_\n{FINE}", 1, "5_"),
        (f"5_  \n{FINE}", 1, "5_  "),
        (f"{FINE}\n\n1_1", 13, ""),
    ],
)
def test_a_line_that_is_no_pair_is_named_and_shown(text, line, shown, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as error:
        load_pairs(path)
    message = str(error.value)
    assert message.startswith(f"sequence: {path}: line {line}: expected source_target with one '_'")
    assert message.endswith(f"got {shown!r}")


def test_blank_lines_at_the_end_are_left_out(tmp_path):
    assert texts_of(load_pairs(write(tmp_path, FINE + "\n\n\n"))) == texts_of(
        load_pairs(write(tmp_path, FINE))
    )


def test_a_long_line_is_not_shown_whole(tmp_path):
    with pytest.raises(ValueError) as error:
        load_pairs(write(tmp_path, 10_000 * "x"))
    assert len(str(error.value)) < 400


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected 10 pairs or more, since one of 10 .* got 9"):
        load_pairs(write(tmp_path, "\n".join(9 * ["a_b"])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected text"),
        (b"\n\n", "expected text"),
        (b"caf\xe9_coffee\n", "line 1: byte 0xe9 is not UTF-8"),
        (b"\x1f\x8b broken", "not an intact gzip file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_pairs(write(tmp_path, content))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a text file, got the folder"):
        load_pairs(tmp_path)


@pytest.mark.parametrize("name", ["additon.txt", "", "addition"])
def test_neither_a_name_nor_a_file_is_answered_by_the_names(name):
    with pytest.raises(FileNotFoundError, match=r"expected addition\.txt, date\.txt, or the path"):
        load_pairs(name)


def test_examples_of_a_file_are_all_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"is read as it is; only addition\.txt and date\.txt are"):
        load_pairs(write(tmp_path, FINE), examples=10)
