"""The plain RNN with its gradient cut after one step."""

from __future__ import annotations

from common.base_layer import batch_first, time_major
from common.layers import RNN
from common.np import Array
from common.time_layers.rnn import TimeRNN


class TimeOneStepRNN(TimeRNN):
    """TimeRNN whose gradient is cut after one step: truncated BPTT in windows of length 1.

    The state still travels through all T steps; only ``backward`` differs. It hands all steps to
    the cell as the rows of one batch and drops the gradient of the state before each step.
    """

    def backward(self, dhs: Array) -> Array:
        """(N, T, H) -> dxs (N, T, D)."""
        Wx, Wh, b = self.params
        xs, hs = self.saved()
        (T, N, D), H = xs.shape, hs.shape[2]
        self.expect_shape("dhs", dhs, N, T, H)
        cell = RNN(Wx, Wh, b, self.nonlinearity)
        cell.grads = self.grads
        cell.forward(xs.reshape(T * N, D), hs[:T].reshape(T * N, H))
        dxs, dh_prevs = cell.backward(time_major(dhs, hs.dtype).reshape(T * N, H))
        self.dstate = (dh_prevs[:N],)
        return batch_first(dxs.reshape(T, N, D))
