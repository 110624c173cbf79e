"""Arrays come out of the page as they went in, or as near as the page says."""

import base64
import zlib

import numpy as np
import pytest

from train.inspection.packing import STEPS, pack, rounded, rounded_to_fit


def unpacked(packed):
    """What the page's script does."""
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), packed["type"])


@pytest.mark.parametrize("kind", ["uint8", "int32", "float32"])
def test_an_array_comes_back(kind):
    values = (np.arange(12) * 17).astype(kind).reshape(3, 4).T
    assert unpacked(pack(values)).tolist() == values.ravel().tolist()
    swapped = values.astype(values.dtype.newbyteorder())
    assert unpacked(pack(swapped)).tolist() == values.ravel().tolist()


def test_what_the_script_does_not_know_is_refused():
    with pytest.raises(TypeError, match="got float64"):
        pack(np.zeros(3))


@pytest.mark.parametrize("steps", STEPS)
def test_values_are_off_by_half_a_step_at_most(steps):
    values = np.random.default_rng(0).standard_normal((50, 6)).astype("float32")
    values[:, 2] = 0.25  # never changes
    values[:, 3] *= 1e-20
    kept = {name: unpacked(part) for name, part in rounded(values, steps).items()}
    codes = kept["codes"].reshape(6, 50).T
    assert codes.max() == steps
    again = kept["low"] + kept["step"] * codes
    assert (abs(again - values) <= 0.501 * kept["step"]).all()
    assert (again[:, 2] == 0.25).all()
    spread = values.max(axis=0) - values.min(axis=0)
    np.testing.assert_allclose(kept["step"], spread / steps, rtol=1e-5)


def test_the_most_steps_that_fit_are_taken():
    series = [np.random.default_rng(seed).random((100, 8)).astype("float32") for seed in (0, 1)]
    sizes = {}
    for steps in STEPS:
        packed = [rounded(values, steps) for values in series]
        sizes[steps] = sum(len(part["data"]) for each in packed for part in each.values())
    assert sizes[255] > sizes[31] > sizes[7]
    assert rounded_to_fit(series, sizes[255])[0] == 255
    assert rounded_to_fit(series, sizes[31])[0] == 31
    assert rounded_to_fit(series, sizes[31] - 1)[0] == 23
    steps, packed = rounded_to_fit(series, 10)  # nothing fits
    assert (steps, len(packed)) == (5, 2)
