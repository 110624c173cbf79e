"""One step: values that can be checked on paper. What all layers share is in test_base_layer.py."""

import math

import pytest

from common.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Dropout,
    Embedding,
    MatMul,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
)
from common.np import np
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same

pytestmark = pytest.mark.usefixtures("backend")


def test_matmul_and_affine_on_paper():
    W, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0])
    x, dy = np.array([[1.0, -1.0]]), np.array([[1.0, 10.0]])
    matmul, affine = MatMul(W), Affine(W, b)
    same(matmul.forward(x), np.array([[-2.0, -2.0]]))
    same(affine.forward(x), np.array([[8.0, 18.0]]))
    for layer in (matmul, affine):
        same(layer.backward(dy), np.array([[21.0, 43.0]]))
        same(layer.grads[0], np.array([[1.0, 10.0], [-1.0, -10.0]]))
    same(affine.grads[1], np.array([1.0, 10.0]))


def test_softmax_moves_probability_from_one_class_to_another():
    layer = Softmax()
    y = layer.forward(np.log(np.array([[0.25, 0.75]])))
    close(y, np.array([[0.25, 0.75]]))
    # dy/dx of two classes is y0 y1 [[1, -1], [-1, 1]]
    close(layer.backward(np.array([[1.0, 0.0]])), 0.25 * 0.75 * np.array([[1.0, -1.0]]))


def test_sigmoid_is_steepest_at_zero():
    layer = Sigmoid()
    close(layer.forward(np.array([0.0, math.log(3)])), np.array([0.5, 0.75]))
    close(layer.backward(np.array([1.0, 2.0])), np.array([0.25, 2 * 0.75 * 0.25]))


@pytest.mark.parametrize("t", [[1, 0], [[0, 1], [1, 0]]], ids=["ids", "one-hot"])
def test_softmax_with_loss_is_probability_minus_target_over_the_number_of_rows(t):
    layer = SoftmaxWithLoss()
    loss = layer.forward(np.log(np.array([[0.25, 0.75], [0.5, 0.5]])), np.array(t))
    assert float(loss) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2, rel=1e-12)
    dx = np.array([[0.25, -0.25], [-0.5, 0.5]]) / 2
    close(layer.backward(), dx)
    close(layer.backward(3.0), 3 * dx)


def test_sigmoid_with_loss_on_paper_and_at_scores_of_ten_thousand():
    layer = SigmoidWithLoss()
    loss = layer.forward(np.array([[0.0, math.log(3)]]), np.array([[1, 0]]))
    assert float(loss) == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2, rel=1e-12)
    close(layer.backward(), np.array([[-0.5, 0.75]]) / 2)
    # right and sure costs nothing, wrong and sure costs the score
    assert float(layer.forward(np.array([1e4, -1e4]), np.array([1, 0]))) == 0
    assert float(layer.forward(np.array([1e4, -1e4]), np.array([0, 1]))) == 1e4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_with_loss_is_finite_at_scores_of_ten_thousand(dtype):
    layer = SoftmaxWithLoss()
    loss = layer.forward(np.array([[1e4, -1e4, 0]], dtype=dtype), np.array([1]))
    assert float(loss) == 2e4
    same(layer.backward(), np.array([[1, -1, 0]], dtype=dtype))


def test_dropout_keeps_the_expected_share_and_the_expected_sum():
    layer, x = Dropout(0.25, rng=generator()), np.ones((100, 100))
    y = layer.forward(x)
    same(np.unique(y), np.array([0, 1 / 0.75]))
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=0.02)
    assert float(y.mean()) == pytest.approx(1, abs=0.02)
    same(layer.backward(x), y)  # the same mask on the way back


def test_dropout_changes_nothing_in_evaluation_and_has_no_way_back_from_there():
    layer, x = Dropout(0.5), floats(generator(), N, H)
    layer.forward(x)
    same(layer.forward(x, train_flg=False), x)
    with pytest.raises(RuntimeError, match=r"^Dropout"):
        layer.backward(x)


def test_dropout_of_one_seed_drops_the_same_values():
    x = np.ones((N, 50))
    first, second = (Dropout(0.5, rng=generator(4)) for _ in range(2))
    same(first.forward(x), second.forward(x))
    same(first.forward(x), second.forward(x))
    assert not bool((Dropout(0.5, rng=generator(5)).forward(x) == second.forward(x)).all())


def test_an_embedding_picks_rows_and_adds_up_the_gradients_of_a_repeated_id():
    layer = Embedding(np.arange(6.0).reshape(3, 2))
    same(layer.forward(np.array([2, 0, 2])), np.array([[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]))
    assert layer.backward(np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])) is None
    same(layer.grads[0], np.array([[10.0, 20.0], [0.0, 0.0], [101.0, 202.0]]))


def with_and_without_time(kind, *params):
    """Two layers of the same weights, for windows and for their rows one below the other."""
    return kind(*params), kind(*(param.copy() for param in params))


@pytest.mark.parametrize("kind", [MatMul, Affine])
def test_a_product_takes_a_window_as_the_rows_that_it_has(kind):
    rng = generator()
    params = [floats(rng, D, H), floats(rng, H)][: 1 if kind is MatMul else 2]
    windows, rows = with_and_without_time(kind, *params)
    x, dout = floats(rng, N, T, D), floats(rng, N, T, H)
    close(windows.forward(x), rows.forward(x.reshape(-1, D)).reshape(N, T, H))
    close(windows.backward(dout), rows.backward(dout.reshape(-1, H)).reshape(N, T, D))
    for of_windows, of_rows in zip(windows.grads, rows.grads, strict=True):
        close(of_windows, of_rows)


def test_an_embedding_takes_a_window_of_ids():
    rng = generator()
    windows, rows = with_and_without_time(Embedding, floats(rng, V, H))
    idx, dout = ids(rng, V, N, T), floats(rng, N, T, H)
    same(windows.forward(idx), rows.forward(idx.reshape(-1)).reshape(N, T, H))
    windows.backward(dout), rows.backward(dout.reshape(-1, H))
    close(windows.grads[0], rows.grads[0])


@pytest.mark.parametrize("kind", [MatMul, Affine, Embedding])
@pytest.mark.parametrize("shape", [(T, N, H), (N * T, H), (N, T, 1), (H,)])
def test_a_gradient_of_another_shape_than_the_output_is_refused(kind, shape):
    rng = generator()
    params = {MatMul: [(D, H)], Affine: [(D, H), (H,)], Embedding: [(V, H)]}[kind]
    layer = kind(*(floats(rng, *size) for size in params))
    layer.forward(ids(rng, V, N, T) if kind is Embedding else floats(rng, N, T, D))
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}: expected dout of shape \({N}, {T}, {H}"
    ):
        layer.backward(floats(rng, *shape))


def test_an_embedding_is_a_product_with_one_hot_rows():
    rng = generator()
    W, numbers, dy = floats(rng, V, H), ids(rng, V, 9), floats(rng, 9, H)
    embedding, matmul, hot = Embedding(W), MatMul(W), np.eye(V)[numbers]
    close(embedding.forward(numbers), matmul.forward(hot))
    embedding.backward(dy), matmul.backward(dy)
    close(embedding.grads[0], matmul.grads[0])


def test_two_steps_of_an_rnn_on_paper():
    cell = RNN(np.array([[2.0]]), np.array([[3.0]]), np.array([0.5]))
    h = cell.forward(np.array([[0.25]]), np.array([[0.0]]))
    assert float(h[0, 0]) == pytest.approx(math.tanh(1.0), rel=1e-12)
    h2 = cell.forward(np.array([[-0.25]]), h)
    expected = math.tanh(3 * math.tanh(1.0))
    assert float(h2[0, 0]) == pytest.approx(expected, rel=1e-12)
    dx, dh = cell.backward(np.array([[1.0]]))
    dA = 1 - expected**2
    close(dx, np.array([[2 * dA]]))
    close(dh, np.array([[3 * dA]]))
    close(cell.grads[0], np.array([[-0.25 * dA]]))


def gate_bias(**gates):
    """The bias (4H,) that opens a gate with 100 and shuts it with -100."""
    return np.concatenate([np.full(H, float(gates[gate])) for gate in "fgio"])


def lstm_that_reads_nothing(**gates):
    return LSTM(np.zeros((1, 4 * H)), np.zeros((H, 4 * H)), gate_bias(**gates))


def test_an_lstm_that_forgets_nothing_and_writes_nothing_keeps_its_cell():
    cell, c = lstm_that_reads_nothing(f=100, g=0, i=-100, o=100), floats(generator(), N, H)
    h, c1 = cell.forward(np.zeros((N, 1)), np.zeros((N, H)), c)
    _, c2 = cell.forward(np.zeros((N, 1)), h, c1)
    close(c2, c)
    close(h, np.tanh(c))
    _, _, dc = cell.backward(np.zeros((N, H)), np.ones((N, H)))
    close(dc, np.ones((N, H)))  # the gradient, too, passes unchanged


def test_an_lstm_that_forgets_all_holds_what_is_written():
    cell, c = lstm_that_reads_nothing(f=-100, g=100, i=100, o=-100), floats(generator(), N, H)
    h, c1 = cell.forward(np.zeros((N, 1)), np.zeros((N, H)), c)
    close(c1, np.ones((N, H)))
    close(h, np.zeros((N, H)))  # the output gate is shut


def test_an_lstm_of_zero_weights_halves_its_cell_at_each_step():
    cell, c = lstm_that_reads_nothing(f=0, g=0, i=0, o=0), floats(generator(), N, H)
    h, c1 = cell.forward(np.zeros((N, 1)), np.zeros((N, H)), c)
    h, c2 = cell.forward(np.zeros((N, 1)), h, c1)
    close(c2, c / 4)
    close(h, np.tanh(c / 4) / 2)


def gru_that_reads_nothing(r, z, n, bhn=None):
    blocks = [r, z, n] if bhn is None else [r, z, n, bhn]
    b = np.concatenate([np.full(H, float(block)) for block in blocks])
    return GRU(np.zeros((1, 3 * H)), np.zeros((H, 3 * H)), b)


def test_a_gru_with_an_open_update_gate_keeps_its_state():
    cell, h = gru_that_reads_nothing(r=0, z=100, n=100), floats(generator(), N, H)
    h2 = cell.forward(np.zeros((N, 1)), cell.forward(np.zeros((N, 1)), h))
    close(h2, h)
    _, dh = cell.backward(np.ones((N, H)))
    close(dh, np.ones((N, H)))


def test_the_reset_gate_of_a_gru_scales_the_candidates_recurrent_bias():
    x, h = np.zeros((N, 1)), np.zeros((N, H))
    for r, share in ((100, 1.0), (0, 0.5), (-100, 0.0)):
        cell = gru_that_reads_nothing(r=r, z=-100, n=0.25, bhn=1.0)
        close(cell.forward(x, h), np.full((N, H), math.tanh(0.25 + share)))


def test_a_gru_without_recurrent_bias_is_one_whose_recurrent_bias_is_zero():
    rng = generator()
    Wx, Wh, b = floats(rng, 3, 3 * H), floats(rng, H, 3 * H), floats(rng, 3 * H)
    short, long = GRU(Wx, Wh, b), GRU(Wx, Wh, np.concatenate([b, np.zeros(H)]))
    x, h, dh = floats(rng, N, 3), floats(rng, N, H), floats(rng, N, H)
    same(short.forward(x, h), long.forward(x, h))
    for mine, other in zip(short.backward(dh), long.backward(dh), strict=True):
        same(mine, other)
    same(short.grads[2], long.grads[2][: 3 * H])
    assert float(abs(long.grads[2][3 * H :]).sum()) > 0
