"""A run whose checkpoint is of the version that kept random generators in it."""

from dataclasses import replace

import pytest

from common.files.tensors import read_checkpoint, write_checkpoint
from tests.builders import generator
from tests.train.processes import TEXT
from train import better_rnnlm, evaluate
from train.run.saved_options import saved_options

SIZES = {"wordvec_size": 6, "hidden_size": 6, "batch_size": 8, "time_size": 11}


@pytest.fixture
def older_run(tmp_path):
    """The folder of one epoch, with generators in its checkpoint as that version had them."""
    text = tmp_path / "cats.txt"
    text.write_text(TEXT, encoding="utf-8")
    folder = tmp_path / "run"
    better_rnnlm.main(better_rnnlm.Options(corpus=str(text), out=folder, epochs=1, **SIZES))
    checkpoint = read_checkpoint(folder / "checkpoint.safetensors")
    trainer, state = checkpoint["trainer"], generator().bit_generator.state
    del trainer["seed"], trainer["model"]["masks"]
    trainer["rng"], trainer["model"]["generators"] = state, [state]
    checkpoint["version"] = "0.0.9"
    write_checkpoint(folder / "checkpoint.safetensors", checkpoint)
    return folder


def test_it_is_not_gone_on_from_and_says_by_which_version_it_is(older_run):
    options = replace(saved_options("better_rnnlm", better_rnnlm.Options, older_run), epochs=2)
    before = (older_run / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"made by an earlier version \(0\.0\.9\)") as refused:
        better_rnnlm.main(options)
    assert "\n" not in str(refused.value)
    assert (older_run / "weights.safetensors").read_bytes() == before


def test_its_weights_are_measured_as_before(older_run, capsys):
    capsys.readouterr()
    evaluate.main(evaluate.Options(run=older_run))
    assert "test" in capsys.readouterr().out
