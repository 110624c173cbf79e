"""What every data set loads into: three splits of int32 ids and the vocabulary they share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

__all__ = [
    "EOS",
    "UNK",
    "Corpus",
    "Level",
    "build_vocab",
    "corpus_from_tokens",
    "encode_tokens",
    "split_words",
]

UNK = "<unk>"
EOS = "<eos>"

Level = Literal["word", "char", "symbol"]


@dataclass(frozen=True, eq=False)
class Corpus:
    r"""Text as ids, split three ways, with the vocabulary of the training split.

    Args:
        name: What reports and checkpoints call it.
        train: ids, int32 of shape (tokens,).
        valid: ids, int32 of shape (tokens,).
        test: ids, int32 of shape (tokens,).
        word_to_id: Token to id; the ids are 0 to V-1.
        id_to_word: The inverse of ``word_to_id``.
        level: What a token is: a "word", a "char"(acter), or a "symbol" of an artificial source.
        eos_id: id of the token that ends a line: ``<eos>`` for words, ``"\n"`` for characters;
            None where nothing does.

    Raises:
        TypeError: A split is not an int32 array.
        ValueError: A split is not 1-D or holds an id outside the vocabulary, the two
            dictionaries do not mirror each other, or the level is unknown.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    word_to_id: dict[str, int]
    id_to_word: dict[int, str]
    level: Level
    eos_id: int | None

    def __post_init__(self) -> None:
        who = f"Corpus {self.name!r}"
        V = self.vocab_size
        if self.level not in get_args(Level):
            raise ValueError(f"{who}: expected level in {get_args(Level)}, got {self.level!r}")
        mirror = {i: word for word, i in self.word_to_id.items()}
        if self.id_to_word != mirror or mirror.keys() != set(range(V)):
            raise ValueError(
                f"{who}: expected id_to_word to be the inverse of word_to_id, with ids 0 to {V - 1}"
            )
        if self.eos_id is not None and self.eos_id not in self.id_to_word:
            raise ValueError(f"{who}: expected eos_id in 0..{V - 1}, got {self.eos_id}")
        for split in ("train", "valid", "test"):
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

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens in the vocabulary."""
        return len(self.word_to_id)

    @property
    def first_id(self) -> int:
        """The id fed before the first target when perplexity is measured.

        The end of a line, as if another line had gone before; where the corpus has none, 0,
        which in a vocabulary ordered by first appearance is the first token of ``train``.
        """
        return 0 if self.eos_id is None else self.eos_id

    def encode(self, text: str) -> list[int]:
        """Ids of the words (see ``split_words``) or characters of ``text``.

        Raises:
            ValueError: A token is not in the vocabulary, and neither is ``<unk>``.
        """
        tokens = split_words(text) if self.level == "word" else text
        return encode_tokens(tokens, self.word_to_id).tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``: words joined by blanks with ``<eos>`` as a newline, or characters.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        tokens = []
        for i in ids:
            if i not in self.id_to_word:
                raise ValueError(
                    f"Corpus {self.name!r}: expected ids in 0..{self.vocab_size - 1}, got {i}"
                )
            tokens.append("\n" if i == self.eos_id else self.id_to_word[i])
        if self.level != "word":
            return "".join(tokens)
        return re.sub(" ?\n ?", "\n", " ".join(tokens))


def split_words(text: str) -> list[str]:
    """Words of ``text``, split on blanks; every newline becomes the word ``<eos>``."""
    return text.replace("\n", f" {EOS} ").split()


def build_vocab(
    train: Sequence[str],
    others: Iterable[Sequence[str]] = (),
    *,
    max_vocab: int | None = None,
    keep: str | None = None,
) -> dict[str, int]:
    """Give every token of the training split an id, in order of first appearance.

    With more than ``max_vocab`` tokens the most frequent stay, the earlier of two that are
    equally frequent, and ``<unk>`` stands where the first of the others appeared. A token that
    only ``others`` have puts ``<unk>`` last, or, if that makes the vocabulary too large, counts
    as a cap that drops one more.

    Args:
        train: Tokens of the training split.
        others: Tokens of the splits that must be encodable too; they add nothing but ``<unk>``.
        max_vocab: V at most, ``<unk>`` and ``keep`` included; None for no limit.
        keep: A token that is never dropped, such as ``<eos>``.

    Returns:
        Token to id.

    Raises:
        TypeError: ``max_vocab`` is not a whole number.
        ValueError: ``max_vocab`` leaves no room for an ordinary token.
    """
    counts = Counter(train)  # in order of first appearance
    special = {UNK} if keep is None else {UNK, keep}
    if max_vocab is not None:
        if not isinstance(max_vocab, int):
            raise TypeError(f"max_vocab: expected a whole number, got {max_vocab!r}")
        if max_vocab <= len(special):
            raise ValueError(
                f"max_vocab: expected at least {len(special) + 1} (one token beside "
                f"{', '.join(map(repr, sorted(special)))}), got {max_vocab}"
            )
    unseen = any(token not in counts for tokens in others for token in set(tokens))
    needed = counts.keys() | {UNK} if unseen else counts.keys()
    if max_vocab is not None and len(needed) > max_vocab:
        present = special & (counts.keys() | {UNK})
        ordinary = Counter({t: n for t, n in counts.items() if t not in special})
        kept = {t for t, _ in ordinary.most_common(max_vocab - len(present))}
        tokens = [t if t in kept or t in special else UNK for t in counts]
    else:
        tokens = list(counts)
    if unseen:
        tokens.append(UNK)
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def encode_tokens(tokens: Sequence[str], word_to_id: dict[str, int]) -> np.ndarray:
    """Ids of ``tokens``, those outside the vocabulary as ``<unk>``.

    Returns:
        ids, int32 of shape (tokens,).

    Raises:
        ValueError: A token is not in the vocabulary, and neither is ``<unk>``.
    """
    unk = word_to_id.get(UNK)
    if unk is None:
        for token in tokens:
            if token not in word_to_id:
                raise ValueError(
                    f"token {token!r} is not among the {len(word_to_id)} tokens of the "
                    f"vocabulary, which has no {UNK!r} to stand for it"
                )
    get = word_to_id.get
    return np.fromiter((get(token, unk) for token in tokens), np.int32, count=len(tokens))


def corpus_from_tokens(
    name: str,
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    *,
    level: Level,
    eos: str,
    max_vocab: int | None = None,
) -> Corpus:
    """Build the vocabulary of ``train`` and encode the three splits with it.

    Args:
        name: See ``Corpus``.
        train: Tokens; a string counts as its characters.
        valid: Tokens.
        test: Tokens.
        level: See ``Corpus``.
        eos: The token that ends a line; it may be absent from ``train``.
        max_vocab: See ``build_vocab``.
    """
    word_to_id = build_vocab(train, (valid, test), max_vocab=max_vocab, keep=eos)
    return Corpus(
        name=name,
        train=encode_tokens(train, word_to_id),
        valid=encode_tokens(valid, word_to_id),
        test=encode_tokens(test, word_to_id),
        word_to_id=word_to_id,
        id_to_word={i: token for token, i in word_to_id.items()},
        level=level,
        eos_id=word_to_id.get(eos),
    )
