"""What one LSTM step does besides its product: a compiled kernel, or the NumPy lines it stands for.

Shapes: gates and dA (T, N, 4H) in the order f, g, i, o; cs and hs (T + 1, N, H), index t before
step t; tanh_cs (T, N, H).
"""

from __future__ import annotations

from collections.abc import Callable

from common import native
from common.gates import split_gates
from common.np import Array, np

__all__ = ["backward_step", "forward_step"]


def forward_step(
    gates: Array, h_Wh: Array, cs: Array, tanh_cs: Array, hs: Array
) -> Callable[[int], None]:
    """A function of t that turns x Wx + b + h Wh into gates, and these into c and h.

    ``h_Wh`` (N, 4H) holds the product with h[t] at the time of the call.
    """
    N, H = hs.shape[1:]
    kernels = native.library(gates, h_Wh, cs, tanh_cs, hs)
    if kernels is not None:
        gates_at, c_at, tanh_c_at, h_at = map(native.address, (gates, cs, tanh_cs, hs))
        h_Wh_at = native.address(h_Wh)
        row = N * H * gates.itemsize

        def step(t: int) -> None:
            kernels.lstm_step(
                gates_at + 4 * row * t,
                h_Wh_at,
                c_at + row * t,
                c_at + row * (t + 1),
                tanh_c_at + row * t,
                h_at + row * (t + 1),
                N,
                H,
            )

        return step

    # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5, so one tanh serves all four gates:
    # gate = scale * tanh(scale * a) + shift
    f, g, i, o = split_gates(np.full(4 * H, 0.5, dtype=gates.dtype))
    g[...] = 1
    scale = np.concatenate([f, g, i, o])
    shift = 1 - scale
    gi = np.empty_like(hs[0])

    def numpy_step(t: int) -> None:
        A = gates[t]
        A += h_Wh
        A *= scale
        np.tanh(A, out=A)
        A *= scale
        A += shift
        f, g, i, o = split_gates(A)
        np.multiply(f, cs[t], out=cs[t + 1])
        cs[t + 1] += np.multiply(g, i, out=gi)
        np.tanh(cs[t + 1], out=tanh_cs[t])
        np.multiply(o, tanh_cs[t], out=hs[t + 1])

    return numpy_step


def backward_step(
    gates: Array, cs: Array, tanh_cs: Array, dhs: Array, dh_next: Array, dc_next: Array, dA: Array
) -> Callable[[int], None]:
    """A function of t that writes dA[t] and takes ``dc_next`` (N, H) one step back, in place.

    ``dh_next`` (N, H) holds the gradient that comes through the product of step t + 1.
    """
    T, N, H = tanh_cs.shape
    kernels = native.library(gates, cs, tanh_cs, dhs, dh_next, dc_next, dA)
    if kernels is not None:
        gates_at, c_at, tanh_c_at = map(native.address, (gates, cs, tanh_cs))
        dh_at, dh_next_at, dc_at, dA_at = map(native.address, (dhs, dh_next, dc_next, dA))
        row = N * H * gates.itemsize

        def step(t: int) -> None:
            kernels.lstm_step_back(
                gates_at + 4 * row * t,
                c_at + row * t,
                tanh_c_at + row * t,
                dh_at + row * t,
                dh_next_at,
                dc_at,
                dA_at + 4 * row * t,
                N,
                H,
            )

        return step

    # Everything that does not wait for the next step is done for all steps at once:
    # the gate's own derivative times what the gate multiplies.
    f, g, i, o = split_gates(gates)
    np.multiply(gates, 1 - gates, out=dA)
    dA_f, dA_g, dA_i, dA_o = split_gates(dA)
    dA_f *= cs[:T]
    np.multiply(1 - g**2, i, out=dA_g)
    dA_i *= g
    dA_o *= tanh_cs
    dc_dh = o * (1 - tanh_cs**2)
    dA_fgi = dA[..., : 3 * H].reshape(T, N, 3, H)  # the three that are reached through c

    def numpy_step(t: int) -> None:
        dh = dhs[t] + dh_next
        dc = dc_next + dh * dc_dh[t]
        dA_fgi[t] *= dc[:, None, :]
        dA_o[t] *= dh
        np.multiply(dc, f[t], out=dc_next)

    return numpy_step
