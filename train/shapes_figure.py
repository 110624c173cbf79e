"""The picture that ``train.shapes`` leaves: what each of the five models does, a panel each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import toy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from train.shapes import Pupil

# Okabe and Ito (2008): told apart by colour-blind readers too.
BLACK, ORANGE, SKY = "#000000", "#E69F00", "#56B4E9"
GREEN, BLUE, RED = "#009E73", "#0072B2", "#D55E00"


def draw(pupils: Sequence[Pupil]) -> None:
    """Draw into a new figure: five panels in the order of ``pupils``, then the losses of all."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
    panels = (_people, _pictures, _reviews, _sums, _bits)
    for ax, panel, pupil in zip(axes.flat, panels, pupils, strict=False):
        panel(ax, pupil)
        about = pupil.task.about.replace("->", "→")
        share = f"{pupil.accuracy:.1%} of {len(pupil.task.x_test):,} right"
        ax.set_title(f"{pupil.shape} ({share})\n{about}", fontsize=11)
    _losses(axes.flat[5], pupils)


def _mark(right: bool) -> dict[str, Any]:
    """How an answer is written: a wrong one in red and bold."""
    return {} if right else {"color": RED, "fontweight": "bold"}


def _people(ax: Axes, pupil: Pupil) -> None:
    """Held-out people where their body mass and age put them, marked as the model sees them."""
    task, shown = pupil.task, slice(300)
    body_mass, age = toy.body_mass_and_age(task.x_test[shown])
    answers = pupil.probabilities(task.x_test[shown]).argmax(axis=1)
    wrong = answers != task.t_test[shown]
    for k, (colour, marker) in enumerate(((BLUE, "v"), (GREEN, "o"), (RED, "^"))):
        mine = answers == k
        ax.scatter(body_mass[mine], age[mine], 14, colour, marker=marker, label=task.answers[k])
    ax.scatter(body_mass[wrong], age[wrong], 70, facecolor="none", edgecolor=BLACK, label="wrong")
    grid = np.meshgrid(np.linspace(12, 38, 521), np.linspace(20, 80, 601))
    ax.contour(*grid, toy.pressure_rule(*grid), [0.5, 1.5], colors=BLACK, linewidths=1)
    ax.set(xlim=(12, 38), xlabel="body mass index, kg / m²", ylabel="age, years")
    ax.legend(loc="upper right", fontsize=8, framealpha=0.9)


def _pictures(ax: Axes, pupil: Pupil) -> None:
    """One noisy picture of each digit; below it, what the model writes."""
    task = pupil.task
    names = ["".join(task.answers[k] for k in ids).strip() for ids in task.t_test]
    for place, name in enumerate(toy.NAMES):
        x = task.x_test[names.index(name)]
        answer = pupil.probabilities(x[None])[0].argmax(axis=1)
        written = "".join(task.answers[k] for k in answer).strip()
        left, bottom = 4.6 * (place % 5), -7.6 * (place // 5)
        extent = (left, left + 3, bottom, bottom + 5)
        ax.imshow(x.reshape(5, 3), "Greys", aspect="auto", extent=extent)
        mark = _mark(written == name)
        ax.text(left + 1.5, bottom - 0.9, written, ha="center", va="center", **mark)
    ax.set(xlim=(-0.5, 22), ylim=(-9.6, 5.6))
    ax.axis("off")


def _reviews(ax: Axes, pupil: Pupil) -> None:
    """Held-out reviews; each word in the colour of the model's opinion if it were the last."""
    task, shown = pupil.task, 6
    x = task.x_test[:shown]
    T = x.shape[1]
    opinions = np.stack([pupil.probabilities(x[:, : t + 1]) for t in range(T)], axis=1)
    ax.imshow(opinions[..., 2] - opinions[..., 0], "PuOr", vmin=-1.6, vmax=1.6, aspect="auto")
    for n in range(shown):
        for t in range(T):
            word = task.inputs[x[n, t].argmax()]
            ax.text(t, n, word, ha="center", va="center", fontsize=9)
        answer = opinions[n, -1].argmax()
        mark = _mark(answer == task.t_test[n])
        ax.text(T - 0.3, n, task.answers[answer], va="center", fontsize=9, **mark)
    ax.set(xlim=(-0.5, T + 1.4), xlabel="orange: negative so far, violet: positive so far")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _sums(ax: Axes, pupil: Pupil) -> None:
    """Held-out sums: what is read, then what is written, the surer the darker."""
    task, shown = pupil.task, 7
    x = task.x_test[:shown]
    T, S = x.shape[1], task.t_test.shape[1]
    p = pupil.probabilities(x)
    grid = np.full((shown, T + 1 + S), np.nan)
    grid[:, :T] = 0
    grid[:, T + 1 :] = p.max(axis=2)
    ax.imshow(grid, "Blues", vmin=0, vmax=2, aspect="auto")
    for n in range(shown):
        for t in range(T):
            ax.text(t, n, task.inputs[x[n, t].argmax()], ha="center", va="center")
        ids = p[n].argmax(axis=1)
        for s, k in enumerate(ids):
            mark = _mark(k == task.t_test[n, s])
            ax.text(T + 1 + s, n, task.answers[k], ha="center", va="center", **mark)
        number = "".join(task.answers[k] for k in reversed(ids)).strip()
        ax.text(T + S + 0.8, n, f"= {number}", va="center")
    ax.set(xlim=(-0.5, T + S + 2.5), yticks=[], xticks=[(T - 1) / 2, T + (S + 1) / 2])
    ax.set_xticklabels(["read", "written,\nones first"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _bits(ax: Axes, pupil: Pupil) -> None:
    """A held-out sequence, and after each bit how sure the model is that the ones are odd."""
    task = pupil.task
    x, t = task.x_test[0], task.t_test[0]
    T = len(x)
    steps = np.arange(1, T + 1)
    ax.axvspan(0.5, task.x.shape[1] + 0.5, color=SKY, alpha=0.25, lw=0)
    ax.text(task.x.shape[1] / 2 + 0.5, 1.13, "as long as\nlearnt from", ha="center", fontsize=8)
    ax.step(steps, t, where="mid", color=BLACK, linewidth=1, label="the truth")
    ax.plot(steps, pupil.probabilities(x[None])[0, :, 1], "o", color=ORANGE, ms=4, label="model")
    for step, bit in zip(steps, x.argmax(axis=1), strict=True):
        ax.text(float(step), -0.17, str(bit), ha="center", va="center", fontsize=7)
    ax.set(ylim=(-0.28, 1.4), xlim=(0, T + 1), yticks=[0, 0.5, 1], xlabel="bits read")
    ax.set_ylabel("probability that the ones are odd")
    ax.legend(loc="upper right", ncols=2, fontsize=8)


def _losses(ax: Axes, pupils: Sequence[Pupil]) -> None:
    """The mean loss of each epoch of each model."""
    styles = zip((BLUE, GREEN, ORANGE, RED, BLACK), ("-", "--", "-.", ":", "-"), strict=True)
    for pupil, (colour, style) in zip(pupils, styles, strict=True):
        done = 100 * np.arange(1, len(pupil.losses) + 1) / len(pupil.losses)
        ax.plot(done, pupil.losses, style, color=colour, label=pupil.shape)
    ax.set_yscale("log")
    ax.set(xlabel="training done, %", ylabel="loss")
    ax.set_title("how all five learn", fontsize=11)
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)
