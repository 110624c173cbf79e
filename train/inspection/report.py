"""What the page says of a text and of every run that has read it, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from common.np import Array
from common.perplexity.protocols import evaluation, inputs_and_targets, perplexity_of
from common.perplexity.surprisal import Predictions, predictions
from datasets.vocabulary import Vocabulary
from models.language_model import LanguageModel
from train.inspection.activations import LayerActivations, activations
from train.inspection.neighbours import embedding_of, nearest
from train.inspection.packing import STEPS, pack, rounded, rounded_to_fit
from train.inspection.properties import Property
from train.inspection.saturation import saturated
from train.inspection.selectivity import Found, find_units

__all__ = ["Inspection", "Text", "Words", "inspect_run"]

BEST = 5  # guesses for each token
NEAREST = 8  # words for each word
UNITS = 5  # for each property
NAMES = {  # of the states and gates that are common
    "h": "output",
    "c": "cell",
    "f": "forget gate",
    "g": "candidate",
    "i": "input gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
}


@dataclass(frozen=True, eq=False)
class Text:
    """A text as tokens, which all runs read alike.

    Args:
        tokens: as written, T of them.
        ids: what the models read, int32 (T,).
        vocabulary: what the ids mean.
        about: which text it is, for a sentence.
    """

    tokens: list[str]
    ids: numpy.ndarray
    vocabulary: Vocabulary
    about: str


class Words:
    """Every string of the page once, by its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def numbers(self, words: Iterable[str]) -> numpy.ndarray:
        """Their numbers, int32; those that are new get one."""
        known = self._numbers
        return numpy.array([known.setdefault(word, len(known)) for word in words], "int32")


@dataclass(frozen=True, eq=False)
class Inspection:
    """What one run made of a text.

    Args:
        name: of the run.
        model: the class of the model.
        parameters: how many.
        found: what it expected, token by token.
        layers: what its recurrent layers held after each token.
        units: those that follow each property.
        embedding: the table (V, D) by which it reads, or None.
    """

    name: str
    model: str
    parameters: int
    found: Predictions
    layers: list[LayerActivations]
    units: list[Found]
    embedding: numpy.ndarray | None

    @property
    def mean_bits(self) -> float:
        """Mean surprisal of the text."""
        return float(self.found.surprisal.mean())

    @property
    def perplexity(self) -> float:
        """2 to the mean surprisal."""
        return perplexity_of(self.mean_bits * math.log(2))

    def facts(self, level: str) -> list[tuple[str, str]]:
        """What stands over the text."""
        kinds = dict.fromkeys(each.kind for each in self.layers)
        widths = [next(iter(each.states.values())).shape[1] for each in self.layers]
        return [
            ("perplexity of this text", f"{self.perplexity:,.2f}"),
            (f"bits a {'character' if level == 'char' else 'token'}", f"{self.mean_bits:.3f}"),
            ("model", self.model),
            ("recurrent layers", f"{', '.join(kinds)} of {', '.join(map(str, widths))}"),
            ("parameters", f"{self.parameters:,}"),
        ]

    def record(self, text: Text, words: Words) -> dict[str, Any]:
        """All but the activations, for JSON."""
        vocabulary = text.vocabulary.words
        best = words.numbers(vocabulary[i] for i in self.found.best.reshape(-1).tolist())
        return {
            "name": self.name,
            "facts": self.facts(text.vocabulary.level),
            "vocabulary": len(vocabulary),
            "surprisal": pack(self.found.surprisal.astype("float32")),
            "entropy": pack(self.found.entropy.astype("float32")),
            "rank": pack(self.found.rank.astype("int32")),
            "best": pack(best),
            "best_bits": pack(self.found.best_bits.astype("float32")),
            "found": [self._units(each) for each in self.units],
            "neighbours": self._neighbours(text, words),
        }

    def _units(self, found: Found) -> dict[str, Any]:
        chance = found.chance if math.isfinite(found.chance) else None
        units = [
            {
                "layer": unit.layer,
                "quantity": unit.state,
                "number": unit.number,
                "score": unit.score,
                "fine": rounded(self._series(unit.layer, unit.state, unit.number), STEPS[0]),
            }
            for unit in found.units
        ]
        return {"chance": chance, "units": units}

    def _series(self, layer: int, state: str, number: int) -> numpy.ndarray:
        return self.layers[layer].states[state][:, number : number + 1]

    def _neighbours(self, text: Text, words: Words) -> dict[str, Any] | None:
        """Of every word of the text and every guess."""
        if self.embedding is None or len(self.embedding) < 2:
            return None
        ids = numpy.unique(numpy.concatenate([text.ids, self.found.best.reshape(-1)]))
        near, cosine = nearest(self.embedding, ids, NEAREST)
        vocabulary = text.vocabulary.words
        return {
            "words": pack(words.numbers(vocabulary[i] for i in ids.tolist())),
            "near": pack(words.numbers(vocabulary[i] for i in near.reshape(-1).tolist())),
            "cosine": pack(cosine),
        }

    def record_of_layers(self, room: int) -> dict[str, Any]:
        """The activations, for JSON, rounded until they fit.

        Args:
            room: bytes that they may take; with the fewest steps they may take more.
        """
        quantities = [
            (k, kind, letter, values)
            for k, layer in enumerate(self.layers)
            for kind, named in (("state", layer.states), ("gate", layer.gates))
            for letter, values in named.items()
        ]
        steps, packed = rounded_to_fit([values for *_, values in quantities], room)
        records: list[dict[str, Any]] = [
            {"name": f"layer {k + 1} ({layer.kind})", "quantities": []}
            for k, layer in enumerate(self.layers)
        ]
        for (k, kind, letter, values), arrays in zip(quantities, packed, strict=True):
            layer = self.layers[k]
            name = letter if kind == "state" or letter not in layer.states else f"gate {letter}"
            record = {
                "name": name,
                "letter": letter,
                "label": f"{letter} ({NAMES.get(letter, kind)})",
                "width": values.shape[1],
                **arrays,
            }
            if kind == "gate" and letter in layer.saturating:
                record["left"], record["right"] = map(pack, saturated(values))
            records[k]["quantities"].append(record)
        return {"steps": steps, "layers": records}


def inspect_run(
    name: str, model: LanguageModel, text: Text, properties: Sequence[Property]
) -> Inspection:
    """Read a text by the exact protocol, and look at everything that a page can show.

    Args:
        name: of the run.
        model: its training state is kept.
        text: what it reads, from a zero state; the end of a line stands before it.
        properties: what units are looked for by.
    """
    first_id = text.vocabulary.first_id
    layers = activations(model, numpy.concatenate([[first_id], text.ids]))
    layers = [each.without_first() for each in layers]
    return Inspection(
        name=name,
        model=type(model).__name__,
        parameters=sum(param.size for param in model.params),
        found=_expected(model, text.ids, first_id),
        layers=layers,
        units=find_units(layers, properties, UNITS),
        embedding=embedding_of(model),
    )


def _expected(model: LanguageModel, ids: Array, first_id: int) -> Predictions:
    """What was expected of every token, by the exact protocol."""
    xs, ts = inputs_and_targets(ids, first_id, "train.inspect")
    with evaluation(model):
        parts = list(predictions(model, xs, ts, best=BEST))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Predictions(*map(numpy.concatenate, columns))
