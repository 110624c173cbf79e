"""Clipping, and perplexity by both protocols against loops that anyone can follow."""

import io
import math
import sys

import numpy
import pytest

from common.functions import log_softmax
from common.np import np
from common.util import (
    clip_grads,
    clip_grads_value,
    eval_perplexity,
    eval_perplexity_exact,
    eval_seq2seq,
    evaluation,
)
from tests.builders import MODELS, D, H, V, close, floats, generator, ids, same, tiny_model

on_both = pytest.mark.usefixtures("backend")
every_model = pytest.mark.parametrize("name", MODELS)


# ---- clipping ----


def three_and_four():
    """Two gradients whose norm together is 5; the second is a transposed view."""
    return [np.full((3, 3), 1.0), np.full((2, 8), 1.0).T]


@on_both
def test_gradients_beyond_the_norm_are_scaled_in_place_all_by_one_factor():
    grads = three_and_four()
    held = list(grads)
    norm = clip_grads(grads, 2.5)
    assert float(norm) == pytest.approx(5)
    for grad, array in zip(grads, held, strict=True):
        assert grad is array
        close(grad, np.full(grad.shape, 0.5), 1e-6)
    assert float(clip_grads(grads, 100)) == pytest.approx(2.5, rel=1e-6)


@on_both
def test_gradients_within_the_norm_are_not_touched():
    grads = [floats(generator(), D, H), floats(generator(), H)]
    kept = [g.copy() for g in grads]
    assert float(clip_grads(grads, 1e3)) == pytest.approx(
        math.sqrt(sum(float((g**2).sum()) for g in kept)), rel=1e-12
    )
    for now, then in zip(grads, kept, strict=True):
        same(now, then)


@on_both
def test_a_gradient_may_be_any_view_of_its_memory():
    memory = floats(generator(), 6, 8)
    expected = memory.copy()
    norm = float(np.sqrt((memory[::2, ::2] ** 2).sum()))
    assert float(clip_grads([memory[::2, ::2]], norm / 4)) == pytest.approx(norm, rel=1e-12)
    expected[::2, ::2] /= 4
    close(memory, expected, 1e-6)


@on_both
def test_clipping_keeps_float32_and_zero_gradients():
    grads = [np.zeros((2, 2), dtype="float32"), np.ones(4, dtype="float32")]
    clip_grads(grads, 1.0)
    close(grads[1], np.full(4, 0.5, dtype="float32"), 1e-6)
    assert {str(g.dtype) for g in grads} == {"float32"}
    zeros = [np.zeros(3)]
    assert float(clip_grads(zeros, 1.0)) == 0
    same(zeros[0], np.zeros(3))


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
def test_a_bound_that_is_not_above_zero_is_refused(bad):
    for clip in (clip_grads, clip_grads_value):
        grads = [np.ones(2)]
        with pytest.raises(ValueError, match=f"^{clip.__name__}: expected max_.* above 0, got"):
            clip(grads, bad)
        same(grads[0], np.ones(2))


@on_both
def test_clipping_by_value_bounds_every_element_in_place():
    grads = [np.array([-3.0, -0.5, 0.5, 3.0]), np.array([[2.0, 0.0], [0.1, -2.0]]).T]
    held = list(grads)
    assert clip_grads_value(grads, 1) is None
    assert all(grad is array for grad, array in zip(grads, held, strict=True))
    same(grads[0], np.array([-1.0, -0.5, 0.5, 1.0]))
    same(grads[1], np.array([[1.0, 0.1], [0.0, -1.0]]))


# ---- perplexity ----


def nll_token_by_token(model, xs, ts):
    """Sum of -log p(t) with one token read at a time, from a zero state."""
    model.reset_state()
    total = 0.0
    for x, t in zip(xs, ts, strict=True):
        scores = model.predict(np.array([[int(x)]]))[0, 0]
        total -= float(log_softmax(scores)[int(t)])
    return total


def perplexity_by_the_book(model, corpus, batch_size, time_size):
    """Each stream on its own, at offset ``i * ((len - 1) // batch)``, whole windows only."""
    jump = (len(corpus) - 1) // batch_size
    length = jump // time_size * time_size
    total = 0.0
    for i in range(batch_size):
        stream = corpus[i * jump : i * jump + length + 1]
        total += nll_token_by_token(model, stream[:-1], stream[1:])
    return math.exp(total / (batch_size * length))


@on_both
@every_model
@pytest.mark.parametrize("length", [25, 26, 36, 40])  # one window per stream, or one and a tail
def test_the_books_protocol_is_its_streams_read_one_by_one(name, length):
    model, corpus = tiny_model(name, "float64", scale=1.5), ids(generator(1), V, length)
    expected = perplexity_by_the_book(model, corpus, 3, 4)
    assert eval_perplexity(model, corpus, 3, 4) == pytest.approx(expected, rel=1e-12)
    assert not 0.9 < expected / V < 1.1  # the model is far enough from uniform to tell


@on_both
@every_model
@pytest.mark.parametrize("time_size", [1, 4, 7, 23, 500])
def test_the_exact_protocol_is_the_corpus_read_token_by_token(name, time_size):
    model, corpus = tiny_model(name, "float64", scale=1.5), ids(generator(1), V, 23)
    before = np.concatenate([np.array([2]), corpus[:-1]])  # 2 stands for <eos>
    expected = math.exp(nll_token_by_token(model, before, corpus) / len(corpus))
    got = eval_perplexity_exact(model, corpus, 2, time_size)
    assert got == pytest.approx(expected, rel=1e-12)
    assert got != pytest.approx(eval_perplexity_exact(model, corpus, 3, time_size), rel=1e-6)


class Recorder:
    """A model without ``get_state`` and ``train_flg`` that keeps what it was asked."""

    def __init__(self, loss=0.0):
        self.loss, self.windows, self.resets = loss, [], 0

    def reset_state(self):
        self.resets += 1

    def forward(self, xs, ts):
        self.windows.append((xs, ts))
        return self.loss

    def asked(self):
        """Inputs and targets of every stream from beginning to end."""
        return [numpy.concatenate(part, axis=1) for part in zip(*self.windows, strict=True)]


@pytest.mark.parametrize("time_size", [1, 3, 10, 11, 100])
def test_the_exact_protocol_asks_for_every_token_exactly_once(time_size):
    model, corpus = Recorder(), numpy.arange(100, 110)
    eval_perplexity_exact(model, corpus, first_id=7, time_size=time_size)
    xs, ts = model.asked()
    assert xs.tolist() == [[7, *range(100, 109)]]
    assert ts.tolist() == [list(range(100, 110))]
    assert model.resets == 2  # before, so that it begins at zero, and after


def test_the_books_protocol_asks_for_whole_windows_and_never_wraps_round():
    model, corpus = Recorder(), numpy.arange(3 * 8 + 4)
    eval_perplexity(model, corpus, batch_size=3, time_size=4)
    xs, ts = model.asked()
    assert [row.tolist() for row in xs] == [list(range(9 * i, 9 * i + 8)) for i in range(3)]
    numpy.testing.assert_array_equal(ts, xs + 1)
    assert [x.shape for x, _ in model.windows] == [(3, 4), (3, 4)]


def test_a_shorter_last_window_counts_by_its_tokens():
    class LossIsTheFirstInput(Recorder):
        def forward(self, xs, ts):
            return float(xs[0, 0])

    # windows of 4, 4 and 2 tokens that begin with 9, 3 and 7
    corpus = numpy.arange(10)
    got = eval_perplexity_exact(LossIsTheFirstInput(), corpus, first_id=9, time_size=4)
    assert got == pytest.approx(math.exp((9 * 4 + 3 * 4 + 7 * 2) / 10), rel=1e-12)


def test_losses_are_added_up_in_float64():
    model = Recorder(numpy.float32(1 / 3))
    got = eval_perplexity_exact(model, numpy.zeros(100_000, dtype=int), 0, time_size=1)
    assert got == pytest.approx(math.exp(float(numpy.float32(1 / 3))), rel=1e-12)


@on_both
@every_model
def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(name):
    model, corpus = tiny_model(name, "float64"), ids(generator(), V, 50)
    for param in model.params:
        param[...] = 0
    assert eval_perplexity(model, corpus, 3, 4) == pytest.approx(V, rel=1e-12)
    assert eval_perplexity_exact(model, corpus, 0, 20) == pytest.approx(V, rel=1e-12)


def both_protocols(model, corpus):
    return eval_perplexity(model, corpus, 3, 4), eval_perplexity_exact(model, corpus, 0, 20)


@on_both
@every_model
def test_evaluation_leaves_the_training_state_as_it_found_it(name):
    xs, ts, corpus = (
        ids(generator(k), V, *shape) for k, shape in enumerate([(2, 9)] * 2 + [(30,)])
    )
    losses = []
    for evaluates in (False, True):
        model = tiny_model(name, dropout_ratio=0.3)  # the masks must not move on either
        model.forward(xs, ts)
        before = model.get_state()
        if evaluates:
            both_protocols(model, corpus)
            for was, now in zip(before, model.get_state(), strict=True):
                for a, b in zip(was, now, strict=True):
                    same(b, a)
        losses.append(float(model.forward(xs, ts)))
    assert losses[0] == losses[1]


@every_model
def test_evaluation_before_training_leaves_no_state_behind(name):
    model = tiny_model(name)
    both_protocols(model, ids(generator(), V, 30))
    assert model.get_state() == [None] * len(model.get_state())


def test_evaluation_begins_at_zero_whatever_the_training_state():
    model, corpus = tiny_model("Rnnlm", scale=1.5), ids(generator(), V, 30)
    fresh = both_protocols(model, corpus)
    model.forward(corpus[None, :9], corpus[None, 1:10])
    assert both_protocols(model, corpus) == fresh


def test_evaluation_drops_nothing_out():
    model, corpus = tiny_model("BetterRnnlm", dropout_ratio=0.5, scale=1.5), ids(generator(), V, 30)
    assert both_protocols(model, corpus) == both_protocols(model, corpus)


def test_the_training_state_is_back_even_when_evaluation_fails():
    model, corpus = tiny_model("Rnnlm"), ids(generator(), V, 30)
    model.forward(corpus[None, :9], corpus[None, 1:10])
    before = model.get_state()
    corpus[-1] = V
    with pytest.raises(ValueError, match=rf"expected ts in .*got {V}"):
        eval_perplexity_exact(model, corpus, 0, 7)
    for a, b in zip(model.get_state()[0], before[0], strict=True):
        same(a, b)


def test_layers_that_keep_no_state_can_be_evaluated_after_training():
    model, corpus = tiny_model("Rnnlm"), ids(generator(), V, 30)
    model.layers[1].stateful = False
    model.forward(corpus[None, :9], corpus[None, 1:10])
    first = eval_perplexity(model, corpus, 3, 4)
    assert eval_perplexity(model, corpus, 3, 4) == first


def test_inside_evaluation_the_state_is_zero_and_afterwards_it_is_back():
    model = tiny_model("Rnnlm")
    model.set_state([(np.ones((1, H)), np.zeros((1, H)))])
    with evaluation(model):
        assert model.get_state() == [None]
        model.predict(np.array([[1, 2]]))
    same(model.get_state()[0][0], np.ones((1, H), dtype="float32"))


def test_a_corpus_may_be_a_list():
    model, corpus = tiny_model("Rnnlm"), ids(generator(), V, 30)
    assert both_protocols(model, corpus.tolist()) == both_protocols(model, corpus)


def test_a_diverged_model_has_an_infinite_perplexity_and_no_traceback():
    model = Recorder(1000.0)  # nats per token; exp(1000) is past float64
    assert both_protocols(model, numpy.zeros(30, dtype=int)) == (math.inf, math.inf)


def test_a_corpus_shorter_than_one_batch_is_an_error_that_counts():
    with pytest.raises(ValueError, match=r"at least 13 tokens .*batch 3 times 4.*got 12"):
        eval_perplexity(Recorder(), numpy.arange(12), 3, 4)
    assert eval_perplexity(Recorder(), numpy.arange(13), 3, 4) == 1


def test_an_empty_corpus_is_an_error():
    with pytest.raises(ValueError, match=r"^eval_perplexity_exact: a corpus of 0 tokens"):
        eval_perplexity_exact(Recorder(), numpy.array([], dtype=int), 0)


@pytest.mark.parametrize(("batch_size", "time_size"), [(0, 4), (3, 0), (-3, 4)])
def test_a_batch_without_streams_or_steps_is_an_error(batch_size, time_size):
    with pytest.raises(ValueError, match=r"^eval_perplexity"):
        eval_perplexity(Recorder(), numpy.arange(30), batch_size, time_size)


def test_a_first_id_out_of_range_is_an_error():
    with pytest.raises(ValueError, match=rf"TimeEmbedding: expected xs in 0\.\.{V - 1}, got {V}"):
        eval_perplexity_exact(tiny_model("Rnnlm"), ids(generator(), V, 30), first_id=V)


class Told(Recorder):
    """Keeps by which names it was asked, besides."""

    def forward(self, xs, ts, **options):
        self.options = options
        return super().forward(xs, ts)


def test_a_forward_of_nothing_but_keywords_is_told_that_it_is_not_training():
    model = Told()
    both_protocols(model, numpy.arange(30))
    assert model.options == {"train_flg": False}


def test_a_forward_that_refuses_the_keyword_is_an_error_and_not_dropout_unseen():
    class Strict(Recorder):
        def forward(self, *args, **options):
            return super().forward(*args, **options)

    with pytest.raises(TypeError, match="train_flg"):
        both_protocols(Strict(), numpy.arange(30))


# ---- answers to questions ----

CHARS = dict(enumerate("0123456789+_ "))
IDS = {char: k for k, char in CHARS.items()}


def ids_of(text):
    return numpy.array([[IDS[char] for char in text]])


class Answers:
    """A model that writes ``text`` whatever it is asked, and keeps the question."""

    def __init__(self, text):
        self.text = text

    def generate(self, question, start_id, length):
        self.asked = question, start_id, length
        return ids_of(self.text)[0]


@pytest.mark.parametrize(("text", "expected"), [("62  ", 1), ("61  ", 0), ("6 2 ", 0)])
def test_an_answer_is_right_in_every_character_or_wrong(text, expected, capsys):
    model, question = Answers(text), ids_of("57+5   ")
    assert eval_seq2seq(model, question, ids_of("_62  "), CHARS) == expected
    asked, start_id, length = model.asked
    same(np.asarray(asked), np.asarray(question))
    assert (start_id, length) == (IDS["_"], 4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_reverse", [False, True])
@pytest.mark.parametrize(("text", "mark"), [("62  ", "☑"), ("61  ", "☒")])
def test_question_answer_and_guess_are_shown_the_question_forwards(text, mark, is_reverse, capsys):
    question = ids_of("57+5   ")[:, :: -1 if is_reverse else 1]
    eval_seq2seq(Answers(text), question, ids_of("_62  "), CHARS, True, is_reverse)
    assert capsys.readouterr().out == f"Q 57+5   \nT 62  \n{mark} {text}\n---\n"


@pytest.mark.parametrize(("text", "mark"), [("62", "O"), ("61", "X")])
def test_on_a_screen_without_boxes_letters_stand_for_them(text, mark, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", screen)
    eval_seq2seq(Answers(text), ids_of("57+5"), ids_of("_62"), CHARS, verbose=True)
    screen.flush()
    assert f"{mark} {text}" in screen.buffer.getvalue().decode("cp1252")


def test_a_character_that_the_screen_does_not_have_is_shown_by_its_number(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", screen)
    chars = {**CHARS, IDS["6"]: "ね"}
    assert eval_seq2seq(Answers("62"), ids_of("57+5"), ids_of("_62"), chars, verbose=True)
    screen.flush()
    assert "T \\u306d2" in screen.buffer.getvalue().decode("cp1252")


@on_both
def test_the_ids_may_lie_on_a_device():
    question, correct = (np.asarray(ids_of(text)) for text in ("57+5", "_62"))
    assert eval_seq2seq(Answers("62"), question, correct, CHARS) == 1
