"""The same numbers as PyTorch: layers in float32 to 1e-5, update rules in float64 to 1e-6."""

import numpy as np
import pytest

from common.base_layer import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.functions import cross_entropy_error, softmax
from common.kernels.passes import add_rows
from common.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from common.row_gradient import RowGradient
from common.time_layers import (
    TimeBiLSTM,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
    TimeSoftmaxWithLoss,
)
from tests.builders import D, H, N, T, V, close, floats, generator, ids, weights

torch = pytest.importorskip("torch", reason="parity needs PyTorch; install 'time-layers[bench]'")
torch.set_num_threads(1)  # for arrays this small, threads only wait for each other

TOLERANCE = 1e-5


def tensor(x, requires_grad=False):
    return torch.tensor(np.ascontiguousarray(x), requires_grad=requires_grad)


def f32(rng, *shape):
    return floats(rng, *shape, dtype="float32")


def to_torch_gates(A):
    return reorder_gates(A, LSTM_GATES, TORCH_LSTM_GATES)


def from_torch_gates(A):
    return reorder_gates(A, TORCH_LSTM_GATES, LSTM_GATES)


def fill(module, suffix, Wx, Wh, b_ih, b_hh):
    """Copy weights, in PyTorch's order of the gates, into one direction of a torch.nn RNN."""
    with torch.no_grad():
        getattr(module, f"weight_ih_{suffix}").copy_(tensor(Wx.T))
        getattr(module, f"weight_hh_{suffix}").copy_(tensor(Wh.T))
        getattr(module, f"bias_ih_{suffix}").copy_(tensor(b_ih))
        getattr(module, f"bias_hh_{suffix}").copy_(tensor(b_hh))


def gradients(module, suffix):
    """dWx, dWh, db_ih and db_hh of one direction, in PyTorch's order of the gates."""
    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    arrays = [getattr(module, f"{name}_{suffix}").grad.numpy() for name in names]
    return arrays[0].T, arrays[1].T, arrays[2], arrays[3]


def two_windows(layer, module, states, dhs_width):
    """Run both over two windows, the state carried, the gradient stopped; compare as they go.

    Yields after each window, when PyTorch's gradients can be read; ``states`` are torch tensors
    (directions, N, H), one or a pair.
    """
    rng = generator(5)
    for _ in range(2):
        xs, dhs = f32(rng, N, T, D), f32(rng, N, T, dhs_width)
        module.zero_grad()
        torch_xs = tensor(xs, requires_grad=True)
        states = [state.detach().requires_grad_() for state in states]
        torch_hs, last = module(torch_xs, tuple(states) if len(states) == 2 else states[0])
        (torch_hs * tensor(dhs)).sum().backward()
        close(layer.forward(xs), torch_hs.detach().numpy(), TOLERANCE)
        close(layer.backward(dhs), torch_xs.grad.numpy(), TOLERANCE)
        yield states
        states = list(last) if isinstance(last, tuple) else [last]


def compare_first_state(layer, states, direction=0):
    for name, state in zip(layer.state_names, states, strict=True):
        close(getattr(layer, f"d{name}"), state.grad[direction].numpy(), TOLERANCE)


def test_time_rnn_is_torch_nn_rnn():
    Wx, Wh, b = weights(generator(), 1, dtype="float32")
    module = torch.nn.RNN(D, H, batch_first=True)
    fill(module, "l0", Wx, Wh, b, 0 * b)
    layer, h = TimeRNN(Wx, Wh, b, stateful=True), f32(generator(2), N, H)
    layer.set_state(h)
    for states in two_windows(layer, module, [tensor(h[None])], H):
        compare_first_state(layer, states)
        for got, want in zip(layer.grads, gradients(module, "l0"), strict=False):
            close(got, want, TOLERANCE)


def test_time_lstm_is_torch_nn_lstm():
    Wx, Wh, b = weights(generator(), 4, dtype="float32")
    module = torch.nn.LSTM(D, H, batch_first=True)
    fill(module, "l0", *(to_torch_gates(p) for p in (Wx, Wh, b, 0 * b)))
    layer, h, c = TimeLSTM(Wx, Wh, b, stateful=True), *f32(generator(2), 2, N, H)
    layer.set_state(h, c)
    for states in two_windows(layer, module, [tensor(h[None]), tensor(c[None])], H):
        compare_first_state(layer, states)
        for got, want in zip(layer.grads, gradients(module, "l0"), strict=False):
            close(got, from_torch_gates(want), TOLERANCE)


def test_time_bilstm_is_a_bidirectional_torch_nn_lstm():
    rng = generator()
    left, right = weights(rng, 4, dtype="float32"), weights(rng, 4, dtype="float32")
    module = torch.nn.LSTM(D, H, batch_first=True, bidirectional=True)
    for suffix, (Wx, Wh, b) in (("l0", left), ("l0_reverse", right)):
        fill(module, suffix, *(to_torch_gates(p) for p in (Wx, Wh, b, 0 * b)))
    layer = TimeBiLSTM(*left, *right, stateful=True)
    h, c = f32(generator(2), 2, 2, N, H)
    layer.set_state(h[0], c[0], h[1], c[1])
    for states in two_windows(layer, module, [tensor(h), tensor(c)], 2 * H):
        for direction, (part, suffix) in enumerate(
            [(layer.left, "l0"), (layer.right, "l0_reverse")]
        ):
            compare_first_state(part, states, direction)
            for got, want in zip(part.grads, gradients(module, suffix), strict=False):
                close(got, from_torch_gates(want), TOLERANCE)


def test_time_gru_with_a_recurrent_bias_is_torch_nn_gru():
    """PyTorch has two biases for each gate; only the candidate's cannot be added up."""
    Wx, Wh, b = weights(generator(), 3, bias_blocks=4, dtype="float32")
    b_hh = np.concatenate([np.zeros(2 * H, dtype="float32"), b[3 * H :]])
    module = torch.nn.GRU(D, H, batch_first=True)
    fill(module, "l0", Wx, Wh, b[: 3 * H], b_hh)
    layer, h = TimeGRU(Wx, Wh, b, stateful=True), f32(generator(2), N, H)
    layer.set_state(h)
    for states in two_windows(layer, module, [tensor(h[None])], H):
        compare_first_state(layer, states)
        dWx, dWh, db_ih, db_hh = gradients(module, "l0")
        close(layer.grads[0], dWx, TOLERANCE)
        close(layer.grads[1], dWh, TOLERANCE)
        close(layer.grads[2], np.concatenate([db_ih, db_hh[2 * H :]]), TOLERANCE)


def test_time_embedding_is_torch_nn_embedding():
    rng = generator()
    W = f32(rng, V, D)
    layer, module = TimeEmbedding(W), torch.nn.Embedding.from_pretrained(tensor(W), freeze=False)
    for _ in range(2):
        xs, dys = ids(rng, V, N, 4 * T), f32(rng, N, 4 * T, D)
        module.zero_grad()
        ys = module(tensor(xs))
        (ys * tensor(dys)).sum().backward()
        close(layer.forward(xs), ys.detach().numpy(), 0)
        layer.backward(dys)
        close(layer.grads[0], module.weight.grad.numpy(), TOLERANCE)


@pytest.mark.parametrize("scale", [1, 1e3])
def test_the_softmax_loss_is_torch_cross_entropy_with_ignored_targets(scale):
    rng = generator()
    xs, ts = scale * f32(rng, N, T, V), ids(rng, V, N, T)
    ts[0, 1] = -1
    layer, torch_xs = TimeSoftmaxWithLoss(), tensor(xs, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        torch_xs.reshape(-1, V), tensor(ts).reshape(-1), ignore_index=-1
    )
    loss.backward()
    assert float(layer.forward(xs, ts)) == pytest.approx(float(loss.detach()), rel=TOLERANCE)
    close(layer.backward(), torch_xs.grad.numpy(), TOLERANCE)


def test_softmax_and_cross_entropy_error_are_torchs():
    rng = generator()
    x, t = f32(rng, N, V), ids(rng, V, N)
    close(softmax(x), torch.softmax(tensor(x), dim=-1).numpy(), TOLERANCE)
    want = float(torch.nn.functional.cross_entropy(tensor(x), tensor(t)))
    assert float(cross_entropy_error(softmax(x), t)) == pytest.approx(want, rel=TOLERANCE)


MOMENTUM = {"lr": 0.1, "momentum": 0.8}
DECAY = {"lr": 0.1, "weight_decay": 0.2}
EPS = {"lr": 0.1, "eps": 0.1}  # large, so that it matters whether the root is over it, too
RULES = {
    "SGD": (SGD, {"lr": 0.1}, torch.optim.SGD, {"lr": 0.1}),
    "SGD with weight decay": (SGD, DECAY, torch.optim.SGD, DECAY),
    "Momentum": (Momentum, MOMENTUM, torch.optim.SGD, MOMENTUM),
    "Nesterov": (Nesterov, MOMENTUM, torch.optim.SGD, {**MOMENTUM, "nesterov": True}),
    "AdaGrad": (AdaGrad, EPS, torch.optim.Adagrad, EPS),
    "RMSprop": (RMSprop, {**EPS, "decay_rate": 0.9}, torch.optim.RMSprop, {**EPS, "alpha": 0.9}),
    "Adam": (
        *(Adam, {**EPS, "beta1": 0.8, "beta2": 0.99}),
        *(torch.optim.Adam, {**EPS, "betas": (0.8, 0.99)}),
    ),
    "AdamW": (AdamW, {"weight_decay": 0.2}, torch.optim.AdamW, {"weight_decay": 0.2}),
    "all defaults of RMSprop": (RMSprop, {}, torch.optim.RMSprop, {}),
    "all defaults of AdaGrad": (AdaGrad, {}, torch.optim.Adagrad, {}),
    "all defaults of Adam": (Adam, {}, torch.optim.Adam, {}),
    "all defaults of AdamW": (AdamW, {}, torch.optim.AdamW, {}),
}


def test_ten_lazy_steps_of_adam_are_those_of_torch_sparse_adam():
    """But for eps, which PyTorch adds to the root before it is corrected."""
    rng, V = generator(), 12
    table = floats(rng, V, D)
    torch_table = tensor(table, requires_grad=True)
    gradient, adam = RowGradient(table), Adam(0.1, 0.8, 0.99, eps=1e-30)
    sparse_adam = torch.optim.SparseAdam([torch_table], 0.1, (0.8, 0.99), eps=1e-30)
    for _ in range(10):
        read, rows = ids(rng, V, 5), floats(rng, 5, D)
        gradient[...] = 0
        add_rows(gradient, read, rows)
        adam.update([table], [gradient])
        torch_table.grad = torch.sparse_coo_tensor(
            tensor(read)[None], tensor(rows), (V, D), check_invariants=True
        )
        sparse_adam.step()
        close(table, torch_table.detach().numpy(), 1e-12)


@pytest.mark.parametrize("name", RULES)
def test_ten_steps_of_an_update_rule_are_those_of_torch_optim(name):
    rule, options, torch_rule, torch_options = RULES[name]
    rng = generator()
    params = [floats(rng, D, H), floats(rng, H)]
    torch_params = [tensor(p, requires_grad=True) for p in params]
    optimizer, torch_optimizer = rule(**options), torch_rule(torch_params, **torch_options)
    for _ in range(10):
        grads = [floats(rng, D, H), floats(rng, H)]
        optimizer.update(params, grads)
        for param, grad in zip(torch_params, grads, strict=True):
            param.grad = tensor(grad)
        torch_optimizer.step()
        for ours, theirs in zip(params, torch_params, strict=True):
            close(ours, theirs.detach().numpy(), 1e-6)
