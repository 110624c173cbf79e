"""Perplexity curves, and figures that are shown on a screen or saved where there is none."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry, FontProperties

__all__ = ["perplexity_curve", "save", "show_or_save"]

Points = Sequence[tuple[float, float]]

_said = False  # whether the line about a missing font has been printed


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
    """Save the current figure to ``path``; if None, show it, or save curve.png without a screen.

    Raises:
        OSError, ValueError: as ``save`` does.
    """
    import matplotlib.pyplot as plt

    without_screen = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
    if path is None and plt.get_backend().lower() not in without_screen:
        use_fonts_with_every_glyph(plt.gcf())
        plt.show()
        return
    path = "curve.png" if path is None else path
    save(plt.gcf(), path, dpi=120, bbox_inches="tight")
    plt.close()
    print(f"curve saved to {path}")


def save(figure: Figure, path: str | os.PathLike, **how: Any) -> None:
    """Write ``figure`` to ``path``, whole, in the format of its suffix, PNG where it has none.

    Args:
        figure: what is drawn.
        path: the file; an older one is replaced, and so is a link, not what it points to.
        how: further arguments of ``savefig``.

    Raises:
        OSError: where the file cannot be written.
        ValueError: for a format that Matplotlib does not know.
    """
    from PIL import Image

    use_fonts_with_every_glyph(figure)
    format = Path(path).suffix[1:].lower() or "png"
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # reported above
        figure.savefig(drawn, format=format, **how)
    if format == "png":  # 256 colours are plenty, and a third of the bytes
        with Image.open(drawn) as picture:
            small = picture.convert("RGB").quantize(256)
        drawn = io.BytesIO()
        small.save(drawn, format, optimize=True)
    write_atomically(path, drawn.getvalue())


def use_fonts_with_every_glyph(figure: Figure) -> None:
    """Add an installed font to each text whose own font lacks some of its characters.

    Where no installed font has them, the figure shows boxes, and one line on stderr says, once for
    a process, what to install.
    """
    import matplotlib.text

    lacking: dict[matplotlib.text.Text, set[str]] = {}
    for text in figure.findobj(matplotlib.text.Text):
        characters = _without_glyph(text.get_text(), text.get_fontproperties())
        if characters:
            lacking[text] = characters
    if not lacking:
        return
    names, boxes = _fallback_fonts(set().union(*lacking.values()))
    for text in lacking:
        text.set_fontfamily([*text.get_fontfamily(), *names])
    if boxes:
        _say_what_to_install("".join(sorted(boxes)[:10]))


def _without_glyph(characters: str, font: FontProperties) -> set[str]:
    """The visible ones of ``characters`` that the font cannot draw."""
    from matplotlib import font_manager

    if characters.isascii():
        return set()
    glyphs = font_manager.get_font(font_manager.findfont(font)).get_charmap()
    return {c for c in characters if ord(c) not in glyphs and not c.isspace()}


def _fallback_fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Names of installed fonts that have these characters, and the characters that none has."""
    from matplotlib import font_manager

    _add_new_fonts()
    names = []
    for entry in sorted(font_manager.fontManager.ttflist, key=_preference):
        if not characters:
            break
        if entry.name.startswith((".", "Last Resort", "LastResort")):  # fonts of boxes
            continue
        with contextlib.suppress(OSError, RuntimeError):  # a font file that cannot be read
            glyphs = font_manager.get_font(entry.fname).get_charmap()
            rest = {c for c in characters if ord(c) not in glyphs}
            if rest != characters:
                names.append(entry.name)
                characters = rest
    return names, characters


def _preference(entry: FontEntry) -> tuple[bool, bool, str]:
    """Sorts regular upright fonts first, and of those the fonts for Chinese, Japanese, Korean."""
    regular = entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular")
    return not regular, "CJK" not in entry.name, entry.name


def _add_new_fonts() -> None:
    """Add the fonts that were installed since Matplotlib has stored its list of fonts."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with contextlib.suppress(OSError, RuntimeError):  # a font file that cannot be read
                font_manager.fontManager.addfont(path)


def _say_what_to_install(characters: str) -> None:
    global _said
    if _said:
        return
    _said = True
    print(
        f"the figure shows boxes, since no installed font has {characters}; install one that has, "
        "for Chinese, Japanese and Korean the package fonts-noto-cjk",
        file=sys.stderr,
    )
