"""What every data set loads into: three splits of int32 ids and the vocabulary they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.vocabulary import END_OF_LINE, UNK, Level, Vocabulary, build_vocab, encode_tokens

__all__ = ["SPLITS", "Corpus", "corpus_from_tokens", "encoded_corpus"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text as ids, split three ways, with the vocabulary of the training split.

    Args:
        name: What reports and run folders call it.
        train: ids, int32 of shape (tokens,).
        valid: ids, int32 of shape (tokens,).
        test: ids, int32 of shape (tokens,).
        vocabulary: What the ids mean. ``word_to_id``, ``encode`` and the rest of it can be asked
            of the corpus, too.
        about: Which text this is, how it became tokens and splits, and which tokens the training
            split lacks, for a person to read; one or more lines.

    Raises:
        TypeError: A split is not an int32 array.
        ValueError: A split is not 1-D or holds an id outside the vocabulary.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: Vocabulary
    about: str = ""

    def __post_init__(self) -> None:
        who, V = f"Corpus {self.name!r}", self.vocab_size
        for split in SPLITS:
            ids = getattr(self, split)
            if not isinstance(ids, np.ndarray) or ids.dtype != np.int32:
                kind = getattr(ids, "dtype", type(ids).__name__)
                raise TypeError(f"{who}: expected {split} to be an int32 array, got {kind}")
            if ids.ndim != 1:
                raise ValueError(f"{who}: expected {split} of shape (tokens,), got {ids.shape}")
            if ids.size and not (ids.min() >= 0 and ids.max() < V):
                raise ValueError(
                    f"{who}: expected ids of {split} in 0..{V - 1}, got {ids.min()} to {ids.max()}"
                )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size:,} {split}" for split, size in self.split_sizes().items())
        return f"Corpus({self.name!r}, V={self.vocab_size:,}, tokens: {sizes})"

    @property
    def word_to_id(self) -> dict[str, int]:
        """See ``Vocabulary``."""
        return self.vocabulary.word_to_id

    @property
    def id_to_word(self) -> dict[int, str]:
        """See ``Vocabulary``."""
        return self.vocabulary.id_to_word

    @property
    def level(self) -> Level:
        """See ``Vocabulary``."""
        return self.vocabulary.level

    @property
    def eos_id(self) -> int | None:
        """See ``Vocabulary``."""
        return self.vocabulary.eos_id

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens in the vocabulary."""
        return self.vocabulary.vocab_size

    @property
    def first_id(self) -> int:
        """See ``Vocabulary.first_id``."""
        return self.vocabulary.first_id

    def encode(self, text: str) -> list[int]:
        """See ``Vocabulary.encode``."""
        return self.vocabulary.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """See ``Vocabulary.decode``."""
        return self.vocabulary.decode(ids)

    def vocabulary_hash(self) -> str:
        """See ``Vocabulary.hash``."""
        return self.vocabulary.hash()

    def split_sizes(self) -> dict[str, int]:
        """Number of tokens of every split, by its name."""
        return {split: len(getattr(self, split)) for split in SPLITS}

    def split_hashes(self) -> dict[str, str]:
        """SHA-256 of the ids of every split (int32, little-endian), in hexadecimal, by its name.

        They are computed once; a split that is changed in place later keeps its old one.
        """
        return dict(self._split_hashes)

    @cached_property
    def _split_hashes(self) -> dict[str, str]:
        return {
            split: hashlib.sha256(getattr(self, split).astype("<i4").tobytes()).hexdigest()
            for split in SPLITS
        }


def corpus_from_tokens(
    name: str,
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    *,
    level: Level,
    max_vocab: int | None = None,
    vocabulary: Vocabulary | None = None,
    about: str = "",
) -> Corpus:
    """Build the vocabulary of ``train``, or take another one, and encode the three splits with it.

    Args:
        name: See ``Corpus``.
        train: Tokens; a string counts as its characters.
        valid: Tokens.
        test: Tokens.
        level: See ``Vocabulary``; the token that ends a line may be absent from ``train``.
        max_vocab: See ``build_vocab``.
        vocabulary: That of another corpus, in place of ``max_vocab``; what it lacks is ``<unk>``.
        about: See ``Corpus``; lines on the sizes of the splits and on ``<unk>`` are added.

    Raises:
        ValueError: ``vocabulary`` is of another level, or lacks tokens and has no ``<unk>``.
    """
    tokens = {"train": train, "valid": valid, "test": test}
    if vocabulary is None:
        keep = END_OF_LINE.get(level)
        words = build_vocab(train, (valid, test), max_vocab=max_vocab, keep=keep)
        vocabulary = Vocabulary(tuple(words), level)
        unknown = _unknown(tokens, vocabulary.word_to_id)
    else:
        lacking = _lacking(name, tokens, level, vocabulary)
        unknown = _shares("that the vocabulary lacks", lacking, tokens)
    word_to_id = vocabulary.word_to_id
    sizes = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test tokens"
    return Corpus(
        name=name,
        train=encode_tokens(train, word_to_id),
        valid=encode_tokens(valid, word_to_id),
        test=encode_tokens(test, word_to_id),
        vocabulary=vocabulary,
        about="\n".join([*filter(None, [about]), sizes, *unknown]),
    )


def encoded_corpus(
    name: str,
    parts: Sequence[np.ndarray],
    own: Vocabulary,
    vocabulary: Vocabulary | None = None,
    about: str = "",
) -> Corpus:
    """The corpus of three splits that are ids already.

    Args:
        name: See ``Corpus``.
        parts: ids of the training, the validation and the test split, int32, each (tokens,).
        own: What the ids mean.
        vocabulary: That of another corpus, to be used in place of ``own``; what it lacks is
            ``<unk>``.
        about: See ``Corpus``; a line on the sizes of the splits is added.

    Raises:
        ValueError: See ``corpus_from_tokens``.
    """
    if vocabulary is not None:
        _lacking(name, {"all": own.words}, own.level, vocabulary)
        table = encode_tokens(own.words, vocabulary.word_to_id)
        parts = [table[part] for part in parts]
    train, valid, test = parts
    sizes = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test tokens"
    return Corpus(name, train, valid, test, vocabulary or own, f"{about}\n{sizes}")


def _unknown(tokens: dict[str, Sequence[str]], word_to_id: dict[str, int]) -> Iterator[str]:
    """A line for each reason why tokens are read as ``<unk>``, with their share of each split."""
    train, others = {*tokens["train"]}, {*tokens["valid"], *tokens["test"]}
    reasons = {
        "that training lacks": others - train,
        "beyond the limit of the vocabulary": train - word_to_id.keys(),
    }
    for reason, words in reasons.items():
        yield from _shares(reason, words, tokens)


def _shares(reason: str, words: set[str], tokens: dict[str, Sequence[str]]) -> Iterator[str]:
    """A line that says of how many tokens the ``words`` are, where there are any."""
    counts = {split: sum(t in words for t in part) for split, part in tokens.items() if words}
    shares = [
        f"{100 * count / len(tokens[split]):.3g} % of {split}"
        for split, count in counts.items()
        if count
    ]
    if shares:
        yield f"{UNK} for tokens {reason}: {', '.join(shares)}"


def _lacking(
    name: str, tokens: dict[str, Sequence[str]], level: Level, vocabulary: Vocabulary
) -> set[str]:
    """The tokens that the vocabulary of another corpus lacks, where it can stand for them."""
    who, known = f"corpus {name!r}", vocabulary.word_to_id
    if level != vocabulary.level:
        raise ValueError(
            f"{who}: its tokens are of level {level!r}, those of the vocabulary of level "
            f"{vocabulary.level!r} (--level)"
        )
    lacking = {token for part in tokens.values() for token in part} - known.keys()
    if lacking and UNK not in known:
        some = ", ".join(repr(token) for token in sorted(lacking)[:10])
        more = ", ..." if len(lacking) > 10 else ""
        raise ValueError(
            f"{who}: {len(lacking):,} of its tokens are not among the {len(known):,} of the "
            f"vocabulary, which has no {UNK!r} to stand for them: {some}{more}"
        )
    return lacking
