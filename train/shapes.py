"""Teach the five shapes of recurrence one small task each, and show what they learnt.

python -m train.shapes
python -m train.shapes --effort 0.1     # half taught: what do they get wrong?
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
from tqdm import tqdm

from common.base_model import BaseModel
from common.functions import softmax
from common.np import np, to_cpu
from common.optimizer import Adam
from common.plotting import show_or_save
from common.time_layers import TimeGRU
from common.trainer import Trainer
from datasets import toy
from datasets.toy import Task
from models.shapes import ManyToOne, OneToMany, OneToOne, ReadThenWrite, StepByStep
from train import shapes_figure
from train.run.command import run_command
from train.run.folder import RunFolder


@dataclass(frozen=True)
class Lesson:
    """A task, the model that learns it, and how long and fast it learns."""

    make_task: Callable[..., Task]
    build: Callable[[Task, numpy.random.Generator], BaseModel]
    epochs: int
    lr: float = 0.02
    batch_size: int = 64


def _sizes(task: Task, hidden_size: int) -> tuple[int, int, int]:
    """D, H and V."""
    return len(task.inputs), hidden_size, len(task.answers)


LESSONS = {
    "one to one": Lesson(
        toy.blood_pressure,
        lambda task, rng: OneToOne(*_sizes(task, 32), rng=rng),
        epochs=40,
        lr=0.05,
    ),
    "one to many": Lesson(
        toy.digit_names,
        lambda task, rng: OneToMany(*_sizes(task, 32), task.t.shape[1], rng=rng),
        epochs=20,
    ),
    "many to one": Lesson(
        toy.opinions,
        lambda task, rng: ManyToOne(*_sizes(task, 24), rng=rng),
        epochs=15,
    ),
    "read, then write": Lesson(
        toy.sums,
        lambda task, rng: ReadThenWrite(*_sizes(task, 64), task.t.shape[1], rng=rng),
        epochs=20,
        batch_size=128,
    ),
    "step by step": Lesson(
        toy.running_parity,
        lambda task, rng: StepByStep(*_sizes(task, 16), cell=TimeGRU, rng=rng),
        epochs=20,
        batch_size=32,
    ),
}


@dataclass(frozen=True, eq=False)
class Pupil:
    """A model that has learnt its task, its mean loss in each epoch, and how long it took."""

    shape: str
    task: Task
    model: BaseModel
    losses: list[float]
    seconds: float

    def probabilities(self, x: numpy.ndarray) -> numpy.ndarray:
        """Of each answer (..., V), for examples like those of the task."""
        return to_cpu(softmax(self.model.predict(np.asarray(x))))

    @cached_property
    def accuracy(self) -> float:
        """Share of the held-out examples for which every answer is right."""
        right = self.probabilities(self.task.x_test).argmax(axis=-1) == self.task.t_test
        return float(right.reshape(len(right), -1).all(axis=1).mean())


def learn(shape: str, seed: int, effort: float = 1.0) -> Pupil:
    """Train the model of one shape on its task; the learning rate falls to 0 in even steps."""
    lesson = LESSONS[shape]
    task = lesson.make_task(seed)
    rng = numpy.random.default_rng(seed)
    model = lesson.build(task, rng)
    optimizer = Adam(lesson.lr)
    trainer = Trainer(model, optimizer, on_record=lambda record: None, rng=rng)
    epochs = max(1, round(effort * lesson.epochs))
    losses = []
    start = time.perf_counter()
    for epoch in tqdm(range(epochs), desc=shape, unit=" epochs", leave=False, disable=None):
        optimizer.lr = lesson.lr * (1 - epoch / epochs)
        trainer.fit(task.x, task.t, 1, lesson.batch_size, max_grad=1.0, eval_interval=len(task.x))
        losses.append(trainer.curve[-1]["loss"])
    return Pupil(shape, task, model, losses, time.perf_counter() - start)


@dataclass(frozen=True)
class Options:
    """Train five small models, one for each shape of recurrence, each on a task made for it.

    One to one: height, weight and age of a person to blood pressure. One to many: a picture of a
    digit to its name. Many to one: a review to its opinion. Many, read then write: 27+45 to 72.
    Many, step by step: the parity of all bits so far. Prints what share of examples that no model
    has seen each gets right in every answer, and draws what they do.
    """

    effort: float = 1.0
    """How long to learn, as a share of what the tasks take; 0.1 leaves the models half taught."""
    seed: int = 1
    """Decides the examples, the initial weights and their order."""
    out: Path | None = None
    """Folder of the run; runs/shapes-NUMBER if not named."""


def main(options: Options) -> None:
    """Run the command."""
    if not 0 < options.effort < float("inf"):
        raise ValueError(f"--effort: expected a finite number above 0, got {options.effort}")
    run = RunFolder.create("shapes", "", options)
    print(f"{'shape':<18}{'task':<40}{'held out':>9}{'right':>9}{'seconds':>9}")
    pupils = []
    for shape in LESSONS:
        pupil = learn(shape, options.seed, options.effort)
        pupils.append(pupil)
        print(
            f"{shape:<18}{pupil.task.about:<40}{len(pupil.task.x_test):>9,}"
            f"{pupil.accuracy:>9.1%}{pupil.seconds:>9.1f}",
            flush=True,
        )
    results = {
        pupil.shape: {
            "task": pupil.task.about,
            "held_out": len(pupil.task.x_test),
            "accuracy": pupil.accuracy,
            "loss": pupil.losses[-1],
            "seconds": pupil.seconds,
        }
        for pupil in pupils
    }
    run.write_json(run.results_file, results)
    shapes_figure.draw(pupils)
    show_or_save(run.curve_file)


if __name__ == "__main__":
    run_command(main, Options)
