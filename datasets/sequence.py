"""Pairs of texts: what is read, and what is to be written. Additions and dates are made here.

    addition.txt    "57+5   "                        "_62  "
    date.txt        "september 27, 1994           "  "_1994-09-27"

A file of your own has a pair on every line, ``source_target``. The id of "_" is where every answer
begins. Each of the two sides is filled up with blanks to the width of its longest text.

``load_data`` and ``get_vocab`` are called as in "Deep Learning from Scratch 2"; ``load_pairs``
gives both at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.text import read_lines
from datasets.vocabulary import Vocabulary

__all__ = ["NAMES", "Pairs", "additions", "dates", "get_vocab", "load_data", "load_pairs"]

Drawn = TypeVar("Drawn")
Splits = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

START = "_"
EXAMPLES = 50_000
SEEDS = 2**32  # so many has the generator by which the book shuffles
TEST_SHARE = 10  # of so many pairs one is for the test

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
CASES: tuple[Callable[[str], str], ...] = (str.lower, str.title, str.upper)
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2029, 12, 31)  # two digits name the year
FORMS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day.month}/{day.day}/{day.year % 100:02}",
    lambda day: f"{MONTHS[day.month - 1]} {day.day}, {day.year}",
    lambda day: f"{MONTHS[day.month - 1][:3]} {day.day}, {day.year}",
    lambda day: f"{day.day} {MONTHS[day.month - 1]} {day.year}",
    lambda day: f"{WEEKDAYS[day.weekday()]}, {MONTHS[day.month - 1]} {day.day}, {day.year}",
)
MOST_DATES = 200_000  # of 284,895 texts that differ


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs as ids, nine of ten to learn from, one to be asked about.

    Args:
        x_train: int32 ids of what is read (pairs, S).
        t_train: of what is to be written (pairs, T + 1), from "_" on.
        x_test: like ``x_train``.
        t_test: like ``t_train``.
        char_to_id: the id of each character.
        id_to_char: the character of each id.
    """

    x_train: np.ndarray
    t_train: np.ndarray
    x_test: np.ndarray
    t_test: np.ndarray
    char_to_id: dict[str, int]
    id_to_char: dict[int, str]

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters in the order of their ids."""
        return Vocabulary(tuple(self.char_to_id), "char")

    @property
    def start_id(self) -> int:
        """The id of "_"."""
        return self.char_to_id[START]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids."""
        return "".join(self.id_to_char[int(k)] for k in ids)

    def hash(self) -> str:
        """SHA-256 of the characters and of all ids in their order, in hexadecimal."""
        digest = hashlib.sha256("".join(self.char_to_id).encode())
        for ids in (self.x_train, self.t_train, self.x_test, self.t_test):
            digest.update(repr(ids.shape).encode() + np.ascontiguousarray(ids, "<i4").tobytes())
        return digest.hexdigest()


def additions(
    examples: int = EXAMPLES, digits: int = 3, seed: int | None = 1984
) -> list[tuple[str, str]]:
    """Sums of two numbers, ("57+5   ", "62  ").

    The number of digits of each is drawn first, from 1 to ``digits``. No two are the same sum, not
    in turned order either.

    Args:
        examples: how many.
        digits: of the larger numbers.
        seed: decides which; None for others each time.

    Raises:
        ValueError: for a number below 1, more than 9 digits, or more than half of all the sums that
            there are.
    """
    if not 1 <= digits <= 9:
        raise ValueError(f"additions: expected 1 to 9 digits, got {digits}")
    most = 10**digits * (10**digits + 1) // 4
    if not 1 <= examples <= most:
        raise ValueError(
            f"additions: expected 1 to {most} examples of {digits} digits at most, got {examples}"
        )
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[tuple[int, int]]:
        lengths = rng.integers(1, digits + 1, (count, 2))
        least = np.where(lengths == 1, 0, 10 ** (lengths - 1))
        return [(int(a), int(b)) for a, b in rng.integers(least, 10**lengths)]

    found = _different(examples, draw, lambda pair: (min(pair), max(pair)))
    width = 2 * digits + 1
    return [(f"{a}+{b}".ljust(width), str(a + b).ljust(digits + 1)) for a, b in found]


def dates(examples: int = EXAMPLES, seed: int | None = 1984) -> list[tuple[str, str]]:
    """Days from 1970 to 2029 in 13 forms, ("SEP 27, 1994" and blanks to 29, "1994-09-27").

    As 9/27/94; or with the month by its name, by three letters of it, behind the day, or behind the
    day of the week, each in small, in large and in mixed letters. No two are the same text.

    Args:
        examples: how many.
        seed: decides which; None for others each time.

    Raises:
        ValueError: for a number below 1, or above 200,000.
    """
    if not 1 <= examples <= MOST_DATES:
        raise ValueError(f"dates: expected 1 to {MOST_DATES} examples, got {examples}")
    rng = np.random.default_rng(seed)
    days = (LAST_DAY - FIRST_DAY).days + 1

    def draw(count: int) -> list[tuple[str, str]]:
        chosen = rng.integers(0, [days, len(FORMS), len(CASES)], (count, 3))
        drawn = []
        for after, form, case in chosen.tolist():
            day = FIRST_DAY + timedelta(after)
            drawn.append((CASES[case](FORMS[form](day)), day.isoformat()))
        return drawn

    found = _different(examples, draw, lambda pair: pair[0])
    width = len("wednesday, september 27, 1994")
    return [(text.ljust(width), target) for text, target in found]


def _different(
    number: int, draw: Callable[[int], list[Drawn]], key: Callable[[Drawn], object]
) -> list[Drawn]:
    """The first ``number`` of what ``draw`` gives whose ``key`` has not occurred before."""
    found: dict[object, Drawn] = {}
    while len(found) < number:
        for each in draw(number):
            found.setdefault(key(each), each)
    return list(found.values())[:number]


MADE: dict[str, Callable[[int, int | None], list[tuple[str, str]]]] = {
    "addition.txt": lambda examples, seed: additions(examples, seed=seed),
    "date.txt": lambda examples, seed: dates(examples, seed),
}
NAMES = tuple(MADE)


def load_pairs(
    name_or_path: str | os.PathLike[str],
    seed: int | None = 1984,
    examples: int | None = None,
) -> Pairs:
    """Make "addition.txt" or "date.txt", or read a file of pairs; shuffle, and cut off a tenth.

    The characters have their ids in the order in which they occur. A file is shuffled as in "Deep
    Learning from Scratch 2": of its files come the same arrays.

    Args:
        name_or_path: one of the two names, for which there is no file (``./date.txt`` is one); or
            the path of a UTF-8 file with ``source_target`` on each line.
        seed: decides which examples are made, and the order; None for others each time.
        examples: how many are made; None for 50,000.

    Raises:
        FileNotFoundError: for neither a name nor a file.
        ValueError: for a line that is no pair, fewer than 10 pairs, ``examples`` of a file, a seed
            out of range, or see ``additions``, ``dates`` and ``datasets.text``.
    """
    name = os.fspath(name_or_path)
    if seed is not None and not 0 <= seed < SEEDS:
        raise ValueError(f"sequence: expected a seed from 0 to {SEEDS - 1}, got {seed}")
    if name in MADE:
        texts = MADE[name](EXAMPLES if examples is None else examples, seed)
    elif examples is not None:
        raise ValueError(f"sequence: {name} is read as it is; only {' and '.join(NAMES)} are made")
    else:
        texts = _read_pairs(name)
    if len(texts) < TEST_SHARE:
        raise ValueError(
            f"sequence: {name}: expected {TEST_SHARE} pairs or more, since one of {TEST_SHARE} is "
            f"for the test, got {len(texts)}"
        )
    characters = dict.fromkeys(
        char for source, target in texts for char in (*source, START, *target)
    )
    char_to_id = {char: k for k, char in enumerate(characters)}
    x, t = (
        np.array([[char_to_id[char] for char in text] for text in side], np.int32)
        for side in ([source for source, _ in texts], [START + target for _, target in texts])
    )
    order = np.random.RandomState(seed).permutation(len(texts))
    train, test = np.split(order, [len(order) - len(order) // TEST_SHARE])
    id_to_char = dict(enumerate(char_to_id))
    return Pairs(x[train], t[train], x[test], t[test], char_to_id, id_to_char)


def _read_pairs(name: str) -> list[tuple[str, str]]:
    """The pairs of a file, each side filled up with blanks."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise FileNotFoundError(
            f"sequence: expected {', '.join(NAMES)}, or the path of a file of pairs; got {name!r}, "
            "and there is no such file"
        )
    sources, targets = [], []
    text = "".join(read_lines(path, "char")).rstrip("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        source, *rest = line.split(START)
        if len(rest) != 1 or not source.strip() or not rest[0].strip():
            raise ValueError(
                f"sequence: {path}: line {number}: expected source{START}target with one "
                f"{START!r} and text on both sides, got {line[:80]!r}"
            )
        sources.append(source)
        targets.append(rest[0])
    widths = (max(map(len, side)) for side in (sources, targets))
    padded = (
        [text.ljust(width) for text in side]
        for side, width in zip((sources, targets), widths, strict=True)
    )
    return list(zip(*padded, strict=True))


_loaded: Pairs | None = None  # what get_vocab speaks of


def load_data(
    file_name: str | os.PathLike[str] = "addition.txt",
    seed: int | None = 1984,
    examples: int | None = None,
) -> Splits:
    """``(x_train, t_train), (x_test, t_test)`` of the ``load_pairs`` of these arguments."""
    global _loaded
    _loaded = pairs = load_pairs(file_name, seed, examples)
    return (pairs.x_train, pairs.t_train), (pairs.x_test, pairs.t_test)


def get_vocab() -> tuple[dict[str, int], dict[int, str]]:
    """``char_to_id`` and ``id_to_char`` of what ``load_data`` has loaded last.

    Raises:
        RuntimeError: where it has loaded nothing yet.
    """
    if _loaded is None:
        raise RuntimeError("get_vocab: expected load_data to be called first")
    return _loaded.char_to_id, _loaded.id_to_char
