"""The book's weight files, from a pickle to a run that can be evaluated and generates."""

import json
import pickle

import numpy as np
import pytest

from common.util import eval_perplexity_exact
from datasets import load_corpus
from models import BetterRnnlm, Rnnlm
from tests.builders import floats, generator, same
from tests.train.run.test_command import command
from train import evaluate, generate, import_book
from train.run.saved_run import open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 100
D = H = 6


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


MODELS = {
    "rnnlm": lambda V: Rnnlm(V, D, H + 1, rng=1),
    "better_rnnlm": lambda V: BetterRnnlm(V, D, H, rng=1),
}


def trained(name, V):
    """A model of normal numbers that float16 can hold."""
    model, rng = MODELS[name](V), generator(1)
    for param in model.params:
        param[...] = floats(rng, *param.shape, dtype="float16")
    return model


def save_as_the_book(model, path, keep_tied=True, dtype="float16", protocol=None):
    """``pickle.dump`` of every layer's parameters in order, as the book's BaseModel does it."""
    params = [param for layer in model.layers for param in layer.params]
    if not keep_tied:
        params = model.params
    with open(path, "wb") as file:
        pickle.dump([param.astype(dtype) for param in params], file, protocol)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("name", "keep_tied"), [("rnnlm", True), ("better_rnnlm", True), ("better_rnnlm", False)]
)
def test_a_run_made_of_a_book_file_is_the_model_that_was_saved(
    name, keep_tied, dtype, corpus, tmp_path, capsys
):
    V = load_corpus(corpus).vocab_size
    model = trained(name, V)
    file = save_as_the_book(model, tmp_path / "book.pkl", keep_tied, dtype)
    out = tmp_path / "run"
    import_book.main(import_book.Options(file, name, corpus=str(corpus), out=out))

    opened, text = open_run(out)
    for got, want in zip(opened.params, model.params, strict=True):
        same(got, want)
    exact = eval_perplexity_exact(model, text.test, text.first_id)
    results = json.loads((out / "results.json").read_text())
    assert results["test_exact"] == pytest.approx(exact, rel=1e-6)

    printed = capsys.readouterr().out
    evaluate.main(evaluate.Options(out))
    again = capsys.readouterr().out
    assert f"{exact:.2f}" in again and again in printed  # both protocols, both splits
    generate.main(generate.Options(out, prompt="the cat", length=5))
    assert capsys.readouterr().out.startswith("the cat ")


def test_without_the_corpus_the_run_is_made_and_the_figure_left_out(tmp_path, capsys):
    file = save_as_the_book(trained("rnnlm", 10_000), tmp_path / "book.pkl")
    out = tmp_path / "run"
    import_book.main(import_book.Options(file, "rnnlm", data_dir=tmp_path, out=out))
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "weights.safetensors"]
    assert "perplexity is not measured, because" in capsys.readouterr().out


def shapes_changed(params):
    params[1] = params[1][:, :-1]


def not_finite(params):
    params[2][0, 0] = np.nan


def one_more(params):
    params.append(params[-1])


def tie_broken(params):
    params[-2] = params[-2] + 1


def output_elsewhere(params):
    params[-2] = params[-2].T


def a_third_of_a_model(params):
    del params[2:]


def too_wide(params):
    """Three small arrays that speak of a model of 10**10 weights."""
    params[:] = [np.zeros((1, 100_000), "f2"), np.zeros(1, "f2"), np.zeros(100_000, "f2")]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rnnlm", shapes_changed, r"lstm\.Wx: expected \(6, 28\) float32, got \(6, 27\)"),
        ("rnnlm", not_finite, r"lstm\.Wh holds values that are not finite"),
        ("rnnlm", one_more, r"expected 6 arrays for Rnnlm \(embedding\.W, .*\), got 7"),
        ("rnnlm", a_third_of_a_model, r"expected embed_W \(V, D\), then Wx, Wh, b"),
        ("rnnlm", too_wide, "values are too few for a model of V 1, D 100,000 and H 100,000"),
        ("better_rnnlm", tie_broken, r"array 7 is not embedding\.W transposed"),
        ("better_rnnlm", output_elsewhere, r"array 7 is not embedding\.W transposed"),
        ("better_rnnlm", one_more, r"expected 8 arrays for BetterRnnlm .*, got 10"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_and_nothing_written(
    name, change, message, corpus, tmp_path
):
    model = trained(name, load_corpus(corpus).vocab_size)
    params = [param.astype("float16") for layer in model.layers for param in layer.params]
    change(params)
    file = tmp_path / "book.pkl"
    file.write_bytes(pickle.dumps(params))
    options = import_book.Options(file, name, corpus=str(corpus), out=tmp_path / "run")
    with pytest.raises(ValueError, match=message) as error:
        import_book.main(options)
    assert str(error.value).startswith(str(file))
    assert not (tmp_path / "run").exists()


def test_a_corpus_of_another_vocabulary_is_refused_and_nothing_written(corpus, tmp_path):
    file = save_as_the_book(trained("rnnlm", 50), tmp_path / "book.pkl")
    options = import_book.Options(file, "rnnlm", corpus=str(corpus), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"the weights have 50 words, corpus cats has \d+"):
        import_book.main(options)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_not_overwritten(corpus, tmp_path):
    V = load_corpus(corpus).vocab_size
    file = save_as_the_book(trained("rnnlm", V), tmp_path / "book.pkl")
    options = import_book.Options(file, "rnnlm", corpus=str(corpus), out=tmp_path / "run")
    import_book.main(options)
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        import_book.main(options)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before


def test_a_pickle_that_would_run_something_is_one_line_on_stderr(tmp_path):
    file = tmp_path / "evil.pkl"
    file.write_bytes(b"cos\nsystem\n(Vtouch " + str(tmp_path / "made").encode() + b"\ntR.")
    done = command("train.import_book", str(file), "--model", "rnnlm")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "it names 'os system'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_help_says_what_the_list_holds():
    done = command("train.import_book", "--help")
    assert done.returncode == 0
    assert "gates f, g, i, o" in done.stdout and "--corpus" in done.stdout
