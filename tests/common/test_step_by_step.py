"""The functions with the batch in columns: published figures, gradients, time layers, refusals."""

import json
from pathlib import Path

import numpy
import pytest

from common import step_by_step, time_layers
from common.gradient_check import check_gradients
from common.np import np
from tests.builders import close, floats, generator, same, spoil

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "step_by_step.json").read_text())
FUNCTIONS = GOLDENS["functions"]
FIGURES = [
    pytest.param(function, figure, id=f"{function} {figure['name']}{figure['index']}")
    for function, case in FUNCTIONS.items()
    for figure in case["expected"]
]
KINDS = ["rnn", "lstm", "gru"]
WAYS = ["cell_forward", "cell_backward", "forward", "backward"]

n_x, n_a, n_y, m, T = 4, 3, 2, 5, 3


def drawn(case, dtype):
    """The arrays of a case, from the legacy stream of random numbers, in the order of its draws."""
    stream = numpy.random.RandomState(case["seed"])
    arrays = {name: np.asarray(stream.randn(*shape).astype(dtype)) for name, shape in case["draws"]}
    return arrays | {name: np.zeros(shape, dtype) for name, shape in case["zeros"]}


def outputs(function, arrays):
    """Everything that a function returns, by name; a backward one after its forward one."""
    forward = getattr(step_by_step, function.replace("backward", "forward"))
    given = [arrays[name] for name in ("x", "xt", "a0", "a_prev", "c_prev") if name in arrays]
    *results, caches = forward(*given, arrays)
    if function.endswith("backward"):
        given = [arrays[name] for name in ("da", "da_next", "dc_next") if name in arrays]
        return getattr(step_by_step, function)(*given, caches)
    names = {
        "rnn_cell_forward": ["a_next", "yt"],
        "rnn_forward": ["a", "y_pred"],
        "lstm_cell_forward": ["a_next", "c_next", "yt"],
        "lstm_forward": ["a", "y", "c"],
    }[function]
    named = dict(zip(names, results, strict=True))
    return named if "_cell" in function else {**named, "x": caches[1]}


def weights(kind, rng, dtype="float64"):
    """Parameters of one kind by the keys of its functions."""
    head = {"Wya" if kind == "rnn" else "Wy": (n_y, n_a), "by": (n_y, 1)}
    if kind == "rnn":
        shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "ba": (n_a, 1)}
    else:
        letters = {"lstm": "fico", "gru": "rzc"}[kind]
        shapes = {f"W{k}": (n_a, n_a + n_x) for k in letters}
        shapes |= {f"b{k}": (n_a, 1) for k in letters}
    return {name: floats(rng, *shape, dtype=dtype) for name, shape in (shapes | head).items()}


def sequence(kind, rng, **options):
    """x, a0 and parameters of one kind."""
    return floats(rng, n_x, m, T), floats(rng, n_a, m), weights(kind, rng, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("function", "figure"), FIGURES)
def test_every_published_figure_is_met(function, figure, dtype):
    result = outputs(function, drawn(FUNCTIONS[function], dtype))[figure["name"]]
    assert result.dtype == dtype
    assert result.shape == tuple(figure["shape"])
    ours = result[tuple(figure["index"])]
    numpy.testing.assert_allclose(ours, figure["value"], rtol=0, atol=GOLDENS["tolerance"][dtype])


def test_the_caches_are_the_published_ones():
    arrays = drawn(FUNCTIONS["lstm_cell_forward"], "float64")
    states = [arrays[name] for name in ("xt", "a_prev", "c_prev")]
    *_, cache = step_by_step.lstm_cell_forward(*states, arrays)
    assert len(cache) == 10
    figures = FUNCTIONS["lstm_cell_forward"]["expected"]
    (expected,) = (f["value"] for f in figures if (f["name"], f["index"]) == ("c_next", [3]))
    close(cache[1][3], numpy.array(expected), 1e-7)
    arrays = drawn(FUNCTIONS["rnn_cell_forward"], "float64")
    *_, cache = step_by_step.rnn_cell_forward(arrays["xt"], arrays["a_prev"], arrays)
    assert len(cache) == 4
    assert cache[3] is arrays
    for kind in KINDS:
        x, a0, parameters = sequence(kind, generator())
        *_, caches = getattr(step_by_step, f"{kind}_forward")(x, a0, parameters)
        assert len(caches) == 2 and len(caches[0]) == T
        assert caches[1] is x


def test_the_cache_of_an_lstm_step_holds_its_gates():
    x, a0, p = sequence("lstm", generator())
    xt, c0 = x[:, :, 0], floats(generator(1), n_a, m)
    a_next, c_next, _, cache = step_by_step.lstm_cell_forward(xt, a0, c0, p)
    _, _, _, _, ft, it, cct, ot, _, _ = cache
    close(c_next, ft * c0 + it * cct)
    close(a_next, ot * np.tanh(c_next))
    close(1 / ft, 1 + np.exp(-(p["Wf"] @ np.concatenate([a0, xt]) + p["bf"])))


def test_the_rnn_predicts_from_the_new_state():
    x, a0, p = sequence("rnn", generator())
    a_next, yt_pred, _ = step_by_step.rnn_cell_forward(x[:, :, 0], a0, p)
    scores = np.exp(p["Wya"] @ a_next + p["by"])
    close(yt_pred, scores / scores.sum(axis=0))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_over_a_sequence_are_those_of_the_differences(kind):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    da = floats(rng, n_a, m, T)
    forward = getattr(step_by_step, f"{kind}_forward")
    *_, caches = forward(x, a0, p)
    gradients = getattr(step_by_step, f"{kind}_backward")(da, caches)
    arrays = {"x": x, "a0": a0, **p}
    report = check_gradients(
        f"{kind}_backward",
        lambda: float((forward(x, a0, p)[0] * da).sum()),
        {name[1:]: (arrays[name[1:]], gradient) for name, gradient in gradients.items()},
    )
    assert len(report.worst) == {"rnn": 5, "lstm": 10, "gru": 8}[kind]
    assert report.ok, str(report)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_two_cells_are_those_of_the_differences(kind):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    states = [a0, floats(rng, n_a, m)] if kind == "lstm" else [a0]
    forward = getattr(step_by_step, f"{kind}_cell_forward")
    backward = getattr(step_by_step, f"{kind}_cell_backward")
    douts = [[floats(rng, n_a, m) for _ in states] for _ in range(2)]

    def run():
        current, caches, loss = states, [], 0.0
        for t in range(2):
            *current, _, cache = forward(x[:, :, t], *current, p)
            caches.append(cache)
            loss += sum(float((d * s).sum()) for d, s in zip(douts[t], current, strict=True))
        return loss, caches

    _, caches = run()
    second = backward(*douts[1], caches[1])
    carried = [second.pop(name) for name in ("da_prev", "dc_prev")[: len(states)]]
    first = backward(*(d + c for d, c in zip(douts[0], carried, strict=True)), caches[0])
    dx = np.stack([first.pop("dxt"), second.pop("dxt"), np.zeros((n_x, m))], axis=2)
    checked = {"x": (x, dx)}
    for k, name in enumerate(("da_prev", "dc_prev")[: len(states)]):
        checked[name] = (states[k], first.pop(name))
    checked |= {name[1:]: (p[name[1:]], first[name] + second[name]) for name in first}
    report = check_gradients(f"{kind}_cell_backward twice", lambda: run()[0], checked)
    assert report.ok, str(report)


@pytest.mark.parametrize("kind", KINDS)
def test_the_functions_compute_what_the_time_layers_compute(kind, backend):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    da = floats(rng, n_a, m, T)
    *results, caches = getattr(step_by_step, f"{kind}_forward")(x, a0, p)
    gradients = getattr(step_by_step, f"{kind}_backward")(da, caches)

    # The layer's weights, gate by gate in its own order, written out here once more.
    letters = {"rnn": "", "lstm": "fcio", "gru": "rzc"}[kind]
    parts = [(p["Waa"], p["Wax"], p["ba"])] if kind == "rnn" else []
    parts += [(p[f"W{k}"][:, :n_a], p[f"W{k}"][:, n_a:], p[f"b{k}"]) for k in letters]
    Wh, Wx, b = (np.concatenate([part[k].T for part in parts], axis=1) for k in range(3))
    layer_class = getattr(time_layers, f"Time{kind.upper()}")
    layer = layer_class(np.array(Wx), np.array(Wh), np.array(b[0]), stateful=True)
    layer.set_state(np.array(a0.T))

    close(results[0], layer.forward(x.transpose(1, 2, 0)).transpose(2, 0, 1))
    if kind == "lstm":
        close(results[2][:, :, -1], layer.c.T)
    close(gradients["dx"], layer.backward(da.transpose(1, 2, 0)).transpose(2, 0, 1))
    close(gradients["da0"], layer.dh.T)
    dWx, dWh, db = layer.grads
    if kind == "rnn":
        close(gradients["dWax"], dWx.T)
        close(gradients["dWaa"], dWh.T)
        close(gradients["dba"][:, 0], db)
    for k, letter in enumerate(letters):
        gate = slice(k * n_a, (k + 1) * n_a)
        close(gradients[f"dW{letter}"], np.concatenate([dWh[:, gate], dWx[:, gate]]).T)
        close(gradients[f"db{letter}"][:, 0], db[gate])


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_gradients_than_steps_are_those_of_the_first_steps(kind):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    da = floats(rng, n_a, m, T)
    da[:, :, 2] = 0
    *_, caches = getattr(step_by_step, f"{kind}_forward")(x, a0, p)
    backward = getattr(step_by_step, f"{kind}_backward")
    short, padded = backward(da[:, :, :2], caches), backward(da, caches)
    assert short["dx"].shape == (n_x, m, 2)
    close(short.pop("dx"), padded["dx"][:, :, :2])
    close(padded.pop("dx")[:, :, 2], np.zeros((n_x, m)))
    for name, gradient in short.items():
        close(gradient, padded[name])


@pytest.mark.parametrize("kind", KINDS)
def test_going_back_twice_gives_the_same_and_changes_nothing(kind):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    da = floats(rng, n_a, m, T)
    given = {"x": x, "a0": a0, "da": da, **p}
    before = {name: array.copy() for name, array in given.items()}
    *_, caches = getattr(step_by_step, f"{kind}_forward")(x, a0, p)
    backward = getattr(step_by_step, f"{kind}_backward")
    first, second = backward(da, caches), backward(da, caches)
    for name, gradient in first.items():
        same(second[name], gradient)
    for name, array in given.items():
        same(array, before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_changed_in_place_is_refused_or_does_not_matter(kind):
    rng = generator()
    x, a0, p = sequence(kind, rng)
    given = [x[:, :, 0], a0] + [floats(rng, n_a, m)] * (kind == "lstm")
    gradients = [floats(rng, n_a, m) for _ in given[1:]]
    forward, backward = (getattr(step_by_step, f"{kind}_cell_{way}") for way in WAYS[2:])
    *_, cache = forward(*given, p)
    expected = backward(*gradients, cache)
    *states, cache = forward(*given, p)
    for state in states:
        spoil(state)
    for name, gradient in backward(*gradients, cache).items():
        same(gradient, expected[name])


def test_every_public_function_is_one_of_the_twelve():
    assert sorted(step_by_step.__all__) == sorted(f"{kind}_{way}" for kind in KINDS for way in WAYS)


class TestRefusals:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_missing_key_is_named(self, kind):
        x, a0, p = sequence(kind, generator())
        forward = getattr(step_by_step, f"{kind}_forward")
        for name in p:
            others = {key: array for key, array in p.items() if key != name}
            with pytest.raises(ValueError, match=f"{kind}_forward: .* none named {name}$"):
                forward(x, a0, others)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_parameter_of_another_shape_is_named(self, kind):
        x, a0, p = sequence(kind, generator())
        forward = getattr(step_by_step, f"{kind}_cell_forward")
        states = [a0, a0] if kind == "lstm" else [a0]
        for name, array in p.items():
            if name == ("Wya" if kind == "rnn" else "Wy"):
                continue  # n_a is read from it, so the first of the others is named
            with pytest.raises(ValueError, match=rf"{kind}_cell_forward: expected {name} of shape"):
                forward(x[:, :, 0], *states, p | {name: array[:-1]})

    @pytest.mark.parametrize(
        ("function", "arguments", "message"),
        [
            ("rnn_cell_forward", lambda x, a0, p: (x, a0, p), "xt of shape (n_x, m), got (4, 5,"),
            ("rnn_cell_forward", lambda x, a0, p: (x[:, :, 0], a0[:2], p),
             "a_prev of shape (3, 5), got (2, 5)"),
            ("rnn_forward", lambda x, a0, p: (x[:, :, 0], a0, p), "x of shape (n_x, m, T)"),
            ("rnn_forward", lambda x, a0, p: (x[:, :, :0], a0, p), "x of 1 step or more"),
            ("rnn_forward", lambda x, a0, p: (x, a0[:, 1:], p), "a0 of shape (3, 5), got (3, 4)"),
            ("rnn_forward", lambda x, a0, p: (x[1:], a0, p), "Wax of shape (3, 3), got (3, 4)"),
            ("rnn_forward", lambda x, a0, p: (x.tolist(), a0, p), "x to be an array, got list"),
            ("rnn_forward", lambda x, a0, p: (x, a0, p | {"ba": p["ba"][:, 0]}),
             "ba of shape (3, 1), got (3,)"),
        ],
    )  # fmt: skip
    def test_going_forward(self, function, arguments, message):
        with pytest.raises(ValueError) as refusal:
            getattr(step_by_step, function)(*arguments(*sequence("rnn", generator())))
        assert str(refusal.value).startswith(f"{function}: expected ")
        assert message in str(refusal.value)

    @pytest.mark.parametrize("kind", KINDS)
    def test_going_back(self, kind):
        x, a0, p = sequence(kind, generator())
        *_, caches = getattr(step_by_step, f"{kind}_forward")(x, a0, p)
        backward = getattr(step_by_step, f"{kind}_backward")
        with pytest.raises(ValueError, match=rf"{kind}_backward: expected da of 1 to 3 steps"):
            backward(np.ones((n_a, m, T + 1)), caches)
        with pytest.raises(ValueError, match=r"expected da of 1 to 3 steps, got 0"):
            backward(np.ones((n_a, m, 0)), caches)
        with pytest.raises(ValueError, match=r"expected da of shape \(n_a, m, T\), got \(3, 5\)"):
            backward(np.ones((n_a, m)), caches)
        with pytest.raises(ValueError, match=r"expected da_next of shape \(3, 5\), got \(4, 5\)"):
            backward(np.ones((n_a + 1, m, T)), caches)
        with pytest.raises(ValueError, match=r"expected a cache \(list of caches, x\), got list"):
            backward(np.ones((n_a, m, T)), caches[0])

    def test_the_cache_of_another_cell(self):
        x, a0, p = sequence("gru", generator())
        *_, cache = step_by_step.gru_cell_forward(x[:, :, 0], a0, p)
        with pytest.raises(ValueError, match=r"rnn_cell_backward: expected a cache .*got 8 ent"):
            step_by_step.rnn_cell_backward(a0, cache)
        with pytest.raises(ValueError, match=r"lstm_cell_backward: expected a cache .*got 8 ent"):
            step_by_step.lstm_cell_backward(a0, a0, cache)

    def test_a_gradient_of_the_cell_state_of_another_shape(self):
        x, a0, p = sequence("lstm", generator())
        *_, cache = step_by_step.lstm_cell_forward(x[:, :, 0], a0, a0, p)
        with pytest.raises(ValueError, match=r"expected dc_next of shape \(3, 5\), got \(5, 3\)"):
            step_by_step.lstm_cell_backward(a0, a0.T, cache)
