"""Whatever stands in config.json: a run opens, or the error is one that a script reports."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import Rnnlm
from train import rnnlm
from train.run.folder import RunFolder
from train.run.saved_run import open_run

TEXT = "the cat sat .\nthe dog ran .\n" * 30


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a tiny model, and its config."""
    folder = tmp_path_factory.mktemp("any")
    text = folder / "cats.txt"
    text.write_text(TEXT, encoding="utf-8")
    options = rnnlm.Options(
        corpus=str(text),
        wordvec_size=2,
        hidden_size=2,
        batch_size=2,
        time_size=2,
        out=folder / "run",
    )
    RunFolder.create("rnnlm", "cats", options)
    V = options.load_corpus().vocab_size
    Rnnlm(V, 2, 2, rng=1).save_params(folder / "run" / "weights.safetensors")
    config = json.loads((folder / "run" / "config.json").read_text())
    model, _ = open_run(folder / "run")
    assert model.params[0].shape == (V, 2)
    return folder / "run", config


def open_or_refuse(folder, data):
    """Open with ``data`` as the config; what is raised must be what ``open_run`` promises."""
    (folder / "config.json").write_bytes(data)
    try:
        open_run(folder)
    except (ValueError, FileNotFoundError) as error:
        assert str(error)


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b"\xff\xfe")
@example(b'{"script": [], "options": {}}')
@example(b'{"script": {}, "options": {}}')
@example(b'{"script": "rnnlm", "options": []}')
@example(b'{"script": "rnnlm", "options": null}')
@example(b'{"script": "rnnlm", "options": {"resume": 3}}')
def test_any_content(run, data):
    open_or_refuse(run[0], data)


@settings(max_examples=40)
@given(st.data())
def test_any_value_of_any_option(run, data):
    folder, config = run
    options = dict(config["options"])
    # Sizes stay small: a model of any size is what the user asked for.
    name = data.draw(st.sampled_from(sorted(options)))
    value = data.draw(anything)
    options[name] = value
    open_or_refuse(folder, json.dumps({**config, "options": options}).encode())


@settings(max_examples=40)
@given(st.data())
def test_any_option_left_out_or_added(run, data):
    folder, config = run
    options = dict(config["options"])
    del options[data.draw(st.sampled_from(sorted(set(options) - {"corpus"})))]
    if data.draw(st.booleans()):
        options[data.draw(st.text(max_size=5))] = data.draw(anything)
    open_or_refuse(folder, json.dumps({**config, "options": options}).encode())


@settings(max_examples=40)
@given(cut=st.integers(0, 400), flip=st.integers(0, 255))
def test_a_spoilt_config(run, cut, flip):
    folder, config = run
    data = bytearray(json.dumps(config).encode())
    data[cut % len(data)] ^= flip
    open_or_refuse(folder, bytes(data))
    open_or_refuse(folder, bytes(data[:cut]))


def test_a_config_that_is_a_folder(run, tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(OSError):
        open_run(tmp_path)
