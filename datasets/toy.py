"""Small tasks with known answers, one for each shape of recurrence, made from a seed.

    blood_pressure  one to one              a person's measures -> low, normal or high
    digit_names     one to many             a noisy picture of a digit -> its name, letter by letter
    opinions        many to one             a review -> negative, mixed or positive
    sums            many, read then write   27+45 -> 72
    running_parity  many, step by step      bits -> after each: is the number of ones so far odd?

``last_words`` makes one from sentences of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Task",
    "blood_pressure",
    "digit_names",
    "last_words",
    "opinions",
    "running_parity",
    "sums",
]

# Mean and spread of height in m, weight in kg and age in years.
PERSON_MEAN = np.array([1.7, 70, 50])
PERSON_SPREAD = np.array([0.1, 15, 17.3])

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PICTURES = """
.#. .#. ##. ##. #.# ### .## ### .#. .#.
#.# ##. ..# ..# #.# #.. #.. ..# #.# #.#
#.# .#. .#. .#. ### ##. ##. .#. .#. .##
#.# .#. #.. ..# ..# ..# #.# .#. #.# ..#
.#. ### ### ##. ..# ##. .#. .#. .#. ##.
"""
NOISE = 0.25

WORDS = ("the", "film", "is", "very", "and", "good", "bad", "not")
GOOD, BAD, NOT = (WORDS.index(word) for word in ("good", "bad", "not"))


@dataclass(frozen=True, eq=False)
class Task:
    """Examples to learn from, and others to be asked about.

    Args:
        about: What is to be learnt, in a few words.
        x: float32 of shape (examples, D), or (examples, T, D) where a sequence is read.
        t: ids of the answers, int32 of shape (examples,), or (examples, S) for a sequence.
        x_test: Like ``x``; what the model has not seen.
        t_test: Like ``t``.
        inputs: What the columns of ``x`` mean, D names.
        answers: What the ids mean, V names.
    """

    about: str
    x: np.ndarray
    t: np.ndarray
    x_test: np.ndarray
    t_test: np.ndarray
    inputs: tuple[str, ...]
    answers: tuple[str, ...]


def blood_pressure(seed: int = 0, train_size: int = 3000, test_size: int = 1000) -> Task:
    """Height, weight and age -> low, normal or high blood pressure, by ``pressure_rule``.

    The people are made up, and so is the rule. ``x`` is (measure - PERSON_MEAN) / PERSON_SPREAD.

    Raises:
        ValueError: A size is below 1.
    """
    size = _sum_of_sizes("blood_pressure", train_size, test_size)
    x = np.random.default_rng(seed).standard_normal((size, 3))
    x[:, 2] = np.clip(x[:, 2], -1.7, 1.7)  # 20 to 80 years
    body_mass, age = body_mass_and_age(x)
    return _split(
        "height, weight, age -> blood pressure",
        x,
        pressure_rule(body_mass, age),
        train_size,
        ("height", "weight", "age"),
        ("low", "normal", "high"),
    )


def body_mass_and_age(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """weight / height² in kg/m², and years, of the people (examples, 3) of ``blood_pressure``."""
    height, weight, age = (PERSON_MEAN + PERSON_SPREAD * x).T
    return weight / height**2, age


def pressure_rule(body_mass: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Low (0) below a body mass of 20; high (2) above 28, and over 50 years above 23."""
    is_high = (body_mass > 28) | ((age > 50) & (body_mass > 23))
    return np.where(body_mass < 20, 0, np.where(is_high, 2, 1))


def digit_names(seed: int = 0, train_size: int = 2000, test_size: int = 1000) -> Task:
    """A digit of 5 x 3 pixels, 0 or 1 and normal noise on each -> its name, padded with spaces.

    Raises:
        ValueError: A size is below 1.
    """
    size = _sum_of_sizes("digit_names", train_size, test_size)
    rng = np.random.default_rng(seed)
    lines = [line.split() for line in PICTURES.split("\n")[1:-1]]
    pictures = np.array([[pixel == "#" for line in lines for pixel in line[k]] for k in range(10)])
    letters = (" ", *sorted(set("".join(NAMES))))
    width = max(map(len, NAMES))
    names = np.array([_ids(name.ljust(width), letters) for name in NAMES])
    digits = rng.integers(0, 10, size)
    x = pictures[digits] + NOISE * rng.standard_normal((size, pictures.shape[1]))
    pixels = tuple(f"row {k // 3}, column {k % 3}" for k in range(pictures.shape[1]))
    return _split("picture of a digit -> its name", x, names[digits], train_size, pixels, letters)


def opinions(seed: int = 0, train_size: int = 4000, test_size: int = 1000, length: int = 8) -> Task:
    """A review of ``length`` words -> negative, mixed or positive.

    "good" counts 1 and "bad" -1; "not" turns the next of the two round, so their order matters.

    Raises:
        ValueError: A size is below 1, or there are not that many different reviews.
    """
    size = _sum_of_sizes("opinions", train_size, test_size)
    rng = np.random.default_rng(seed)
    p = np.where(np.isin(np.arange(len(WORDS)), (GOOD, BAD, NOT)), 0.2, 0.08)
    reviews = rng.permutation(np.unique(rng.choice(len(WORDS), (2 * size, length), p=p), axis=0))
    if len(reviews) < size:
        raise ValueError(f"opinions: expected at most {len(reviews)} reviews, got {size}")
    reviews = reviews[:size]
    x = np.eye(len(WORDS))[reviews]
    answers = ("negative", "mixed", "positive")
    return _split("a review -> its opinion", x, opinion_rule(reviews), train_size, WORDS, answers)


def opinion_rule(reviews: np.ndarray) -> np.ndarray:
    """Negative (0), mixed (1) or positive (2), of reviews as ids (examples, length)."""
    score, sign = np.zeros(len(reviews), np.int32), np.ones(len(reviews), np.int32)
    for words in reviews.T:
        value = np.where(words == GOOD, 1, np.where(words == BAD, -1, 0))
        score += sign * value
        sign = np.where(words == NOT, -sign, np.where(value != 0, 1, sign))
    return np.sign(score) + 1


def sums(seed: int = 0, train_size: int = 9000, test_size: int = 1000) -> Task:
    """Two numbers below 100 as text, "27+45" -> their sum, "72", its ones first.

    Ones first is how one adds on paper: the carry is then at hand. Both texts are padded with
    spaces, the sum to three places. No pair that is asked about is among those learnt from.

    Raises:
        ValueError: A size is below 1, or both together are above 10,000.
    """
    size = _sum_of_sizes("sums", train_size, test_size)
    if size > 10_000:
        raise ValueError(f"sums: expected at most 10000 pairs of numbers, got {size}")
    pairs = np.random.default_rng(seed).permutation(10_000)[:size]
    answers = tuple("0123456789 ")
    inputs = (*answers, "+")
    texts = [f"{pair // 100}+{pair % 100}".rjust(5) for pair in pairs]
    x = np.eye(len(inputs))[[_ids(text, inputs) for text in texts]]
    t = np.array([_ids(str(pair // 100 + pair % 100)[::-1].ljust(3), answers) for pair in pairs])
    return _split("27+45 -> 72, as text", x, t, train_size, inputs, answers)


def running_parity(
    seed: int = 0,
    train_size: int = 1000,
    test_size: int = 300,
    length: int = 10,
    test_length: int = 40,
) -> Task:
    """Bits -> after each, whether the number of ones so far is even (0) or odd (1).

    The sequences that are asked about are longer than any that was learnt from.

    Raises:
        ValueError: A size is below 1.
    """
    _sum_of_sizes("running_parity", train_size, test_size)
    rng = np.random.default_rng(seed)
    bits, bits_test = (
        rng.integers(0, 2, shape) for shape in ((train_size, length), (test_size, test_length))
    )
    (x, t), (x_test, t_test) = (
        (np.eye(2, dtype=np.float32)[b], (b.cumsum(axis=1) % 2).astype(np.int32))
        for b in (bits, bits_test)
    )
    return Task("bits -> odd so far?", x, t, x_test, t_test, ("0", "1"), ("even", "odd"))


def last_words(sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The last word of each sentence, to be found from those before it.

    Returns:
        One-hot rows of all words but the last, float32 of shape (sentences, T, V); ids of the last
        words, int32 of shape (sentences,); and the V words, in the order of their first appearance.

    Raises:
        ValueError: No sentence, one of a single word, or two of different lengths.
    """
    split = [sentence.split() for sentence in sentences]
    if not split:
        raise ValueError("last_words: expected at least one sentence, got none")
    for sentence, words in zip(sentences, split, strict=True):
        if len(words) < 2:
            raise ValueError(
                f"last_words: expected two words or more in a sentence, got {sentence!r}"
            )
        if len(words) != len(split[0]):
            raise ValueError(
                f"last_words: expected sentences of one length; {sentences[0]!r} has "
                f"{len(split[0])} words, {sentence!r} has {len(words)}"
            )
    vocabulary = tuple(dict.fromkeys(word for words in split for word in words))
    ids = np.array([[vocabulary.index(word) for word in words] for words in split], np.int32)
    return np.eye(len(vocabulary), dtype=np.float32)[ids[:, :-1]], ids[:, -1], vocabulary


def _ids(text: Sequence[str], symbols: Sequence[str]) -> list[int]:
    return [symbols.index(symbol) for symbol in text]


def _sum_of_sizes(who: str, train_size: int, test_size: int) -> int:
    if min(train_size, test_size) < 1:
        raise ValueError(f"{who}: expected sizes of at least 1, got {train_size} and {test_size}")
    return train_size + test_size


def _split(
    about: str,
    x: np.ndarray,
    t: np.ndarray,
    train_size: int,
    inputs: tuple[str, ...],
    answers: tuple[str, ...],
) -> Task:
    """The first ``train_size`` examples to learn from, the others to be asked about."""
    x, t = x.astype(np.float32), t.astype(np.int32)
    parts = x[:train_size], t[:train_size], x[train_size:], t[train_size:]
    return Task(about, *parts, inputs, answers)
