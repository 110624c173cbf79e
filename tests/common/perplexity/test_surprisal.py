"""What every token costs and what was expected; all together cost what an evaluation says."""

import math
import os
import tracemalloc

import numpy
import pytest

from common import kernels
from common.np import np, to_cpu
from common.perplexity.protocols import eval_perplexity_exact, evaluation, inputs_and_targets
from common.perplexity.surprisal import predictions
from datasets import load_corpus
from datasets.markov import MarkovSource
from models import BetterRnnlm, Rnnlm
from models.char_rnn import CharRnn
from tests.builders import MODELS, V, close, floats, generator, ids, same, tiny_model

NEEDS_PTB = pytest.mark.skipif(
    "TIMELAYERS_DATA" not in os.environ, reason="TIMELAYERS_DATA names no Penn Treebank"
)


def of_text(model, text, first_id=3, **options):
    """The predictions of a whole text as one row of arrays, from the zero state."""
    xs, ts = inputs_and_targets(text, first_id, "test")
    with evaluation(model):
        parts = list(predictions(model, xs, ts, **options))
    names = ("surprisal", "entropy", "rank", "best", "best_bits")
    assert len({len(getattr(part, name)) for part in parts for name in names}) <= 2
    return [numpy.concatenate([getattr(part, name) for part in parts]) for name in names]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", MODELS)
def test_the_mean_is_the_exact_perplexity(name):
    model = tiny_model(name, dtype="float64", scale=0.7)
    text = ids(generator(5), V, 101)
    surprisal, *_ = of_text(model, text)
    exact = eval_perplexity_exact(model, text, 3)
    assert 2 ** surprisal.mean() == pytest.approx(exact, rel=1e-13)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("tied", [True, False])
def test_an_adaptive_softmax_is_measured_by_its_log_probabilities(tied):
    model, text = BetterRnnlm(V, 8, 8, rng=1, tied=tied, cutoffs=(2, 4)), ids(generator(5), V, 60)
    for param in model.params:
        param += 0.7 * floats(generator(2), *param.shape, dtype="float32")
    surprisal, entropy, *_ = of_text(model, text)
    assert 2 ** surprisal.mean() == pytest.approx(eval_perplexity_exact(model, text, 3), rel=1e-6)
    assert entropy.max() <= numpy.log2(V) + 1e-6


@pytest.mark.parametrize("compiled", [True, False])
def test_in_single_precision_the_mean_is_no_other_figure(compiled, monkeypatch):
    """The losses are those of the evaluation, bit for bit: of 1e-7 nothing is left in the mean."""
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    rng = generator(4)
    model = Rnnlm(1500, 20, 37, rng=1)
    for param in model.params:
        param += 0.3 * rng.standard_normal(param.shape, dtype="float32")
    text = rng.integers(0, 1500, 1203).astype("int32")
    surprisal, *_ = of_text(model, text)
    exact = eval_perplexity_exact(model, text, 3)
    assert 2 ** surprisal.mean() == pytest.approx(exact, rel=1e-13)


@NEEDS_PTB
@pytest.mark.slow
def test_all_tokens_of_the_penn_treebank_cost_what_the_evaluation_says():
    corpus = load_corpus("ptb")
    model = Rnnlm(corpus.vocab_size, 32, 32, rng=1)
    for param in model.params:
        param += 0.3 * generator(2).standard_normal(param.shape, dtype="float32")
    model.set_output_bias(numpy.bincount(corpus.train, minlength=corpus.vocab_size))
    surprisal, *_ = of_text(model, corpus.test, corpus.first_id)
    assert len(surprisal) == 82_430
    exact = eval_perplexity_exact(model, corpus.test, corpus.first_id)
    assert 2 ** surprisal.mean() == pytest.approx(exact, rel=1e-12)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_figure_is_as_the_scores_say_in_plain_numpy(dtype):
    model, text = tiny_model("Rnnlm", dtype=dtype, scale=0.7), ids(generator(5), V, 40)
    xs, _ = inputs_and_targets(text, 3, "test")
    with evaluation(model):
        scores = to_cpu(model.predict(xs)[0]).astype("float64")
    p = numpy.exp(scores) / numpy.exp(scores).sum(axis=1, keepdims=True)
    order = numpy.argsort(-scores, axis=1, kind="stable")
    text, rows = to_cpu(text), numpy.arange(40)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    found = of_text(model, np.asarray(text), best=3)
    close(found[0], -numpy.log2(p[rows, text]), tolerance)
    close(found[1], -(p * numpy.log2(p)).sum(axis=1), tolerance)
    same(found[2], 1 + (order == text[:, None]).argmax(axis=1))
    same(found[3], order[:, :3])
    close(found[4], -numpy.log2(p[rows[:, None], order[:, :3]]), tolerance)


@pytest.mark.usefixtures("backend")
def test_a_model_that_finds_all_tokens_alike_pays_the_logarithm_of_their_number():
    model = tiny_model("SimpleRnnlm", scale=0.0)
    surprisal, entropy, rank, best, bits = of_text(model, ids(generator(5), V, 30), best=2)
    for found in (surprisal, entropy, *bits.T):
        close(found, numpy.full(30, math.log2(V)), 1e-6)
    assert (rank == 1).all() and (best == [0, 1]).all()


def test_a_model_that_knows_a_markov_source_pays_its_entropy_rate():
    """One layer that hands on the last symbol, and an output layer of log transitions."""
    source = MarkovSource(num_symbols=5, order=1, seed=3)
    model = Rnnlm(5, 5, 5, rng=1, dtype="float64", cell="rnn")
    embed, Wx, Wh, b, W, bias = model.params
    large = 20.0  # tanh of it is 1
    embed[...], Wx[...], Wh[...], b[...], bias[...] = numpy.eye(5), large * numpy.eye(5), 0, 0, 0
    W[...] = numpy.log(source.transition)
    text = source.sample(2000, generator(1))
    surprisal, entropy, *_ = of_text(model, text[1:], text[0])
    p = source.transition[text[:-1]]
    close(surprisal, -numpy.log2(p[numpy.arange(1999), text[1:]]), 1e-9)
    close(entropy, -(p * numpy.log2(p)).sum(axis=1), 1e-9)
    assert entropy.mean() == pytest.approx(source.entropy_rate / math.log(2), rel=0.05)


@pytest.mark.usefixtures("backend")
def test_windows_change_nothing_but_the_size_of_the_parts():
    model, text = tiny_model("BetterRnnlm", dtype="float64", scale=0.7), ids(generator(5), V, 50)
    for whole, cut in zip(of_text(model, text), of_text(model, text, window=7), strict=True):
        close(cut, whole)
    xs, ts = inputs_and_targets(text, 3, "test")
    assert [len(part) for part in predictions(model, xs, ts, window=20)] == [20, 20, 10]


@pytest.mark.usefixtures("backend")
def test_a_text_can_be_read_piece_by_piece_and_the_training_state_comes_back():
    model, text = tiny_model("BetterRnnlm", dtype="float64", scale=0.7), ids(generator(5), V, 50)
    model.forward(ids(generator(6), V, 2, 3), ids(generator(7), V, 2, 3))
    before = model.get_state()
    (xs,), (ts,) = inputs_and_targets(text, 3, "test")
    with evaluation(model):
        pieces = [next(predictions(model, xs[s], ts[s])) for s in (slice(0, 9), slice(9, 50))]
    close(numpy.concatenate([p.surprisal for p in pieces]), of_text(model, text)[0])
    for kept, was in zip(model.get_state(), before, strict=True):
        same(to_cpu(kept[0]), to_cpu(was[0]))


def test_a_model_whose_loss_reads_scores_is_measured_too():
    model, text = CharRnn(V, 6, rng=1), ids(generator(5), V, 60)
    for param in model.params:
        param += generator(2).standard_normal(param.shape, dtype="float32")
    surprisal, *_ = of_text(model, text)
    assert 2 ** surprisal.mean() == pytest.approx(eval_perplexity_exact(model, text, 3), rel=1e-6)


@pytest.mark.usefixtures("backend")
def test_scores_of_a_thousand_are_certain_and_never_infinite():
    model = tiny_model("SimpleRnnlm", scale=0.0)
    model.params[-1][2] = 1000.0
    surprisal, entropy, rank, best, bits = of_text(model, np.asarray([2, 3, 2]), best=9)
    close(surprisal, numpy.array([0, 1000 / math.log(2), 0]), 1e-9)
    assert not numpy.signbit(surprisal).any() and (entropy < 1e-30).all()
    assert rank.tolist() == [1, 2, 1] and best[0].tolist() == [2, 0, 1, 3, 4, 5, 6]  # all V of them
    assert numpy.isfinite(bits).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
def test_scores_that_are_not_finite_are_an_error_that_says_where(value):
    model, text = tiny_model("Rnnlm", scale=0.7), numpy.array([1, 2, 3, 4, 5, 6])
    model.params[0][4] = numpy.nan if numpy.isnan(value) else 0.0
    if numpy.isinf(value):
        model.params[-1][4] = value
    which = 4 if numpy.isnan(value) else 0  # the state keeps a NaN; an output bias is there at once
    with pytest.raises(ValueError, match=rf"^predictions: expected finite .* for target {which};"):
        of_text(model, text, 0)


def test_memory_does_not_grow_with_the_length_of_the_text():
    model, peaks = Rnnlm(3000, 8, 8, rng=1), []
    for length in (1000, 1000, 8000):  # the first makes what stays
        text = generator(1).integers(0, 3000, length)
        xs, ts = inputs_and_targets(text, 0, "test")
        tracemalloc.start()
        try:
            assert sum(len(part) for part in predictions(model, xs, ts, window=100)) == length
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000  # of 64,000 bytes a column of results would be


def test_a_large_vocabulary_is_read_in_parts_with_the_same_result(monkeypatch):
    model, text = tiny_model("Rnnlm", scale=0.7), ids(generator(5), V, 90)
    whole = of_text(model, text)
    monkeypatch.setattr("common.perplexity.surprisal.ROOM", 10 * V)
    for parts, found in zip(of_text(model, text), whole, strict=True):
        same(parts, found)


def test_what_cannot_be_predicted_is_refused():
    model, text = tiny_model("Rnnlm"), numpy.array([1, 2, 3])
    for xs, ts, message in [
        (text, text[:2], "expected as many targets as ids, got 2 and 3"),
        (text[None, None], text, r"expected xs of shape \(length,\) or \(1, length\)"),
        (numpy.zeros((2, 3), int), text, r"expected xs of shape .*, got \(2, 3\)"),
    ]:
        with pytest.raises(ValueError, match=rf"^predictions: {message}"):
            predictions(model, xs, ts)
    for options in ({"best": -1}, {"window": 0}):
        with pytest.raises(ValueError, match=r"^predictions: expected (best|window) of"):
            predictions(model, text, text, **options)
    with pytest.raises(ValueError, match=f"expected ts in .*, got {V}$"):
        list(predictions(model, text, numpy.array([1, 2, V])))
    with pytest.raises(ValueError, match=f"expected ts in .*, got {V}$"):
        list(predictions(CharRnn(V, 6, rng=1), text, numpy.array([1, 2, V])))
    with pytest.raises(TypeError, match=r"^predictions: expected a model with layers"):
        predictions([], text, text)
    model.loss_layer.ignore_label = 2
    with pytest.raises(ValueError, match="expected targets that all count, got 1 ignored"):
        predictions(model, text, text)


def test_an_empty_text_has_no_predictions():
    assert list(predictions(tiny_model("Rnnlm"), numpy.array([], int), numpy.array([], int))) == []
