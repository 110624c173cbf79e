"""The token ids that all sides read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy

__all__ = ["Ids", "training_chunk"]


@dataclass(frozen=True, eq=False)
class Ids:
    """Training and test text of one vocabulary of V words.

    Args:
        train: ids (tokens,).
        test: ids (tokens,).
        first_id: what is fed before the first token of the test text.
        vocab_size: V.
    """

    train: numpy.ndarray
    test: numpy.ndarray
    first_id: int
    vocab_size: int

    def save(self, path: str | os.PathLike) -> None:
        """Write one file that the workers can load."""
        about = numpy.array([self.first_id, self.vocab_size])
        numpy.savez(path, train=self.train, test=self.test, about=about)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ids:
        """Read what ``save`` wrote."""
        with numpy.load(Path(path)) as file:
            first_id, vocab_size = file["about"].tolist()
            return cls(file["train"], file["test"], first_id, vocab_size)

    def stretched(self, V: int) -> Ids:
        """The same text over V words: ids spread out over a larger or a smaller vocabulary."""
        if self.vocab_size == V:
            return self
        train, test = (
            ids.astype("int64") * V // self.vocab_size for ids in (self.train, self.test)
        )
        return Ids(
            train.astype(self.train.dtype),
            test.astype(self.test.dtype),
            self.first_id * V // self.vocab_size,
            V,
        )


def training_chunk(ids: numpy.ndarray, number: int, length: int) -> numpy.ndarray:
    """``length`` + 1 ids, for as many inputs and their targets; the text is read in circles.

    Raises:
        ValueError: where the text is shorter than that.
    """
    places = len(ids) - length
    if places < 1:
        raise ValueError(f"training_chunk: expected more than {length} ids, got {len(ids)}")
    start = number * length % places
    return ids[start : start + length + 1]
