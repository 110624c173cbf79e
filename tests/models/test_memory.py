"""The networks that recite, and the squared error that some of them learn by."""

import numpy as np
import pytest

from common.gradient_check import check_model
from common.layers import LSTM
from common.optimizer import Adam
from common.perplexity.protocols import eval_perplexity_exact
from common.time_layers import (
    TimeBiLSTM,
    TimeGRU,
    TimeLSTM,
    TimeMeanSquaredError,
    TimeRNN,
)
from models.memory import ConcatReciter, Reciter
from tests.builders import H, N, T, V, floats, generator, ids, same

SENTENCE = [5, 0, 1, 0, 2, 0, 3, 6]  # what follows a 0 is in no single input


def test_the_squared_error_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = generator()
    xs, ts = floats(rng, N, T, V), floats(rng, N, T, V)
    layer = TimeMeanSquaredError()
    outputs = torch.tensor(xs, requires_grad=True)
    loss = torch.nn.MSELoss()(outputs, torch.tensor(ts))
    loss.backward()
    np.testing.assert_allclose(layer.forward(xs, ts), loss.item(), rtol=1e-14)
    np.testing.assert_allclose(layer.backward(), outputs.grad.numpy(), rtol=1e-14)
    same(layer.backward(), layer.backward())
    np.testing.assert_allclose(layer.backward(2.0), 2 * layer.backward(), rtol=1e-14)


def test_the_squared_error_names_what_does_not_fit():
    layer = TimeMeanSquaredError()
    with pytest.raises(RuntimeError, match=r"TimeMeanSquaredError\.backward"):
        layer.backward()
    with pytest.raises(ValueError, match=r"TimeMeanSquaredError: expected ts of shape \(2, 3, 7\)"):
        layer.forward(np.zeros((2, 3, 7)), np.zeros((2, 3, 6)))


def random_model(model_class, **options):
    model = model_class(V, H, rng=0, dtype="float64", **options)
    rng = generator(1)
    for param in model.params:
        param[...] = 0.5 * floats(rng, *param.shape)
    return model, ids(rng, V, N, T), ids(rng, V, N, T)


@pytest.mark.parametrize("cell", [TimeRNN, TimeGRU, TimeLSTM, "mogrifier_lstm", LSTM])
@pytest.mark.parametrize("model_class", [Reciter, ConcatReciter])
@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_every_network_has_the_gradients_of_its_loss(model_class, cell, loss):
    report = check_model(*random_model(model_class, cell=cell, loss=loss))
    assert report.ok, report


def test_the_output_from_input_and_state_before_equals_its_equation():
    model, xs, _ = random_model(ConcatReciter)
    Wx, Wh, b, W, b_out = model.params
    model.reset_state()
    ys = model.predict(xs)
    h = np.zeros((N, H))
    for t in range(T):
        x = np.eye(V)[xs[:, t]]
        np.testing.assert_allclose(ys[:, t], np.hstack([x, h]) @ W + b_out, atol=1e-12)
        h = np.tanh(x @ Wx + h @ Wh + b)


@pytest.mark.parametrize("model_class", [Reciter, ConcatReciter])
def test_windows_of_one_step_go_on_where_the_last_one_stopped(model_class):
    model, xs, _ = random_model(model_class)
    model.reset_state()
    whole = model.predict(xs)
    model.reset_state()
    parts = [model.predict(xs[:, t : t + 1]) for t in range(T)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-12)


@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (Reciter, {"loss": "squared"}),
        (Reciter, {"cell": TimeLSTM}),
        (ConcatReciter, {"loss": "squared"}),
        (ConcatReciter, {}),
    ],
)
def test_a_short_sentence_is_learnt_by_heart(model_class, options):
    model = model_class(V, 20, rng=0, **options)
    xs, ts = np.array([SENTENCE[:-1]]), np.array([SENTENCE[1:]])
    optimizer = Adam(0.02)
    for _ in range(300):
        model.forward(xs, ts)
        model.backward()
        optimizer.update(model.params, model.grads)
    state = [layer.copy() for layer in model.get_state()[0]]
    assert model.generate(SENTENCE[0], len(SENTENCE) - 1, greedy=True) == SENTENCE
    raw = model.recite_raw(SENTENCE[0], len(SENTENCE) - 1)
    assert raw[0] == SENTENCE[1]  # the first input is a one-hot row either way
    for kept, now in zip(state, model.get_state()[0], strict=True):
        same(now, kept)


def test_raw_feedback_feeds_what_the_loss_reads():
    for loss in ("softmax", "squared"):
        model, _, _ = random_model(Reciter, loss=loss)
        row, said = np.eye(V)[[[3]]], []
        model.reset_state()
        for _ in range(6):
            ys = model.run(model.layers[1:], row, train_flg=False)
            said.append(int(ys.argmax()))
            row = ys if loss == "squared" else ys - np.log(np.exp(ys).sum())
        assert model.recite_raw(3, 6) == said


def test_raw_feedback_that_grows_past_every_float_is_no_warning():
    model, _, _ = random_model(ConcatReciter)
    model.params[3][...] *= 1e6
    assert len(model.recite_raw(0, 200)) == 200


@pytest.mark.parametrize("model_class", [Reciter, ConcatReciter])
def test_backward_after_predict_or_evaluation_is_refused_until_the_next_forward(model_class):
    model, xs, ts = random_model(model_class)
    model.forward(xs, ts)
    for work in (
        lambda: model.predict(xs),
        lambda: model.recite_raw(0, 2),
        lambda: model.forward(xs, ts, train_flg=False),
        lambda: eval_perplexity_exact(model, xs[0], 0),
    ):
        work()
        with pytest.raises(RuntimeError, match=r"backward: predict .* since forward"):
            model.backward()
        model.forward(xs, ts)
        model.backward()


@pytest.mark.parametrize("model_class", [Reciter, ConcatReciter])
def test_a_cell_that_cannot_serve_is_refused(model_class):
    with pytest.raises(ValueError, match="cell 'lstn': expected rnn, lstm, gru"):
        model_class(V, H, cell="lstn")
    with pytest.raises(TypeError, match="TimeBiLSTM: a language model reads from left to right"):
        model_class(V, H, cell=TimeBiLSTM)


@pytest.mark.parametrize("model_class", [Reciter, ConcatReciter])
@pytest.mark.parametrize("sizes", [(0, 5), (7, 0)])
def test_a_size_below_one_is_refused(model_class, sizes):
    with pytest.raises(ValueError, match=f"{model_class.__name__}: expected .* of 1 or more"):
        model_class(*sizes)
