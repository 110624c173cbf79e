"""Train a network to predict the last word of a sentence.

python -m train.last_word
python -m train.last_word --sentences "the sky is blue" "the grass is green" "the sun is warm"
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from common.functions import softmax
from common.np import np, to_cpu
from common.optimizer import Adam
from common.plotting import BLUE, ORANGE, RED, color_scale, name_points, readable, show_or_save
from common.trainer import Record, Trainer
from datasets.toy import last_words
from models.shapes import ManyToOne
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.options import check_counts

SENTENCES = ("i like dog", "i love coffee", "i hate milk")
# The costs that a published PyTorch program of the same sizes printed for these sentences.
PUBLISHED_COSTS = {1000: 0.076399, 2000: 0.017108, 3000: 0.007024, 4000: 0.003501, 5000: 0.001906}
REPORT_EVERY = 1000


@dataclass(frozen=True)
class Options:
    """Train a network to predict the last word of each sentence from the words before it.

    A tanh RNN reads the words as one-hot rows and answers once, at the end. All sentences are one
    batch; the initial weights are uniform in ±1/sqrt(H). Prints the cost every 1,000 steps and the
    predictions after the last step; draws both.
    """

    sentences: tuple[str, ...] = SENTENCES
    """Your own sentences, each in quotes, all of one length of two words or more."""
    hidden_size: int = 8
    """Width H of the RNN."""
    steps: int = 5000
    """Number of updates."""
    lr: float = 0.001
    """Learning rate of Adam."""
    seed: int = 1
    """Decides the initial weights."""
    out: Path | None = None
    """Folder of the run; runs/last_word-NUMBER if not named."""


def main(options: Options) -> None:
    """Run the command."""
    check_counts(options, "steps", "hidden_size")
    x, t, words = last_words(options.sentences)
    rng = numpy.random.default_rng(options.seed)
    model = ManyToOne(len(words), options.hidden_size, len(words), "rnn", rng)
    optimizer = Adam(options.lr)
    run = RunFolder.create("last_word", "", options)
    print(f"{len(t)} sentences of {x.shape[1] + 1} words, {len(words)} different; {run.path}")

    def on_record(record: Record) -> None:
        if record["step"] % REPORT_EVERY == 0 or record["step"] == options.steps:
            print(f"step {record['step']:.0f}  cost {record['loss']:.6f}", flush=True)
            run.log(record)

    trainer = Trainer(model, optimizer, on_record, rng)
    start = time.perf_counter()
    trainer.fit(x, t, options.steps, batch_size=len(t))
    seconds = time.perf_counter() - start

    costs = [record["loss"] for record in trainer.curve]
    probabilities = to_cpu(softmax(model.predict(np.asarray(x))))
    beginnings = [" ".join(sentence.split()[:-1]) for sentence in options.sentences]
    said = probabilities.argmax(axis=1)
    for beginning, k, right, p in zip(beginnings, said, t, probabilities, strict=True):
        verdict = "" if k == right else f"; the sentence has {words[right]} ({p[right]:.1%})"
        print(f"{beginning} -> {words[k]} ({p[k]:.1%}){verdict}")
    num_right = int((said == t).sum())
    print(f"{num_right} of {len(t)} right, cost {costs[-1]:.6f}, {seconds:.1f} s of training")

    model.save_params(run.weights_file)
    results = {
        "cost": costs[-1],
        "costs": {k: costs[k - 1] for k in range(REPORT_EVERY, len(costs) + 1, REPORT_EVERY)},
        "said": [f"{beginning} {words[k]}" for beginning, k in zip(beginnings, said, strict=True)],
        "right": num_right,
        "sentences": len(t),
        "seconds": seconds,
    }
    run.write_json(run.results_file, results)
    published = PUBLISHED_COSTS if options.sentences == SENTENCES else {}
    with readable():
        draw(costs, published, beginnings, words, t, probabilities)
        show_or_save(run.path / "last_word.png")


def draw(
    costs: Sequence[float],
    published_costs: dict[int, float],
    beginnings: Sequence[str],
    words: Sequence[str],
    t: numpy.ndarray,
    probabilities: numpy.ndarray,
) -> None:
    """Draw the cost of every step, and the probability (sentences, V) of every last word."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    height = max(6.0, 2.5 + 0.6 * len(beginnings))
    width = 6 + max(7.0, 0.8 * len(words))
    _, (left, right) = plt.subplots(
        1, 2, figsize=(width, height), width_ratios=(6, width - 6), layout="constrained"
    )
    left.semilogy(range(1, len(costs) + 1), costs, color=BLUE)
    names = [(len(costs), costs[-1], "this run", BLUE)]
    if published_costs:
        left.plot(*zip(*published_costs.items(), strict=True), "D", color=RED)
        steps, cost = list(published_costs.items())[-1]
        names.append((steps, cost, "a published\nprogram", RED))
    left.set(
        xlabel="steps", ylabel="cost of all sentences", title=f"Cost {costs[-1]:.2g} at the end"
    )
    left.grid()
    name_points(left, names)

    right.imshow(probabilities, color_scale("white", BLUE), vmin=0, vmax=1, aspect="auto")
    for (row, column), p in numpy.ndenumerate(probabilities):
        colour = "white" if p > 0.5 else "black"
        right.text(column, row, f"{100 * p:.1f}", ha="center", va="center", color=colour)
    for row, column in enumerate(t):
        corner = column - 0.5, row - 0.5
        right.add_patch(
            Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=5, clip_on=False)
        )
    num_right = int((probabilities.argmax(axis=1) == t).sum())
    right.set_title(
        f"{num_right} of {len(t)} last words right: probability in %\n"
        "(framed: the word of the sentence)"
    )
    right.set_xticks(range(len(words)), words, rotation=30, ha="right", parse_math=False)
    lines = [f"{beginning} …" for beginning in beginnings]
    right.set_yticks(range(len(lines)), lines, parse_math=False)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)


if __name__ == "__main__":
    run_command(main, Options)
