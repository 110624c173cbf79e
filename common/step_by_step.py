"""The cells as twelve functions, batch in columns: the layout of step-by-step courses.

Shapes: xt (n_x, m), a and c (n_a, m), a sequence (n_x, m, T); m is the batch. A gate has a matrix
of its own, which acts on a_prev stacked on xt, and ``parameters`` is a dict:

    RNN    Wax (n_a, n_x), Waa (n_a, n_a), ba (n_a, 1); Wya (n_y, n_a), by (n_y, 1)
    LSTM   Wf, Wi, Wc, Wo (n_a, n_a + n_x), bf, bi, bc, bo (n_a, 1); Wy (n_y, n_a), by (n_y, 1)
           for the gates f, i, o (forget, input, output) and the candidate c
    GRU    Wr, Wz, Wc (n_a, n_a + n_x), br, bz, bc (n_a, 1); Wy (n_y, n_a), by (n_y, 1)
           for the gates r, z (reset, update; z keeps the old state) and the candidate c

The equations are in the cells of ``common.layers``. This file converts between the two layouts
(``_cell``, ``_weight_gradients``) and loops over the steps. Every function raises ValueError for a
shape that does not fit, a key that is missing, or a cache that another function made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.base_layer import GRU_GATES, LSTM_GATES, Recurrent, read_only, split_gates
from common.functions import softmax
from common.layers import GRU, LSTM, RNN, Affine
from common.np import Array, np

__all__ = [
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
]

Parameters = Mapping[str, Array]
Gradients = dict[str, Array]
Caches = tuple[list[tuple], Array]

_GATES: dict[type[Recurrent], str] = {LSTM: LSTM_GATES, GRU: GRU_GATES}
_OUTPUT = {RNN: "Wya", LSTM: "Wy", GRU: "Wy"}

_RNN_CACHE = ("a_next", "a_prev", "xt", "parameters")
_LSTM_CACHE = (
    *("a_next", "c_next", "a_prev", "c_prev"),
    *("ft", "it", "cct", "ot", "xt", "parameters"),
)
_GRU_CACHE = ("a_next", "a_prev", "rt", "zt", "cct", "act", "xt", "parameters")


def rnn_cell_forward(
    xt: Array, a_prev: Array, parameters: Parameters
) -> tuple[Array, Array, tuple]:
    """One step of the RNN, and softmax(Wya a_next + by): the prediction is of the new state.

    Args:
        xt: (n_x, m).
        a_prev: (n_a, m).
        parameters: Wax, Waa, ba, Wya, by.

    Returns:
        a_next (n_a, m), yt_pred (n_y, m), and the cache (a_next, a_prev, xt, parameters).
    """
    cell = _cell("rnn_cell_forward", RNN, parameters, xt, a_prev=a_prev)
    a_next = cell.forward(xt.T, a_prev.T).T
    return a_next, _predict(RNN, parameters, a_next), (a_next, a_prev, xt, parameters)


def rnn_cell_backward(da_next: Array, cache: tuple) -> Gradients:
    """Back through :func:`rnn_cell_forward`.

    Args:
        da_next: (n_a, m).
        cache: what the forward step returned.

    Returns:
        dxt, da_prev, dWax, dWaa, dba, each of the shape of what it is the gradient of.
    """
    who = "rnn_cell_backward"
    a_next, a_prev, xt, parameters = _unpack(who, _RNN_CACHE, cache)
    cell = _cell(who, RNN, parameters, xt, a_prev=a_prev, a_next=a_next, da_next=da_next)
    cell.cache = (xt.T, a_prev.T, a_next.T)
    dxt, da_prev = cell.backward(da_next.T)
    return {"dxt": dxt.T, "da_prev": da_prev.T, **_weight_gradients(cell)}


def rnn_forward(x: Array, a0: Array, parameters: Parameters) -> tuple[Array, Array, Caches]:
    """:func:`rnn_cell_forward` along a sequence.

    Args:
        x: (n_x, m, T).
        a0: the state before the first step (n_a, m).
        parameters: Wax, Waa, ba, Wya, by.

    Returns:
        a (n_a, m, T), y_pred (n_y, m, T), and the pair (one cache for each step, x).
    """
    _check_sequence("rnn_forward", RNN, parameters, x, a0)
    (a, y_pred), caches = _walk(rnn_cell_forward, x, [a0], parameters)
    return a, y_pred, caches


def rnn_backward(da: Array, caches: Caches) -> Gradients:
    """Back through :func:`rnn_forward`.

    Args:
        da: the gradient of the states from outside (n_a, m, T); of as many steps as it has,
            counted from the first.
        caches: what the forward pass returned.

    Returns:
        dx (n_x, m, T), da0 (n_a, m), and dWax, dWaa, dba summed over the steps.
    """
    return _walk_back("rnn_backward", rnn_cell_backward, da, caches, ["da_prev"])


def lstm_cell_forward(
    xt: Array, a_prev: Array, c_prev: Array, parameters: Parameters
) -> tuple[Array, Array, Array, tuple]:
    """One step of the LSTM, and softmax(Wy a_next + by).

    Args:
        xt: (n_x, m).
        a_prev: (n_a, m).
        c_prev: (n_a, m).
        parameters: Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by.

    Returns:
        a_next (n_a, m), c_next (n_a, m), yt_pred (n_y, m), and the cache
        (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters).
    """
    cell = _cell("lstm_cell_forward", LSTM, parameters, xt, a_prev=a_prev, c_prev=c_prev)
    a_next, c_next = (state.T for state in cell.forward(xt.T, a_prev.T, c_prev.T))
    ft, cct, it, ot = (gate.T for gate in cell.saved()[3:7])
    cache = (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters)
    return a_next, read_only(c_next), _predict(LSTM, parameters, a_next), cache


def lstm_cell_backward(da_next: Array, dc_next: Array, cache: tuple) -> Gradients:
    """Back through :func:`lstm_cell_forward`.

    Args:
        da_next: (n_a, m).
        dc_next: (n_a, m).
        cache: what the forward step returned.

    Returns:
        dxt, da_prev, dc_prev, and dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo, each of the shape of
        what it is the gradient of.
    """
    who = "lstm_cell_backward"
    a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters = _unpack(
        who, _LSTM_CACHE, cache
    )
    states = {"a_next": a_next, "c_next": c_next, "a_prev": a_prev, "c_prev": c_prev}
    gates = {"ft": ft, "it": it, "cct": cct, "ot": ot}
    cell = _cell(who, LSTM, parameters, xt, **states, **gates, da_next=da_next, dc_next=dc_next)
    cell.cache = (xt.T, a_prev.T, c_prev.T, ft.T, cct.T, it.T, ot.T, np.tanh(c_next).T)
    dxt, da_prev, dc_prev = cell.backward(da_next.T, dc_next.T)
    carried = {"da_prev": da_prev.T, "dc_prev": dc_prev.T}
    return {"dxt": dxt.T, **carried, **_weight_gradients(cell)}


def lstm_forward(x: Array, a0: Array, parameters: Parameters) -> tuple[Array, Array, Array, Caches]:
    """:func:`lstm_cell_forward` along a sequence; c is zero before the first step.

    Args:
        x: (n_x, m, T).
        a0: the hidden state before the first step (n_a, m).
        parameters: Wf, bf, Wi, bi, Wc, bc, Wo, bo, Wy, by.

    Returns:
        a (n_a, m, T), y (n_y, m, T), c (n_a, m, T), and the pair (one cache for each step, x).
    """
    _check_sequence("lstm_forward", LSTM, parameters, x, a0)
    (a, c, y), caches = _walk(lstm_cell_forward, x, [a0, np.zeros_like(a0)], parameters)
    return a, y, c, caches


def lstm_backward(da: Array, caches: Caches) -> Gradients:
    """Back through :func:`lstm_forward`; the gradients after the last step of ``da`` are zero.

    Args:
        da: the gradient of the hidden states from outside (n_a, m, T); of as many steps as it
            has, counted from the first.
        caches: what the forward pass returned.

    Returns:
        dx (n_x, m, T), da0 (n_a, m), and dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo summed over
        the steps.
    """
    carried = ["da_prev", "dc_prev"]
    return _walk_back("lstm_backward", lstm_cell_backward, da, caches, carried)


def gru_cell_forward(
    xt: Array, a_prev: Array, parameters: Parameters
) -> tuple[Array, Array, tuple]:
    """One step of the GRU, and softmax(Wy a_next + by).

    Of the two published candidates this is the one whose reset gate acts after the product: Wc has
    a part for a_prev and a part for xt, act = part_a a_prev, and
    cct = tanh(part_x xt + bc + rt * act).

    Args:
        xt: (n_x, m).
        a_prev: (n_a, m).
        parameters: Wr, br, Wz, bz, Wc, bc, Wy, by.

    Returns:
        a_next (n_a, m), yt_pred (n_y, m), and the cache
        (a_next, a_prev, rt, zt, cct, act, xt, parameters).
    """
    cell = _cell("gru_cell_forward", GRU, parameters, xt, a_prev=a_prev)
    a_next = cell.forward(xt.T, a_prev.T).T
    rt, zt, cct, act = (gate.T for gate in cell.saved()[2:])
    cache = (a_next, a_prev, rt, zt, cct, act, xt, parameters)
    return a_next, _predict(GRU, parameters, a_next), cache


def gru_cell_backward(da_next: Array, cache: tuple) -> Gradients:
    """Back through :func:`gru_cell_forward`.

    Args:
        da_next: (n_a, m).
        cache: what the forward step returned.

    Returns:
        dxt, da_prev, and dWr, dbr, dWz, dbz, dWc, dbc, each of the shape of what it is the
        gradient of.
    """
    who = "gru_cell_backward"
    a_next, a_prev, rt, zt, cct, act, xt, parameters = _unpack(who, _GRU_CACHE, cache)
    states = {"a_next": a_next, "a_prev": a_prev, "da_next": da_next}
    cell = _cell(who, GRU, parameters, xt, **states, rt=rt, zt=zt, cct=cct, act=act)
    cell.cache = (xt.T, a_prev.T, rt.T, zt.T, cct.T, act.T)
    dxt, da_prev = cell.backward(da_next.T)
    return {"dxt": dxt.T, "da_prev": da_prev.T, **_weight_gradients(cell)}


def gru_forward(x: Array, a0: Array, parameters: Parameters) -> tuple[Array, Array, Caches]:
    """:func:`gru_cell_forward` along a sequence.

    Args:
        x: (n_x, m, T).
        a0: the state before the first step (n_a, m).
        parameters: Wr, br, Wz, bz, Wc, bc, Wy, by.

    Returns:
        a (n_a, m, T), y_pred (n_y, m, T), and the pair (one cache for each step, x).
    """
    _check_sequence("gru_forward", GRU, parameters, x, a0)
    (a, y_pred), caches = _walk(gru_cell_forward, x, [a0], parameters)
    return a, y_pred, caches


def gru_backward(da: Array, caches: Caches) -> Gradients:
    """Back through :func:`gru_forward`.

    Args:
        da: the gradient of the states from outside (n_a, m, T); of as many steps as it has,
            counted from the first.
        caches: what the forward pass returned.

    Returns:
        dx (n_x, m, T), da0 (n_a, m), and dWr, dbr, dWz, dbz, dWc, dbc summed over the steps.
    """
    return _walk_back("gru_backward", gru_cell_backward, da, caches, ["da_prev"])


# ---------------------------------------------------------------- between the two layouts


def _letters(kind: type[Recurrent]) -> list[str]:
    """The letters of the gates in ``parameters``, in the order of the cell's blocks."""
    return [{"g": "c", "n": "c"}.get(gate, gate) for gate in _GATES[kind]]


def _cell(
    who: str, kind: type[Recurrent], parameters: Parameters, xt: Array, **states: Array
) -> Any:
    """Check all shapes; return the cell of ``common.layers`` with these parameters."""
    _expect(who, "xt", xt, "n_x", "m")
    n_x, m = xt.shape
    n_a = _check_parameters(who, kind, parameters, n_x)
    for name, state in states.items():
        _expect(who, name, state, n_a, m)
    if kind is RNN:
        return RNN(parameters["Wax"].T, parameters["Waa"].T, parameters["ba"][:, 0])
    letters = _letters(kind)
    W = np.concatenate([parameters[f"W{letter}"] for letter in letters]).T  # (n_a + n_x, k n_a)
    b = np.concatenate([parameters[f"b{letter}"] for letter in letters])[:, 0]
    return kind(W[n_a:], W[:n_a], b)


def _weight_gradients(cell: Recurrent) -> Gradients:
    """The cell's weight gradients, by the keys of ``parameters``."""
    dWx, dWh, db = cell.grads
    if type(cell) is RNN:
        return {"dWax": dWx.T, "dWaa": dWh.T, "dba": db[:, None]}
    gates = _GATES[type(cell)]
    blocks = zip(
        _letters(type(cell)),
        split_gates(np.concatenate([dWh, dWx]), gates),
        split_gates(db, gates),
        strict=True,
    )
    gradients = {}
    for letter, dW_gate, db_gate in blocks:
        gradients[f"dW{letter}"] = dW_gate.T
        gradients[f"db{letter}"] = db_gate[:, None]
    return gradients


def _predict(kind: type[Recurrent], parameters: Parameters, a_next: Array) -> Array:
    """softmax(Wy a_next + by), (n_y, m)."""
    output = Affine(parameters[_OUTPUT[kind]].T, parameters["by"][:, 0])
    return softmax(output.forward(a_next.T)).T


# ------------------------------------------------------------------------ along the sequence


def _walk(
    cell_forward: Callable[..., tuple], x: Array, states: list[Array], parameters: Parameters
) -> tuple[list[Array], Caches]:
    """Call ``cell_forward`` at every step; return its results, T last, and the caches."""
    results, caches = [], []
    for t in range(x.shape[2]):
        *states, yt_pred, cache = cell_forward(x[:, :, t], *states, parameters)
        results.append((*states, yt_pred))
        caches.append(cache)
    return [np.stack(steps, axis=2) for steps in zip(*results, strict=True)], (caches, x)


def _walk_back(
    who: str,
    cell_backward: Callable[..., Gradients],
    da: Array,
    caches: Caches,
    carried: list[str],
) -> Gradients:
    """Call ``cell_backward`` from the last step of ``da``; hand on the gradients in ``carried``."""
    steps, _ = _unpack(who, ("list of caches", "x"), caches)
    _expect(who, "da", da, "n_a", "m", "T")
    T = da.shape[2]
    if not 1 <= T <= len(steps):
        raise ValueError(f"{who}: expected da of 1 to {len(steps)} steps, got {T}")
    carry = [np.zeros_like(da[:, :, 0]) for _ in carried]
    dx, totals = [], dict[str, Array]()
    for t in reversed(range(T)):
        gradients = cell_backward(da[:, :, t] + carry[0], *carry[1:], steps[t])
        dx.append(gradients.pop("dxt"))
        carry = [gradients.pop(name) for name in carried]
        for name, gradient in gradients.items():
            totals[name] = totals.get(name, 0) + gradient
    return {"dx": np.stack(dx[::-1], axis=2), "da0": carry[0], **totals}


# ------------------------------------------------------------------------------------ checks


def _expect(who: str, name: str, x: Array, *shape: int | str) -> None:
    """Raise ValueError unless ``x`` has these sizes; a letter stands for any size."""
    got = getattr(x, "shape", None)
    if got is None:
        raise ValueError(f"{who}: expected {name} to be an array, got {type(x).__name__}")
    if len(got) != len(shape) or any(
        want != size for want, size in zip(shape, got, strict=True) if isinstance(want, int)
    ):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{who}: expected {name} of shape ({wanted}), got {got}")


def _check_parameters(who: str, kind: type[Recurrent], parameters: Parameters, n_x: int) -> int:
    """Check that every matrix and bias is there and fits; return n_a."""
    output = _OUTPUT[kind]
    if kind is RNN:
        weights, biases = ["Wax", "Waa"], ["ba"]
    else:
        weights = [f"W{letter}" for letter in _letters(kind)]
        biases = [f"b{letter}" for letter in _letters(kind)]
    needed = [*weights, *biases, output, "by"]
    missing = [name for name in needed if name not in parameters]
    if missing:
        raise ValueError(
            f"{who}: expected parameters {', '.join(needed)}; got none named {', '.join(missing)}"
        )
    _expect(who, output, parameters[output], "n_y", "n_a")
    n_y, n_a = parameters[output].shape
    _expect(who, "by", parameters["by"], n_y, 1)
    for name in biases:
        _expect(who, name, parameters[name], n_a, 1)
    for name in weights:
        columns = {"Wax": n_x, "Waa": n_a}.get(name, n_a + n_x)
        _expect(who, name, parameters[name], n_a, columns)
    return n_a


def _check_sequence(
    who: str, kind: type[Recurrent], parameters: Parameters, x: Array, a0: Array
) -> None:
    """Check the sequence itself, so that an error names ``x`` and not the ``xt`` of a step."""
    _expect(who, "x", x, "n_x", "m", "T")
    n_x, m, T = x.shape
    if T == 0:
        raise ValueError(f"{who}: expected x of 1 step or more, got {x.shape}")
    _expect(who, "a0", a0, _check_parameters(who, kind, parameters, n_x), m)


def _unpack(who: str, names: tuple[str, ...], cache: tuple) -> tuple:
    """Check that ``cache`` is a tuple with an entry for each name; return it."""
    if not isinstance(cache, tuple) or len(cache) != len(names):
        got = f"{len(cache)} entries" if isinstance(cache, tuple) else type(cache).__name__
        raise ValueError(f"{who}: expected a cache ({', '.join(names)}), got {got}")
    return cache
