"""What is said of every token: quotations, places, capitals, word classes."""

import pytest

from train.inspection.properties import (
    inside_quotation,
    place_in_line,
    properties,
    read_word_classes,
)


def marked(text, inside):
    """The characters for which it is so, the others as dots."""
    return "".join(c if yes else "." for c, yes in zip(text, inside, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a "bc" d "e', '.."bc...."e'),
        ("a “b” c", "..“b..."),
        ("«b»c", "«b.."),
        ("don't", "....."),
        ('a "b\nc\n\nd "e"', '.."b\nc\n..."e.'),  # a blank line ends it
    ],
)
def test_a_quotation_is_open_from_its_first_mark_to_before_its_last(text, expected):
    assert marked(text, inside_quotation(list(text))) == expected


def test_words_have_marks_beside_their_letters_and_the_treebanks():
    words = ['"well', "it", 'is"', "``", "so", "''", "he", '"said"', "<eos>"]
    found = inside_quotation(words).tolist()
    assert found == [True, True, False, True, True, False, False, False, False]


def test_places_begin_anew_after_the_end_of_a_line():
    assert place_in_line(["the", "cat", "<eos>", "a", "<eos>", "<eos>"]).tolist() == [
        1,
        2,
        3,
        1,
        2,
        1,
    ]
    assert place_in_line(list("ab\nc")).tolist() == [1, 2, 3, 1]


def test_a_word_is_of_a_class_if_all_of_it_matches():
    classes = read_word_classes(["article=the|a", "past=.*ed"])
    *_, article, past = properties(["the", "a", "They", "ended", "edited.", "A"], "word", classes)
    assert article.values.tolist() == [True, True, False, False, False, False]
    assert past.values.tolist() == [False, False, False, True, False, False]
    assert (article.name, past.name) == ("article", "past")


def test_a_character_is_of_a_class_if_it_lies_in_a_match():
    text = "in 1987 , 3 of 20"
    (*_, number) = properties(list(text), "char", read_word_classes(["number=[0-9]+"]))
    assert marked(text, number.values) == "...1987...3....20"
    (*_, article) = properties(list("the then"), "char", read_word_classes([r"the=\bthe\b"]))
    assert marked("the then", article.values) == "the....."
    tokens = ["a", "<unk>", "b"]  # a token of several characters
    (*_, found) = properties(tokens, "char", read_word_classes(["b=b|x*"]))
    assert found.values.tolist() == [False, False, True]


def test_capitals():
    words = properties(["The", "McGee", "the", "1987", "É"], "word", {})[2]
    assert words.values.tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["digits"], "expected NAME=REGEX, got 'digits'"),
        (["=x"], "expected NAME=REGEX"),
        (["a="], "expected NAME=REGEX"),
        (["a=x", "a=y"], "every name once, got 'a' twice"),
        (["a=("], r"--word-class a: '\(' is none: .*unterminated"),
    ],
)
def test_classes_that_are_none_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read_word_classes(given)
