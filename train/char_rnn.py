"""Train a character RNN on a list of words, by two backward rules side by side.

python -m train.char_rnn                                # the two built-in lists
python -m train.char_rnn --words banana bandana cabana
python -m train.char_rnn --file names.txt --hidden-size 80
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy

from common.np import Array, Scalar, np
from common.optimizer import SGD
from common.plotting import BLACK, BLUE, RED, progress, readable, show_or_save
from common.util import clip_grads_value
from datasets import text
from datasets.corpus import Corpus, corpus_from_tokens
from models.char_rnn import CharRnn
from train.run.command import run_command
from train.run.options import check_counts
from train.run.restartable import RestartableRun, restartable_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUILT_IN = {"vector": ["vector"], "ectoaxg": ["vector", *["ectoaxg"] * 14]}
TITLES = {
    "vector": 'One word: "vector"',
    "ectoaxg": '"vector" once, "ectoaxg" 14 times:\nonly the first letter tells "r" from "a"',
}
HIDDEN_SIZES = {"vector": 50}
RULES = {"one_step": "one step", "full": "full BPTT"}  # how far the gradient flows
COLORS = {"one_step": RED, "full": BLUE}


@dataclass(frozen=True)
class Options:
    """Train a character RNN on a list of words, one update a word, from several random starts.

    Each start is trained twice from the same weights: with the gradient cut after one step, and
    with full backpropagation through time. Both then write words that begin with the prompt.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "corpus words file",
        "model": "hidden_size",
        "training": "starts iterations lr max_grad",
        "run": "prompt samples seed out resume",
    }

    corpus: Literal["both", "vector", "ectoaxg"] = "both"
    """vector (that one word), ectoaxg (vector once and ectoaxg fourteen times: after "ecto" only
    what comes before it decides the next letter), or both, one after the other."""
    words: tuple[str, ...] | None = None
    """Your own words; by default those of a built-in list."""
    file: Path | None = None
    """Your own UTF-8 text file, one word or sentence a line; by default a built-in list."""
    prompt: str = ""
    """Beginning of every sample; by default the first letter of the first word."""
    samples: int = 10
    """Number of samples that each trained network writes."""
    starts: int = 3
    """Number of random starts; the one-step rule fails from many of them, not from all."""
    iterations: int = 1000
    """Number of passes over the list."""
    hidden_size: int | None = None
    """Width H of the RNN; by default 50 for vector and 30 for every other list."""
    lr: float = 0.1
    """Learning rate of plain SGD, on the loss summed over the letters of a word."""
    max_grad: float = 1.0
    """Bound of the absolute value of every element of every gradient."""
    seed: int = 1
    """Decides the initial weights and the samples."""
    out: Path | None = None
    """Folder of the run; runs/char_rnn-CORPUS-NUMBER if not named."""
    resume: Path | None = None
    """Resume the run in this folder with its own options; finished trainings are kept. By default
    a new run begins."""


@dataclass(frozen=True)
class Result:
    """The result of training one start by one rule."""

    rule: str
    start: int
    losses: list[float]
    """The loss of each iteration, a mean over the words."""
    samples: list[str]
    right: int
    """Number of samples that are words of the list."""
    greedy: str
    """The text that comes from always taking the likeliest letter."""


def load_corpora(options: Options) -> list[Corpus]:
    """The lists that the options name, each as a corpus with one word a line.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a list without words, an empty word, or a file that is not UTF-8.
    """
    if options.words is not None and options.file is not None:
        raise ValueError("char_rnn: expected --words or --file, got both")
    if options.file is not None:
        file = options.file
        corpora = [text.load_corpus(file, file, file, level="char", name=file.stem)]
    elif options.words is not None:
        corpora = [_corpus("words", options.words)]
    else:
        names = list(BUILT_IN) if options.corpus == "both" else [options.corpus]
        corpora = [_corpus(name, BUILT_IN[name]) for name in names]
    for corpus in corpora:
        words = words_of(corpus)
        if "" in words:
            raise ValueError(
                f"char_rnn: word {words.index('') + 1} of {len(words)} in {corpus.name} is empty"
            )
        corpus.encode(options.prompt)
    return corpora


def _corpus(name: str, words: Sequence[str]) -> Corpus:
    if not words:
        raise ValueError("char_rnn: expected at least one word after --words, got none")
    lines = "".join(word + "\n" for word in words)
    return corpus_from_tokens(name, lines, lines, lines, level="char")


def words_of(corpus: Corpus) -> list[str]:
    """The lines of the training split."""
    return corpus.decode(corpus.train).removesuffix("\n").split("\n")


def to_sequences(corpus: Corpus) -> list[tuple[Array, Array]]:
    """For each word the ids (1, T) of its letters and those (1, T) of the letters that follow.

    The last letter is followed by a newline. The newline is also a word of its own at the end of
    the list, as in the experiment that is repeated here, whose mean losses count it.
    """
    lines = [corpus.encode(word + "\n") for word in [*words_of(corpus), "\n"]]
    return [(np.asarray([ids[:-1]]), np.asarray([ids[1:]])) for ids in lines]


def last_letter_loss(sequences: list[tuple[Array, Array]]) -> float:
    """The least possible loss per word of a model that sees the last letter only."""
    pairs = Counter(
        pair for xs, ts in sequences for pair in zip(xs[0].tolist(), ts[0].tolist(), strict=True)
    )
    firsts: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    total = sum(count * math.log(firsts[first] / count) for (first, _), count in pairs.items())
    return total / len(sequences)


def train(
    model: CharRnn,
    sequences: list[tuple[Array, Array]],
    iterations: int = 1000,
    lr: float = 0.1,
    max_grad: float = 1.0,
) -> list[float]:
    """Train on the words in order, one update each; return the mean loss of each iteration.

    Raises:
        RuntimeError: when the loss is no longer finite.
    """
    optimizer = SGD(lr)
    losses: list[float] = []
    for _ in progress(range(iterations), unit=" iterations", desc="training"):
        total: Scalar = 0.0
        with numpy.errstate(over="ignore", invalid="ignore"):  # the loss tells
            for xs, ts in sequences:
                total = total + model.forward(xs, ts)
                model.backward()
                clip_grads_value(model.grads, max_grad)
                optimizer.update(model.params, model.grads)
        losses.append(float(total) / len(sequences))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(
                f"char_rnn: the loss is {losses[-1]} at iteration {len(losses)}; "
                "try a smaller learning rate"
            )
    return losses


def write(model: CharRnn, corpus: Corpus, prompt: str, length: int, **how: Any) -> str:
    """Continue ``prompt`` until a newline, by at most ``length`` letters."""
    ids = model.generate(corpus.encode(prompt), length, stop_ids=[corpus.first_id], **how)
    return corpus.decode(ids).removesuffix("\n")


def train_start(
    corpus: Corpus, hidden_size: int, options: Options, start: int, rule: str
) -> Result:
    """Train a network from one random start by one rule, then draw its samples."""
    words = words_of(corpus)
    prompt, length = options.prompt or words[0][0], 2 * max(map(len, words))
    rng = numpy.random.default_rng([options.seed, start])  # the same for both rules
    model = CharRnn(corpus.vocab_size, hidden_size, rule == "one_step", rng)
    sequences = to_sequences(corpus)
    losses = train(model, sequences, options.iterations, options.lr, options.max_grad)
    samples = [write(model, corpus, prompt, length, rng=rng) for _ in range(options.samples)]
    right = sum(sample in words for sample in samples)
    greedy = write(model, corpus, prompt, length, greedy=True)
    return Result(rule, start, losses, samples, right, greedy)


def train_starts(
    corpus: Corpus, hidden_size: int, options: Options, run: RestartableRun
) -> list[Result]:
    """Train every start by both rules unless it is finished; print and log a line for each."""
    words = words_of(corpus)
    shown = sorted({math.ceil(options.iterations * tenths / 10) for tenths in range(1, 11)})
    print(
        f"\n{corpus.name}: words {len(words)}, alphabet {corpus.vocab_size}, "
        f"hidden units {hidden_size}; loss per word at iteration\n"
        f"start  rule      {''.join(f'{k:7}' for k in shown)}  right samples"
    )
    trained = []
    for start in range(1, options.starts + 1):
        for rule, name in RULES.items():
            training = f"{corpus.name} {start} {rule}"
            kept = run.kept(training, lambda fields: Result(**fields))
            result = kept or train_start(corpus, hidden_size, options, start, rule)
            trained.append(result)
            printed = {k: result.losses[k - 1] for k in shown}
            columns = "".join(f"{loss:7.4f}" for loss in printed.values())
            right = f"{result.right} of {options.samples}"
            print(f"{start:5}  {name:10}{columns}  {right}", flush=True)
            if kept is None:
                place = {"corpus": corpus.name, "start": start, "rule": rule}
                run.folder.log({**place, "loss": printed})
                run.save(training, asdict(result))
    return trained


def report(words: list[str], trained: list[Result]) -> dict[str, Any]:
    """Print the samples of each rule; return the numbers for results.json."""
    results = {}
    for rule, name in RULES.items():
        starts = [result for result in trained if result.rule == rule]
        samples = Counter(sample for result in starts for sample in result.samples)
        starts_right = sum(result.greedy in words for result in starts)
        samples_right = sum(result.right for result in starts)
        commonest = ", ".join(f"{sample} ({count})" for sample, count in samples.most_common(4))
        print(
            f"{name}: likeliest text right from {starts_right} of {len(starts)} starts, "
            f"samples right {samples_right} of {samples.total()}: {commonest}"
        )
        results[rule] = {
            "starts_right": starts_right,
            "samples_right": samples_right,
            "starts": [
                {
                    "start": result.start,
                    "loss": result.losses[-1],
                    "greedy": result.greedy,
                    "right": result.right,
                    "samples": result.samples,
                }
                for result in starts
            ],
        }
    return results


def draw(corpora: Sequence[Corpus], trained: Sequence[list[Result]]) -> None:
    """Draw a new figure with the losses of every start by both rules, a panel for each list."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1,
        len(corpora),
        figsize=(1 + 5.5 * len(corpora), 6.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, corpus, results in zip(panels[0], corpora, trained, strict=True):
        _draw_list(axes, corpus, results)
    panels[0, 0].set_ylabel("loss per word")
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low / 4, high)  # room for what stands below a line
    starts = max(result.start for result in trained[0])
    thin = f"\nthin lines: each of {starts} random starts; thick ones: their median"
    figure.supxlabel(
        "one step, full BPTT: how far back in a word the gradient flows" + thin * (starts > 1)
    )


def _draw_list(axes: Axes, corpus: Corpus, trained: list[Result]) -> None:
    """Draw the losses of one list; what a line is stands at its end."""
    for rule, name in RULES.items():
        starts = [result for result in trained if result.rule == rule]
        curves = numpy.array([result.losses for result in starts])
        iterations = numpy.arange(1, curves.shape[1] + 1)
        axes.plot(iterations, curves.T, color=COLORS[rule], linewidth=1.2, alpha=0.7)
        median = numpy.median(curves, axis=0)
        axes.plot(iterations, median, color=COLORS[rule])
        right = sum(result.right for result in starts)
        axes.annotate(
            f"{name}: {right} of {len(starts) * len(starts[0].samples)} samples right",
            (iterations[-1], median[-1]),
            (0, 36 if rule == "one_step" else -8),
            textcoords="offset points",
            color=COLORS[rule],
            ha="right",
            va="bottom" if rule == "one_step" else "top",
        )
    floor = last_letter_loss(to_sequences(corpus))
    if floor > 0:
        axes.axhline(floor, color=BLACK, linewidth=2, linestyle=":")
        axes.annotate(
            "the best that knows\nonly the last letter",
            (len(median), floor),
            (0, -10),
            textcoords="offset points",
            ha="right",
            va="top",
        )
    axes.set_title(title(corpus.name, words_of(corpus)), parse_math=False)
    axes.set_yscale("log")
    axes.set_xlabel("iterations")
    axes.grid()


def title(name: str, words: Sequence[str]) -> str:
    """What a built-in list is about; of any other the words, each with how often it comes."""
    if words == BUILT_IN.get(name):
        return TITLES[name]
    counts = Counter(words).most_common()[::-1]
    line = ", ".join(word if count == 1 else f"{count} × {word}" for word, count in counts[:4])
    shortened = len(line) > 45 or len(counts) > 4
    return line[:45] + " ..." * shortened


def main(options: Options) -> None:
    """Run the command."""
    check_counts(options, "samples", "starts", "iterations", "hidden_size")
    if options.file is not None:
        options = replace(options, file=options.file.expanduser().absolute())
    corpora = load_corpora(options)
    hidden_sizes = [
        HIDDEN_SIZES.get(corpus.name, 30) if options.hidden_size is None else options.hidden_size
        for corpus in corpora
    ]
    subject = "-".join(corpus.name for corpus in corpora)
    text_of_run = corpora[0] if options.file is not None else None
    with restartable_run("char_rnn", subject, options, text_of_run) as run:
        results, trained = {}, []
        for corpus, hidden_size in zip(corpora, hidden_sizes, strict=True):
            trained.append(train_starts(corpus, hidden_size, options, run))
            results[corpus.name] = report(words_of(corpus), trained[-1])
        run.folder.write_json(run.folder.results_file, results)
        with readable():
            draw(corpora, trained)
            show_or_save(run.folder.path / "char_rnn.png")


if __name__ == "__main__":
    run_command(main, Options)
