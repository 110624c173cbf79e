"""Every gradient by hand is right, and the checker that says so rejects wrong ones."""

import pytest

import models
from common import config, gradient_check, layers, time_layers
from common.base_model import BaseModel
from common.gradient_check import Report, check_gradients, check_layer, check_model
from common.layers import LSTM, RNN, Affine, MatMul, Sigmoid
from common.np import np, to_cpu
from common.time_layers import TimeAffine, TimeEmbedding, TimeRNN, TimeSoftmaxWithLoss
from tests.builders import D, H, N, T, V, cell_weights, close, floats, generator, ids
from train.check_gradients import CASES


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_by_hand_are_those_of_the_loss(name):
    report = CASES[name]()
    assert report.error < 1e-6, str(report)
    assert report.ok


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_has_the_gradients_of_the_cpu(name, monkeypatch):
    """Differences for every element would take some ten thousand passes there."""
    found = []

    def keep(subject, loss, gradients):
        found.append({key: (to_cpu(x), to_cpu(dx)) for key, (x, dx) in gradients.items()})
        return Report(subject, (), 0.0, 0.0)

    monkeypatch.setattr(gradient_check, "check_gradients", keep)
    for on_gpu in (True, False):
        monkeypatch.setattr(config, "GPU", on_gpu)
        CASES[name]()
    there, here = found
    assert list(there) == list(here)
    for key, arrays in here.items():
        for on_gpu, on_cpu in zip(there[key], arrays, strict=True):
            close(on_gpu, on_cpu, 1e-9)


def test_every_layer_cell_and_model_has_its_case():
    names = {name.split()[0] for name in CASES}
    expected = {
        name
        for module in (layers, time_layers, models)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    }
    assert expected <= names


# ---- wrong gradients, each a mistake that is easily made ----


class ForgottenFactor(Sigmoid):
    def backward(self, dy):
        (y,) = self.saved()
        return dy * y


class TransposedSquare(MatMul):
    def backward(self, dy):
        super().backward(dy)
        return dy @ self.params[0]  # W.T; with W square the shapes fit all the same


class TransposedWeightGradient(MatMul):
    def backward(self, dy):
        dx = super().backward(dy)
        self.grads[0][...] = self.grads[0].T.copy()
        return dx


class BiasWithoutSum(Affine):
    def backward(self, dy):
        dx = super().backward(dy)
        self.grads[1][...] = dy[0]
        return dx


class NotAllOfIt(MatMul):
    def backward(self, dy):
        dx = super().backward(dy)
        self.grads[0][0, 0] *= 1 + 1e-4  # one element, by a ten-thousandth
        return dx


class NotANumber(MatMul):
    def backward(self, dy):
        dx = super().backward(dy)
        self.grads[0][0, 0] = np.nan
        return dx


class NoPathThroughTheCell(LSTM):
    def backward(self, dh_next, dc_next):
        return super().backward(dh_next, np.zeros_like(dc_next))


class OnlyTheLastStep(TimeRNN):
    def backward(self, dhs):
        dhs = dhs.copy()
        dhs[:, :-1] = 0
        return super().backward(dhs)


LSTM_PARAMS = [(D, 4 * H), (H, 4 * H), (4 * H,)]
WRONG = [
    (ForgottenFactor, [], [(N, D)], "input0"),
    (TransposedSquare, [(D, D)], [(N, D)], "input0"),
    (TransposedWeightGradient, [(D, D)], [(N, D)], "W"),
    (BiasWithoutSum, [(D, H), (H,)], [(N, D)], "b"),
    (NotAllOfIt, [(D, H)], [(N, D)], "W"),
    (NotANumber, [(D, H)], [(N, D)], "W"),
    (NoPathThroughTheCell, LSTM_PARAMS, [(N, D), (N, H), (N, H)], "input2"),
    (OnlyTheLastStep, [(D, H), (H, H), (H,)], [(N, T, D)], "Wh"),
]


def rejected(report, name):
    """Whether the report calls the array of this name wrong, in the numbers and in the text."""
    assert not report.ok
    assert f"{report.subject}: WRONG" in str(report)
    assert "eps 1e-03" in str(report) and "tolerance 1e-06" in str(report)
    (worst,) = (w for w in report.worst if w.name == name)
    assert f"  {name}{list(worst.index)}: by hand {worst.analytic:+.9e}" in str(report)
    return not worst.error < report.tolerance


@pytest.mark.parametrize(
    ("cls", "params", "inputs", "name"), WRONG, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_wrong_gradient_is_rejected_by_the_name_of_its_array(cls, params, inputs, name):
    rng = generator()
    layer = cls(*(floats(rng, *shape) for shape in params))
    report = check_layer(layer, *(floats(rng, *shape) for shape in inputs), rng=rng)
    assert report.subject == cls.__name__
    assert rejected(report, name)


class Tied(BaseModel):
    """Embedding and output layer share a weight, and its gradient is the sum of both shares."""

    def __init__(self, accumulate):
        rng = generator()
        table = floats(rng, V, H)
        embedding, output = TimeEmbedding(table), TimeAffine(table.T, np.zeros(V))
        output.grads[0] = embedding.grads[0].T
        embedding.accumulate = accumulate
        rnn = TimeRNN(floats(rng, H, H), floats(rng, H, H), floats(rng, H))
        self.compose([embedding, rnn, output], TimeSoftmaxWithLoss())


def test_a_gradient_that_misses_the_tie_is_rejected():
    xs, ts = ids(generator(), V, N, T), ids(generator(1), V, N, T)
    assert check_model(Tied(accumulate=True), xs, ts).ok
    report = check_model(Tied(accumulate=False), xs, ts)
    assert rejected(report, "embedding.W")
    assert [w.name for w in report.worst if not w.error < report.tolerance] == ["embedding.W"]


class NoGradientForTheState(RNN):
    def backward(self, dh_next):
        dx, _ = super().backward(dh_next)
        return dx


class ForgottenReturn(MatMul):
    def backward(self, dy):
        super().backward(dy)


@pytest.mark.parametrize("cls", [NoGradientForTheState, ForgottenReturn])
def test_a_gradient_that_is_not_returned_at_all_is_an_error(cls):
    rng = generator()
    if cls is ForgottenReturn:
        layer, inputs = cls(floats(rng, D, H)), [floats(rng, N, D)]
    else:
        layer, inputs = cls(*cell_weights("RNN")), [floats(rng, N, D), floats(rng, N, H)]
    with pytest.raises(ValueError, match="gradient"):
        check_layer(layer, *inputs, rng=rng)


# ---- the checker itself ----


def test_a_polynomial_of_fourth_degree_is_differentiated_to_the_last_digits():
    x = np.array([-1.5, 0.5, 2.0])
    report = check_gradients("x^4", lambda: (x**4).sum(), {"x": (x, 4 * x**3)})
    assert report.error < 1e-11
    assert x.tolist() == [-1.5, 0.5, 2.0]  # the array is as it was
    assert str(report).startswith("x^4: ok, worst relative error ")


def test_the_report_points_at_the_worst_element():
    x, wrong = np.ones((2, 3)), np.full((2, 3), 2.0)
    wrong[1, 2] = 3
    report = check_gradients("squares", lambda: (x**2).sum(), {"x": (x, wrong)})
    (worst,) = report.worst
    assert (worst.name, worst.index, worst.analytic) == ("x", (1, 2), 3)
    assert worst.numeric == pytest.approx(2)
    assert worst.error == report.error == pytest.approx(1 / 3)
    assert "x[1, 2]: by hand +3.000000000e+00, by differences +2.00000" in str(report)


def test_a_gradient_that_is_no_number_is_never_lost_among_right_ones():
    x, y, nothing = np.ones(2), np.ones(2), np.array([2.0, np.nan])
    for gradients in ({"x": (x, 2 * x), "y": (y, nothing)}, {"y": (y, nothing), "x": (x, 2 * x)}):
        report = check_gradients("squares", lambda: (x**2).sum() + (y**2).sum(), gradients)
        assert np.isnan(report.error)
        assert not report.ok
        assert "y[1]: by hand +nan" in str(report)


def test_step_and_tolerance_are_the_callers_and_stand_in_the_report():
    x = np.ones(2)
    options = {"eps": 0.5, "tolerance": 0.1}
    report = check_gradients("squares", lambda: (x**2).sum(), {"x": (x, 2.1 * x)}, **options)
    assert report.ok
    assert "(tolerance 1e-01, eps 5e-01, float64)" in str(report)


def test_float32_cannot_be_checked():
    x = np.ones(2, dtype="float32")
    with pytest.raises(TypeError, match="expected x in float64, got float32"):
        check_gradients("squares", lambda: (x**2).sum(), {"x": (x, 2 * x)})
    rng = generator()
    with pytest.raises(TypeError, match="expected W in float64, got float32"):
        check_layer(MatMul(floats(rng, D, H, dtype="float32")), floats(rng, N, D), rng=rng)
    with pytest.raises(TypeError, match="expected input0 in float64, got float32"):
        check_layer(Sigmoid(), floats(rng, N, D, dtype="float32"), rng=rng)


def test_a_gradient_of_another_shape_than_its_array_is_an_error():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"gradient of x of shape \(2, 3\), got \(3, 2\)"):
        check_gradients("squares", lambda: (x**2).sum(), {"x": (x, 2 * x.T)})


def test_nothing_to_check_is_an_error_not_a_pass():
    with pytest.raises(ValueError, match="nothing to check"):
        check_gradients("nothing", lambda: 0.0, {})
