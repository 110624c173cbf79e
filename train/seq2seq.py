"""Train an encoder and a decoder to add numbers, to read dates, or on pairs of your own.

python -m train.seq2seq --reverse                                      # 57+5 to 62
python -m train.seq2seq --task date --model attention --reverse        # sep 27, 1994 to 1994-09-27
python -m train.seq2seq --task date --model plain peeky attention --reverse
python -m train.seq2seq --data pairs.txt --model attention
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy

from common.np import to_cpu
from common.optimizer import Adam
from common.plotting import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    RED,
    color_scale,
    name_points,
    progress,
    readable,
    say,
    show_or_save,
)
from common.trainer import Record, Trainer
from datasets.sequence import Pairs, load_pairs
from models.seq2seq import AttentionSeq2seq, PeekySeq2seq, Seq2seq
from train.run.command import run_command
from train.run.options import check_counts
from train.run.restartable import RestartableRun, restartable_run

MODELS: dict[str, type[Seq2seq]] = {
    "plain": Seq2seq,
    "peeky": PeekySeq2seq,
    "attention": AttentionSeq2seq,
}
STYLES = {"plain": (ORANGE, "o"), "peeky": (BLUE, "s"), "attention": (GREEN, "^")}
EPOCHS = {"addition": 25}
HIDDEN_SIZES = {"addition": 128}
LEARNING_RATES = {"addition": 0.001}
AT_ONCE = 500  # beginnings of answers that are written together
LARGEST = 100  # inches of a figure
MAPS = 4  # answers of which the map of weights is drawn


@dataclass(frozen=True)
class Options:
    """Train a model that reads one text and writes another, letter by letter.

    After each epoch it answers all test questions, and some of its answers are shown; an answer is
    right if every letter is. The folder gets a figure of the accuracy by epoch, the weights of each
    model, and for the attention model a map of what it looked at.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "task data examples reverse",
        "model": "model score wordvec_size hidden_size",
        "training": "epochs batch_size lr max_grad",
        "run": "beam_size show seed gpu out resume",
    }

    task: Literal["addition", "date"] = "addition"
    """addition (two numbers of up to three digits: 57+5 to 62) or date (13 forms: SEP 27, 1994 to
    1994-09-27); both are made."""
    data: Path | None = None
    """Your own UTF-8 file, source_target on each line; by default the pairs of --task. Nine of ten
    lines are learnt from. Both sides are filled up with blanks."""
    model: tuple[Literal["plain", "peeky", "attention"], ...] = ("peeky",)
    """plain (the decoder begins from the encoder's last state), peeky (it sees that state at every
    step), attention (it looks at all of the encoder's states); several are compared."""
    reverse: bool = False
    """Read from the end; the first letters of source and target are then close to each other."""
    score: Literal["dot", "general", "additive"] = "dot"
    """How attention compares two states: dot and general of Luong et al. (2015), additive of
    Bahdanau et al. (2015)."""
    examples: int | None = None
    """How many pairs are made; by default 50,000."""
    epochs: int | None = None
    """Number of passes over the pairs; by default 25 for addition, 6 for everything else."""
    wordvec_size: int = 16
    """Width D of the vector of a letter."""
    hidden_size: int | None = None
    """Width H of the LSTMs; by default 128 for addition, 256 for everything else."""
    lr: float | None = None
    """Learning rate of Adam; by default 0.001 for addition, 0.003 for everything else."""
    batch_size: int = 128
    """Pairs per update."""
    max_grad: float = 5.0
    """Bound of the global norm of the gradients."""
    beam_size: int = 1
    """Beginnings of an answer that are kept while it is written; 1 is greedy."""
    show: int = 5
    """Number of answers that are shown after each epoch."""
    seed: int = 1
    """Decides the pairs, the initial weights and the order."""
    gpu: bool = False
    """Compute on the GPU with CuPy."""
    out: Path | None = None
    """Folder of the run; runs/seq2seq-TASK-NUMBER if not named."""
    resume: Path | None = None
    """Resume the run in this folder with its own options, after the last epoch that has ended;
    --data may say where its file lies now. By default a new run begins."""

    @property
    def subject(self) -> str:
        """What is learnt."""
        return self.task if self.data is None else self.data.stem

    def sizes(self) -> tuple[int, int]:
        """Epochs and H, where none are given those of the task."""
        task = self.subject if self.data is None else ""
        return (
            EPOCHS.get(task, 6) if self.epochs is None else self.epochs,
            HIDDEN_SIZES.get(task, 256) if self.hidden_size is None else self.hidden_size,
        )

    def learning_rate(self) -> float:
        """That of the task, where none is given."""
        task = self.subject if self.data is None else ""
        return LEARNING_RATES.get(task, 0.003) if self.lr is None else self.lr


def check(options: Options) -> None:
    """Raise ValueError, or FileNotFoundError, for what cannot work."""
    check_counts(options, "examples", "epochs", "wordvec_size", "hidden_size", "batch_size")
    check_counts(options, "beam_size")
    if not options.model or len(set(options.model)) < len(options.model):
        got = " ".join(options.model) or "none"
        raise ValueError(f"--model: expected one or more of {', '.join(MODELS)}, got {got}")
    for name in ("lr", "max_grad"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}: expected a number above 0, got {value}")
    if options.data is not None and not options.data.expanduser().exists():
        raise FileNotFoundError(f"--data: there is no such file: {options.data}")
    if options.show < 0:
        raise ValueError(f"--show: expected 0 or more, got {options.show}")


def build(kind: str, pairs: Pairs, options: Options) -> Seq2seq:
    """The model of that kind with its initial weights."""
    _, hidden_size = options.sizes()
    how: dict[str, Any] = {"score": options.score} if kind == "attention" else {}
    sizes = len(pairs.char_to_id), options.wordvec_size, hidden_size
    model = MODELS[kind](*sizes, numpy.random.default_rng(options.seed), **how)
    model.vocabulary_hash = pairs.vocabulary.hash()
    return model


def as_read(x: numpy.ndarray, options: Options) -> numpy.ndarray:
    """The questions (N, S) in the order in which the encoder reads them."""
    return numpy.ascontiguousarray(x[:, ::-1]) if options.reverse else x


def answer(model: Seq2seq, x: numpy.ndarray, pairs: Pairs, options: Options) -> numpy.ndarray:
    """What the model writes for each question (N, S), without the start: ids (N, T)."""
    x, length = as_read(x, options), pairs.t_test.shape[1] - 1
    questions = max(1, AT_ONCE // options.beam_size)
    parts = [x[at : at + questions] for at in range(0, len(x), questions)]
    return numpy.concatenate(
        [
            model.generate_batch(part, pairs.start_id, length, options.beam_size)
            for part in progress(parts, unit=" parts", desc="answers")
        ]
    )


def show(pairs: Pairs, answers: numpy.ndarray, number: int) -> None:
    """Print the answers (N, T) to the first ``number`` questions, and where wrong what is right."""
    for x, t, said in zip(pairs.x_test[:number], pairs.t_test[:, 1:], answers, strict=False):
        right = bool((t == said).all())
        target = "" if right else f"  not {pairs.decode(t).rstrip()}"
        mark = "right" if right else "WRONG"
        say(f"  {mark}  {pairs.decode(x)}  {pairs.decode(said).rstrip()}{target}")


def train(kind: str, pairs: Pairs, options: Options, run: RestartableRun) -> dict[str, Any]:
    """Train one model from where its training stands; what comes out is kept in the checkpoint.

    Returns:
        ``epochs``, a record for each, and ``maps`` of the attention model.

    Raises:
        DivergenceError: when the loss or the norm of the gradients is no longer finite.
    """
    epochs, _ = options.sizes()
    model = build(kind, pairs, options)
    rng = numpy.random.default_rng([options.seed, 1])
    trainer = Trainer(model, Adam(options.learning_rate()), rng=rng)
    records: list[dict[str, float]] = []

    def go_on(state: dict[str, Any]) -> None:
        trainer.load_state_dict(state["trainer"])
        records.extend(state["epochs"])

    run.kept_begun(kind, go_on)
    x = as_read(pairs.x_train, options)
    while trainer.epoch < epochs:
        start = time.perf_counter()
        updates = trainer.iterations(
            x, pairs.t_train, 1, options.batch_size, options.max_grad, eval_interval=None
        )
        last: Record = {}
        total, epoch = math.ceil(len(x) / options.batch_size), trainer.epoch + 1
        for record in progress(
            updates, total=total, unit=" updates", desc=f"{kind}, epoch {epoch} of {epochs}"
        ):
            last = record or last
        seconds = time.perf_counter() - start
        answers = answer(model, pairs.x_test, pairs, options)
        accuracy = float((answers == pairs.t_test[:, 1:]).all(axis=1).mean())
        records.append({"epoch": epoch, "loss": last["loss"], "accuracy": accuracy})
        records[-1]["seconds"] = seconds
        say(
            f"{kind}: epoch {epoch} of {epochs}, loss {last['loss']:.4f}, {accuracy:.2%} of "
            f"{len(answers):,} answers right, {seconds:.1f} s of training"
        )
        show(pairs, answers, options.show)
        run.folder.log({"model": kind, **records[-1]})
        state = {"trainer": trainer.state_dict(), "epochs": records, "pairs": pairs.hash()}
        run.save_begun(kind, state)
    model.save_params(run.folder.path / f"{kind}.safetensors")
    maps = attention_maps(model, pairs, options) if isinstance(model, AttentionSeq2seq) else []
    result = {"epochs": records, "maps": maps, "pairs": pairs.hash()}
    run.save(kind, result)
    return result


def attention_maps(model: AttentionSeq2seq, pairs: Pairs, options: Options) -> list[dict[str, Any]]:
    """What the model looks at while it writes, for a few questions of different lengths.

    Returns:
        For each ``read``, ``written`` and ``right``, and ``weights`` (T, S), a row for each letter
        that is written, its columns in the order of the text.
    """
    texts = [pairs.decode(x).rstrip() for x in pairs.x_test]
    of_lengths = {len(text): n for n, text in reversed(list(enumerate(texts)))}
    chosen = sorted(of_lengths.values())[:MAPS]
    x, t = pairs.x_test[chosen], pairs.t_test[chosen]
    answers = answer(model, x, pairs, options)
    model.predict(as_read(x, options), numpy.concatenate([t[:, :1], answers], axis=1))
    weights = to_cpu(model.decoder.attention.attention_weights)
    return [
        {
            "read": pairs.decode(x[n]),
            "written": pairs.decode(answers[n]),
            "right": bool((answers[n] == t[n, 1:]).all()),
            "weights": weights[n, :, ::-1] if options.reverse else weights[n],
        }
        for n in range(len(chosen))
    ]


def draw_accuracies(trained: Mapping[str, dict[str, Any]], title: str) -> None:
    """Draw the accuracy of each model after each epoch into a new figure."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    _, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    ends = []
    for kind, result in trained.items():
        colour, marker = STYLES[kind]
        points = [(record["epoch"], record["accuracy"]) for record in result["epochs"]]
        axes.plot(*zip(*points, strict=True), marker=marker, color=colour)
        ends.append((*points[-1], f"{kind}: {points[-1][1]:.1%}", colour))
    axes.set(xlabel="epochs", ylabel="answers right", ylim=(-0.03, 1.03))
    axes.set_title(title, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid()
    name_points(axes, ends)


def draw_maps(maps: Sequence[dict[str, Any]]) -> None:
    """Draw the weights of attention into a new figure, a panel for each answer."""
    import matplotlib.pyplot as plt

    rows, columns = len(maps[0]["written"]), len(maps[0]["read"])
    down, across = -(-len(maps) // 2), min(2, len(maps))
    size = across * (0.8 + 0.19 * columns), 0.8 + down * (0.7 + 0.25 * rows)
    size = min(size[0], LARGEST), min(size[1], LARGEST)
    figure, panels = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(
        "Down the side the answer, letter by letter; dark: what the model looks at for each",
        wrap=True,
    )
    for axes in panels.flat[len(maps) :]:
        axes.axis("off")
    for axes, answered in zip(panels.flat, maps, strict=False):
        scale = color_scale("white", BLUE)
        axes.imshow(answered["weights"], scale, vmin=0, vmax=1, aspect="auto")
        letters = {"family": "monospace", "parse_math": False}
        axes.set_xticks(range(columns), answered["read"], **letters)
        colour = BLACK if answered["right"] else RED
        axes.set_yticks(range(rows), answered["written"], color=colour, **letters)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(True)


def main(options: Options) -> None:
    """Run the command."""
    check(options)
    if options.data is not None:
        options = replace(options, data=options.data.expanduser().absolute())
    source = f"{options.task}.txt" if options.data is None else options.data
    pairs = load_pairs(source, options.seed, options.examples)
    with restartable_run("seq2seq", options.subject, options) as run:
        for state in (*run.finished.values(), *run.begun.values()):
            if state.get("pairs") != pairs.hash():
                raise ValueError(f"{run.folder.path} is a run of other pairs than {source} has now")
        epochs, hidden_size = options.sizes()
        print(
            f"{options.subject}: {len(pairs.x_train):,} pairs to learn from, "
            f"{len(pairs.x_test):,} for the test, {len(pairs.char_to_id)} letters, "
            f"hidden units {hidden_size}, epochs {epochs}; {run.folder.path}",
            flush=True,
        )
        trained: dict[str, dict[str, Any]] = {}
        for kind in options.model:
            kept = run.kept(kind, lambda result: {k: result[k] for k in ("epochs", "maps")})
            trained[kind] = train(kind, pairs, options, run) if kept is None else kept
        results = {
            kind: {
                "accuracy": result["epochs"][-1]["accuracy"],
                "best": max(record["accuracy"] for record in result["epochs"]),
                "seconds": sum(record["seconds"] for record in result["epochs"]),
                "epochs": result["epochs"],
            }
            for kind, result in trained.items()
        }
        for name, result in results.items():
            print(
                f"{name}: {result['accuracy']:.2%} right, best {result['best']:.2%}, "
                f"{result['seconds']:.0f} s of training"
            )
        about = {"pairs": pairs.hash(), "letters": "".join(pairs.char_to_id)}
        run.folder.write_json(run.folder.results_file, {**about, "models": results})
        read = ", read from the end" * options.reverse
        title = f"{options.subject}{read}: answers to {len(pairs.x_test):,} new questions"
        with readable():
            for result in trained.values():
                if result["maps"]:
                    draw_maps(result["maps"])
                    show_or_save(run.folder.path / "seq2seq_attention.png")
            draw_accuracies(trained, title)
            show_or_save(run.folder.path / "seq2seq.png")


if __name__ == "__main__":
    run_command(main, Options)
