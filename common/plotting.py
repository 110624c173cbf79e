"""Perplexity curves: shown where there is a screen, saved where there is none."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

__all__ = ["perplexity_curve", "show_or_save"]

Points = Sequence[tuple[float, float]]


def perplexity_curve(
    train: Points, valid: Points = (), ylim: Sequence[float] | None = None
) -> None:
    """Draw (iteration, perplexity) points into the current figure, log scale without ``ylim``."""
    import matplotlib.pyplot as plt

    axes = plt.gca()
    if train:
        axes.plot(*zip(*train, strict=True), label="train", linewidth=1)
    if valid:
        axes.plot(*zip(*valid, strict=True), "o-", label="validation", markersize=4)
    if ylim is None:
        axes.set_yscale("log")
    else:
        axes.set_ylim(*ylim)
    axes.set_xlabel("iterations")
    axes.set_ylabel("perplexity")
    axes.grid(alpha=0.3, which="both")
    if train or valid:
        axes.legend()


def show_or_save(path: str | os.PathLike | None = None) -> None:
    """Save the current figure to ``path``; without one show it, or save curve.png if no screen."""
    import matplotlib.pyplot as plt
    from PIL import Image

    without_screen = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
    if path is None and plt.get_backend().lower() not in without_screen:
        plt.show()
        return
    path = "curve.png" if path is None else path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        plt.savefig(path, dpi=120, bbox_inches="tight")
    plt.close()
    if str(path).endswith(".png"):  # 256 colours are plenty, and a third of the bytes
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(256)
        small.save(path, optimize=True)
    print(f"curve saved to {path}")
