"""The tokens of a corpus in the order of their ids, and the way between text and ids."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

__all__ = ["EOS", "UNK", "Level", "Vocabulary", "build_vocab", "encode_tokens", "split_words"]

UNK = "<unk>"
EOS = "<eos>"

Level = Literal["word", "char", "symbol", "byte"]

END_OF_LINE: dict[Level, str] = {"word": EOS, "char": "\n", "byte": "\n"}
_BITS_PER: dict[Level, str] = {"char": "character", "byte": "byte"}


@dataclass(frozen=True)
class Vocabulary:
    r"""What the ids of a model mean. Nothing else is needed to let it write.

    Args:
        words: The tokens in the order of their ids, 0 to V-1.
        level: What a token is: a "word", a "char"(acter), a "symbol" of an artificial source, or a
            "byte", written as the character of its number.

    Attributes:
        word_to_id: Token to id.
        id_to_word: The inverse of ``word_to_id``.
        eos_id: id of the token that ends a line: ``<eos>`` for words, ``"\n"`` for characters and
            bytes; None where nothing does.

    Raises:
        TypeError: A token is not a string.
        ValueError: There is no token, one is there twice, or the level is unknown.
    """

    words: tuple[str, ...]
    level: Level

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise ValueError(f"Vocabulary: expected level in {get_args(Level)}, got {self.level!r}")
        if not self.words:
            raise ValueError("Vocabulary: expected at least one token, got none")
        for word in self.words:
            if not isinstance(word, str):
                raise TypeError(f"Vocabulary: expected tokens to be strings, got {word!r}")
        if len(self.word_to_id) != len(self.words):
            [(word, count)] = Counter(self.words).most_common(1)
            raise ValueError(f"Vocabulary: expected every token once, got {word!r} {count} times")

    @cached_property
    def word_to_id(self) -> dict[str, int]:
        """See above."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def id_to_word(self) -> dict[int, str]:
        """See above."""
        return dict(enumerate(self.words))

    @cached_property
    def eos_id(self) -> int | None:
        """See above."""
        end = END_OF_LINE.get(self.level)
        return None if end is None else self.word_to_id.get(end)

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return len(self.words)

    @property
    def first_id(self) -> int:
        """The id fed before the first target when perplexity is measured.

        The end of a line, as if another line had gone before; where there is none, 0, which in a
        vocabulary ordered by first appearance is the first token of the training split.
        """
        return 0 if self.eos_id is None else self.eos_id

    def encode(self, text: str) -> list[int]:
        """Ids of the words (see ``split_words``) or characters of ``text``.

        Raises:
            ValueError: A token is not in the vocabulary, and neither is ``<unk>``.
        """
        tokens: Sequence[str] = split_words(text) if self.level == "word" else text
        if self.level == "byte":
            tokens = text.encode().decode("latin-1")
        return encode_tokens(tokens, self.word_to_id).tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``: words joined by blanks with ``<eos>`` as a newline, or characters.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        tokens = []
        for i in ids:
            if i not in self.id_to_word:
                raise ValueError(f"Vocabulary: expected ids in 0..{self.vocab_size - 1}, got {i}")
            tokens.append("\n" if i == self.eos_id else self.id_to_word[i])
        if self.level == "byte":  # a character may be cut
            return "".join(tokens).encode("latin-1").decode(errors="replace")
        if self.level != "word":
            return "".join(tokens)
        return re.sub(" ?\n ?", "\n", " ".join(tokens))

    def in_bits(self, perplexities: Mapping[str, float]) -> dict[str, float]:
        """Bits per character or byte, log2 of each perplexity, under ``NAME_bits``.

        Empty where tokens are neither: a bit for each word says little.
        """
        if self.level not in _BITS_PER:
            return {}
        return {f"{name}_bits": math.log2(value) for name, value in perplexities.items()}

    def bits_beside(self, perplexity: float, before: str = " | ") -> str:
        """What stands beside a perplexity: nothing, or of characters and bytes its bits."""
        bits, unit = self.in_bits({"": perplexity}).values(), _BITS_PER.get(self.level)
        return "".join(f"{before}{value:.3f} bits per {unit}" for value in bits)

    def differences(self, other: Vocabulary) -> Iterator[str]:
        """In what these words are others than those of ``other``; nothing where they are not."""
        if self.level != other.level:
            yield f"its level is {self.level} and not {other.level}"
        if len(self.words) != len(other.words):
            yield f"its vocabulary has {len(self.words):,} tokens and not {len(other.words):,}"
        for at, (word, expected) in enumerate(zip(self.words, other.words, strict=False)):
            if word != expected:
                yield f"its id {at} is {word!r} and not {expected!r}"
                break

    def hash(self) -> str:
        """SHA-256 of the tokens in the order of their ids and of the level, in hexadecimal."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return hashlib.sha256(json.dumps([self.level, self.words]).encode()).hexdigest()

    def to_json(self) -> str:
        """The vocabulary as the text of a JSON file, in ASCII."""
        return json.dumps({"level": self.level, "words": self.words}, indent=0) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary whose ``to_json`` is ``text``.

        Raises:
            ValueError: ``text`` is not the JSON of a vocabulary.
        """
        try:
            content = json.loads(text)
            level, words = content["level"], content["words"]
            if not isinstance(words, list):
                raise TypeError(f"expected a list of words, got {type(words).__name__}")
            return cls(tuple(words), level)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not the JSON of a vocabulary ({error!r})") from error


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
    equally frequent, and ``<unk>`` stands where the first of the others appeared. Where only
    ``others`` have a token, ``<unk>`` comes last; if that exceeds ``max_vocab``, one token more
    is dropped.

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
