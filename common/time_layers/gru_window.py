"""The GRU's time loop: compiled for a whole window, or the NumPy lines that it stands for.

Shapes: Wh (H, 3H), gates and its gradients (T, N, 3H) in the order r, z, n; hs (T + 1, N, H),
index t before step t; hns (T, N, H), what r multiplies; bhn (H,).
"""

from __future__ import annotations

from common import native
from common.gates import GRU_GATES, split_gates
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
    bhn: Array,
    gates: Array,
    hs: Array,
    hns: Array,
    workspace: Workspace,
) -> None:
    """Fill ``gates`` with r, z, n, ``hns``, and ``hs`` with the states after ``xs`` (T, N, D).

    The first state is in ``hs[0]``.
    """
    (T, N, D), H = xs.shape, len(Wh)
    kernels = native.library(xs, Wx, Wh, b, bhn, gates, hs, hns)
    few_rows = kernels is not None and N * T < native.FEW_ROWS
    if not few_rows:  # the kernel does it for them
        affine(xs, Wx, b, out=gates)
    if kernels is not None:
        packed = None if few_rows else packed_form(kernels, Wh, workspace)
        at = map(native.address, (xs, Wx, b, Wh, bhn, gates, hs, hns, packed))
        kernels.gru_forward(*at, T, N, D, H, num_threads_for(kernels, Wh, N))
        return

    with one_thread_if_small(hs[0], Wh):
        for t in range(T):
            h_Wh = hs[t] @ Wh
            rz, n = gates[t, :, : 2 * H], gates[t, :, 2 * H :]
            rz += h_Wh[:, : 2 * H]
            rz *= 0.5  # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5
            np.tanh(rz, out=rz)
            rz += 1
            rz *= 0.5
            r, z = rz[:, :H], rz[:, H:]
            np.add(h_Wh[:, 2 * H :], bhn, out=hns[t])
            n += r * hns[t]
            np.tanh(n, out=n)
            np.add(n, z * (hs[t] - n), out=hs[t + 1])  # (1 - z) n + z h_prev


def backward_window(
    Wh: Array,
    gates: Array,
    hs: Array,
    hns: Array,
    dhs: Array,
    dh: Array,
    dA: Array,
    dAh: Array,
    workspace: Workspace,
) -> None:
    """Write dA and dAh of every step; ``dh`` (N, H) goes from the last state to the first.

    ``dA`` is the gradient of xs Wx + b, ``dAh`` that of h_prev Wh.
    """
    T, N, H = hns.shape
    kernels = native.library(Wh, gates, hs, hns, dhs, dh, dA, dAh)
    if kernels is not None and N * T >= native.FEW_ROWS:
        arrays = (Wh, gates, hs, hns, dhs, dh, dA, dAh, packed_form(kernels, Wh, workspace))
        at = map(native.address, arrays)
        kernels.gru_backward(*at, T, N, H, num_threads_for(kernels, Wh, N))
        return

    # As in the LSTM: first, for all steps at once, what dh will be multiplied by.
    r, z, n = split_gates(gates, GRU_GATES)
    dA_r, dA_z, dA_n = split_gates(dA, GRU_GATES)
    np.multiply(1 - z, 1 - n**2, out=dA_n)
    np.multiply(z * (1 - z), hs[:T] - n, out=dA_z)
    np.multiply(r * (1 - r), hns * dA_n, out=dA_r)
    dAh[...] = dA
    split_gates(dAh, GRU_GATES)[2][...] *= r
    with one_thread_if_small(dh, Wh):
        for t in reversed(range(T)):
            dh += dhs[t]
            by_gate = dh[:, None, :]
            dA[t].reshape(N, 3, H)[...] *= by_gate
            dAh[t].reshape(N, 3, H)[...] *= by_gate
            dh *= z[t]
            dh += dAh[t] @ Wh.T
