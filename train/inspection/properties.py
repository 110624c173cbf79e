"""What can be said of every token of a text, and a unit may have learned to follow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from datasets.vocabulary import EOS, Level

__all__ = ["Property", "properties", "read_word_classes"]

OPEN, SHUT, EITHER = {"“", "«", "„", "``"}, {"”", "»", "''"}, {'"'}
QUOTES = re.compile("|".join(map(re.escape, sorted(OPEN | SHUT | EITHER, key=len, reverse=True))))


@dataclass(frozen=True, eq=False)
class Property:
    """Something that is so or not so, or a number, after every token of a text.

    Args:
        name: for a heading.
        about: a sentence that says what is meant.
        values: (T,), bool or int32.
    """

    name: str
    about: str
    values: numpy.ndarray


def read_word_classes(given: Sequence[str]) -> dict[str, re.Pattern[str]]:
    """The regular expression of each ``NAME=REGEX``, by its name.

    Raises:
        ValueError: for something of another form, a name that is there twice, or an expression that
            is none.
    """
    found: dict[str, re.Pattern[str]] = {}
    for each in given:
        name, equals, pattern = each.partition("=")
        if not (equals and name.strip() and pattern):
            raise ValueError(f"--word-class: expected NAME=REGEX, got {each!r}")
        if name in found:
            raise ValueError(f"--word-class: expected every name once, got {name!r} twice")
        try:
            found[name] = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"--word-class {name}: {pattern!r} is none: {error}") from error
    return found


def properties(
    tokens: Sequence[str], level: Level, word_classes: Mapping[str, re.Pattern[str]]
) -> list[Property]:
    """What is looked for in every text, and the word classes.

    Args:
        tokens: of the text, as written.
        level: see ``Vocabulary``.
        word_classes: by name. A word belongs to one if the whole word matches; a character does if
            it lies in a part of the text that matches.
    """
    unit = "character" if level == "char" else "word"
    found = [
        Property(
            "quotation marks",
            f"inside a quotation: from the mark that opens it to the {unit} before the one that "
            "closes it; a blank line ends it, too",
            inside_quotation(tokens),
        ),
        Property(
            "place in the line",
            f"the number of the {unit} in its line, from 1",
            place_in_line(tokens),
        ),
        Property(
            "capital letters",
            f"the {unit} {'is' if level == 'char' else 'has'} a capital letter",
            numpy.array([any(map(str.isupper, token)) for token in tokens], bool),
        ),
    ]
    for name, pattern in word_classes.items():
        where = "lies in a match of" if level == "char" else "matches"
        member = _in_a_match(tokens, pattern) if level == "char" else _matches(tokens, pattern)
        found.append(Property(name, f"the {unit} {where} {pattern.pattern}", member))
    return found


def inside_quotation(tokens: Sequence[str]) -> numpy.ndarray:
    """Whether a quotation is open after each token, bool (T,).

    A plain mark opens where none is open, and closes where one is. Single marks are left out: most
    are apostrophes.
    """
    inside = numpy.zeros(len(tokens), bool)
    is_open, ends = False, 0
    for t, token in enumerate(tokens):
        for mark in QUOTES.findall(token):
            is_open = mark in OPEN or (mark in EITHER and not is_open)
        ends = ends + 1 if _ends_line(token) else 0
        is_open = is_open and ends < 2
        inside[t] = is_open
    return inside


def place_in_line(tokens: Sequence[str]) -> numpy.ndarray:
    """The number of each token in its line, from 1; the end of a line belongs to it. int32 (T,)."""
    place = numpy.zeros(len(tokens), "int32")
    at = 0
    for t, token in enumerate(tokens):
        place[t] = at = at + 1
        if _ends_line(token):
            at = 0
    return place


def _ends_line(token: str) -> bool:
    return token in (EOS, "\n")


def _matches(tokens: Sequence[str], pattern: re.Pattern[str]) -> numpy.ndarray:
    return numpy.array([pattern.fullmatch(token) is not None for token in tokens], bool)


def _in_a_match(tokens: Sequence[str], pattern: re.Pattern[str]) -> numpy.ndarray:
    """Whether each token, a character or <unk>, lies in a match in the text that they make."""
    ends = numpy.cumsum([len(token) for token in tokens])
    covered = numpy.zeros(len(tokens), bool)
    for match in pattern.finditer("".join(tokens)):
        if match.end() > match.start():
            inside = match.start(), match.end() - 1
            first, last = numpy.searchsorted(ends, inside, side="right")
            covered[first : last + 1] = True
    return covered
