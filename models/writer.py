"""A text that a person and a language model write together, and the way back in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy

from common import kernels
from common.base_layer import check_sizes
from common.functions import log_softmax
from models.language_model import (
    Choice,
    LanguageModel,
    Stream,
    check_sampling,
    likeliest_id,
    sample_id,
)

__all__ = ["Sampling", "Writer", "probabilities"]


@dataclass(frozen=True)
class Sampling:
    """How ids are chosen; see ``LanguageModel.generate``.

    Raises:
        ValueError: for a setting that makes no distribution.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False
    skip_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p)

    def choice(self, rng: numpy.random.Generator) -> Choice:
        """What chooses an id by the scores of all; what is drawn comes from ``rng``."""
        if self.greedy:
            return likeliest_id
        settings = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return partial(sample_id, rng=rng, **settings)  # type: ignore[arg-type]


class _Mark(NamedTuple):
    """A place of the text to which one can go back, and a state of the model to go on from."""

    length: int  # of the text
    num_read: int  # how many of its ids had been read to come into the state
    state: list[Any]


class Writer:
    """A text, the state of a model that reads it, and the states to which one can go back.

    What is added is read when the model next has to say something, and nothing is read twice. Where
    an interrupt breaks off the model's reading, the text stays, and is read again from the last
    state that is known.

    Args:
        model: its state is that of the text from now on.
        first_id: read first where the model begins without a text.
    """

    def __init__(self, model: LanguageModel, first_id: int) -> None:
        self.model, self.first_id = model, first_id
        self._ids: list[int] = []
        self._hidden = 0  # ids at the beginning that are not the text's: first_id, or none
        self._num_read: int | None = 0  # None while the model reads
        self._marks: list[_Mark] = []
        model.reset_state()

    @property
    def ids(self) -> list[int]:
        """The text."""
        return self._ids[self._hidden :]

    def read(self, ids: Sequence[int]) -> None:
        """Add ``ids`` to the text."""
        self._mark()
        self._ids += ids

    def write(self, length: int, sampling: Sampling, rng: numpy.random.Generator) -> Stream:
        """Let the model add ``length`` ids, or as many as are asked for.

        Args:
            length: how many.
            sampling: how they are chosen.
            rng: what they are drawn from.

        Yields:
            Each id, which is in the text by then, and the scores (V,) that the model gave to all,
            before ``sampling`` has changed anything.

        Raises:
            ValueError: for an id out of range, or where no id can be chosen.
        """
        check_sizes("Writer.write", least=0, length=length)
        self._mark()
        if not self._ids:
            self._ids, self._hidden = [self.first_id], 1
        unread = self._ids[self._num_read :]
        stream = self.model.stream(unread, sampling.choice(rng), sampling.skip_ids)
        with kernels.blas_at_rest(self.model.layers[-1].params[0]):
            for _ in range(length):
                self._num_read = None
                chosen, scores = next(stream)
                self._ids.append(chosen)
                self._num_read = len(self._ids) - 1
                yield chosen, scores

    def next_probabilities(self) -> numpy.ndarray:
        """Probabilities of the ids that may come next, float64 (V,); the text stays as it is."""
        self._settle()
        state = self.model.get_state()
        unread = self._ids[self._num_read :] or [self.first_id]
        try:
            _, scores = next(self.model.stream(unread, likeliest_id, ()))
        finally:
            self.model.set_state(state)
        return probabilities(scores)

    def back(self) -> bool:
        """Take away what was added last, by ``read`` or by ``write``; False where there is nothing.

        What is drawn afterwards is drawn anew: the model does not write the same again.
        """
        length = len(self.ids)
        while self._marks and len(self.ids) == length:
            mark = self._marks.pop()
            del self._ids[mark.length :]
            self._hidden = min(self._hidden, len(self._ids))
            self._go_to(mark)
        return len(self.ids) < length

    def _mark(self) -> None:
        self._settle()
        assert self._num_read is not None
        self._marks.append(_Mark(len(self._ids), self._num_read, self.model.get_state()))

    def _settle(self) -> None:
        """Go to the last state that is known, if the model was interrupted while it read."""
        if self._num_read is None:
            self._go_to(self._marks[-1])

    def _go_to(self, mark: _Mark) -> None:
        self.model.set_state(mark.state)
        self._num_read = mark.num_read


def probabilities(scores: numpy.ndarray) -> numpy.ndarray:
    """softmax(scores) in float64, (V,) as they are."""
    return numpy.exp(log_softmax(scores.astype("float64")))
