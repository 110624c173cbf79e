"""What all language models promise."""

import math

import numpy
import pytest

from common.base_layer import LSTM_GATES, split_gates
from common.np import np, to_cpu
from common.optimizer import Adam
from common.time_layers import TimeGRU, TimeLSTM, TimeRNN
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity, eval_perplexity_exact
from models import BetterRnnlm, Rnnlm
from models.language_model import recurrent, set_gate_bias
from tests.builders import (
    MODELS,
    D,
    H,
    N,
    T,
    V,
    awd_rnnlm,
    close,
    generator,
    ids,
    same,
    snapshot,
    tiny_model,
    weights,
)

every_model = pytest.mark.parametrize("name", MODELS)
on_both = pytest.mark.usefixtures("backend")


@on_both
@every_model
def test_before_training_the_perplexity_is_near_the_size_of_the_vocabulary(name):
    model, corpus = MODELS[name](500, 32, 32, rng=1), ids(generator(), 500, 400)
    assert eval_perplexity_exact(model, corpus, first_id=0) == pytest.approx(500, rel=0.1)


@on_both
@every_model
def test_scores_are_one_row_of_the_vocabulary_for_every_step(name):
    model = tiny_model(name)
    assert model.predict(ids(generator(), V, N, T)).shape == (N, T, V)
    assert np.ndim(model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))) == 0
    assert model.backward() is None


@every_model
def test_a_seed_gives_the_same_weights_and_another_seed_others(name):
    first, again, other = (snapshot(tiny_model(name, seed=seed)) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        same(a, b)
    drawn = [(a, c) for a, c in zip(first, other, strict=True) if a.ndim == 2]  # not the biases
    assert not any(numpy.array_equal(a, c) for a, c in drawn)


@every_model
def test_a_generator_in_place_of_a_seed_is_drawn_from(name):
    rng = generator(3)
    first, second = (snapshot(MODELS[name](V, H, H, rng=rng)) for _ in range(2))
    same(first[0], snapshot(MODELS[name](V, H, H, rng=3))[0])
    assert not numpy.array_equal(first[0], second[0])


@every_model
def test_the_global_generator_of_numpy_is_neither_read_nor_moved(name):
    numpy.random.seed(0)  # noqa: NPY002
    expected = numpy.random.random()  # noqa: NPY002
    numpy.random.seed(0)  # noqa: NPY002
    model = tiny_model(name, dropout_ratio=0.3)
    model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))
    model.generate(0, 5, rng=1)
    assert numpy.random.random() == expected  # noqa: NPY002


@pytest.mark.gpu
@every_model
def test_one_seed_begins_at_the_same_numbers_on_both_devices(name, monkeypatch):
    from common import config

    here = snapshot(tiny_model(name, seed=3))
    monkeypatch.setattr(config, "GPU", True)
    for a, b in zip(here, snapshot(tiny_model(name, seed=3)), strict=True):
        same(a, b)


@every_model
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_computes_in_the_dtype_it_was_built_in(name, dtype):
    model = tiny_model(name, dtype, dropout_ratio=0.3)
    model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))
    model.backward()
    arrays = [*model.params, *model.grads, model.predict(ids(generator(), V, N, T))]
    assert {str(x.dtype) for x in arrays} == {dtype}


@every_model
@pytest.mark.parametrize("size", ["vocab_size", "wordvec_size", "hidden_size"])
@pytest.mark.parametrize("bad", [0, -5])
def test_a_size_below_one_is_refused_by_name(name, size, bad):
    sizes = {"vocab_size": V, "wordvec_size": H, "hidden_size": H, size: bad}
    with pytest.raises(ValueError, match=f"^{name}: expected {size} of 1 or more, got {bad}"):
        MODELS[name](**sizes)


@every_model
@pytest.mark.parametrize("bad", [V, -1])
def test_an_id_out_of_range_is_refused_as_input_and_as_target(name, bad):
    model, good = tiny_model(name), ids(generator(), V, N, T)
    wrong = good.copy()
    wrong[0, 1] = bad
    with pytest.raises(ValueError, match=f"TimeEmbedding: expected xs .* got {bad}"):
        model.forward(wrong, good)
    if bad != -1:  # which, as a target, is one to ignore
        with pytest.raises(ValueError, match=f"expected ts .* got {bad}"):
            model.forward(good, wrong)


@every_model
def test_a_batch_size_that_changes_in_mid_text_is_refused_until_reset_state(name):
    model = tiny_model(name)
    model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))
    more = ids(generator(), V, N + 1, T)
    with pytest.raises(ValueError, match="call reset_state"):
        model.forward(more, more)
    model.reset_state()
    assert float(model.forward(more, more)) > 0


@on_both
@every_model
def test_what_was_read_before_counts_in_the_next_window(name):
    model, xs = tiny_model(name, "float64", scale=1.5), ids(generator(), V, N, 2 * T)
    whole = model.predict(xs)
    model.reset_state()
    halves = [model.predict(xs[:, :T]), model.predict(xs[:, T:])]
    close(np.concatenate(halves, axis=1), whole)
    model.reset_state()
    assert float(abs(model.predict(xs[:, T:]) - halves[1]).max()) > 1e-3


@every_model
def test_a_tiny_model_learns_a_text_that_repeats_by_heart(name):
    text = [0, 1, 2, 0, 3, 4, 0, 5, 6]  # what follows 0 depends on what stood before it
    corpus = numpy.tile(text, 20)
    if name == "AwdRnnlm":
        model = awd_rnnlm(0.0, 16, 16, num_layers=2, embed_scale=0.1, rng=1)
    else:
        options = {"dropout_ratio": 0.0} if name == "BetterRnnlm" else {}
        model = MODELS[name](V, 16, 16, rng=1, **options)
    trainer = RnnlmTrainer(model, Adam(0.02), on_record=lambda record: None)
    before = eval_perplexity(model, corpus, 4, 9)
    trainer.fit(corpus[:-1], corpus[1:], max_epoch=30, batch_size=4, time_size=9, max_grad=1.0)
    assert before == pytest.approx(V, rel=0.1)
    assert eval_perplexity(model, corpus, 4, 9) < 1.1
    assert model.generate(text[:4], 9, greedy=True) == (text * 2)[:13]


@pytest.mark.parametrize("base", [Rnnlm, BetterRnnlm])
def test_a_subclass_may_name_another_cell(base):
    class WithGRU(base):
        cell = TimeGRU

    model, xs = WithGRU(V, H, H, rng=1), ids(generator(), V, N, T)
    assert [name for name in model.named_params() if name.startswith("gru")]
    assert not [name for name in model.named_params() if name.startswith("lstm")]
    assert model.layers[1 if base is Rnnlm else 2].params[0].shape == (H, 3 * H)
    model.forward(xs, xs)
    model.backward()
    assert all(float(abs(grad).sum()) > 0 for grad in model.grads)


# ---- where the biases begin ----


def test_the_output_bias_can_begin_at_the_frequencies_of_the_words():
    model, counts = tiny_model("Rnnlm", "float64"), np.asarray([3, 0, 1, 9, 0, 0, 1])
    model.set_output_bias(counts)
    model.layers[-1].params[0][...] = 0
    scores = model.predict(ids(generator(), V, N, T))
    close(np.exp(scores), np.broadcast_to((counts + 1) / (14 + V), (N, T, V)))


@every_model
def test_with_that_bias_the_loss_begins_at_the_entropy_of_the_words(name):
    corpus = numpy.repeat(numpy.arange(V), 1 << numpy.arange(V))
    generator().shuffle(corpus)
    model, counts = tiny_model(name), numpy.bincount(corpus)
    model.set_output_bias(counts)
    share = counts / counts.sum()
    perplexity = math.exp(-(share * numpy.log(share)).sum())
    assert perplexity < 0.7 * V
    assert eval_perplexity_exact(model, corpus, 0) == pytest.approx(perplexity, rel=0.1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (numpy.ones(V + 1), rf"expected counts of shape \({V},\), got \({V + 1},\)"),
        (numpy.arange(V) - 1, "expected finite counts of 0 or more, got -1.0 to 5.0"),
        (numpy.full(V, numpy.nan), "expected finite counts"),
    ],
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(ValueError, match=rf"^Rnnlm\.set_output_bias: {message}"):
        tiny_model("Rnnlm").set_output_bias(counts)


def test_the_forget_gates_can_begin_open_and_the_other_biases_at_zero():
    layer = recurrent(TimeLSTM, D, H, generator(), "float32", forget_bias=1.5)
    f, *others = split_gates(layer.params[2], LSTM_GATES)
    same(f, np.full(H, 1.5, dtype="float32"))
    assert not any(bool(bias.any()) for bias in others)


@pytest.mark.parametrize("cell", [TimeGRU, TimeRNN])
def test_a_forget_bias_without_a_forget_gate_is_refused(cell):
    with pytest.raises(ValueError, match=f"^{cell.__name__}: expected forget_bias 0.*got 1.0"):
        recurrent(cell, D, H, generator(), "float32", forget_bias=1.0)


def test_the_bias_of_a_gate_is_set_beside_a_recurrent_bias_too():
    layer = TimeGRU(*weights(generator(), 3, bias_blocks=4))
    before = to_cpu(layer.params[2]).copy()
    set_gate_bias(layer, "z", 3.0)
    expected = numpy.concatenate([before[:H], numpy.full(H, 3.0), before[2 * H :]])
    same(layer.params[2], expected)
