"""Compare trained models on one text: which is better, by how much, where, and how surely.

python -m train.compare runs/rnnlm-ptb-1 runs/rnnlm-ptb-2
python -m train.compare runs/rnnlm-ptb-1 runs/awd_rnnlm-ptb-1 --split valid
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy
import tyro

from common.perplexity.paired_bootstrap import (
    CONFIDENCE,
    FEWEST_SENTENCES,
    Difference,
    Group,
    paired_bootstrap,
)
from common.perplexity.per_token import token_losses
from common.plotting import BLACK, readable, show_or_save
from datasets.corpus import Corpus
from datasets.vocabulary import UNK, Vocabulary
from train.benchmark.report import aligned
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.saved_run import open_run

INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
COMMON, LESS_COMMON = 100, 1000  # how many tokens are the commonest
PLACES = {  # where each group of places begins
    "word": (1, 2, 3, 5, 9, 17, 33),
    "char": (1, 2, 3, 5, 9, 17, 33, 65, 129),
    "byte": (1, 2, 3, 5, 9, 17, 33, 65, 129),
}


@dataclass(frozen=True)
class Options:
    """Compare the perplexities of two or more runs on one text with that of the first.

    Every token is scored once, by the exact protocol. A paired bootstrap then draws the sentences
    of the text anew (at character level its lines), many times, and says where 95 % of the
    differences lie: for the text, for words by their frequency in the training text, and by place
    in the sentence. That tells how sure a difference is on other sentences of the kind, not what
    another seed of the training would have given. Each interval stands for itself: of twenty, one
    misses.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two or more runs with the same words; the others are compared with the first."""
    split: Literal["valid", "test"] = "test"
    """The part of the text on which they are compared."""
    resamples: int = 10_000
    """How often the sentences are drawn."""
    seed: int = 1
    """Decides which are drawn."""
    corpus: str | None = None
    """Where the text of the runs lies now, if not where it lay when the models were trained."""
    data_dir: Path | None = None
    """Where the files of ptb lie, if not where they lay when the models were trained."""
    gpu: bool = False
    """Compute on the GPU."""
    out: Path | None = None
    """Folder for results and picture; runs/compare-CORPUS-NUMBER if not named."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work, before a run is opened."""
    if len(options.runs) < 2:
        raise ValueError(f"train.compare: expected two runs or more, got {len(options.runs)}")
    if options.resamples < 1:
        raise ValueError(f"--resamples: expected 1 or more, got {options.resamples}")
    if options.seed < 0:
        raise ValueError(f"--seed: expected 0 or more, got {options.seed}")


def check_same_tokens(paths: Sequence[Path], corpora: Sequence[Corpus], split: str) -> None:
    """Raise ValueError, and say what differs, where a run has other words or another text."""
    for path, corpus in zip(paths[1:], corpora[1:], strict=True):
        differs = list(_differing(corpus, corpora[0], split))
        if differs:
            raise ValueError(
                f"{path} cannot be compared with {paths[0]}: {', '.join(differs)}; expected runs "
                "of the same words and the same text"
            )


def _differing(corpus: Corpus, first: Corpus, split: str) -> Iterator[str]:
    """What keeps a run from being compared with the first one."""
    words = list(corpus.vocabulary.differences(first.vocabulary))
    yield from words
    if not words and corpus.split_hashes()[split] != first.split_hashes()[split]:
        sizes = [part.split_sizes()[split] for part in (corpus, first)]
        yield f"its {split} text is another one ({sizes[0]:,} tokens, there {sizes[1]:,})"


def sentences(tokens: numpy.ndarray, eos_id: int | None) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The sentence of every token, from 0, and its place in the sentence, from 1; both (tokens,).

    A sentence ends with ``eos_id``, which belongs to it; where that is None there is only one.
    """
    ends = numpy.zeros(len(tokens), bool) if eos_id is None else tokens == eos_id
    sentence_of = numpy.cumsum(ends) - ends
    starts = numpy.searchsorted(sentence_of, sentence_of)
    return sentence_of, numpy.arange(len(tokens)) - starts + 1


def by_frequency(corpus: Corpus, tokens: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Groups of tokens by the rank of their frequency in the training text, bool (tokens,).

    ``<unk>`` and what ends a sentence have groups of their own and no rank.
    """
    end = "<eos>" if corpus.level == "word" else "end of line"
    ids = {"<unk>": corpus.word_to_id.get(UNK), end: corpus.eos_id}
    special = {name: i for name, i in ids.items() if i is not None}
    counts = numpy.bincount(corpus.train, minlength=corpus.vocab_size)
    ranked = [i for i in (-counts).argsort(kind="stable") if i not in special.values()]
    rank = numpy.full(corpus.vocab_size, -1)
    rank[ranked] = numpy.arange(len(ranked))
    rank = rank[tokens]
    return {
        f"commonest {COMMON}": (rank >= 0) & (rank < COMMON),
        f"{COMMON + 1} to {LESS_COMMON:,}": (rank >= COMMON) & (rank < LESS_COMMON),
        "the rest": rank >= LESS_COMMON,
        **{name: tokens == i for name, i in special.items()},
    }


def by_place(place: numpy.ndarray, level: str) -> dict[str, numpy.ndarray]:
    """Groups of tokens by their place in the sentence, bool (tokens,)."""
    starts = PLACES[level]
    names = [str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in pairwise(starts)]
    at = numpy.searchsorted(starts, place, side="right") - 1
    return {name: at == k for k, name in enumerate([*names, f"{starts[-1]} and on"])}


def run_table(whole: Group, labels: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """Lines of the table of the runs, by the whole text."""
    head = ("", "run", *_perplexity_heads("perplexity", "bits per character", vocabulary))
    rows = [(*head, "difference, nats", INTERVAL, "ratio", INTERVAL, "wins")]
    for k, (label, perplexity) in enumerate(zip(labels, whole.perplexities, strict=True)):
        cells = (f"#{k + 1}", label, *_perplexity_cells(perplexity, vocabulary))
        rows.append((*cells, *(_difference_cells(whole.differences[k - 1]) if k else [""] * 5)))
    return aligned(rows, left=("", "run"))


def group_table(title: str, groups: Sequence[Group], vocabulary: Vocabulary) -> list[str]:
    """Lines of the table of some groups, one a row."""
    num_runs = len(groups[0].perplexities)
    head = [title, "tokens"]
    for k in range(num_runs):
        head += _perplexity_heads(f"#{k + 1}", "bits", vocabulary)
    for k in range(1, num_runs):
        head += [f"#{k + 1} / #1", INTERVAL]
    rows = [tuple(head)]
    for group in groups:
        cells = [group.name, f"{group.tokens:,}"]
        for perplexity in group.perplexities:
            cells += _perplexity_cells(perplexity, vocabulary)
        for difference in group.differences:
            cells += _difference_cells(difference)[2:4]
        rows.append(tuple(cells))
    return aligned(rows, left=(title,))


def _perplexity_heads(name: str, bits: str, vocabulary: Vocabulary) -> list[str]:
    return [name, *[bits] * len(vocabulary.in_bits({name: 1.0}))]


def _perplexity_cells(perplexity: float, vocabulary: Vocabulary) -> list[str]:
    bits = vocabulary.in_bits({"": perplexity}).values()
    return [f"{perplexity:.2f}", *(f"{value:.3f}" for value in bits)]


def _difference_cells(difference: Difference) -> list[str]:
    """Difference, its interval, ratio, its interval, share of wins."""
    interval = ratios = wins = "-"
    if math.isfinite(difference.wins):
        interval = "{:+.4f} to {:+.4f}".format(*difference.interval)
        ratios = "{:.4f} to {:.4f}".format(*difference.ratio_interval)
        wins = f"{100 * difference.wins:.1f} %"
    return [f"{difference.nll_difference:+.4f}", interval, f"{difference.ratio:.4f}", ratios, wins]


def verdict(difference: Difference, label: str, first: str) -> str:
    """One sentence that says whether a difference is claimed."""
    interval = "{:.4f} to {:.4f}".format(*difference.ratio_interval)
    if not difference.is_claimed:
        return (
            f"no difference claimed between {first} and {label}: the {INTERVAL} of the "
            f"ratio of their perplexities, {interval}, holds 1"
        )
    better = "better" if difference.nll_difference < 0 else "worse"
    return (
        f"a difference is claimed: {label} is {better} than {first} on this text, with "
        f"{difference.ratio:.4f} times its perplexity ({INTERVAL} {interval})"
    )


def record(group: Group, vocabulary: Vocabulary) -> dict[str, Any]:
    """What results.json has of a group: a figure of every run, differences from the second on."""
    runs: list[dict[str, Any]] = [
        {"perplexity": perplexity, **vocabulary.in_bits({"perplexity": perplexity})}
        for perplexity in group.perplexities
    ]
    for run, difference in zip(runs[1:], group.differences, strict=True):
        run |= asdict(difference)
        run |= {"ratio": difference.ratio, "ratio_interval": difference.ratio_interval}
        run |= {"claimed": difference.is_claimed}
    return {"name": group.name, "tokens": group.tokens, "runs": runs}


def draw(kinds: dict[str, list[Group]], labels: Sequence[str], text: str) -> None:
    """Draw the ratio to the first run's perplexity, with its interval, of every group.

    Args:
        kinds: the groups of each panel, by its title.
        labels: of the runs.
        text: what was read.
    """
    import matplotlib.pyplot as plt

    rows = [len(groups) for groups in kinds.values()]
    figure, panels = plt.subplots(
        len(kinds),
        figsize=(12, 3 + 0.5 * sum(rows)),
        height_ratios=rows,
        sharex=True,
        layout="constrained",
    )
    for panel, (title, groups) in zip(panels, kinds.items(), strict=True):
        for k, label in enumerate(labels[1:]):
            differences = [group.differences[k] for group in groups]
            ys = numpy.arange(len(groups)) + 0.5 * ((k + 0.5) / (len(labels) - 1) - 0.5)
            (points,) = panel.plot([d.ratio for d in differences], ys, "o", label=label)
            for y, difference in zip(ys, differences, strict=True):
                if math.isfinite(difference.wins):
                    panel.hlines(y, *difference.ratio_interval, color=points.get_color())
        panel.axvline(1, color=BLACK)
        names = [f"{group.name} ({group.tokens:,})" for group in groups]
        panel.set_yticks(range(len(groups)), names)
        panel.set_ylim(len(groups) - 0.5, -0.5)
        panel.set_title(title)
        panel.grid(axis="x")
    panels[-1].set_xlabel("perplexity divided by that of the first run: left of 1 is better")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", labelcolor="linecolor")
    figure.suptitle(f"Compared with {labels[0]}, {INTERVAL}s\n{text}")


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    opened = [open_run(path, options.corpus, options.data_dir) for path in options.runs]
    corpus = opened[0][1]
    check_same_tokens(options.runs, [text for _, text in opened], options.split)
    tokens = getattr(corpus, options.split)
    sentence_of, place = sentences(tokens, corpus.eos_id)
    unit = "sentence" if corpus.level == "word" else "line"
    num_sentences = int(sentence_of.max(initial=-1)) + 1
    if num_sentences < FEWEST_SENTENCES:
        raise ValueError(
            f"--split {options.split}: expected {FEWEST_SENTENCES} {unit}s or more to draw from, "
            f"got {num_sentences} of {corpus.name}"
        )
    run = RunFolder.create("compare", corpus.name, options, corpus)
    text = f"{options.split} text of {corpus.name}, {num_sentences:,} {unit}s"
    print(f"{text}, drawn {options.resamples:,} times; {run.path}", flush=True)
    losses = [token_losses(model, tokens, corpus.first_id) for model, _ in opened]
    kinds = paired_bootstrap(
        numpy.stack(losses),
        sentence_of,
        {
            "text": {"all": numpy.ones(len(tokens), bool)},
            "frequency": by_frequency(corpus, tokens),
            "place": by_place(place, corpus.level),
        },
        options.resamples,
        numpy.random.default_rng(options.seed),
    )
    labels, [whole], vocabulary = list(map(str, options.runs)), kinds["text"], corpus.vocabulary
    verdicts = [
        verdict(difference, label, labels[0])
        for difference, label in zip(whole.differences, labels[1:], strict=True)
    ]
    titles = {
        "text": "the text",
        "frequency": "by frequency in the training text",
        "place": f"by place in the {unit}",
    }
    print(*run_table(whole, labels, vocabulary), "", sep="\n")
    for kind in ("frequency", "place"):
        print(*group_table(titles[kind], kinds[kind], vocabulary), "", sep="\n")
    print(*verdicts, sep="\n", flush=True)
    results = {
        "runs": labels,
        "split": options.split,
        "tokens": len(tokens),
        "sentences": num_sentences,
        "confidence": CONFIDENCE,
        "verdicts": verdicts,
        **{kind: [record(group, vocabulary) for group in kinds[kind]] for kind in kinds},
    }
    run.write_json(run.results_file, results)
    with readable():
        draw({titles[kind]: groups for kind, groups in kinds.items()}, labels, text)
        show_or_save(run.path / "compare.png")


if __name__ == "__main__":
    run_command(main, Options)
