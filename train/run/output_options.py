"""Options of the scripts whose models may have an adaptive softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

from common.time_layers import TimeAdaptiveOutput
from common.time_layers.clusters import default_cutoffs
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.folder import RunFolder
from train.run.options import CellOptions, token_counts

__all__ = ["OutputOptions"]


@dataclass(frozen=True)
class OutputOptions(CellOptions):
    """Options of the scripts whose models take any cell, and an adaptive softmax."""

    output: Literal["dense", "adaptive"] = "dense"
    """How words are scored: dense, all alike; or adaptive, the frequent ones in full and clusters
    of rarer ones by narrower matrices, at a fraction of the cost where there are many. With tied
    weights the embedding is adaptive too. Perplexity is exact with both."""
    cutoffs: str | None = None
    """For --output adaptive: where clusters begin in the order of frequency. 2000,10000 is the
    2,000 most frequent words in full, 8,000 by a quarter of the width, the others by a sixteenth.
    By default the words in full are those that make up four fifths of the training text."""

    def cutoff_ranks(self) -> tuple[int, ...]:
        """What ``cutoffs`` says as numbers; empty where it says nothing.

        Raises:
            ValueError: for something else than whole numbers in ascending order.
        """
        if self.cutoffs is None:
            return ()
        parts = self.cutoffs.split(",")
        numbers = [int(part) for part in parts if part.strip().isdecimal()]
        if len(numbers) < len(parts) or any(a >= b for a, b in pairwise([0, *numbers])):
            raise ValueError(
                "--cutoffs: expected whole numbers of 1 or more in ascending order, such as "
                f"2000,10000; got {self.cutoffs}"
            )
        return tuple(numbers)

    def cutoffs_to_build(self) -> tuple[int, ...]:
        """The cutoffs of the model; empty for a dense output.

        Raises:
            ValueError: for an adaptive output without cutoffs, which ``fitted_to`` fills in.
        """
        if self.output == "adaptive" and self.cutoffs is None:
            raise ValueError("--output adaptive: expected --cutoffs where no text is read")
        return self.cutoff_ranks()

    def check(self) -> None:
        """Raise ValueError for options with which no run can work, or one that does nothing."""
        super().check()
        if self.cutoff_ranks() and self.output != "adaptive":
            raise ValueError(f"--cutoffs: {self.cutoffs} does nothing without --output adaptive")

    def fitted_to(self, corpus: Corpus) -> Self:
        """As for every run; with cutoffs where the softmax is adaptive.

        A run that starts from another has the cutoffs of that one.

        Raises:
            ValueError: for a corpus that is too short, or has too few words for the cutoffs.
        """
        fitted = super().fitted_to(corpus)
        if self.output != "adaptive":
            return fitted
        cutoffs, V = self.cutoff_ranks(), corpus.vocab_size
        if not cutoffs and self.start_from is not None:
            _, config = RunFolder.open(self.start_from)
            if before := config["options"].get("cutoffs"):
                return replace(fitted, cutoffs=before)
        if not cutoffs:
            cutoffs = default_cutoffs(token_counts(corpus))
        if cutoffs[-1] >= V:
            raise ValueError(
                f"--cutoffs: expected numbers below the {V:,} words of {corpus.name}, "
                f"got {self.cutoffs}"
            )
        return replace(fitted, cutoffs=",".join(map(str, cutoffs)))

    def prepare(self, model: LanguageModel, corpus: Corpus) -> None:
        """Tell a new model which words are frequent."""
        output = model.layers[-1]
        if isinstance(output, TimeAdaptiveOutput):
            output.clusters.set_counts(token_counts(corpus))
        super().prepare(model, corpus)
