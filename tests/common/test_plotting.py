"""Perplexity curves: shown where there is a screen, saved where there is none."""

import matplotlib.pyplot as plt
import pytest

from common.plotting import perplexity_curve, show_or_save

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


def test_without_limits_the_scale_is_logarithmic_and_with_limits_it_is_the_books():
    perplexity_curve(TRAIN)
    assert plt.gca().get_yscale() == "log"
    plt.close()
    perplexity_curve(TRAIN, ylim=(0, 500))
    assert plt.gca().get_yscale() == "linear"
    assert plt.gca().get_ylim() == (0, 500)


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
