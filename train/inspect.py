"""Make a page that shows what a trained model expected of a text, and what its units did.

python -m train.inspect runs/rnnlm-ptb-1 --out page.html
python -m train.inspect runs/rnnlm-ptb-1 runs/rnnlm-ptb-2 --text my.txt --out page.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
import tyro

from common import kernels
from common.files.atomic import write_atomically
from datasets.stream import open_text, read_pieces
from datasets.vocabulary import UNK, Vocabulary
from models.language_model import LanguageModel
from train.compare import check_same_tokens
from train.inspection.packing import STEPS, pack
from train.inspection.page import page
from train.inspection.properties import Property, properties, read_word_classes
from train.inspection.report import Inspection, Text, Words, inspect_run
from train.run.command import run_command
from train.run.options import check_counts
from train.run.saved_run import open_model, open_run

MOST_RUNS = 2
SPARE = 4096  # bytes of a run's activations that are not counted: names and brackets


@dataclass(frozen=True)
class Options:
    """Write one page, for any browser and without a network, that shows a text as a model reads it.

    Every token is coloured by its surprisal; on a token stand the guesses that the model had in its
    place. A unit, that is one number of a state or of a gate, colours the text by what it held, and
    units are found that follow quotation marks, the place in the line, capital letters and your
    word classes. The page also has the share of time that gates are saturated, and the nearest
    words in the embedding. Two runs stand side by side. All numbers of the page can be saved.

    A text must look as that of training: words split on blanks, in lower case for pydoc and ptb.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folder of a run, or of two with the same words."""
    text: str | None = None
    """The text: a UTF-8 file, which may be compressed with gzip, or - for standard input; by
    default a part of the text of the runs."""
    split: Literal["valid", "test"] | None = None
    """In place of --text: a part of the text of the runs; the test text if neither is given."""
    tokens: int = 3000
    """How many tokens of the text are read."""
    word_class: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=REGEX: find units for a class of your own, as in --word-class "digits=[0-9]+"; can be
    given several times; by default there is none. A word belongs to it if the whole word matches; a
    character does if it lies in a part of the text that matches."""
    out: Path = Path("page.html")
    """The page."""
    megabytes: float = 5.0
    """How large the page may become for each run, in millions of bytes: the activations of large
    models are rounded until they fit, though not beyond fifths of a unit's range."""
    corpus: str | None = None
    """Where the text of the runs lies now, if not where it lay when the models were trained."""
    data_dir: Path | None = None
    """Where the files of ptb lie, if not where they lay when the models were trained."""
    gpu: bool = False
    """Compute on the GPU."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work, before a run is opened."""
    if not 1 <= len(options.runs) <= MOST_RUNS:
        raise ValueError(f"train.inspect: expected one run or two, got {len(options.runs)}")
    if options.text is not None and options.split is not None:
        raise ValueError("expected either --text or --split, got both")
    if options.text is not None and (options.corpus or options.data_dir) is not None:
        raise ValueError("--corpus and --data-dir find the text of --split; leave them out")
    check_counts(options, "tokens")
    if not 0 < options.megabytes < float("inf"):
        raise ValueError(f"--megabytes: expected a number above 0, got {options.megabytes}")
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        raise ValueError(f"--out: expected a file in a folder that is there, got {options.out}")


def open_runs(options: Options) -> tuple[list[LanguageModel], Text]:
    """The models of the runs, and the text that they all read.

    Raises:
        ValueError: where the second run has other words or, with ``--split``, another text.
    """
    if options.text is None:
        split = options.split or "test"
        opened = [open_run(path, options.corpus, options.data_dir) for path in options.runs]
        corpora = [corpus for _, corpus in opened]
        check_same_tokens(options.runs, corpora, split)
        ids, words = getattr(corpora[0], split), corpora[0].vocabulary.words
        tokens = [words[i] for i in ids[: options.tokens].tolist()]
        where, models = f"the {split} text of {corpora[0].name}", [model for model, _ in opened]
        return models, _first(tokens, ids, corpora[0].vocabulary, where, options.tokens)
    alone = [open_model(path) for path in options.runs]
    vocabulary = alone[0][1]
    for path, (_, own) in zip(options.runs[1:], alone[1:], strict=True):
        if differs := list(own.differences(vocabulary)):
            raise ValueError(
                f"{path} cannot stand beside {options.runs[0]}: {', '.join(differs)}; expected "
                "runs of the same words"
            )
    tokens, ids = read_text(options.text, vocabulary, options.tokens)
    where = "standard input" if options.text == "-" else Path(options.text).name
    return [model for model, _ in alone], _first(tokens, ids, vocabulary, where, options.tokens)


def read_text(name: str, vocabulary: Vocabulary, most: int) -> tuple[list[str], numpy.ndarray]:
    """Tokens and ids of a text; no more is read than ``most`` tokens need, and one more if any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something that is not a text, or a token without ``<unk>`` to stand for it.
    """
    tokens: list[str] = []
    ids: list[numpy.ndarray] = []
    with open_text(name) as source:
        for piece in read_pieces(source, vocabulary, name):
            tokens += piece.tokens
            ids.append(piece.ids)
            if len(tokens) > most:
                break
    return tokens, numpy.concatenate(ids)


def _first(
    tokens: list[str], ids: numpy.ndarray, vocabulary: Vocabulary, where: str, most: int
) -> Text:
    """The first ``most`` tokens of a text, and a phrase that says so."""
    taken = min(most, len(ids))
    part = "all" if taken == len(ids) else "the first"
    unit = "characters" if vocabulary.level == "char" else "tokens"
    about = f"{part} {taken:,} {unit} of {where}"
    return Text(tokens[:taken], ids[:taken], vocabulary, about)


def page_data(
    inspections: Sequence[Inspection], text: Text, wanted: Sequence[Property], megabytes: float
) -> dict[str, Any]:
    """All that stands on the page, the activations rounded to fit.

    Args:
        inspections: of each run.
        text: what they read.
        wanted: the properties that units were looked for by.
        megabytes: how large the page may become for each run.
    """
    words = Words()
    unk = text.vocabulary.word_to_id.get(UNK)
    read = [text.vocabulary.words[i] for i in text.ids.tolist()]
    names = " and ".join(short_names([each.name for each in inspections]))
    data: dict[str, Any] = {
        "title": f"What {names} expected of a text",
        "about": f"{text.about[0].upper()}{text.about[1:]}, read from left to right.",
        "level": text.vocabulary.level,
        "tokens": pack(words.numbers(text.tokens)),
        "ids": pack(words.numbers(read)),
        "unknown": pack((text.ids == (-1 if unk is None else unk)).astype("uint8")),
        "properties": [
            {
                "name": each.name,
                "about": each.about,
                "measure": found.measure,
                "members": found.members,
            }
            for each, found in zip(wanted, inspections[0].units, strict=True)
        ],
        "runs": [each.record(text, words) for each in inspections],
    }
    data["words"] = list(words)
    left = int(1e6 * megabytes) * len(inspections) - len(page(data["title"], data))
    for record, each in zip(data["runs"], inspections, strict=True):
        record.update(each.record_of_layers(left // len(inspections) - SPARE))
    return data


def short_names(paths: Sequence[str]) -> list[str]:
    """The names of the folders alone, where that tells them apart."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def report(inspection: Inspection, wanted: Sequence[Property]) -> None:
    """Print the perplexity of a run over the text, and the unit that follows each property best."""
    print(f"{inspection.name}: perplexity {inspection.perplexity:.2f} of this text")
    for each, found in zip(wanted, inspection.units, strict=True):
        if not found.units:
            print(f"  {each.name}: the same of every token")
            continue
        unit, by_chance = found.units[0], ""
        if math.isfinite(found.chance):
            low, high = found.middle - found.chance, found.middle + found.chance
            by_chance = f" (by chance {low:.3f} or {high:.3f})"
        where = f"layer {unit.layer + 1}, {unit.state} {unit.number}"
        print(f"  {each.name}: {where}, {found.measure} {unit.score:.3f}{by_chance}")


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    classes = read_word_classes(options.word_class)
    models, text = open_runs(options)
    kernels.print_notice()
    print(text.about, flush=True)
    wanted = properties(text.tokens, text.vocabulary.level, classes)
    inspections = [
        inspect_run(str(path), model, text, wanted)
        for path, model in zip(options.runs, models, strict=True)
    ]
    data = page_data(inspections, text, wanted, options.megabytes)
    content = page(data["title"], data)
    write_atomically(options.out, content)
    for inspection, record in zip(inspections, data["runs"], strict=True):
        report(inspection, wanted)
        if record["steps"] < STEPS[0]:
            print(f"  activations in {record['steps']} steps of each unit's range (--megabytes)")
    print(f"{options.out}: {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    run_command(main, Options)
