"""The share of time at which a gate is as good as shut or open."""

import numpy as np

from train.inspection.saturation import saturated


def test_shares_are_counted_unit_by_unit():
    values = np.array([[0.05, 0.5], [0.95, 0.1], [0.0, 0.9], [1.0, 0.91]], "float32")
    left, right = saturated(values)
    assert left.tolist() == [0.5, 0.0]  # 0.1 itself is not below it
    assert right.tolist() == [0.5, 0.25]
    assert left.dtype == right.dtype == np.float32
