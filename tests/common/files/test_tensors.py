"""Named arrays and their description: whole and unaltered, or refused with a reason."""

import hashlib
import json
import random

import numpy as np
import pytest
from safetensors.numpy import save

from common.files.tensors import read_tensors, write_tensors
from models import Rnnlm
from tests.builders import D, H, V, generator, same, snapshot, tiny_model

ABOUT = {"step": 3, "lr": 0.1, "name": "déjà vu", "rates": [1e-300, None, True], "more": {"a": {}}}


def arrays():
    rng = generator()
    return {
        "W": rng.standard_normal((2, 3)).astype("float32"),
        "transposed": rng.standard_normal((3, 2)).T,
        "ids": np.arange(4, dtype="int32"),
        "mask": np.array([True, False]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), dtype="float16"),
    }


def refused(path):
    with pytest.raises(ValueError) as error:
        read_tensors(path)
    assert str(error.value).startswith(f"{path}: not a whole safetensors file (")
    return str(error.value)


def test_arrays_and_description_come_back_exactly(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, arrays(), ABOUT)
    tensors, about = read_tensors(path)
    assert about == ABOUT
    assert sorted(tensors) == sorted(arrays())
    for name, array in arrays().items():
        same(tensors[name], array)


def test_what_json_and_the_file_change_is_changed_before_the_checksum(tmp_path):
    big_endian = np.arange(3, dtype=">f4")
    write_tensors(tmp_path / "file", {"W": big_endian}, {2: "two", 10: "ten", "t": (1, 2)})
    tensors, about = read_tensors(tmp_path / "file")
    same(tensors["W"], np.arange(3, dtype="<f4"))
    assert about == {"2": "two", "10": "ten", "t": [1, 2]}


def test_a_foreign_description_may_speak_of_checksums(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(save({"W": np.ones(3)}, metadata={"note": "sha256 of the data: see about"}))
    same(read_tensors(path)[0]["W"], np.ones(3))


def test_nothing_at_all_is_a_file_too(tmp_path):
    write_tensors(tmp_path / "file", {}, {})
    assert read_tensors(tmp_path / "file") == ({}, {})


def test_a_file_made_elsewhere_is_read_without_a_description(tmp_path):
    path = tmp_path / "file"
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(save({"W": np.ones(3)}, metadata=metadata))
        tensors, about = read_tensors(path)
        same(tensors["W"], np.ones(3))
        assert about == {}
    with_null = b'{"__metadata__":null}'
    path.write_bytes(len(with_null).to_bytes(8, "little") + with_null)
    assert read_tensors(path) == ({}, {})


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "missing")


def test_what_does_not_belong_together_is_refused(tmp_path):
    """The arrays of one file under the description of another."""
    write_tensors(tmp_path / "a", {"W": np.ones(3)}, {"step": 1})
    write_tensors(tmp_path / "b", {"W": np.ones(3)}, {"step": 2})
    mixed = (tmp_path / "a").read_bytes().replace(b'step\\": 1', b'step\\": 2')
    assert len(mixed) == len((tmp_path / "b").read_bytes())
    (tmp_path / "c").write_bytes(mixed)
    assert "checksum" in refused(tmp_path / "c")


def with_metadata(text):
    return save({}, metadata={"time_layers": text})


@pytest.mark.parametrize("about", ["[1]", "3", "null", "[" * 100_000, "{", "", '"x"'])
def test_a_description_that_is_no_object_is_refused_whatever_its_checksum(tmp_path, about):
    path = tmp_path / "file"
    digest = hashlib.sha256(about.encode()).hexdigest()
    path.write_bytes(with_metadata(f'{{"about": {about}, "sha256": "{digest}"}}'))
    refused(path)
    path.write_bytes(with_metadata(about))
    refused(path)


def test_half_of_description_and_checksum_is_refused(tmp_path):
    path = tmp_path / "file"
    digest = hashlib.sha256(b"{}").hexdigest()
    for text in ('{"about": {}}', f'{{"sha256": "{digest}"}}', '{"about": {}, "sha256": 3}'):
        path.write_bytes(with_metadata(text))
        refused(path)
    path.write_bytes(
        save({}, metadata={"another_name": f'{{"about": {{}}, "sha256": "{digest}"}}'})
    )
    refused(path)


@pytest.mark.parametrize(
    ("dtype", "shape", "end"),
    [
        ("F32", [2], 4),
        ("F32", [1], 2**63),
        ("F32", [-1], 4),
        ("F32", [2**62, 4], 0),
        ("F32", [0, 2**62], 0),
        ("F32", [0, 2**64 - 1], 0),
        ("F32", [0] + [1] * 100, 0),
        ("BF16", [2], 4),  # which NumPy does not have
        ("F8_E4M3", [4], 4),
        ("F99", [1], 4),
        ("F32", "1", 4),
        (None, [1], 4),
    ],
)
def test_a_tensor_that_does_not_fit_its_bytes_or_numpy_is_refused(tmp_path, dtype, shape, end):
    header = json.dumps({"W": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    path = tmp_path / "file"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    refused(path)


# ---- corruption ----


def test_a_file_cut_off_at_any_length_is_refused(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, {"W": np.ones((2, 1), dtype="float32")}, {"step": 3})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)
    path.write_bytes(data + b"\0")
    refused(path)


def spoilt(data, rng):
    """``data`` with one to four bits flipped, or bytes set, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(data))
        changed[position] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    return bytes(changed)


def test_flipped_bytes_are_refused_or_change_nothing(tmp_path):
    """Nothing is changed where a blank behind the header becomes another kind of blank."""
    path, rng = tmp_path / "file", random.Random(1)
    write_tensors(path, arrays(), ABOUT)
    data = path.read_bytes()
    loaded = 0
    for _ in range(800):
        path.write_bytes(spoilt(data, rng))
        try:
            tensors, about = read_tensors(path)
        except ValueError:
            continue
        loaded += 1
        assert about == ABOUT
        for name, array in arrays().items():
            same(tensors[name], array)
    assert loaded < 80


def test_flipped_bytes_in_a_weights_file_never_reach_the_model(tmp_path):
    path, rng = tmp_path / "weights", random.Random(2)
    saved, model = tiny_model("Rnnlm", seed=1), tiny_model("Rnnlm", seed=2)
    saved.save_params(path)
    data, before = path.read_bytes(), snapshot(model)
    for _ in range(400):
        path.write_bytes(spoilt(data, rng))
        try:
            model.load_params(path)
        except ValueError as error:
            assert str(path) in str(error)
            for now, then in zip(model.params, before, strict=True):
                same(now, then)
            continue
        for now, want in zip(model.params, saved.params, strict=True):
            same(now, want)
        for param, then in zip(model.params, before, strict=True):
            param[...] = then


def test_every_byte_of_every_weight_counts(tmp_path):
    path, model = tmp_path / "weights", Rnnlm(2, 1, 1)
    model.save_params(path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for position in range(start, len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="checksum"):
            model.load_params(path)


def test_a_weights_file_holds_the_shapes_it_says(tmp_path):
    path = tmp_path / "weights"
    tiny_model("Rnnlm").save_params(path)
    tensors, about = read_tensors(path)
    assert about == {"model": "Rnnlm"}
    assert tensors["embedding.W"].shape == (V, D) and tensors["lstm.Wh"].shape == (H, 4 * H)
