"""Train five models, one for each shape of recurrence, on a small task each.

python -m train.shapes
python -m train.shapes --effort 0.1     # a tenth of the epochs: what do the models get wrong?
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from common.base_model import BaseModel
from common.functions import softmax
from common.np import np, to_cpu
from common.optimizer import Adam
from common.plotting import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    RED,
    SKY,
    color_scale,
    name_points,
    progress,
    readable,
    show_or_save,
)
from common.time_layers import TimeGRU
from common.trainer import Trainer
from datasets import toy
from datasets.toy import Task
from models.shapes import ManyToOne, OneToMany, OneToOne, ReadThenWrite, StepByStep
from train.run.command import run_command
from train.run.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Setup:
    """A task, the model for it, and how the model is trained."""

    make_task: Callable[..., Task]
    build: Callable[[Task, numpy.random.Generator], BaseModel]
    epochs: int
    lr: float = 0.02
    batch_size: int = 64


def _sizes(task: Task, hidden_size: int) -> tuple[int, int, int]:
    """D, H and V."""
    return len(task.inputs), hidden_size, len(task.answers)


SETUPS = {
    "one to one": Setup(
        toy.blood_pressure,
        lambda task, rng: OneToOne(*_sizes(task, 32), rng=rng),
        epochs=40,
        lr=0.05,
    ),
    "one to many": Setup(
        toy.digit_names,
        lambda task, rng: OneToMany(*_sizes(task, 32), task.t.shape[1], rng=rng),
        epochs=20,
    ),
    "many to one": Setup(
        toy.opinions,
        lambda task, rng: ManyToOne(*_sizes(task, 24), rng=rng),
        epochs=15,
    ),
    "read, then write": Setup(
        toy.sums,
        lambda task, rng: ReadThenWrite(*_sizes(task, 64), task.t.shape[1], rng=rng),
        epochs=20,
        batch_size=128,
    ),
    "step by step": Setup(
        toy.running_parity,
        lambda task, rng: StepByStep(*_sizes(task, 16), cell=TimeGRU, rng=rng),
        epochs=20,
        batch_size=32,
    ),
}


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model with its task, its mean loss in each epoch, and the time of its training."""

    shape: str
    task: Task
    model: BaseModel
    losses: list[float]
    seconds: float

    def probabilities(self, x: numpy.ndarray) -> numpy.ndarray:
        """The probability of each answer (..., V), for examples like those of the task."""
        return to_cpu(softmax(self.model.predict(np.asarray(x))))

    @cached_property
    def accuracy(self) -> float:
        """Share of the held-out examples for which every answer is right."""
        right = self.probabilities(self.task.x_test).argmax(axis=-1) == self.task.t_test
        return float(right.reshape(len(right), -1).all(axis=1).mean())


def train(shape: str, seed: int, effort: float = 1.0) -> TrainedModel:
    """Train the model of one shape on its task; the learning rate falls to 0 in even steps."""
    setup = SETUPS[shape]
    task = setup.make_task(seed)
    rng = numpy.random.default_rng(seed)
    model = setup.build(task, rng)
    optimizer = Adam(setup.lr)
    trainer = Trainer(model, optimizer, on_record=lambda record: None, rng=rng)
    epochs = max(1, round(effort * setup.epochs))
    losses = []
    start = time.perf_counter()
    for epoch in progress(range(epochs), desc=shape, unit=" epochs"):
        optimizer.lr = setup.lr * (1 - epoch / epochs)
        trainer.fit(task.x, task.t, 1, setup.batch_size, max_grad=1.0, eval_interval=len(task.x))
        losses.append(trainer.curve[-1]["loss"])
    return TrainedModel(shape, task, model, losses, time.perf_counter() - start)


@dataclass(frozen=True)
class Options:
    """Train five small models, one for each shape of recurrence, each on a task made for it.

    One to one: height, weight and age of a person to blood pressure. One to many: a picture of a
    digit to its name. Many to one: a review to its opinion. Read, then write: 27+45 to 72. Step by
    step: the parity of all bits so far. Prints the share of held-out examples for which each model
    gets every answer right, and draws examples of the answers.
    """

    effort: float = 1.0
    """Share of the epochs that each task needs; at 0.1 each model trains for a tenth of them."""
    seed: int = 1
    """Decides the examples, their order and the initial weights."""
    out: Path | None = None
    """Folder of the run; runs/shapes-NUMBER if not named."""


def draw(models: Sequence[TrainedModel]) -> None:
    """Draw a new figure: a panel for each model, in their order, then the losses of all five."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(15, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    axes = [
        *above.subplots(1, 3, width_ratios=(1.2, 1, 1.5)),
        *below.subplots(1, 3, width_ratios=(0.9, 1.8, 1.1)),
    ]
    panels = (_people, _pictures, _reviews, _sums, _bits)
    for ax, panel, trained in zip(axes, panels, models, strict=False):
        panel(ax, trained)
        about = trained.task.about.replace("->", "→")
        ax.set_title(f"{trained.shape}: {trained.accuracy:.1%} right\n{about}", fontsize="medium")
    _losses(axes[-1], models)


def _mark(right: bool) -> dict[str, Any]:
    """The style of an answer: a wrong one is red and bold."""
    return {} if right else {"color": RED, "fontweight": "bold"}


def _people(ax: Axes, trained: TrainedModel) -> None:
    """Held-out people by body mass and age; the marker is the class that the model predicts."""
    task, shown = trained.task, slice(300)
    body_mass, age = toy.body_mass_and_age(task.x_test[shown])
    answers = trained.probabilities(task.x_test[shown]).argmax(axis=1)
    wrong = answers != task.t_test[shown]
    places = (BLUE, "v", 15.5), (GREEN, "o", 23.5), (RED, "^", 32.5)
    for k, (colour, marker, middle) in enumerate(places):
        chosen = answers == k
        ax.scatter(body_mass[chosen], age[chosen], 30, colour, marker=marker)
        ax.text(middle, 81, task.answers[k], color=colour, ha="center", va="bottom")
    ax.scatter(body_mass[wrong], age[wrong], 200, facecolor="none", edgecolor=BLACK, linewidth=3)
    grid = numpy.meshgrid(numpy.linspace(12, 38, 521), numpy.linspace(20, 80, 601))
    ax.contour(*grid, toy.pressure_rule(*grid), [0.5, 1.5], colors=BLACK, linewidths=2)
    ax.set(xlim=(12, 38), ylim=(20, 87), ylabel="age, years")
    ax.set(xlabel="body mass index, kg / m²\n(line: the rule, circle: wrong)")


def _pictures(ax: Axes, trained: TrainedModel) -> None:
    """One noisy picture of each digit; below it the name that the model writes."""
    task = trained.task
    names = ["".join(task.answers[k] for k in ids).strip() for ids in task.t_test]
    for place, name in enumerate(toy.NAMES):
        x = task.x_test[names.index(name)]
        answer = trained.probabilities(x[None])[0].argmax(axis=1)
        written = "".join(task.answers[k] for k in answer).strip()
        left, bottom = 4.6 * (place % 5), -7.6 * (place // 5)
        extent = (left, left + 3, bottom, bottom + 5)
        ax.imshow(x.reshape(5, 3), color_scale("white", BLACK), aspect="auto", extent=extent)
        mark = _mark(written == name)
        ax.text(left + 1.5, bottom - 0.9, written, ha="center", va="center", **mark)
    ax.set(xlim=(-0.5, 22), ylim=(-9.6, 5.6))
    ax.axis("off")


def _reviews(ax: Axes, trained: TrainedModel) -> None:
    """Held-out reviews; the colour of a word is the model's answer to the review up to it."""
    task, shown = trained.task, 5
    x = task.x_test[:shown]
    T = x.shape[1]
    opinions = numpy.stack([trained.probabilities(x[:, : t + 1]) for t in range(T)], axis=1)
    so_far = opinions[..., 2] - opinions[..., 0]
    ax.imshow(so_far, color_scale(ORANGE, "white", SKY), vmin=-1, vmax=1, aspect="auto")
    for n in range(shown):
        for t in range(T):
            word = task.inputs[x[n, t].argmax()]
            ax.text(t, n, word, ha="center", va="center")
        answer = opinions[n, -1].argmax()
        mark = _mark(answer == task.t_test[n])
        ax.text(T - 0.3, n, task.answers[answer], va="center", **mark)
    ax.set(xlim=(-0.5, T + 1.6), xlabel="after each word: orange negative, blue positive")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _sums(ax: Axes, trained: TrainedModel) -> None:
    """Held-out sums: the text that is read, then the answer; a darker cell is more probable."""
    task, shown = trained.task, 6
    x = task.x_test[:shown]
    T, S = x.shape[1], task.t_test.shape[1]
    p = trained.probabilities(x)
    grid = numpy.full((shown, T + 1 + S), numpy.nan)
    grid[:, :T] = 0
    grid[:, T + 1 :] = p.max(axis=2)
    ax.imshow(grid, color_scale("white", SKY), vmin=0, vmax=1, aspect="auto")
    for n in range(shown):
        for t in range(T):
            ax.text(t, n, task.inputs[x[n, t].argmax()], ha="center", va="center")
        ids = p[n].argmax(axis=1)
        for s, k in enumerate(ids):
            mark = _mark(k == task.t_test[n, s])
            ax.text(T + 1 + s, n, task.answers[k], ha="center", va="center", **mark)
        number = "".join(task.answers[k] for k in reversed(ids)).strip()
        ax.text(T + S + 0.8, n, f"= {number}", va="center")
    ax.set(xlim=(-0.5, T + S + 2.8), yticks=[], xticks=[(T - 1) / 2, T + (S + 1) / 2])
    ax.set_xticklabels(["read", "written,\nones first"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _bits(ax: Axes, trained: TrainedModel) -> None:
    """A held-out sequence, and after each bit the probability that the number of ones is odd."""
    task = trained.task
    x, t = task.x_test[0], task.t_test[0]
    T = len(x)
    steps = numpy.arange(1, T + 1)
    ax.axvspan(0.5, task.x.shape[1] + 0.5, color=SKY, alpha=0.3, lw=0)
    ax.text(task.x.shape[1] / 2 + 0.5, 1.1, "as long as\nlearnt from", ha="center")
    ax.text(T + 0.5, 1.1, "line: the truth, dots: the model", ha="right")
    ax.step(steps, t, where="mid", color=BLACK, linewidth=1.5)
    ax.plot(steps, trained.probabilities(x[None])[0, :, 1], "o", color=ORANGE)
    for step, bit in zip(steps, x.argmax(axis=1), strict=True):
        ax.text(float(step), -0.17, str(bit), ha="center", va="center", fontsize=14)
    ax.set(ylim=(-0.28, 1.45), xlim=(0, T + 1), yticks=[0, 0.5, 1], xlabel="bits read")
    ax.set_ylabel("probability of odd")


def _losses(ax: Axes, models: Sequence[TrainedModel]) -> None:
    """The mean loss of each model in each epoch."""
    ends = []
    styles = zip((BLUE, GREEN, ORANGE, RED, BLACK), ("-", "--", "-.", ":", "-"), strict=True)
    for trained, (colour, style) in zip(models, styles, strict=True):
        done = 100 * numpy.arange(1, len(trained.losses) + 1) / len(trained.losses)
        ax.plot(done, trained.losses, style, color=colour)
        ends.append((100.0, trained.losses[-1], trained.shape.replace(", ", ",\n"), colour))
    ax.set_yscale("log")
    ax.set(xlabel="training done, %", ylabel="loss")
    ax.set_title("How all five learn", fontsize="medium")
    ax.grid()
    name_points(ax, ends)


def main(options: Options) -> None:
    """Run the command."""
    if not 0 < options.effort < float("inf"):
        raise ValueError(f"--effort: expected a finite number above 0, got {options.effort}")
    run = RunFolder.create("shapes", "", options)
    print(f"{'shape':<18}{'task':<40}{'held out':>9}{'right':>9}{'seconds':>9}")
    models = []
    for shape in SETUPS:
        trained = train(shape, options.seed, options.effort)
        models.append(trained)
        print(
            f"{shape:<18}{trained.task.about:<40}{len(trained.task.x_test):>9,}"
            f"{trained.accuracy:>9.1%}{trained.seconds:>9.1f}",
            flush=True,
        )
    results = {
        trained.shape: {
            "task": trained.task.about,
            "held_out": len(trained.task.x_test),
            "accuracy": trained.accuracy,
            "loss": trained.losses[-1],
            "seconds": trained.seconds,
        }
        for trained in models
    }
    run.write_json(run.results_file, results)
    with readable():
        draw(models)
        show_or_save(run.path / "shapes.png")


if __name__ == "__main__":
    run_command(main, Options)
