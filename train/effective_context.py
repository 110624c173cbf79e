"""How far back trained models look: by the gradient of a loss, and by changing what they read.

python -m train.effective_context runs/rnn runs/gru runs/lstm
python -m train.effective_context runs/rnnlm-ptb-1 --perturb drop --targets 5000
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy
import tyro

from common import kernels
from common.files.atomic import write_atomically
from common.np import Array
from common.perplexity.effective_context import (
    ONE_PERCENT,
    Perturbation,
    first_below,
    gradient_norms,
    loss_increases,
    sample_texts,
)
from common.perplexity.protocols import perplexity_of
from common.plotting import readable, show_or_save
from datasets.corpus import Corpus
from datasets.text import read_lines
from datasets.vocabulary import UNK, Vocabulary
from models.awd_rnnlm import AwdRnnlm
from models.language_model import LanguageModel
from train.compare import check_same_tokens
from train.context_report import CHANGES, Look, as_csv, draw, gradient_table, increase_table
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.options import check_counts
from train.run.saved_run import open_model, open_run

KEPT = (  # numbers of words that are left as they are
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000),
)
UNITS = {"word": "words", "char": "characters", "symbol": "symbols"}


@dataclass(frozen=True)
class Options:
    """Measure how far back trained models look, and draw all of them into one figure.

    Many targets of a text are drawn. For each, the gradient of its loss goes back through all steps
    within reach, and its norm is taken at the vector that was read k steps back: what a small
    change there would do. Then all but the last k words are replaced, shuffled or dropped, and the
    loss is compared with that of the text as it is: what the words there are good for. The smallest
    k from which on that costs less than 1 % in perplexity is the effective context size of
    Khandelwal et al. (2018), who drop the rest to find it. Dropout is off. Standard errors are
    those of other targets of such a text, not of another seed of the training.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "text": "split text corpus data_dir",
        "measure": "targets reach warm_up perturb seed",
        "run": "runs labels gpu out",
    }

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of one or more runs; of several with the same words."""
    split: Literal["valid", "test"] = "valid"
    """The part of the text of the runs from which the targets are drawn."""
    text: Path | None = None
    """In place of --split: a UTF-8 file of your own; by default the text is that of the runs."""
    targets: int = 1000
    """How many targets; the standard errors fall with the root of it."""
    reach: int = 200
    """Steps K through which the gradient goes back, and the most words that are left as they
    are."""
    warm_up: int = 100
    """Words that are read before those within reach, from a zero state."""
    perturb: Perturbation = "replace"
    """What becomes of the words further back: replaced by words drawn from the text, shuffled among
    themselves, or dropped, so that the model begins from a zero state behind them."""
    seed: int = 1
    """Decides which targets are drawn, and what the words are replaced by."""
    labels: tuple[str, ...] = ()
    """Names of the runs in figure and tables, one for each; by default their cells and sizes."""
    corpus: str | None = None
    """Where the text of the runs lies now; by default where it lay when the models were trained."""
    data_dir: Path | None = None
    """Where the files of ptb lie now; by default where they lay when the models were trained."""
    gpu: bool = False
    """Compute on the GPU."""
    out: Path | None = None
    """Folder for results and picture; runs/effective_context-TEXT-NUMBER if not named."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work, before a run is opened."""
    if not options.runs:
        raise ValueError("train.effective_context: expected a run or more, got none")
    if options.labels and len(options.labels) != len(options.runs):
        raise ValueError(
            f"--labels: expected one for each of {len(options.runs)} runs, "
            f"got {len(options.labels)}"
        )
    check_counts(options, "reach")
    if options.targets < 2:
        raise ValueError(f"--targets: expected 2 or more, got {options.targets}")
    if options.warm_up < 0:
        raise ValueError(f"--warm-up: expected 0 or more, got {options.warm_up}")
    if options.text is not None and (options.corpus or options.data_dir) is not None:
        raise ValueError("--corpus and --data-dir find the text of --split; leave them out")


def kind_and_size(model: LanguageModel) -> tuple[str, str]:
    """What people call a model: its cell, such as "LSTM", and layers and width, "2 × 650"."""
    cells, widths = [], []
    for layer in model.layers:
        if layer.state_names:
            inner = getattr(layer, "layer", layer)  # inside a weight drop
            cells.append(type(getattr(inner, "cell", inner)).__name__.removeprefix("Time"))
            widths.append(layer.state_sizes[0])
    kind = "AWD-" if isinstance(model, AwdRnnlm) else ""
    layers = f"{len(widths)} × " if len(widths) > 1 else ""
    return f"{kind}{cells[0]}", f"{layers}{widths[0]}"


def names_of(
    models: Sequence[LanguageModel], paths: Sequence[Path], labels: Sequence[str] = ()
) -> list[str]:
    """A name for each run: its label if there are any, else as little as tells them apart.

    That is the cell; with layers and width where cells are equal; and with the folder where these
    are equal too.
    """
    if labels:
        return list(labels)
    about = [kind_and_size(model) for model in models]
    kinds, wholes = [kind for kind, _ in about], [f"{kind}, {size}" for kind, size in about]
    if len(set(kinds)) == len(kinds):
        return kinds
    counts = Counter(wholes)
    return [
        whole if counts[whole] == 1 else f"{whole} ({path.resolve().name})"
        for whole, path in zip(wholes, paths, strict=True)
    ]


def read_text(path: Path, vocabulary: Vocabulary) -> numpy.ndarray:
    """Ids of a text of one's own; says on stderr how much of it the model does not know.

    Raises:
        FileNotFoundError, ValueError: as ``datasets.text.read_lines`` and ``encode`` do.
    """
    lines = read_lines(path, "word" if vocabulary.level == "word" else "char")
    ids = numpy.asarray(vocabulary.encode("".join(lines)), dtype="int32")
    if unknown := int((ids == vocabulary.word_to_id.get(UNK, -1)).sum()):
        print(f"note: {unknown:,} of {len(ids):,} tokens of {path} are <unk>", file=sys.stderr)
    return ids


def open_all(options: Options) -> tuple[list[LanguageModel], list[Array], Vocabulary, str, Any]:
    """The models, the ids that each of them reads, words of the first, name of the text, corpus."""
    if options.text is None:
        opened = [open_run(path, options.corpus, options.data_dir) for path in options.runs]
        corpora: list[Corpus] = [corpus for _, corpus in opened]
        check_same_tokens(options.runs, corpora, options.split)
        texts = [getattr(corpus, options.split) for corpus in corpora]
        first = corpora[0]
        return [model for model, _ in opened], texts, first.vocabulary, first.name, first
    known = [open_model(path) for path in options.runs]
    levels = [vocabulary.level for _, vocabulary in known]
    if len(set(levels)) > 1:
        raise ValueError(f"expected runs of one level, got {', '.join(levels)}")
    texts = [read_text(options.text, vocabulary) for _, vocabulary in known]
    return [model for model, _ in known], texts, known[0][1], options.text.stem, None


def mean_and_error(values: numpy.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard error over the rows of ``values`` (targets, n)."""
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return values.mean(axis=0).tolist(), error.tolist()


def measure(model: LanguageModel, tokens: Array, options: Options, run: Path, name: str) -> Look:
    """How far back a model looks in a text (tokens,)."""
    start = time.perf_counter()
    length = options.warm_up + options.reach
    rng = numpy.random.default_rng(options.seed)
    texts = sample_texts(tokens, length, options.targets, rng)
    gradient, gradient_error = mean_and_error(gradient_norms(model, texts, options.reach))
    kept = [*(k for k in KEPT if k < options.reach), options.reach]
    losses, increases = loss_increases(model, texts, kept, options.perturb, tokens, rng)
    increase, increase_error = mean_and_error(increases)
    place = first_below(numpy.asarray(increase), ONE_PERCENT)
    return Look(
        run=str(run),
        name=name,
        perplexity=perplexity_of(float(losses.mean())),
        gradient=gradient,
        gradient_error=gradient_error,
        kept=kept,
        increase=increase,
        increase_error=increase_error,
        effective_context=None if place is None else kept[place],
        gradient_reach=first_below(numpy.asarray(gradient), 0.01 * max(gradient)),
        seconds=time.perf_counter() - start,
    )


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    models, texts, vocabulary, subject, corpus = open_all(options)
    names = names_of(models, options.runs, options.labels)
    length = options.warm_up + options.reach
    if len(texts[0]) < length + 2:
        raise ValueError(
            f"--reach {options.reach} --warm-up {options.warm_up}: expected a text of "
            f"{length + 2:,} tokens or more, {subject} has {len(texts[0]):,}"
        )
    run = RunFolder.create("effective_context", subject, options, corpus)
    kernels.print_notice()
    unit = UNITS[vocabulary.level]
    num_targets = min(options.targets, len(texts[0]) - length)
    part = f"{options.split} text of {subject}" if options.text is None else str(options.text)
    print(f"{num_targets:,} targets of the {part}, each after {length} {unit}; {run.path}")
    looks: list[Look] = []
    for model, tokens, path, name in zip(models, texts, options.runs, names, strict=True):
        looks.append(measure(model, tokens, options, path, name))
        print(f"{name} of {path}: {looks[-1].seconds:.1f} s", flush=True)
        about = {"text": part, "targets": num_targets, "length": length, "unit": unit}
        results = {**about, "perturb": options.perturb, "models": [asdict(each) for each in looks]}
        run.write_json(run.results_file, results)  # what is measured is kept, whatever comes
        write_atomically(run.path / "effective_context.csv", as_csv(looks).encode())
    print("\nnorm of d loss(t) / d x(t-k), mean", *gradient_table(looks), sep="\n")
    changed = f"when {unit} further back are {CHANGES[options.perturb]}"
    print(f"\nincrease of the loss in nats {changed}", *increase_table(looks, unit), sep="\n")
    with readable():
        draw(looks, options.perturb, unit)
        show_or_save(run.path / "effective_context.png")


if __name__ == "__main__":
    run_command(main, Options)
