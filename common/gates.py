"""The order of the gates in one (·, kH) matrix: written here, once.

LSTM: f, g, i, o (forget, candidate, input, output). GRU: r, z, n (reset, update, candidate).
PyTorch stores i, f, g, o for its LSTM and r, z, n for its GRU.
"""

from __future__ import annotations

from common.np import Array, np

LSTM_GATES = "fgio"
GRU_GATES = "rzn"
TORCH_LSTM_GATES = "ifgo"


def split_gates(A: Array, gates: str = LSTM_GATES) -> tuple[Array, ...]:
    """Views (·, H) of the gate blocks of ``A`` (·, kH), in the project's order."""
    H = A.shape[-1] // len(gates)
    return tuple(A[..., k * H : (k + 1) * H] for k in range(len(gates)))


def reorder_gates(A: Array, source: str, target: str) -> Array:
    """Copy of ``A`` (·, kH) with its gate blocks moved from order ``source`` to ``target``.

    Raises:
        ValueError: where the two orders do not name the same gates, or kH is not divisible by k.
    """
    if sorted(source) != sorted(target) or A.shape[-1] % len(source):
        raise ValueError(
            f"reorder_gates: cannot take {A.shape} from order {source!r} to {target!r}"
        )
    block = dict(zip(source, split_gates(A, source), strict=True))
    return np.concatenate([block[gate] for gate in target], axis=-1)
