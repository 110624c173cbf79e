"""RNN, LSTM and GRU in CUDA C, run on the CPU: against float64 NumPy, and with planted faults."""

import numpy as np
import pytest

from common import kernels
from common.kernels import Workspace, device
from common.time_layers import TimeGRU, TimeLSTM, TimeRNN
from tests.common.kernels.cuda_device import SEEN, use, with_fault

SIZES = [(1, 1, 1, 1), (5, 3, 4, 37), (2, 4, 3, 12), (37, 2, 2, 9), (7, 1, 5, 33)]  # N, T, D, H
# multiprocessors, bytes of shared memory: several blocks, one, many; a part of the left-hand matrix
# at a time; nothing but steps
DEVICES = {"three": (3, 100_000), "one": (1, 100_000), "many": (16, 60_000), "steps": (3, 0)}


def floats(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def close(found, exact, steps):
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=2e-6 * steps * abs(exact).max())


class Case:
    """The arrays of one window, for the kernels and, in float64, for NumPy."""

    def __init__(self, cell, N, T, D, H, seed=0):
        rng = np.random.default_rng(seed)
        self.cell, self.k, self.sizes = cell, cell.num_gates, (N, T, D, H)
        width = self.k * H
        self.xs, self.Wx = floats(rng, T, N, D), floats(rng, D, width)
        self.Wh = (floats(rng, H, width) * H**-0.5).astype("float32")
        self.b, self.bhn = floats(rng, width), floats(rng, H)
        self.first = [floats(rng, N, H) for _ in cell.state_names]
        self.dhs = floats(rng, T, N, H)
        self.last = [floats(rng, N, H) for _ in cell.state_names]  # gradients of the last states

    def arrays(self, dtype):
        """Whatever is written: gates, states (and hns), then what the way back writes."""
        N, T, _, H = self.sizes
        gates = np.full((T, N, self.k * H), np.nan, dtype)
        states = [np.full((T + 1, N, H), np.nan, dtype) for _ in self.first]
        if self.cell is TimeGRU:
            states.append(np.full((T, N, H), np.nan, dtype))
        written = [np.full_like(gates, np.nan) for _ in range(2 if self.cell is TimeGRU else 1)]
        return gates, states, [x.astype(dtype) for x in self.last], written

    def on_device(self):
        """By the kernels."""
        gates, states, last, written = self.arrays("float32")
        read = self.xs, self.Wx, self.Wh, self.b
        if self.cell is TimeLSTM:
            assert device.lstm_forward(*read, self.first, gates, *states)
            assert device.lstm_backward(self.Wh, gates, states[1], self.dhs, *last, *written)
        elif self.cell is TimeGRU:
            assert device.gru_forward(*read, self.bhn, self.first, gates, *states)
            assert device.gru_backward(self.Wh, gates, *states, self.dhs, *last, *written)
        else:
            assert device.rnn_forward(*read, self.first, gates, *states, False)
            assert device.rnn_backward(self.Wh, *states, self.dhs, *last, *written, False)
            gates = states[0]  # the sums are not kept
        assert not device._counters(np.ndarray, 0).any()
        return [gates, *states, *last, *written]

    def in_numpy(self):
        """By the lines of the layers, in float64."""
        gates, states, last, written = self.arrays("float64")
        Wh, dhs = self.Wh.astype("float64"), self.dhs.astype("float64")
        gates[...] = self.xs.astype("float64") @ self.Wx + self.b
        for state, first in zip(states, self.first, strict=False):
            state[0] = first
        if self.cell is TimeLSTM:
            TimeLSTM._forward_window(Wh, gates, *states)
            TimeLSTM._backward_window(Wh, gates, states[1], dhs, *last, *written)
        elif self.cell is TimeGRU:
            TimeGRU._forward_window(Wh, self.bhn, gates, *states)
            TimeGRU._backward_window(Wh, gates, *states, dhs, *last, *written)
        else:
            (hs,), (dh,), (dA,) = states, last, written
            for t in range(len(dhs)):
                hs[t + 1] = np.tanh(gates[t] + hs[t] @ Wh)
            for t in reversed(range(len(dhs))):
                dA[t] = (dhs[t] + dh) * (1 - hs[t + 1] ** 2)
                dh[...] = dA[t] @ Wh.T
            gates = hs
        return [gates, *states, *last, *written]

    def check(self):
        for found, exact in zip(self.on_device(), self.in_numpy(), strict=True):
            close(found, exact, self.sizes[1])


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU, TimeRNN])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("on", DEVICES)
@pytest.mark.parametrize("descending", [False, True])
def test_a_window_is_that_of_numpy(cell, sizes, on, descending, monkeypatch):
    multiprocessors, memory = DEVICES[on]
    use(monkeypatch, multiprocessors=multiprocessors, memory=memory, descending=descending)
    Case(cell, *sizes).check()


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize("descending", [False, True])
def test_a_block_may_read_the_left_hand_matrix_in_parts(cell, descending, monkeypatch):
    N, H, multiprocessors, memory = 37, 97, 4, 75_000 if cell is TimeLSTM else 65_000
    depth = device.plan(N, H, 1, cell.num_gates * H, multiprocessors, memory).depth
    assert 0 < depth < cell.num_gates * H
    use(monkeypatch, multiprocessors=multiprocessors, memory=memory, descending=descending)
    Case(cell, N, 2, 3, H).check()


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
def test_two_launches_give_the_same_bits(cell, monkeypatch):
    use(monkeypatch)
    case = Case(cell, 5, 3, 4, 37)
    for a, b in zip(case.on_device(), case.on_device(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("relu", [False, True])
def test_an_rnn_may_have_a_rectifier(relu, monkeypatch):
    use(monkeypatch)
    case = Case(TimeRNN, 3, 1, 2, 5)
    _, (hs,), (dh,), (dA,) = case.arrays("float32")
    assert device.rnn_forward(case.xs, case.Wx, case.Wh, case.b, case.first, dA, hs, relu)
    a = case.xs[0] @ case.Wx + case.b + case.first[0] @ case.Wh
    close(hs[1], np.maximum(a, 0) if relu else np.tanh(a), 1)
    assert device.rnn_backward(case.Wh, hs, case.dhs, dh, dA, relu)
    slope = (a > 0) if relu else 1 - np.tanh(a) ** 2
    close(dA[0], (case.dhs[0] + case.last[0]) * slope, 1)


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0")
@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
def test_c_and_cuda_share_the_equations(cell, monkeypatch):
    use(monkeypatch)
    case = Case(cell, 5, 3, 4, 37)
    gates, states, last, written = case.arrays("float32")
    found = case.on_device()
    name, bhn = ("lstm", ()) if cell is TimeLSTM else ("gru", (case.bhn,))
    room = Workspace()
    forward, backward = (getattr(kernels, f"{name}_{way}") for way in ("forward", "backward"))
    assert forward(case.xs, case.Wx, case.Wh, case.b, *bhn, case.first, gates, *states, room)
    read = (states[1],) if cell is TimeLSTM else states
    assert backward(case.Wh, gates, *read, case.dhs, *last, *written, room)
    for cuda, c in zip(found, [gates, *states, *last, *written], strict=True):
        np.testing.assert_allclose(cuda, c, rtol=2e-6, atol=4e-6)  # sums in another order


BARRIER = "__syncthreads();"
STEP = "if (i >= N * H) return;"
FAULTS = {
    "no barrier before a part is brought": (
        f"{BARRIER} /* all have read what is in scratch */",
        "",
    ),
    "no barrier behind it": (f"count, stride);\n        {BARRIER}", "count, stride);"),
    "no barrier before the partial sums": (
        f"}}\n    {BARRIER}\n#pragma unroll",
        "}\n#pragma unroll",
    ),
    "no barrier behind them": (f"{BARRIER}\n    return groups", "return groups"),
    "no barrier before a block says that it has arrived": (
        f"{{\n    {BARRIER}\n    *met",
        "{\n    *met",
    ),
    "no wait for the other blocks": ("WAIT_WHILE(*(volatile", "if (0) (void)(*(volatile"),
    "no meeting": ("meet(counters, &met);", "(void)0;"),
    "one meeting too many": ("if (t + 1 < T) meet", "if (t + blockIdx.x < T) meet"),
    "counters are not set back": ("counters[0] = counters[1] = 0", "(void)0"),
    "a row too few": ("while (n < rows)", "while (n < rows - 1)"),
    "the last columns of a part": (
        "k < count && group < groups",
        "k < count - 4 && group < groups",
    ),
    "a unit too many": ("min(units, H - own.begin)", "units"),
    "a sequence too many": ("min(rows, N - first)", "rows"),
    "sums of rows that are not there": ("n < rows && c <", "c <"),
    "sums of columns that are not there": ("n < rows && c < own.columns", "n < rows"),
    "a part that is not padded": ("k < count ? __ldcg(", "1 ? __ldcg("),
    "the state of the step before": ("hs + t * N * H;", "hs + (t - 1) * N * H;"),
}
FAULTS_OF_STEPS = {
    "no guard at the end": (STEP, ""),
    "a thread too many": (STEP, "if (i > N * H) return;"),
    "a thread too few": (STEP, "if (i >= N * H - 1) return;"),
}


def is_seen(cell, sizes, monkeypatch, fault, **device_sizes):
    """Whether a window goes wrong, in one order of the threads at least."""
    for descending in (False, True):
        use(monkeypatch, descending=descending, **device_sizes)
        with_fault(monkeypatch, *fault)
        try:
            for _ in range(2):
                Case(cell, *sizes).check()
        except SEEN:
            return True
    return False


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_of_a_window_is_seen(cell, fault, monkeypatch):
    assert is_seen(cell, (37, 3, 4, 21), monkeypatch, FAULTS[fault], multiprocessors=4)


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU, TimeRNN])
@pytest.mark.parametrize("fault", FAULTS_OF_STEPS)
def test_a_planted_fault_of_a_step_is_seen(cell, fault, monkeypatch):
    assert is_seen(cell, (5, 3, 4, 37), monkeypatch, FAULTS_OF_STEPS[fault], memory=0)


def test_a_window_in_a_launch_that_is_not_cooperative_is_refused(monkeypatch):
    use(monkeypatch)
    monkeypatch.setattr(
        device,
        "_module",
        lambda raw, file, cooperative: raw(code=device.source(file), options=device.OPTIONS),
    )
    with pytest.raises(SEEN, match="every block that was started waits for another one"):
        Case(TimeLSTM, 2, 3, 3, 21).check()


H100 = 132, 232_448  # multiprocessors, bytes of shared memory that a block may have


@pytest.mark.parametrize("H", [100, 200, 256, 400, 512, 650, 1024, 1150])
@pytest.mark.parametrize("N", [1, 20, 40, 80])
def test_the_models_of_this_project_fit_an_h100_in_one_launch(H, N):
    for per_unit, K in ((4, H), (1, 4 * H), (3, H), (1, 3 * H)):
        window = device.plan(N, H, per_unit, K, *H100)
        assert window is not None
        assert window.blocks <= H100[0] and window.shared <= H100[1]
        assert window.units * (window.blocks - 1) < H <= window.units * window.blocks


@pytest.mark.parametrize(("per_unit", "K"), [(4, 1150), (1, 4600)])
def test_where_a_large_layer_leaves_little_room_fewer_threads_take_it(per_unit, K):
    multiprocessors, memory = 114, H100[1]  # an H100 on PCIe
    window = device.plan(20, 1150, per_unit, K, multiprocessors, memory)
    assert window.blocks <= multiprocessors and window.shared <= memory
    assert window.threads in range(device.THREADS // 2, device.THREADS, 32)


@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize("descending", [False, True])
def test_a_window_with_little_room_is_that_of_numpy(cell, descending, monkeypatch):
    N, H, multiprocessors, memory = 20, 64, 2, 46_000 if cell is TimeLSTM else 36_000
    use(monkeypatch, multiprocessors=multiprocessors, memory=memory, descending=descending)
    for per_unit, K in ((cell.num_gates, H), (1, cell.num_gates * H)):
        window = device.plan(N, H, per_unit, K, multiprocessors, memory)
        assert 0 < window.threads < device.plan(N, H, per_unit, K, multiprocessors, 100_000).threads
    Case(cell, N, 2, 3, H).check()


def test_what_does_not_fit_is_done_step_by_step(monkeypatch):
    assert device.plan(20, 2000, 4, 2000, *H100) is None
    assert device.plan(20, 650, 4, 650, 40, 65_536) is None  # a T4
    use(monkeypatch, memory=0)
    Case(TimeLSTM, 2, 2, 3, 5).check()
    assert device.choices()["LSTM forward"].startswith("a kernel a step")
    use(monkeypatch)
    Case(TimeLSTM, 2, 2, 3, 5).check()
    assert device.choices()["LSTM forward"].startswith("a window in one launch, 2 blocks")


def test_other_arrays_and_a_word_in_the_environment_leave_it_to_cupy(monkeypatch):
    use(monkeypatch)
    case = Case(TimeRNN, 2, 2, 3, 5)
    _, states, last, written = case.arrays("float32")
    arguments = [case.Wh, *states, case.dhs, *last, *written, False]
    for k, odd in ((0, case.Wh.astype("float64")), (2, case.dhs[:, ::2]), (2, case.dhs[:, :0])):
        changed = [odd if j == k else x for j, x in enumerate(arguments)]
        assert not device.rnn_backward(*changed)
        assert device.choices()["RNN backward"].startswith("CuPy: ")
    monkeypatch.setenv("TIMELAYERS_CUDA", "off")
    device._wanted.cache_clear()
    assert not device.rnn_backward(*arguments)
    assert device.choices()["RNN backward"] == "CuPy: TIMELAYERS_CUDA=off"
    monkeypatch.setenv("TIMELAYERS_CUDA", "perhaps")
    device._wanted.cache_clear()
    with pytest.raises(ValueError, match=r"TIMELAYERS_CUDA: expected one of 1, on, .*'perhaps'"):
        device.rnn_backward(*arguments)
