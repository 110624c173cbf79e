"""Teach a character RNN a list of words, by two backward rules side by side.

python -m train.char_rnn                                # the two built-in lists
python -m train.char_rnn --words banana bandana cabana
python -m train.char_rnn --file names.txt --hidden-size 80
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
from tqdm import trange

from common.base_layer import check_sizes
from common.np import Array, np
from common.optimizer import SGD
from common.plotting import show_or_save
from common.util import clip_grads_value
from datasets import text
from datasets.corpus import Corpus, corpus_from_tokens
from models.char_rnn import CharRnn
from train.run.command import run_command
from train.run.restartable import Parts, run_in_parts

BUILT_IN = {"vector": ["vector"], "ectoaxg": ["vector", *["ectoaxg"] * 14]}
HIDDEN_SIZES = {"vector": 50}
RULES = {"one_step": "one step", "full": "full BPTT"}  # how far the gradient flows
COLORS = {"one_step": "#D55E00", "full": "#0072B2"}  # told apart by every kind of eye


@dataclass(frozen=True)
class Options:
    """Train a character RNN on a list of words, one update a word, from several random starts.

    Each start is trained twice from the same weights: with the gradient cut after one step, and
    with full backpropagation through time. Both then write words that begin with the prompt.
    """

    corpus: Literal["both", "vector", "ectoaxg"] = "both"
    """vector (that one word), ectoaxg (vector and fourteen times ectoaxg: after "vecto" only the
    first letter tells how to go on), or both, one after the other."""
    words: tuple[str, ...] | None = None
    """Your own words instead."""
    file: Path | None = None
    """Your own UTF-8 text file instead, one word or sentence a line."""
    prompt: str = ""
    """What the samples begin with; by default the first letter of the first word."""
    samples: int = 10
    """How many samples each trained network writes."""
    starts: int = 3
    """How many random starts; the rule that is cut fails from many of them, not from all."""
    iterations: int = 1000
    """How often the list is read."""
    hidden_size: int | None = None
    """Width H of the RNN; by default 50 for vector and 30 for every other list."""
    lr: float = 0.1
    """Learning rate of plain SGD, on the loss summed over the letters of a word."""
    max_grad: float = 1.0
    """Every element of every gradient is clipped to this size."""
    seed: int = 1
    """Decides the initial weights and the samples."""
    out: Path | None = None
    """Folder of the run; runs/char_rnn-CORPUS-NUMBER if not named."""
    resume: Path | None = None
    """Go on with the run in this folder: what is finished is kept, the rest is done. Its options
    are taken from there."""


@dataclass(frozen=True)
class Outcome:
    """What one rule made of one start."""

    rule: str
    start: int
    losses: list[float]
    """The loss of each iteration, a mean over the words."""
    samples: list[str]
    right: int
    """How many samples are words of the list."""
    greedy: str
    """What always taking the likeliest letter writes."""


def load_corpora(options: Options) -> list[Corpus]:
    """The lists that the options name; every word is a line of the training split.

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

    The last letter is followed by a newline. The newline also stands in the list as a word of its
    own, as in the experiment that is repeated here: its losses are means that count it.
    """
    lines = [corpus.encode(word + "\n") for word in [*words_of(corpus), "\n"]]
    return [(np.asarray([ids[:-1]]), np.asarray([ids[1:]])) for ids in lines]


def last_letter_loss(sequences: list[tuple[Array, Array]]) -> float:
    """The least loss per word for whoever knows the last letter only."""
    pairs = Counter(
        pair for xs, ts in sequences for pair in zip(xs[0].tolist(), ts[0].tolist(), strict=True)
    )
    firsts: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    total = sum(count * math.log(firsts[first] / count) for (first, _), count in pairs.items())
    return total / len(sequences)


def learn(
    model: CharRnn,
    sequences: list[tuple[Array, Array]],
    iterations: int = 1000,
    lr: float = 0.1,
    max_grad: float = 1.0,
) -> list[float]:
    """Read the words in order, one update each; return the mean loss of each iteration.

    Raises:
        RuntimeError: when the loss is no longer finite.
    """
    optimizer = SGD(lr)
    losses: list[float] = []
    for _ in trange(iterations, unit=" iterations", leave=False, disable=None):
        total: Array = 0.0
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


def spell(model: CharRnn, corpus: Corpus, prompt: str, length: int, **how: Any) -> str:
    """Continue ``prompt`` until a newline, by at most ``length`` letters."""
    ids = model.generate(corpus.encode(prompt), length, stop_ids=[corpus.first_id], **how)
    return corpus.decode(ids).removesuffix("\n")


def try_start(corpus: Corpus, hidden_size: int, options: Options, start: int, rule: str) -> Outcome:
    """Train one start by one rule and let it write."""
    words = words_of(corpus)
    prompt, length = options.prompt or words[0][0], 2 * max(map(len, words))
    rng = numpy.random.default_rng([options.seed, start])  # the same for both rules
    model = CharRnn(corpus.vocab_size, hidden_size, rule == "one_step", rng)
    sequences = to_sequences(corpus)
    losses = learn(model, sequences, options.iterations, options.lr, options.max_grad)
    samples = [spell(model, corpus, prompt, length, rng=rng) for _ in range(options.samples)]
    right = sum(sample in words for sample in samples)
    greedy = spell(model, corpus, prompt, length, greedy=True)
    return Outcome(rule, start, losses, samples, right, greedy)


def train(corpus: Corpus, hidden_size: int, options: Options, parts: Parts) -> list[Outcome]:
    """Train every start by both rules, except what is finished; print a line for each, log it."""
    words = words_of(corpus)
    shown = sorted({math.ceil(options.iterations * tenths / 10) for tenths in range(1, 11)})
    print(
        f"\n{corpus.name}: words {len(words)}, alphabet {corpus.vocab_size}, "
        f"hidden units {hidden_size}; loss per word at iteration\n"
        f"start  rule      {''.join(f'{k:7}' for k in shown)}  right samples"
    )
    outcomes = []
    for start in range(1, options.starts + 1):
        for rule, name in RULES.items():
            part = f"{corpus.name} {start} {rule}"
            kept = parts.finished.get(part)
            outcome = (
                try_start(corpus, hidden_size, options, start, rule)
                if kept is None
                else Outcome(**kept)
            )
            outcomes.append(outcome)
            printed = {k: outcome.losses[k - 1] for k in shown}
            columns = "".join(f"{loss:7.4f}" for loss in printed.values())
            right = f"{outcome.right} of {options.samples}"
            print(f"{start:5}  {name:10}{columns}  {right}", flush=True)
            if kept is None:
                place = {"corpus": corpus.name, "start": start, "rule": rule}
                parts.run.log({**place, "loss": printed})
                parts.keep(part, asdict(outcome))
    return outcomes


def report(words: list[str], outcomes: list[Outcome]) -> dict[str, Any]:
    """Print what each rule wrote; return the numbers for results.json."""
    results = {}
    for rule, name in RULES.items():
        starts = [outcome for outcome in outcomes if outcome.rule == rule]
        samples = Counter(sample for outcome in starts for sample in outcome.samples)
        starts_right = sum(outcome.greedy in words for outcome in starts)
        samples_right = sum(outcome.right for outcome in starts)
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
                    "start": outcome.start,
                    "loss": outcome.losses[-1],
                    "greedy": outcome.greedy,
                    "right": outcome.right,
                    "samples": outcome.samples,
                }
                for outcome in starts
            ],
        }
    return results


def draw(axes: Any, corpus: Corpus, outcomes: list[Outcome]) -> None:
    """Loss curves into ``axes``: every start thin, the median of each rule thick."""
    for rule, name in RULES.items():
        starts = [outcome for outcome in outcomes if outcome.rule == rule]
        curves = numpy.array([outcome.losses for outcome in starts])
        iterations = numpy.arange(1, curves.shape[1] + 1)
        right = sum(outcome.right for outcome in starts)
        label = f"{name}: {right} of {len(starts) * len(starts[0].samples)} samples right"
        axes.plot(iterations, curves.T, color=COLORS[rule], linewidth=0.6, alpha=0.6)
        median = numpy.median(curves, axis=0)
        axes.plot(iterations, median, color=COLORS[rule], linewidth=2.5, label=label)
    floor = last_letter_loss(to_sequences(corpus))
    if floor > 0:
        label = "least loss knowing only the last letter"
        axes.axhline(floor, color="black", linewidth=1, linestyle=":", label=label)
    counts = Counter(words_of(corpus)).most_common()[::-1]
    listed = ", ".join(word if count == 1 else f"{count} × {word}" for word, count in counts[:4])
    shortened = len(listed) > 50 or len(counts) > 4
    axes.set_title(listed[:50] + " ..." * shortened, parse_math=False)
    axes.set_yscale("log")
    axes.set_xlabel("iterations")
    axes.grid(alpha=0.3)
    axes.legend(title="gradient through", fontsize="small")


def main(options: Options) -> None:
    """Run the command."""
    import matplotlib.pyplot as plt

    corpora = load_corpora(options)
    hidden_sizes = [
        HIDDEN_SIZES.get(corpus.name, 30) if options.hidden_size is None else options.hidden_size
        for corpus in corpora
    ]
    check_sizes(
        "char_rnn",
        iterations=options.iterations,
        starts=options.starts,
        samples=options.samples,
        hidden_size=min(hidden_sizes),
    )
    subject = "-".join(corpus.name for corpus in corpora)
    with run_in_parts("char_rnn", subject, options) as parts:
        _, panels = plt.subplots(
            1,
            len(corpora),
            figsize=(4.4 * len(corpora), 3.4),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        panels[0, 0].set_ylabel("loss per word")
        results = {}
        for corpus, hidden_size, axes in zip(corpora, hidden_sizes, panels[0], strict=True):
            outcomes = train(corpus, hidden_size, options, parts)
            results[corpus.name] = report(words_of(corpus), outcomes)
            draw(axes, corpus, outcomes)
        show_or_save(parts.run.curve_file)
        parts.run.write_json(parts.run.results_file, results)


if __name__ == "__main__":
    run_command(main, Options)
