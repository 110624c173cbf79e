"""Perplexity curves: shown where there is a screen, saved where there is none."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_rgba

from common import plotting
from common.plotting import (
    PALETTE,
    color_scale,
    draw_curve,
    name_points,
    perplexity_curve,
    readable,
    show_or_save,
)

TRAIN = [(1, 100.0), (20, 50.0), (40, 20.0)]


@pytest.fixture(autouse=True)
def own_figure():
    plt.close("all")
    yield
    plt.close("all")


def test_both_curves_are_drawn_with_a_name_and_the_axes_say_what_they_are():
    perplexity_curve(TRAIN, [(20, 60.0), (40, 30.0)])
    axes = plt.gca()
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {
        "train": [list(point) for point in TRAIN],
        "validation": [[20.0, 60.0], [40.0, 30.0]],
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iterations", "perplexity")


def test_bits_have_an_axis_of_their_own_on_the_right():
    perplexity_curve([(2, 16.0), (20, 4.0)], bits=True)
    figure, axes = plt.gcf(), plt.gca()
    figure.canvas.draw()
    (right,) = axes.child_axes
    assert right.get_ylabel() == "bits per character"
    for bits in (2, 3, 4):  # as high as its perplexity on the left
        _, height = right.transData.transform((0, bits))
        assert height == pytest.approx(axes.transData.transform((1, 2**bits))[1])
    assert "3" in [label.get_text() for label in right.get_yticklabels()]
    for options in ({}, {"bits": True, "ylim": (0, 500)}):
        plt.close()
        perplexity_curve(TRAIN, **options)
        assert not plt.gca().child_axes


def test_without_limits_the_scale_is_logarithmic_and_with_limits_it_is_the_books():
    perplexity_curve(TRAIN)
    assert plt.gca().get_yscale() == "log"
    plt.close()
    perplexity_curve(TRAIN, ylim=(0, 500))
    assert plt.gca().get_yscale() == "linear"
    assert plt.gca().get_ylim() == (0, 500)


def falling(count):
    """From ten thousand words down to 80, most of it within the first iterations."""
    return [(20 * k, 80 + 10_000 / (1 + k * k)) for k in range(count)]


@pytest.mark.parametrize("count", [11, 70, 5000])
def test_the_scale_shows_what_comes_after_the_first_tenth(count):
    train = falling(count)
    perplexity_curve(train, [(20 * (count - 1), 95.0)])
    low, high = plt.gca().get_ylim()
    kept = [value for step, value in train if step >= 2 * (count - 1)]
    assert 70 < low < min(kept) and max(kept) * 0.8 < high < 10_000 / 1.5
    plt.close()


def test_validations_are_always_shown_and_a_rare_peak_is_not():
    train = [*((k, 100.0) for k in range(200)), (200, 1e300), *((k, 90.0) for k in range(201, 400))]
    perplexity_curve(train, [(200, 400.0), (400, 30.0)])
    low, high = plt.gca().get_ylim()
    assert 25 < low < 30 and 400 < high < 450


@pytest.mark.parametrize(
    ("low", "high"), [(100.0, 101.0), (75.0, 400.0), (1.02, 1.2), (20.0, 9000.0)]
)
def test_plain_numbers_stand_beside_the_scale(low, high):
    perplexity_curve([(k, high - (high - low) * k / 99) for k in range(100)])
    plt.gcf().canvas.draw()
    axes = plt.gca()
    first, last = axes.get_ylim()
    labels = [
        label.get_text()
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if first <= place <= last
    ]
    assert 2 <= len(labels) <= 12
    assert [float(label) for label in labels] == sorted(float(label) for label in labels)


def test_the_rate_stands_below_over_the_same_iterations_and_the_title_above():
    perplexity_curve(TRAIN, rate=[(1, 20.0), (20, 20.0), (40, 5.0)], title="Rnnlm on ptb")
    above, below = plt.gcf().axes
    assert above.get_title() == "Rnnlm on ptb"
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "iterations")
    assert below.get_ylabel() == "learning rate"
    assert below.lines[0].get_xydata().tolist() == [[1, 20], [20, 20], [40, 5]]
    assert above.get_xlim() == below.get_xlim()
    assert below.get_ylim() == (0, 22)


def test_records_are_drawn_with_their_rate(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "show_or_save", lambda path: drawn.extend(plt.gcf().axes))
    records = [{"step": k, "perplexity": 100.0 / k, "lr": 3.0 / k} for k in (1, 2)]
    draw_curve(records, [(2, 60.0)], title="t")
    assert [line.get_xydata().tolist() for axes in drawn for line in axes.lines] == [
        [[1, 100], [2, 50]],
        [[2, 60]],
        [[1, 3], [2, 1.5]],
    ]


def test_a_curve_without_points_yet_is_an_empty_picture():
    perplexity_curve([])
    assert plt.gca().get_ylabel() == "perplexity"


def test_a_path_is_saved_there_and_the_figure_is_closed(tmp_path, capsys):
    perplexity_curve(TRAIN)
    show_or_save(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert "mine.png" in capsys.readouterr().out


def test_without_a_screen_the_picture_is_saved_as_curve_png(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    perplexity_curve(TRAIN)
    show_or_save()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in capsys.readouterr().out


def test_with_a_screen_the_picture_is_shown_and_not_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    perplexity_curve(TRAIN)
    show_or_save()
    assert shown == [[1]]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_an_os_error(tmp_path):
    perplexity_curve(TRAIN)
    with pytest.raises(OSError):
        show_or_save(tmp_path / "missing" / "curve.png")


# ---- one palette, and names in place of legends ----


def test_figures_are_readable_inside_and_as_they_were_outside():
    before = dict(plt.rcParams)
    with readable():
        assert plt.rcParams["font.size"] > before["font.size"]
        lines = [plt.plot([0, k])[0] for k in range(len(PALETTE))]
    assert [line.get_color() for line in lines] == list(PALETTE)
    assert dict(plt.rcParams) == before


def test_a_scale_goes_through_its_colours():
    colours = color_scale("#000000", "#ffffff", PALETTE[0])
    assert colours(0.0)[:3] == (0, 0, 0) and colours(1.0) == to_rgba(PALETTE[0])
    assert min(colours(0.5)[:3]) > 0.98


@pytest.mark.parametrize("heights", [(1.0,), (1.0, 1.0), (1.0, 1.01, 0.99, 5.0), (2.0, 1.0, 2.0)])
def test_names_stand_beside_their_points_and_not_on_each_other(heights):
    figure, axes = plt.subplots(layout="constrained")
    axes.plot([0, 1], [0.5, 6])
    names = [(1.0, y, f"the name ${k}", PALETTE[k]) for k, y in enumerate(heights)]
    limits = axes.get_xlim(), axes.get_ylim()
    name_points(axes, names)
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    figure.canvas.draw()
    assert [text.get_text() for text in axes.texts] == [name for *_, name, _ in names]
    boxes = [text.get_window_extent() for text in axes.texts]
    for k, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1  # the layout leaves room
        assert box.x0 > axes.transData.transform((1.0, 0))[0]
        assert all(box.y1 < other.y0 + 2 or other.y1 < box.y0 + 2 for other in boxes[:k])
    order = sorted(range(len(heights)), key=lambda k: heights[k])
    places = [boxes[k].y0 for k in order]
    assert places == sorted(places)


def test_what_is_saved_is_told_by_its_name(tmp_path, capsys):
    plt.plot([1, 2])
    show_or_save(tmp_path / "shapes.png")
    assert capsys.readouterr().out == f"shapes saved to {tmp_path / 'shapes.png'}\n"


# ---- characters that the font of a text lacks ----

CYRILLIC = "Ж"  # in DejaVu Sans, which comes with Matplotlib, and not in its cmr10
KOREAN = "한국"  # in no font that comes with Matplotlib


@pytest.fixture
def fonts(monkeypatch):
    """Only the fonts that come with Matplotlib are installed; returns their list."""
    folder = Path(font_manager.__file__).parent
    own = [e for e in font_manager.fontManager.ttflist if folder in Path(e.fname).parents]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(plotting, "_said", False)
    font_manager.fontManager._findfont_cached.cache_clear()
    yield own
    font_manager.fontManager._findfont_cached.cache_clear()


def test_a_text_gets_a_font_for_the_characters_that_its_own_lacks(fonts, tmp_path, capsys):
    lacks = plt.gca().set_title(f"title {CYRILLIC}", family="cmr10")
    has = plt.gca().set_xlabel("label", family="cmr10")
    show_or_save(tmp_path / "figure.png")
    first, *others = lacks.get_fontfamily()
    assert first == "cmr10" and len(others) == 1 and others[0].startswith("DejaVu")
    assert has.get_fontfamily() == ["cmr10"]
    assert capsys.readouterr().err == ""


def test_a_font_for_chinese_japanese_and_korean_is_preferred(fonts):
    dejavu = next(e for e in fonts if e.name == "DejaVu Sans" and e.style == "normal")
    attributes = {"fname": dejavu.fname, "style": "normal", "weight": 400}
    fonts.append(font_manager.FontEntry(name="Some Sans CJK KR", **attributes))
    title = plt.gca().set_title(CYRILLIC, family="cmr10")
    plotting.use_fonts_with_every_glyph(plt.gcf())
    assert title.get_fontfamily() == ["cmr10", "Some Sans CJK KR"]


def test_a_font_that_was_installed_after_matplotlib_made_its_list_is_found(fonts, monkeypatch):
    paths = [e.fname for e in fonts if e.name.startswith("DejaVu")]
    fonts[:] = [e for e in fonts if e.fname not in paths]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    title = plt.gca().set_title(CYRILLIC, family="cmr10")
    plotting.use_fonts_with_every_glyph(plt.gcf())
    assert title.get_fontfamily()[1].startswith("DejaVu")


def test_where_no_font_has_the_characters_one_line_says_once_what_to_install(
    fonts, tmp_path, capsys
):
    for k in range(2):
        plt.gca().set_title(KOREAN)
        show_or_save(tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "no installed font has 국한; install" in lines[0] and "fonts-noto-cjk" in lines[0]


def test_a_picture_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "foreign").write_bytes(b"foreign")
    (tmp_path / "curve.png").symlink_to(tmp_path / "foreign")
    perplexity_curve(TRAIN)
    show_or_save(tmp_path / "curve.png")
    assert (tmp_path / "foreign").read_bytes() == b"foreign"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
