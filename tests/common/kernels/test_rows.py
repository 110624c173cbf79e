"""Rows added to the rows of a table."""

import numpy as np
import pytest

from common import kernels
from common.kernels.passes import add_rows
from common.np import np as xp
from common.np import to_cpu
from tests.builders import floats, generator


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_row_is_added_as_often_as_its_id_occurs(dtype, turned, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    rng = generator()
    before, rows = (to_cpu(floats(rng, size, 5, dtype=dtype)) for size in (7, 30))
    ids = rng.integers(0, 6, 30)  # the last row of the table is not asked for
    expected = before.copy()
    np.add.at(expected, ids, rows)
    table = xp.asarray(before.T.copy()).T if turned else xp.asarray(before)
    add_rows(table, xp.asarray(ids), xp.asarray(rows))
    np.testing.assert_allclose(to_cpu(table), expected, rtol=1e-5, atol=1e-6)


def test_ids_of_any_integer_type():
    for kind in ("int32", "uint8", "int64"):
        table = np.zeros((4, 2), dtype="float32")
        add_rows(table, np.array([3, 3, 0], dtype=kind), np.ones((3, 2), dtype="float32"))
        assert table[:, 0].tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize(
    ("ids", "shape", "message"),
    [
        ([0, 4], (2, 2), "ids in 0..3, got 4"),
        ([-1, 0], (2, 2), "ids in 0..3, got -1"),
        ([0, 1], (3, 2), r"rows of shape \(2, 2\), got \(3, 2\)"),
        ([0, 1], (2, 3), r"rows of shape \(2, 2\), got \(2, 3\)"),
    ],
)
def test_what_would_write_outside_the_table_is_refused(ids, shape, message):
    table = np.zeros((4, 2), dtype="float32")
    with pytest.raises(ValueError, match=f"add_rows: expected {message}"):
        add_rows(table, np.array(ids), np.ones(shape, dtype="float32"))
    assert not table.any()
