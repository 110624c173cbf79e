"""Every picture of the gallery reads in a lecture hall: large letters, one palette, no clash."""

from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from common import plotting
from common.perplexity.paired_bootstrap import paired_bootstrap
from common.plotting import BLACK, GREY, PALETTE, readable
from train import (
    char_rnn,
    compare,
    gradient_flow,
    last_word,
    memory,
    seq2seq,
    shapes,
    step_by_step,
)
from train.benchmark import perplexity
from train.benchmark.run_records import read_record

RESULTS = sorted((Path(__file__).parents[2] / "results").glob("*.json"))
COLOURS = {colour.lower() for colour in (*PALETTE, BLACK, GREY, "#ffffff")}
FALLING = [2.0**-k for k in range(20)]


def of_char_rnn(monkeypatch):
    corpora = char_rnn.load_corpora(char_rnn.Options())
    trained = [
        [
            char_rnn.Result(rule, start, [loss / start for loss in FALLING], ["a"] * 10, 4, "a")
            for start in (1, 2, 3)
            for rule in char_rnn.RULES
        ]
        for _ in corpora
    ]
    char_rnn.draw(corpora, trained)


def of_gradient_flow(monkeypatch):
    Wh = gradient_flow.published_matrix()
    matrix = {
        f"{name}{clipped}": gradient_flow.matrix_norms(W, max_norm=bound)
        for name, W in (("Wh", Wh), ("Wh / 2", Wh / 2))
        for clipped, bound in (("", None), (", clipped", 5.0))
    }
    trained = {
        "RNN": {"dh": FALLING},
        "LSTM": {"dh": [0.6**k for k in range(20)], "dc": [0.7**k for k in range(1, 20)]},
        "GRU": {"dh": [0.9**k for k in range(20)]},
    }
    gradient_flow.draw(matrix, trained, 5.0)


def of_last_word(monkeypatch):
    _, t, words = last_word.last_words(last_word.SENTENCES)
    p = np.full((len(t), len(words)), 0.01)
    p[np.arange(len(t)), t] = 0.94
    beginnings = [" ".join(sentence.split()[:-1]) for sentence in last_word.SENTENCES]
    costs = [1 / (k + 1) for k in range(5000)]
    last_word.draw(costs, last_word.PUBLISHED_COSTS, beginnings, words, t, p)


def of_memory(monkeypatch):
    target, rows = memory.SENTENCE + "$", []
    for variant in memory.VARIANTS:
        for fed in ("one-hot", "raw", "published"):
            if fed == "one-hot" or variant.published_recitation:
                said = target if fed == "one-hot" else target[:20] + "t" * 49
                rows.append((variant.name, fed, [memory.compare(said, said, target)]))
    memory.draw(rows, target)


def of_seq2seq(monkeypatch):
    accuracies = {"plain": 0.48, "peeky": 0.97, "attention": 0.46}
    seq2seq.draw_accuracies(
        {
            kind: {"epochs": [{"epoch": k, "accuracy": last * k / 25} for k in range(1, 26)]}
            for kind, last in accuracies.items()
        },
        "addition, read from the end: answers to 5,000 new questions",
    )


def of_attention(monkeypatch):
    read = "sunday, november 24, 2013    "
    weights = np.eye(10, len(read))
    answered = {"read": read, "written": "2013-11-24", "weights": weights}
    seq2seq.draw_maps([{**answered, "right": k != 1} for k in range(4)])


def of_shapes(monkeypatch):
    shapes.draw([shapes.train(shape, seed=1, effort=0.05) for shape in shapes.SETUPS])


def of_step_by_step(monkeypatch):
    states = np.linspace(-1, 1, 16 * 40).reshape(16, 40)
    names = {"rnn": ["da"], "lstm": ["da", "dc"], "gru": ["da"]}
    traces = {
        kind: step_by_step.Trace(
            states, {name: [10.0 ** (k - 40) for k in range(41)] for name in n}
        )
        for kind, n in names.items()
    }
    step_by_step.draw(traces, 6)


def of_compare(monkeypatch):
    rng = np.random.default_rng(0)
    losses, sentence_of = rng.random((3, 400)), np.arange(400) // 8
    groups = {"text": {"all": np.ones(400, bool)}, "place": {"1": sentence_of % 2 == 0}}
    kinds = paired_bootstrap(losses, sentence_of, groups, 20, rng)
    titles = {"the text": kinds["text"], "by place in the sentence": kinds["place"]}
    compare.draw(titles, ["runs/a", "runs/b", "runs/c"], "test text of ptb, 50 sentences")


def of_perplexity(monkeypatch):
    drawn = []
    monkeypatch.setattr(perplexity, "save", lambda figure, path, dpi: drawn.append(figure))
    perplexity.draw([read_record(path) for path in RESULTS], Path("figure.png"))
    return drawn[0]


PICTURES = [
    of_char_rnn,
    of_gradient_flow,
    of_last_word,
    of_memory,
    of_seq2seq,
    of_attention,
    of_shapes,
    of_step_by_step,
    of_compare,
    of_perplexity,
]


@pytest.fixture(scope="module", params=PICTURES, ids=lambda draw: draw.__name__.removeprefix("of_"))
def picture(request):
    """A picture of the gallery, drawn of figures of a moment, laid out."""
    plt.close("all")
    with readable(), pytest.MonkeyPatch.context() as monkeypatch:
        figure = request.param(monkeypatch) or plt.gcf()
        figure.draw_without_rendering()
        yield figure
    plt.close("all")


def written(figure):
    """What is written into a figure, but for the numbers along its axes."""
    texts = [*figure.texts, *(t for part in figure.subfigs for t in part.texts)]
    texts.append(figure._suptitle)
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        legend = axes.get_legend()
        texts += legend.get_texts() if legend is not None else []
    return {id(t): t for t in texts if t is not None and t.get_text().strip()}.values()


def test_letters_are_large_on_a_slide(picture):
    width, height = picture.get_size_inches()
    height_of_slide = 72 * max(height, width * 9 / 16)  # of one that the picture fills
    for text in picture.findobj(Text):
        if text.get_text().strip():
            assert text.get_fontsize() > height_of_slide / 48, text.get_text()


def test_nothing_that_is_written_lies_on_another(picture):
    boxes = [(text.get_text(), text.get_window_extent()) for text in written(picture)]
    assert boxes
    for (said, box), (other_said, other) in combinations(boxes, 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        down = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across < 3 or down < 3, (said, other_said)


def test_all_that_is_written_is_inside(picture):
    for text in written(picture):
        box = text.get_window_extent()
        assert box.x0 > -3 and box.x1 < picture.bbox.x1 + 3, text.get_text()
        assert box.y0 > -3 and box.y1 < picture.bbox.y1 + 3, text.get_text()


def test_lines_and_letters_have_the_colours_of_the_palette_and_no_line_is_thin(picture):
    for axes in picture.axes:
        used = {to_hex(line.get_color()) for line in axes.lines}
        used |= {to_hex(text.get_color()) for text in axes.texts}
        assert used <= COLOURS
        assert all(line.get_linewidth() >= 1 for line in axes.lines)


def test_colours_are_named_in_one_file_only():
    root = Path(plotting.__file__).parents[1]
    named = [
        path.name
        for part in ("common", "datasets", "models", "train")
        for path in sorted((root / part).rglob("*.py"))
        if "tab:" in (text := path.read_text(encoding="utf-8")) or "#D55E00" in text
    ]
    assert named == ["plotting.py"]
