"""Two steps of every cell, against PyTorch's autograd of the same equations."""

import numpy as np
import pytest

from tests.builders import H, as_tuple, close, floats, generator
from tests.common.cells.examples import KINDS, inputs_for, random_cell

torch = pytest.importorskip("torch", reason="parity needs PyTorch; install 'time-layers[bench]'")
torch.set_num_threads(1)  # for arrays this small, threads only wait for each other

TOLERANCE = 1e-10


def layer_norm_lstm(p, x, h, c):
    def norm(a, gain, bias=None):
        return torch.nn.functional.layer_norm(a, a.shape[1:], gain, bias, eps=1e-5)

    A = norm(h @ p["Wh"], p["gain_h"]) + norm(x @ p["Wx"], p["gain_x"]) + p["b"]
    f, g, i, o = A.split(H, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * norm(c, p["gain_c"], p["b_c"]).tanh(), c


def peephole_lstm(p, x, h, c):
    f, g, i, o = (x @ p["Wx"] + h @ p["Wh"] + p["b"]).split(H, dim=1)
    p_f, p_i, p_o = (torch.diag(peephole) for peephole in p["p"].split(H))
    forget, write = torch.sigmoid(f + c @ p_f), torch.sigmoid(i + c @ p_i)
    c = forget * c + write * g.tanh()
    return torch.sigmoid(o + c @ p_o) * c.tanh(), c


def min_gru(p, x, h):
    z, candidate = torch.nn.functional.linear(x, p["Wx"].T, p["b"]).split(H, dim=1)
    return (torch.lerp(h, candidate, z.sigmoid()),)


def mogrifier_lstm(p, x, h, c):
    def matrix(name):
        return p[name] if name in p else p[f"{name}_left"] @ p[f"{name}_right"]

    rounds = max(int(name[1]) for name in p if name[0] in "QR")
    for k in range(1, rounds + 1):
        if k % 2:
            x = 2 * torch.sigmoid(h @ matrix(f"Q{k}")) * x
        else:
            h = 2 * torch.sigmoid(x @ matrix(f"R{k}")) * h
    f, g, i, o = (x @ p["Wx"] + h @ p["Wh"] + p["b"]).split(H, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


EQUATIONS = {
    "LayerNormLSTM": layer_norm_lstm,
    "PeepholeLSTM": peephole_lstm,
    "MinGRU": min_gru,
    "MogrifierLSTM": mogrifier_lstm,
}


def tensor(x):
    return torch.tensor(np.ascontiguousarray(x), requires_grad=True)


@pytest.mark.parametrize("name", KINDS)
def test_two_steps_and_their_gradients_are_those_of_autograd(name):
    cell = random_cell(name)
    x1, *first = inputs_for(cell)
    x2, *dstates = inputs_for(cell, seed=4)
    rng = generator(5)
    dmiddle = [floats(rng, *state.shape) for state in first]  # the first step's states count too

    params = {p: tensor(a) for p, a in zip(cell.param_names, cell.params, strict=True)}
    xs, begin = [tensor(x1), tensor(x2)], [tensor(state) for state in first]
    equations = EQUATIONS[name.split()[0]]
    middle = equations(params, xs[0], *begin)
    last = equations(params, xs[1], *middle)
    loss = sum((s * torch.tensor(d)).sum() for s, d in zip(last, dstates, strict=True))
    loss = loss + sum((s * torch.tensor(d)).sum() for s, d in zip(middle, dmiddle, strict=True))
    loss.backward()

    states = as_tuple(cell.forward(x1, *first))
    cache = cell.cache
    for now, want in zip(states, middle, strict=True):
        close(now, want.detach().numpy(), TOLERANCE)
    for now, want in zip(as_tuple(cell.forward(x2, *states)), last, strict=True):
        close(now, want.detach().numpy(), TOLERANCE)

    dx2, *ds = cell.backward(*dstates)
    totals = [grad.copy() for grad in cell.grads]
    cell.cache = cache
    dx1, *ds = cell.backward(*(d + more for d, more in zip(ds, dmiddle, strict=True)))
    close(dx1, xs[0].grad.numpy(), TOLERANCE)
    close(dx2, xs[1].grad.numpy(), TOLERANCE)
    for now, want in zip(ds, begin, strict=True):
        close(now, want.grad.numpy(), TOLERANCE)
    for total, grad, want in zip(totals, cell.grads, params.values(), strict=True):
        close(total + grad, want.grad.numpy(), TOLERANCE)
