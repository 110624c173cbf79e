"""The LSTM's time loop: compiled for a whole window, or the NumPy lines that it stands for.

Shapes: Wh (H, 4H), gates and dA (T, N, 4H) in the order f, g, i, o; hs and cs (T + 1, N, H),
index t before step t.
"""

from __future__ import annotations

from common import native
from common.gates import split_gates
from common.np import Array, np
from common.parallel import one_thread_if_small
from common.products import affine
from common.time_layers.native_window import num_threads_for, packed_form
from common.workspace import Workspace


def forward_window(
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    gates: Array,
    hs: Array,
    cs: Array,
    workspace: Workspace,
) -> None:
    """Fill ``gates`` with f, g, i, o; ``hs`` and ``cs`` with the states after ``xs`` (T, N, D).

    The first state is in ``hs[0]`` and ``cs[0]``.
    """
    (T, N, D), H = xs.shape, len(Wh)
    kernels = native.library(xs, Wx, Wh, b, gates, hs, cs)
    few_rows = kernels is not None and N * T < native.FEW_ROWS
    if not few_rows:  # the kernel does it for them
        affine(xs, Wx, b, out=gates)
    if kernels is not None:
        packed = None if few_rows else packed_form(kernels, Wh, workspace)
        at = map(native.address, (xs, Wx, b, Wh, gates, hs, cs, packed))
        kernels.lstm_forward(*at, T, N, D, H, num_threads_for(kernels, Wh, N))
        return

    # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5, so one tanh serves all four gates:
    # gate = scale * tanh(scale * a) + shift
    f, g, i, o = split_gates(np.full(4 * H, 0.5, dtype=gates.dtype))
    g[...] = 1
    scale = np.concatenate([f, g, i, o])
    shift = 1 - scale
    gi = np.empty_like(hs[0])
    with one_thread_if_small(hs[0], Wh):
        for t in range(T):
            A = gates[t]
            A += hs[t] @ Wh
            A *= scale
            np.tanh(A, out=A)
            A *= scale
            A += shift
            f, g, i, o = split_gates(A)
            np.multiply(f, cs[t], out=cs[t + 1])
            cs[t + 1] += np.multiply(g, i, out=gi)
            np.tanh(cs[t + 1], out=hs[t + 1])
            hs[t + 1] *= o


def backward_window(
    Wh: Array,
    gates: Array,
    cs: Array,
    dhs: Array,
    dh: Array,
    dc: Array,
    dA: Array,
    workspace: Workspace,
) -> None:
    """Write dA of every step; ``dh`` and ``dc`` (N, H) go from the last state to the first."""
    (T, N, _), H = gates.shape, len(Wh)
    kernels = native.library(Wh, gates, cs, dhs, dh, dc, dA)
    if kernels is not None and N * T >= native.FEW_ROWS:
        arrays = (Wh, gates, cs, dhs, dh, dc, dA, packed_form(kernels, Wh, workspace))
        at = map(native.address, arrays)
        kernels.lstm_backward(*at, T, N, H, num_threads_for(kernels, Wh, N))
        return

    # Everything that does not wait for the next step is done for all steps at once:
    # the gate's own derivative times what the gate multiplies.
    f, g, i, o = split_gates(gates)
    np.multiply(gates, 1 - gates, out=dA)
    dA_f, dA_g, dA_i, dA_o = split_gates(dA)
    dA_f *= cs[:T]
    np.multiply(1 - g**2, i, out=dA_g)
    dA_i *= g
    tanh_cs = np.tanh(cs[1:])
    dA_o *= tanh_cs
    dc_dh = o * (1 - tanh_cs**2)
    dA_fgi = dA[..., : 3 * H].reshape(T, N, 3, H)  # the three that are reached through c
    with one_thread_if_small(dh, Wh):
        for t in reversed(range(T)):
            dh += dhs[t]
            dc += dh * dc_dh[t]
            dA_fgi[t] *= dc[:, None, :]
            dA_o[t] *= dh
            dc *= f[t]
            np.matmul(dA[t], Wh.T, out=dh)
