"""How long can a cell remember? Small networks learn one sentence and recite it.

python -m train.memory
python -m train.memory --sentence "to be, or not to be" --hidden-size 10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy

from common.np import np
from common.optimizer import Adam
from common.plotting import BLACK, ORANGE, SKY, progress, readable, show_or_save
from common.trainer import Record, Trainer
from datasets.vocabulary import build_vocab, encode_tokens
from models.memory import ConcatReciter, Reciter
from train.run.command import run_command
from train.run.folder import RunFolder
from train.run.options import check_counts
from train.run.restartable import RestartableRun, restartable_run

SENTENCE = "hello pytorch. how long can a rnn cell remember? show me your limit!"
ALPHABET = "abcdefghijklmnopqrstuvwxyz ?!.,:;"
START, END = "<start>", "<end>"
RIGHT, WRONG = SKY, ORANGE
CHECK_EVERY = 20  # epochs between checks whether the whole sentence is recited


@dataclass(frozen=True)
class Options:
    """Train six small networks on one sentence, then let each recite it from the start mark.

    While reciting, a network reads its own answer as the next input: the one-hot row of the
    likeliest letter. The three published variants also recite with the raw output as the next
    input.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "sentence alphabet",
        "model": "hidden_size",
        "training": "starts epochs lr",
        "run": "seed out resume",
    }

    sentence: str = SENTENCE
    """The sentence."""
    alphabet: str = ""
    """The letters that a network can read and say, beside the marks for start and end; by default
    those of the sentence, and for the built-in sentence the published 33."""
    hidden_size: int = 35
    """Width H of every cell."""
    epochs: int = 1000
    """Number of passes over the sentence, one update each."""
    lr: float = 0.01
    """Learning rate of Adam."""
    starts: int = 3
    """Number of random starts; the table shows the median one."""
    seed: int = 1
    """Decides the initial weights."""
    out: Path | None = None
    """Folder of the run; runs/memory-NUMBER if not named."""
    resume: Path | None = None
    """Resume the run in this folder with its own options; finished trainings are kept. By default
    a new run begins."""


@dataclass(frozen=True)
class Variant:
    """One network of the comparison."""

    name: str
    cell: str = "rnn"
    model: type[Reciter] = Reciter
    loss: Literal["softmax", "squared"] = "softmax"
    published_recitation: str = ""
    """What a published program recited, fed with its raw output."""


VARIANTS = (
    Variant(
        "RNN, y from [x, h_prev], squared error",
        model=ConcatReciter,
        loss="squared",
        published_recitation="hello pytorch. how eonn ceml r yr r mbmr alin eemlir?yeuc l nn ee e ",
    ),
    Variant(
        "RNN, squared error",
        loss="squared",
        published_recitation="hell lomr llo?i llomilllo illlom lolor llo?i loo?i llooi lloom lloom",
    ),
    Variant(
        "RNN, y from [x, h_prev], softmax",
        model=ConcatReciter,
        published_recitation="hp" + 59 * "t" + 7 * "a",
    ),
    Variant("RNN, softmax"),
    Variant("GRU, softmax", "gru"),
    Variant("LSTM, softmax", "lstm"),
)


@dataclass(frozen=True)
class Recitation:
    """What a network recited, compared with the sentence and its end mark."""

    said: str
    given_back: int
    """Letters before the first mistake."""
    right: int
    """Letters that are right at their place."""


@dataclass(frozen=True)
class Network:
    """A trained network of one variant, from one random start."""

    variant: str
    start: int
    loss: float
    whole_from: int | None
    """The first epoch, of those checked, in which it recited the whole sentence."""
    recitations: dict[str, Recitation]
    """A recitation for each kind of next input, "raw" or "one-hot"."""


def encode(options: Options) -> tuple[list[int], list[str]]:
    """The ids of the sentence between its two marks, and the letter to print for each id.

    Raises:
        ValueError: for an empty sentence, or a letter outside the alphabet.
    """
    if not options.sentence:
        raise ValueError("memory: expected a sentence of one letter or more, got an empty one")
    default = ALPHABET if options.sentence == SENTENCE else "".join(sorted(set(options.sentence)))
    vocab = build_vocab([*(options.alphabet or default), START, END])
    ids = encode_tokens([START, *options.sentence, END], vocab).tolist()
    return ids, [{START: "^", END: "$"}.get(token, token) for token in vocab]


def compare(shown: str, said: Sequence[Any], target: Sequence[Any]) -> Recitation:
    """Count the letters of ``said`` that are right; ``shown`` is how it is printed."""
    hits = [a == b for a, b in zip(said, target, strict=False)]
    return Recitation(shown, [*hits, False].index(False), sum(hits))


def train(
    variant: Variant,
    start: int,
    ids: list[int],
    letters: list[str],
    options: Options,
    folder: RunFolder,
) -> Network:
    """Train one network for ``options.epochs`` epochs, then let it recite."""
    first, target = ids[0], ids[1:]
    rng = numpy.random.default_rng([options.seed, start])
    model = variant.model(len(letters), options.hidden_size, variant.cell, variant.loss, rng)
    whole: list[int] = []

    def recite() -> list[int]:
        return model.generate(first, len(target), greedy=True)[1:]

    def on_record(record: Record) -> None:
        epoch = int(record["step"])
        if epoch % CHECK_EVERY == 0:
            place = {"variant": variant.name, "start": start, "epoch": epoch}
            folder.log({**place, "loss": record["loss"]})
            if not whole and recite() == target:
                whole.append(epoch)

    trainer = Trainer(model, Adam(options.lr), on_record)
    trainer.fit(np.asarray([ids[:-1]]), np.asarray([target]), options.epochs, batch_size=1)
    said = {"one-hot": recite()}
    if variant.published_recitation:
        said["raw"] = model.recite_raw(first, len(target))
    return Network(
        variant.name,
        start,
        trainer.curve[-1]["loss"],
        whole[0] if whole else None,
        {fed: compare("".join(letters[i] for i in s), s, target) for fed, s in said.items()},
    )


def train_or_load(
    variant: Variant,
    start: int,
    ids: list[int],
    letters: list[str],
    options: Options,
    run: RestartableRun,
) -> Network:
    """The network that an earlier process has trained, or one that is trained now and saved."""
    training = f"{variant.name} {start}"
    kept = run.kept(training, restored)
    if kept is None:
        network = train(variant, start, ids, letters, options, run.folder)
        run.save(training, asdict(network))
        return network
    return kept


def restored(fields: dict[str, Any]) -> Network:
    """The network of which a checkpoint holds the fields."""
    said = {fed: Recitation(**recited) for fed, recited in fields["recitations"].items()}
    return Network(**{**fields, "recitations": said})


def median(recitations: list[Recitation]) -> Recitation:
    """The median by letters before the first mistake; of an even number the lower middle."""
    return sorted(recitations, key=lambda r: r.given_back)[(len(recitations) - 1) // 2]


def report(variant: Variant, networks: list[Network], rows: dict[str, list[Recitation]]) -> None:
    """Print one variant: its losses, then a line for each kind of next input."""
    losses = ", ".join(f"{network.loss:.1e}" for network in networks)
    wholes = ", ".join(str(network.whole_from or "never") for network in networks)
    print(f"{variant.name}: loss {losses}; one-hot whole from epoch {wholes}")
    for fed, row in rows.items():
        middle = median(row)
        starts = " ".join(str(recitation.given_back) for recitation in row)
        print(
            f"  {fed:9} {middle.given_back:5}  {f'({starts})':14} {middle.right:5}  {middle.said}",
            flush=True,
        )


def draw(rows: Sequence[tuple[str, str, list[Recitation]]], target: str) -> None:
    """Draw the mistakes of the median start of each row, and beside them the letters before one.

    Args:
        rows: name of the variant, what it was fed with, and the recitation of each start.
        target: the sentence with its end mark.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    length = len(target)
    size = max(12.0, 5.6 + 0.13 * length), 2.4 + 0.4 * len(rows)
    widths = max(6.0, 0.13 * length), 2
    figure, (letters, bars) = plt.subplots(
        1, 2, sharey=True, width_ratios=widths, figsize=size, layout="constrained"
    )
    style: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace"}
    style |= {"fontsize": 14, "parse_math": False}
    for x, letter in enumerate(target):
        letters.text(x, -1, letter, weight="bold", **style)
    right = numpy.full((len(rows), length), numpy.nan)
    for y, (name, _, row) in enumerate(rows):
        for x, letter in enumerate(median(row).said):
            right[y, x] = letter == target[x]
            if letter != target[x]:
                letters.text(x, y, letter, **style)
        bars.barh(y, median(row).given_back, color=RIGHT)
        bars.plot([r.given_back for r in row], [y] * len(row), ".", color=BLACK)
        is_first = y == 0 or rows[y - 1][0] != name
        lines = name.replace("], ", "],\n") if is_first else ""
        letters.annotate(
            lines,
            (0, y - 0.25),
            (-95, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top",
            annotation_clip=False,
        )
    letters.imshow(right, cmap=ListedColormap([WRONG, RIGHT]), vmin=0, vmax=1, aspect="auto")
    letters.hlines(numpy.arange(len(rows) - 1) + 0.5, -0.5, length - 0.5, "white")
    letters.set_ylim(len(rows) - 0.5, -1.6)
    letters.set_xticks([])
    letters.set_yticks(range(len(rows)), [fed for _, fed, _ in rows])
    figure.suptitle(
        f"{whole(rows, 'one-hot')} recite the sentence when fed the one-hot row of their answer, "
        f"{whole(rows, 'raw')} when fed\nthe raw answer. "
        "Blue: the letter is right; orange: what was said instead",
        x=0.01,
        ha="left",
    )
    bars.set_title("letters before\na mistake")
    bars.set_xticks([0, length])
    bars.set_xlabel("dots: random starts")
    for axes in (letters, bars):
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="y", length=0)


def whole(rows: Sequence[tuple[str, str, list[Recitation]]], fed: str) -> str:
    """How many of the networks that were fed so have recited everything, as "5 of 6"."""
    recited = [median(row) for _, kind, row in rows if kind == fed]
    return f"{sum(r.right == len(r.said) for r in recited)} of {len(recited)}"


def main(options: Options) -> None:
    """Run the command."""
    check_counts(options, "hidden_size", "epochs", "starts")
    ids, letters = encode(options)
    with restartable_run("memory", "", options) as run:
        print(
            f"{len(ids) - 1} letters with the end mark ($), alphabet {len(letters)}, hidden units "
            f"{options.hidden_size}, {options.epochs} epochs, {options.starts} starts\n"
            f"  fed back  before the first mistake  right  recited by the median start"
        )
        networks: list[Network] = []
        drawn: list[tuple[str, str, list[Recitation]]] = []
        for variant in VARIANTS:
            starts = progress(range(1, options.starts + 1), unit=" starts", desc=variant.name)
            trained = [train_or_load(variant, k, ids, letters, options, run) for k in starts]
            rows = {fed: [n.recitations[fed] for n in trained] for fed in trained[0].recitations}
            if variant.published_recitation and options.sentence == SENTENCE:
                rows["published"] = [
                    compare(variant.published_recitation, variant.published_recitation, SENTENCE)
                ]
            report(variant, trained, rows)
            networks += trained
            drawn += [(variant.name, fed, row) for fed, row in rows.items()]
        results = {"networks": [asdict(network) for network in networks]}
        run.folder.write_json(run.folder.results_file, results)
        with readable():
            draw(drawn, options.sentence + "$")
            show_or_save(run.folder.path / "memory.png")


if __name__ == "__main__":
    run_command(main, Options)
