"""What a person sees of a run: how far it is, its curve, figures on a screen or in a file.

Every figure is drawn inside ``readable()`` and takes its colours from here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from common.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry, FontProperties

__all__ = [
    *("Status", "progress", "say"),
    *("BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PALETTE", "PURPLE", "RED", "SKY"),
    *("color_scale", "name_points", "readable"),
    *("draw_curve", "perplexity_curve", "save", "show_or_save"),
]

Points = Sequence[tuple[float, float]]

STATUS_LINE = (
    "| epoch {epoch:.0f} | iteration {iteration:.0f} / {iterations:.0f} "
    "| {left} left, run {run_left} | perplexity {perplexity:.2f} | lr {lr:.4g} "
    "| {ms_per_iteration:.1f} ms/it | {tokens_per_second:,.0f} tokens/s"
)
PLAIN_BAR = "| {desc}: {percentage:.0f} % of {total_fmt}{unit}, {remaining} left"
SOON, LATE = 2.0, 60.0  # seconds between two lines: at least, at most

# Okabe and Ito (2008): told apart by colour-blind readers too.
BLACK, GREY = "#000000", "#767676"
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
PALETTE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)  # in the order in which lines take them

LECTURE_HALL: dict[
    Any, Any
] = {  # letters of a thirtieth of the height, lines as thick as a stroke of a letter
    "figure.figsize": (10, 6),
    "font.size": 15,
    "axes.labelsize": 15,
    "axes.titlesize": 17,
    "axes.titlelocation": "left",
    "figure.titlesize": 17,
    "figure.labelsize": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 14,
    "lines.linewidth": 3,
    "lines.markersize": 8,
    "grid.alpha": 0.3,
}

GAP = 2.0  # pixels above and below a name

_said = False  # whether the line about a missing font has been printed


class Status:
    """Says how training goes: when the epoch ends, and when the run.

    ``show`` changes one line on a terminal. Elsewhere it prints one for every tenth of an epoch or
    every minute, whichever comes first, and none within two seconds. ``close`` wipes the line of
    the terminal.

    Args:
        epochs: how many there will be.
        iteration: those that are done already, over all epochs.
    """

    def __init__(self, epochs: int, iteration: int) -> None:
        self.epochs, self.first = epochs, iteration
        self._since = self._printed_at = time.perf_counter()
        self._tenth = -1.0
        self._record: Mapping[str, float] | None = None
        self._line: tqdm | None = None

    def text(self, record: Mapping[str, float]) -> str:
        """The line of a record; the times that are left follow from the pace so far."""
        self._record = record
        left = self._duration(record["iterations"] - record["iteration"])
        return STATUS_LINE.format(**record, left=left, run_left=self.run_left())

    def run_left(self) -> str:
        """Time from the last record to the end of the run; "?" before the first."""
        if self._record is None:
            return "?"
        epochs = self.epochs - self._record["epoch"] + 1
        return self._duration(epochs * self._record["iterations"] - self._record["iteration"])

    def _duration(self, iterations: float) -> str:
        assert self._record is not None
        pace = (time.perf_counter() - self._since) / (self._record["step"] - self.first)
        return tqdm.format_interval(pace * iterations)

    def print(self, record: Mapping[str, float]) -> None:
        """Print the line of a record."""
        say(self.text(record))

    def show(self, record: Mapping[str, float]) -> None:
        """Change the line of the terminal, or print one where it is time for it."""
        text, now = self.text(record), time.perf_counter()
        done = record["epoch"] - 1 + record["iteration"] / record["iterations"]
        passed = now - self._printed_at
        if sys.stdout.isatty():
            if self._line is None:
                self._line = progress(file=sys.stdout, bar_format="{desc}")
            self._line.ncols = shutil.get_terminal_size().columns - 1  # it may have changed
            self._line.set_description_str(text)
        elif passed >= LATE or (passed >= SOON and 10 * done // 1 > self._tenth):
            say(text)
            self._printed_at, self._tenth = now, 10 * done // 1
        if record["iteration"] == record["iterations"]:
            self.close()

    def close(self) -> None:
        """Wipe the line of the terminal."""
        if self._line is not None:
            self._line.close()
            self._line = None


class _PlainLines:
    """What a bar writes, as lines of their own without the moves of a cursor."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A bar of tqdm that is wiped at the end; where nobody looks, a plain line a minute.

    Args:
        iterable: see ``tqdm.tqdm``.
        options: likewise; without a ``file`` the bar goes to stderr.
    """
    file: Any = options.setdefault("file", sys.stderr)
    options.setdefault("leave", False)
    if not file.isatty():
        plain = {"file": _PlainLines(file), "bar_format": PLAIN_BAR, "position": 0, "leave": False}
        options |= plain | {"mininterval": LATE, "maxinterval": LATE, "miniters": 0, "delay": LATE}
    columns, lines = shutil.get_terminal_size()  # 80 and 24 where the terminal does not know
    return tqdm(iterable, ncols=columns - 1, nrows=lines, **options)


def say(text: str) -> None:
    """Print a line, above the bars that a terminal shows, so that a reader has it at once."""
    tqdm.write(text)
    sys.stdout.flush()


def readable() -> contextlib.AbstractContextManager[None]:
    """Inside, figures are made to be read from the last row of a lecture hall, in one palette."""
    import matplotlib
    from cycler import cycler

    return matplotlib.rc_context({**LECTURE_HALL, "axes.prop_cycle": cycler(color=PALETTE)})


def color_scale(*colors: str) -> Colormap:
    """The colours between two or more, such as from white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", colors)


def name_points(axes: Axes, names: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names beside points, such as the ends of lines, where there would be a legend.

    Names that would lie on each other move apart. Call it when all else is drawn.

    Args:
        axes: their scales stay as they are.
        names: x, y, name and colour of each.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    texts = [
        axes.annotate(
            name,
            (x, y),
            (10, 0),
            textcoords="offset points",
            va="center",
            color=color,
            parse_math=False,
            annotation_clip=False,
        )
        for x, y, name, color in names
    ]
    figure.draw_without_rendering()  # now the layout is known
    boxes = [text.get_window_extent().padded(0, GAP) for text in texts]
    lifted = [0.0] * len(boxes)
    for _ in range(100):
        at_rest = True
        for i, j in itertools.combinations(sorted(range(len(boxes)), key=lambda k: names[k][1]), 2):
            below, above = (boxes[k].translated(0, lifted[k]) for k in (i, j))
            overlap = below.y1 - above.y0
            if overlap > 0.5 and below.x0 < above.x1 and above.x0 < below.x1:
                lifted[i], lifted[j] = lifted[i] - overlap / 2, lifted[j] + overlap / 2
                at_rest = False
        if at_rest:
            break
    for text, pixels in zip(texts, lifted, strict=True):
        text.set_position((10, pixels * 72 / figure.dpi))


def draw_curve(
    records: Sequence[Mapping[str, float]],
    valid: Points = (),
    ylim: Sequence[float] | None = None,
    path: str | os.PathLike | None = None,
    *,
    bits: bool = False,
    title: str = "",
) -> None:
    """Draw perplexity and learning rate of a training from its records, and show or save it.

    Args:
        records: of ``common.trainer.Trainer.curve``.
        valid: (iteration, validation perplexity).
        ylim: see ``perplexity_curve``.
        path: see ``show_or_save``.
        bits: see ``perplexity_curve``.
        title: what stands above.
    """
    train, rate = ([(r["step"], r[name]) for r in records] for name in ("perplexity", "lr"))
    with readable():
        perplexity_curve(train, valid, ylim, bits, rate=rate, title=title)
        show_or_save(path)


def perplexity_curve(
    train: Points,
    valid: Points = (),
    ylim: Sequence[float] | None = None,
    bits: bool = False,
    *,
    rate: Points = (),
    title: str = "",
) -> None:
    """Draw (iteration, perplexity) points into the current figure.

    Without ``ylim`` the scale is logarithmic, and ends above what comes after the first tenth of
    the iterations: before it perplexity falls from the number of words. With ``bits`` the axis on
    its right has log2 of it, bits per character. ``rate`` are points (iteration, learning rate),
    drawn below.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

    axes = lowest = plt.gca()
    if rate:
        plt.clf()
        axes, lowest = plt.gcf().subplots(2, 1, sharex=True, height_ratios=(3, 1))
        lowest.plot(*zip(*rate, strict=True), color=BLACK)
        lowest.set_ylim(0, 1.1 * max(value for _, value in rate) or 1)
        lowest.set_ylabel("learning rate")
        lowest.grid(alpha=0.3)
    if ylim is not None:
        axes.set_ylim(*ylim)
    elif train or valid:  # before a peak of 1e300 could ask for a scale of its own
        _use_log_scale(axes, *_range_that_matters(train, valid))
    if train:
        axes.plot(*zip(*train, strict=True), label="train", color=BLUE, linewidth=1.5)
    if valid:
        axes.plot(*zip(*valid, strict=True), "o-", label="validation", color=RED)
    axes.set_title(title)
    lowest.set_xlabel("iterations")
    axes.set_ylabel("perplexity")
    if bits and ylim is None:
        right = axes.secondary_yaxis(
            "right", functions=(lambda p: np.log2(p), lambda b: np.exp2(b))
        )
        right.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        right.yaxis.set_minor_locator(NullLocator())
        right.set_ylabel("bits per character")
    axes.grid(alpha=0.3, which="both")
    if train or valid:
        axes.legend()


def _range_that_matters(train: Points, valid: Points) -> tuple[float, float]:
    """Bounds of perplexity after the first tenth of the iterations, but for rare peaks."""
    last = max(step for step, _ in (*train, *valid))
    later = sorted(value for step, value in train if 10 * step >= last)
    values = [value for _, value in valid] + later[: math.ceil(0.98 * len(later))]
    return min(values), max(values)


def _use_log_scale(axes: Axes, low: float, high: float) -> None:
    """A scale from ``low`` to ``high`` with as many plain numbers beside it as there is room."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.set_ylim(low / 1.05, high * 1.05)
    subs = (1, 2, 5) if high > 10 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    is_wide = high > 2 * low
    axes.yaxis.set_major_locator(
        LogLocator(subs=subs, numticks=30) if is_wide else MaxNLocator(nbins=8)
    )
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def show_or_save(path: str | os.PathLike | None = None) -> None:
    """Save the current figure to ``path``; if None, show it, or save curve.png without a screen.

    What is saved is told by the name of its file, such as "curve saved to runs/a/curve.png".

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
    print(f"{Path(path).stem} saved to {path}")


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
