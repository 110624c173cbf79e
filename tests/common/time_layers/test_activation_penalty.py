"""Penalties on activations, beside their formula and automatic differentiation."""

import pytest

from common.base_layer import batch_first
from common.np import np, to_cpu
from common.time_layers import TimeActivationPenalty
from tests.builders import H, N, T, close, floats, generator, same

pytestmark = pytest.mark.usefixtures("backend")


WEIGHTS = [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)]


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_the_penalty_is_its_formula(alpha, beta):
    layer, hs = TimeActivationPenalty(alpha, beta), floats(generator(), N, T, H)
    same(layer.forward(hs), hs)
    steps = hs[:, 1:] - hs[:, :-1]
    close(layer.penalty, alpha * (hs**2).mean() + beta * (steps**2).mean())
    assert float(layer.penalty) > 0.5


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
def test_its_gradient_is_that_of_automatic_differentiation(alpha, beta):
    torch = pytest.importorskip("torch", reason="needs PyTorch; install 'time-layers[bench]'")
    layer, hs, dys = (
        TimeActivationPenalty(alpha, beta),
        floats(generator(), N, T, H),
        floats(generator(1), N, T, H),
    )
    layer.forward(hs)
    layer.dout = 0.7
    theirs = torch.tensor(to_cpu(hs), requires_grad=True)
    penalty = alpha * theirs.pow(2).mean() + beta * (theirs[:, 1:] - theirs[:, :-1]).pow(2).mean()
    (0.7 * penalty + (theirs * torch.tensor(to_cpu(dys))).sum()).backward()
    close(layer.penalty, np.asarray(penalty.detach().numpy()))
    close(layer.backward(dys), np.asarray(theirs.grad.numpy()))


def test_an_output_that_backward_reads_again_cannot_be_changed_in_place(backend):
    if backend == "gpu":
        pytest.skip("CuPy has no arrays that are read-only")
    layer, hs = TimeActivationPenalty(2.0, 1.0), batch_first(floats(generator(), T, N, H))
    with pytest.raises(ValueError, match="read-only"):
        layer.forward(hs)[0, 0] += 1


@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_the_penalty_of_finite_numbers_is_finite_and_not_zero(size):
    hs = floats(generator(), N, T, H, dtype="float32") * np.asarray(size, dtype="float32")
    layer = TimeActivationPenalty(2.0, 3.0)
    layer.forward(hs)
    exact = hs.astype("float64")
    steps = exact[:, 1:] - exact[:, :-1]
    right = float(2 * (exact**2).mean() + 3 * (steps**2).mean())
    assert float(layer.penalty) == pytest.approx(right, rel=1e-5)


def test_a_window_of_one_step_has_no_temporal_penalty():
    layer, hs = TimeActivationPenalty(beta=3.0), floats(generator(), N, 1, H)
    layer.forward(hs)
    assert layer.penalty == 0
    same(layer.backward(hs), hs)


def test_in_evaluation_there_is_no_penalty_and_no_way_back():
    layer, hs = TimeActivationPenalty(2.0, 1.0), floats(generator(), N, T, H)
    layer.forward(hs)
    layer.train_flg = False
    assert layer.forward(hs) is hs
    assert layer.penalty == 0
    with pytest.raises(RuntimeError, match=r"^TimeActivationPenalty\.backward"):
        layer.backward(hs)


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_a_weight_below_zero_is_refused_by_name(name, weight):
    expected = f"^TimeActivationPenalty: expected {name} of 0 or more, got {weight}"
    with pytest.raises(ValueError, match=expected):
        TimeActivationPenalty(**{name: weight})
