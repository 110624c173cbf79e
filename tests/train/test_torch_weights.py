"""From a run to PyTorch's layout and back to a run, without PyTorch."""

import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file

from common.files.tensors import read_tensors
from datasets import load_corpus
from tests.builders import PATIENCE, floats, generator, same
from tests.train.run.test_command import command
from tests.train.test_import_book import MODELS, save_as_the_book, trained
from tests.train.test_import_book import corpus as corpus  # the fixture
from train import import_book, torch_weights
from train.run.saved_run import open_run


@pytest.fixture
def run(corpus, tmp_path):
    """Makes a run of a model by name; returns its folder and the path of its corpus."""

    def run(name):
        file = tmp_path / "book.pkl"
        save_as_the_book(trained(name, load_corpus(corpus).vocab_size), file)
        out = tmp_path / "run"
        import_book.main(import_book.Options(file, name, corpus=str(corpus), out=out))
        return out, corpus

    return run


@pytest.mark.parametrize("name", MODELS)
def test_a_run_comes_back_from_pytorchs_layout_to_the_last_bit(name, run, tmp_path, capsys):
    out, corpus = run(name)
    file, back = tmp_path / "weights.safetensors", tmp_path / "back"
    torch_weights.export_weights(torch_weights.ExportOptions(out, file))
    _, about = read_tensors(file)  # the checksum holds
    words = load_corpus(corpus).vocabulary_hash()
    assert about == {
        "layout": "PyTorch",
        "model": MODELS[name](10).__class__.__name__,
        "vocabulary": words,
    }
    torch_weights.import_weights(
        torch_weights.ImportOptions(file, name, corpus=str(corpus), out=back)
    )
    for got, want in zip(open_run(back)[0].params, open_run(out)[0].params, strict=True):
        same(got, want)
    assert (back / "results.json").read_bytes() == (out / "results.json").read_bytes()
    assert "tensors of" in capsys.readouterr().out


def test_a_file_of_other_tensors_is_refused_and_nothing_written(run, tmp_path):
    out, corpus = run("rnnlm")
    options = torch_weights.ImportOptions(
        out / "weights.safetensors", "rnnlm", corpus=str(corpus), out=tmp_path / "back"
    )
    with pytest.raises(ValueError, match=r"expected the matrices encoder\.weight .*embedding\.W"):
        torch_weights.import_weights(options)
    assert not (tmp_path / "back").exists()


def test_a_file_of_another_module_is_refused_and_nothing_written(run, tmp_path):
    out, corpus = run("better_rnnlm")
    file = tmp_path / "weights.safetensors"
    torch_weights.export_weights(torch_weights.ExportOptions(out, file))
    options = torch_weights.ImportOptions(file, "rnnlm", corpus=str(corpus), out=tmp_path / "back")
    with pytest.raises(ValueError, match=r"rnn\.weight_ih_l1 is not known"):
        torch_weights.import_weights(options)
    assert not (tmp_path / "back").exists()


def test_sizes_without_weights_behind_them_take_no_memory(tmp_path):
    file = tmp_path / "weights.safetensors"
    shapes = {"encoder.weight": (100_000, 1), "rnn.weight_hh_l0": (1, 100_000)}
    save_file({name: floats(generator(), *shape) for name, shape in shapes.items()}, file)
    with pytest.raises(ValueError, match="200,000 values are too few for a model of V 100,000"):
        torch_weights.import_weights(torch_weights.ImportOptions(file, "rnnlm"))


def test_an_altered_export_is_refused(run, tmp_path):
    out, corpus = run("rnnlm")
    file = tmp_path / "weights.safetensors"
    torch_weights.export_weights(torch_weights.ExportOptions(out, file))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert load_file(file)  # safetensors by itself sees nothing wrong
    options = torch_weights.ImportOptions(file, "rnnlm", corpus=str(corpus), out=tmp_path / "back")
    with pytest.raises(ValueError, match="its checksum does not fit its content"):
        torch_weights.import_weights(options)


def test_the_script_does_not_need_pytorch():
    program = "import sys, train.torch_weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export", "import"])
def test_help_says_how_the_module_is_written(name):
    done = command("train.torch_weights", name, "--help")
    assert done.returncode == 0
    for part in ("encoder = nn.Embedding", "rnn = nn.LSTM", "decoder = nn.Linear"):
        assert part in " ".join(done.stdout.split())
