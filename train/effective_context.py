"""How far back trained models look: by the gradient of a loss, and by changing what they read.

python -m train.effective_context runs/rnn runs/gru runs/lstm
python -m train.effective_context runs/rnnlm-ptb-1 --perturb drop --targets 5000
"""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
from common.plotting import BLACK, PALETTE, name_points, readable, show_or_save
from datasets.corpus import Corpus
from datasets.text import read_lines
from datasets.vocabulary import UNK, Vocabulary
from models.awd_rnnlm import AwdRnnlm
from models.language_model import LanguageModel
from train.benchmark.report import aligned
from train.compare import check_same_tokens
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.options import check_counts
from train.run.saved_run import open_model, open_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT = (  # numbers of words that are left as they are
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000),
)
SHOWN = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # steps back of which the table has the norm
CHANGES = {"replace": "replaced by others", "shuffle": "shuffled", "drop": "dropped"}
LEAST_SHARE, LEAST_INCREASE = 1e-6, 3e-3  # what is less is not drawn, or as if it were that
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


@dataclass(frozen=True)
class Look:
    """How far back one model looks.

    Args:
        run: its folder.
        name: what figure and tables call it.
        perplexity: of the targets as the text is.
        gradient: mean norm of d loss(t) / d x(t-k) for k = 0, 1, ...
        gradient_error: standard errors of these.
        kept: numbers k of words that were left as they are.
        increase: what the loss grows by when those further back are changed, in nats, mean.
        increase_error: standard errors of these.
        effective_context: the smallest of ``kept`` from which on perplexity is less than 1 % above
            that of the text as it is; None where not even the largest is.
        gradient_reach: the smallest k from which on the mean norm is less than 1 % of the largest;
            None where the reach is too short for that.
        seconds: what it took.
    """

    run: str
    name: str
    perplexity: float
    gradient: list[float]
    gradient_error: list[float]
    kept: list[int]
    increase: list[float]
    increase_error: list[float]
    effective_context: int | None
    gradient_reach: int | None
    seconds: float


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


def gradient_table(looks: Sequence[Look]) -> list[str]:
    """Lines of the table of the norms, a column a model."""
    last = len(looks[0].gradient) - 1
    rows = [("steps back", *(look.name for look in looks))]
    for k in sorted({k for k in SHOWN if k < last} | {last}):
        rows.append((str(k), *(f"{look.gradient[k]:.2e}" for look in looks)))
    reaches = (_or_more(look.gradient_reach, last) for look in looks)
    rows.append(("below 1 % from", *reaches))
    return aligned(rows, left=())


def increase_table(looks: Sequence[Look], unit: str) -> list[str]:
    """Lines of the table of the increases, with standard errors, a column a model."""
    kept = looks[0].kept
    rows = [(f"{unit} kept", *(look.name for look in looks))]
    for at, k in enumerate(kept):
        cells = (f"{look.increase[at]:+.4f} ± {look.increase_error[at]:.4f}" for look in looks)
        rows.append((str(k), *cells))
    sizes = (_or_more(look.effective_context, kept[-1]) for look in looks)
    rows.append(("effective context", *sizes))
    rows.append(("perplexity", *(f"{look.perplexity:.2f}" for look in looks)))
    return aligned(rows, left=())


def _or_more(number: int | None, most: int) -> str:
    return f"more than {most}" if number is None else str(number)


def as_csv(looks: Sequence[Look]) -> str:
    """All figures, one a line: run, name, measure, k, mean, standard error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "name", "measure", "k", "mean", "standard_error"))
    for look in looks:
        for measured, steps, means, errors in (
            ("gradient", range(len(look.gradient)), look.gradient, look.gradient_error),
            ("increase", look.kept, look.increase, look.increase_error),
        ):
            for k, mean, error in zip(steps, means, errors, strict=True):
                writer.writerow((look.run, look.name, measured, k, mean, error))
    return text.getvalue()


def draw(looks: Sequence[Look], perturb: str, unit: str) -> None:
    """Draw the gradients on the left, the increases of the loss on the right.

    On the left the largest of each model is 1, since a gradient by a vector is the larger the
    shorter the model's vectors are: how fast it falls is what matters. The names say from where on
    it is below 1 %.
    """
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(16, 7.2), layout="constrained")
    left.set_title(f"What is left of the gradient\nat the {unit[:-1]} k steps back")
    left.set_xlabel("steps back k")
    left.set_ylabel("norm of d loss(t) / d x(t-k), the largest is 1")
    _draw_gradients(left, looks)
    right.set_title(f"What it costs when all but the last k\n{unit} are {CHANGES[perturb]}")
    right.set_xlabel(f"{unit} k that stay as they are")
    right.set_ylabel("increase of the loss in nats")
    _draw_increases(right, looks, unit)


def _draw_gradients(axes: Axes, looks: Sequence[Look]) -> None:
    """The mean norms, in parts of the largest."""
    axes.set_yscale("log")
    axes.grid()
    axes.axhline(0.01, color=BLACK, linestyle=":", linewidth=2)
    _name_line(axes, 0.01, "1 %", 1, 5)
    ends = []
    for look, color in zip(looks, _colors(looks), strict=True):
        share = numpy.asarray(look.gradient) / (max(look.gradient) or 1.0)
        inside = first_below(share, LEAST_SHARE) or len(share)
        axes.plot(range(inside), share[:inside], color=color)
        about = f"{look.name}: {_or_more(look.gradient_reach, len(share) - 1)} steps"
        ends.append((inside - 1, float(share[inside - 1]), about, color))
    name_points(axes, ends)


def _draw_increases(axes: Axes, looks: Sequence[Look], unit: str) -> None:
    """The mean increases with their standard errors, to where perplexity is less than 1 % higher.

    What is smaller is lost in the noise.
    """
    from matplotlib.ticker import NullLocator

    kept = looks[0].kept
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="clip")
    axes.set_xlim(0.9, kept[-1] * 1.1)
    axes.set_ylim(LEAST_INCREASE / 2, 2 * max(look.increase[0] for look in looks))
    ticks = [k for k in kept if str(k)[0] in "125" and str(k)[1:].strip("0") == ""]
    axes.set_xticks(ticks, map(str, ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid()
    axes.axhline(ONE_PERCENT, color=BLACK, linestyle=":", linewidth=2)
    _name_line(axes, ONE_PERCENT, "+1 % perplexity", 0, -5)
    contexts = [
        math.inf if look.effective_context is None else look.effective_context for look in looks
    ]
    ends = []
    for look, color in zip(looks, _colors(looks), strict=True):
        last = len(kept) - 1
        if look.effective_context is not None:
            last = kept.index(look.effective_context)
        steps, mean, error = (
            numpy.asarray(values[: last + 1])
            for values in (kept, look.increase, look.increase_error)
        )
        axes.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, numpy.maximum(mean, LEAST_INCREASE), "o-", color=color)
        about = f"{look.name}: {_or_more(look.effective_context, kept[-1])} {unit}"
        height = max(look.increase[last], LEAST_INCREASE)
        if look.effective_context is not None:  # off the line, and below longer curves
            longer = sum(each > look.effective_context for each in contexts)
            height = 0.6 * ONE_PERCENT * 0.7**longer
        ends.append((kept[last], height, about, color))
    name_points(axes, ends)


def _name_line(axes: Axes, height: float, name: str, side: int, points: float) -> None:
    """Write the name of a level line at its left end (0) or its right one (1), above or below."""
    axes.annotate(
        name,
        (side, height),
        (6 - 10 * side, points),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right" if side else "left",
        va="bottom" if points > 0 else "top",
    )


def _colors(looks: Sequence[Look]) -> list[str]:
    return [PALETTE[k % len(PALETTE)] for k in range(len(looks))]


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
