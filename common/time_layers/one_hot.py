"""From token ids to one-hot rows."""

from __future__ import annotations

from common.base_layer import Layer, batch_first, check_sizes, time_major
from common.kernels.passes import take_rows
from common.np import Array, array_of, np


class TimeOneHot(Layer):
    """Row ``xs[n, t]`` of the identity matrix for every token.

    Args:
        vocab_size: V.
        dtype: of the rows.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, vocab_size: int, dtype: str = "float32") -> None:
        super().__init__()
        check_sizes(type(self).__name__, vocab_size=vocab_size)
        self.rows = np.eye(vocab_size, dtype=dtype)

    def forward(self, xs: Array) -> Array:
        """Ids (N, T) -> (N, T, V)."""
        xs = array_of(xs)
        self.expect_shape("xs", xs, "N", "T")
        self.expect_ids("xs", xs, len(self.rows))
        self.cache = (xs.shape,)
        ids = xs.T if xs.size == 1 else time_major(xs)  # a single one can stay on the host
        return batch_first(take_rows(self.rows, ids))

    def backward(self, dys: Array) -> None:
        """(N, T, V) -> nothing, since ids have no gradient."""
        (shape,) = self.saved()
        self.expect_shape("dys", dys, *shape, len(self.rows))
