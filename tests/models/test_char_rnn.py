"""A published network of 4 units reading "vector", and the two rules against loops by hand.

``vector_rnn.json`` holds what was printed: the input weights, then for each step the hidden
state, scores, softmax, loss and the gradients dy, dh and dtanh, to 8 decimals (scores to 9
digits). The recurrent and the output weights were not printed; they follow from the rest.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from common.gradient_check import check_model
from common.layers import RNN, Softmax, SoftmaxWithLoss
from common.time_layers import TimeRNN
from common.time_layers.one_step_rnn import TimeOneStepRNN
from models.char_rnn import CharRnn
from tests.builders import H, N, T, V, floats, generator, ids, same, weights
from train.char_rnn import Options, last_letter_loss, load_corpora, to_sequences, train, write

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "vector_rnn.json").read_text())
PRINTED = {name: np.array(value) for name, value in GOLDEN.items() if isinstance(value, list)}
LAST_PLACE = 1e-8


def close(actual, name, tolerance=LAST_PLACE):
    np.testing.assert_allclose(actual, PRINTED[name], rtol=0, atol=tolerance)


def test_the_first_hidden_state_follows_from_the_printed_weights():
    Wx = PRINTED["Wxh"].T
    cell = RNN(Wx, floats(generator(), 4, 4), np.zeros(4))
    first = np.eye(7)[PRINTED["inputs"][:1]]
    h = cell.forward(first, np.zeros((1, 4)))
    np.testing.assert_allclose(h[0], PRINTED["hs"][0], rtol=0, atol=LAST_PLACE)


def test_the_printed_scores_give_the_printed_softmax_loss_and_dy():
    close(Softmax().forward(PRINTED["ys"]), "ps")
    layer = SoftmaxWithLoss()
    mean = layer.forward(PRINTED["ys"], PRINTED["targets"])
    assert abs(6 * mean - GOLDEN["loss"]) < 1e-12  # the sum was printed
    close(layer.backward(dout=6), "dy")


def test_the_printed_dh_gives_the_printed_dtanh():
    cell = RNN(np.eye(4), np.zeros((4, 4)), np.zeros(4))  # h = tanh(x), so dx is dtanh
    close(cell.forward(np.arctanh(PRINTED["hs"]), np.zeros((6, 4))), "hs")
    dtanh, _ = cell.backward(PRINTED["dh"])
    close(dtanh, "dtanh")


def published_network():
    """The network itself. Its missing weights are what the printed arrays leave no choice about.

    arctanh(h[t]) - Wxh x[t] = Whh h[t-1] is 20 equations for 16 weights; y[t] = Why h[t] and
    dh[t] = Why' dy[t] are 66 for 28.
    """
    hs, ys, dy, dh = (PRINTED[name] for name in ("hs", "ys", "dy", "dh"))
    from_state = np.arctanh(hs[1:]) - PRINTED["Wxh"].T[PRINTED["inputs"][1:]]
    Whh_T, _, rank, _ = np.linalg.lstsq(hs[:-1], from_state)
    assert rank == 4
    # Both kinds of equation in units of the error that printing left in them.
    equations = np.concatenate([np.kron(np.eye(7), hs) / 1e-10, np.kron(dy, np.eye(4)) / 1e-8])
    right_side = np.concatenate([ys.T.ravel() / 1e-10, dh.ravel() / 1e-8])
    Why, _, rank, _ = np.linalg.lstsq(equations, right_side)
    assert rank == 28
    model = CharRnn(7, 4, one_step=True, dtype="float64")
    values = PRINTED["Wxh"].T, Whh_T, np.zeros(4), Why.reshape(7, 4).T, np.zeros(7)
    for param, value in zip(model.params, values, strict=True):
        param[...] = value
    return model


def test_the_network_behind_the_printed_arrays_gives_back_every_one_of_them():
    model = published_network()
    xs, ts = PRINTED["inputs"][None], PRINTED["targets"][None]
    loss = model.forward(xs, ts)
    assert abs(loss - GOLDEN["loss"]) < 1e-10
    model.backward()

    _, layer, output = model.layers
    layer.reset_state()
    one_hot_rows = np.eye(7)[xs]
    hs = layer.forward(one_hot_rows)
    ys = output.forward(hs)
    close(hs[0], "hs")
    close(ys[0], "ys", 2e-10)
    close(Softmax().forward(ys[0]), "ps")
    dys = model.loss_layer.backward(6)
    dhs = output.backward(dys)
    close(dys[0], "dy")
    close(dhs[0], "dh")
    dWx, dWh, db = (grad.copy() for grad in layer.grads)
    dtanh = PRINTED["dtanh"]
    np.testing.assert_allclose(db, dtanh.sum(axis=0), rtol=0, atol=6 * LAST_PLACE)
    np.testing.assert_allclose(dWx, one_hot_rows[0].T @ dtanh, rtol=0, atol=6 * LAST_PLACE)
    h_prevs = PRINTED["hs"][:-1]
    np.testing.assert_allclose(dWh, h_prevs.T @ dtanh[1:], rtol=0, atol=6 * LAST_PLACE)


def by_hand(params, xs, ts, one_step):
    """Loss and gradients of one word, a step at a time, each product written out."""
    Wx, Wh, b, Wy, by = params
    hs, ps, loss = [np.zeros(len(b))], [], 0.0
    for x, t in zip(xs, ts, strict=True):
        hs.append(np.tanh(Wx[x] + hs[-1] @ Wh + b))
        exponentials = np.exp(hs[-1] @ Wy + by)
        ps.append(exponentials / exponentials.sum())
        loss -= np.log(ps[-1][t])
    grads = [np.zeros_like(param) for param in params]
    from_later = np.zeros(len(b))
    for k in reversed(range(len(xs))):
        dy = ps[k].copy()
        dy[ts[k]] -= 1
        da = (Wy @ dy + from_later) * (1 - hs[k + 1] ** 2)
        grads[0][xs[k]] += da
        grads[1] += np.outer(hs[k], da)
        grads[2] += da
        grads[3] += np.outer(hs[k + 1], dy)
        grads[4] += dy
        if not one_step:
            from_later = Wh @ da
    return loss, grads


def random_model(one_step):
    model = CharRnn(V, H, one_step, rng=0, dtype="float64")
    rng = generator(1)
    for param in model.params:
        param[...] = 0.5 * floats(rng, *param.shape)
    return model, ids(rng, V, 1, 6), ids(rng, V, 1, 6)


@pytest.mark.parametrize("one_step", [True, False])
def test_each_rule_equals_a_loop_written_by_hand(one_step):
    model, xs, ts = random_model(one_step)
    loss = model.forward(xs, ts)
    model.backward()
    expected_loss, expected = by_hand(model.params, xs[0], ts[0], one_step)
    assert abs(loss - expected_loss) < 1e-12
    for grad, by_loop in zip(model.grads, expected, strict=True):
        np.testing.assert_allclose(grad, by_loop, rtol=1e-10, atol=1e-12)


def test_only_the_full_rule_is_the_gradient_of_the_summed_loss():
    full, cut = (check_model(*random_model(one_step)) for one_step in (False, True))
    assert full.ok
    wrong = {worst.name.split(".")[0] for worst in cut.worst if worst.error > cut.tolerance}
    assert wrong == {"onesteprnn"}


def test_the_cut_rule_is_truncated_backpropagation_in_windows_of_one_step():
    rng = generator()
    params = weights(rng, 1)
    D = len(params[0])
    xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
    cut = TimeOneStepRNN(*params)
    hs = cut.forward(xs)
    dxs = cut.backward(dhs)
    windows = TimeRNN(*params, stateful=True)
    totals = [np.zeros_like(param) for param in params]
    for t in range(T):
        window = slice(t, t + 1)
        same(windows.forward(xs[:, window]), hs[:, window])
        np.testing.assert_allclose(windows.backward(dhs[:, window]), dxs[:, window], atol=1e-12)
        if t == 0:
            np.testing.assert_allclose(windows.dh, cut.dh, atol=1e-12)
        for total, grad in zip(totals, windows.grads, strict=True):
            total += grad
    for total, grad in zip(totals, cut.grads, strict=True):
        np.testing.assert_allclose(total, grad, atol=1e-12)


def test_the_cut_layer_goes_back_twice_with_one_answer():
    rng = generator()
    layer = TimeOneStepRNN(*weights(rng, 1))
    with pytest.raises(RuntimeError, match=r"TimeOneStepRNN\.backward"):
        layer.backward(floats(rng, N, T, H))
    hs = layer.forward(floats(rng, N, T, len(layer.params[0])))
    dhs = floats(rng, *hs.shape)
    first, grads = layer.backward(dhs), [grad.copy() for grad in layer.grads]
    same(layer.backward(dhs), first)
    for again, grad in zip(layer.grads, grads, strict=True):
        same(again, grad)
    with pytest.raises(ValueError, match="expected dhs of shape"):
        layer.backward(dhs[:, 1:])


@pytest.mark.parametrize("one_step", [True, False])
def test_one_word_is_learnt_by_both_rules(one_step):
    (corpus,) = load_corpora(Options(corpus="vector"))
    model = CharRnn(corpus.vocab_size, 50, one_step, rng=1)
    losses = train(model, to_sequences(corpus), iterations=200)
    assert losses[0] > 5 and losses[-1] < 0.02  # published after 200: 0.008210
    assert write(model, corpus, "v", 20, greedy=True) == "vector"


def test_only_more_than_the_last_letter_tells_vector_from_ectoaxg():
    (corpus,) = load_corpora(Options(corpus="ectoaxg"))
    sequences = to_sequences(corpus)
    bound = last_letter_loss(sequences)
    assert bound == pytest.approx((np.log(15) + 14 * np.log(15 / 14)) / 16)
    model = CharRnn(corpus.vocab_size, 30, rng=1)
    assert train(model, sequences, iterations=200)[-1] < bound / 10
    assert write(model, corpus, "v", 20, greedy=True) == "vector"
    assert write(model, corpus, "e", 20, greedy=True) == "ectoaxg"


def test_every_word_begins_from_a_zero_state():
    model, xs, ts = random_model(one_step=False)
    first = model.forward(xs, ts)
    assert model.forward(xs, ts) == first
    model.reset_state()
    whole = model.predict(xs)
    model.reset_state()
    parts = [model.predict(xs[:, :2]), model.predict(xs[:, 2:])]  # predict goes on
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-12)


def test_backward_after_predict_or_evaluation_is_refused_until_the_next_forward():
    model, xs, ts = random_model(one_step=False)
    model.forward(xs, ts)
    for work in (lambda: model.predict(xs), lambda: model.forward(xs, ts, train_flg=False)):
        work()
        with pytest.raises(RuntimeError, match=r"CharRnn\.backward: predict .* since forward"):
            model.backward()
        model.forward(xs, ts)
        model.backward()


@pytest.mark.parametrize("sizes", [(0, 5), (7, 0)])
def test_a_size_below_one_is_refused(sizes):
    with pytest.raises(ValueError, match="of 1 or more, got 0"):
        CharRnn(*sizes)


def test_an_id_outside_the_alphabet_is_refused():
    with pytest.raises(ValueError, match=r"TimeOneHot: expected xs in 0\.\.6, got 7"):
        CharRnn(V, H).generate([V])
