"""How far back runs look: what is left behind, names, texts of one's own, what is refused."""

import csv
import json
import math

import numpy as np
import pytest

from common.perplexity.effective_context import gradient_norms, loss_increases, sample_texts
from models import AwdRnnlm, BetterRnnlm, Rnnlm
from tests.builders import generator
from tests.train.processes import TEXT
from train import better_rnnlm, effective_context, rnnlm
from train.context_report import Look, gradient_table, increase_table
from train.effective_context import kind_and_size, names_of
from train.run.saved_run import open_model, open_run

SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 4, "time_size": 7}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs by name; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cats.txt").write_text(TEXT, encoding="utf-8")
    (folder / "dogs.txt").write_text(TEXT.replace("cat", "dog"), encoding="utf-8")
    text = {"corpus": str(folder / "cats.txt")}
    rnnlm.main(rnnlm.Options(out=folder / "rnn", cell="rnn", **text, **SIZES))
    rnnlm.main(rnnlm.Options(out=folder / "lstm", **text, **SIZES))
    rnnlm.main(rnnlm.Options(out=folder / "chars", level="char", **text, **SIZES))
    other = {**SIZES, "corpus": str(folder / "dogs.txt"), "max_vocab": 8}
    rnnlm.main(rnnlm.Options(out=folder / "dogs", **other))
    better_rnnlm.main(better_rnnlm.Options(out=folder / "better", **text, **SIZES))
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


def measured(out, *paths, **options):
    """What the command leaves in results.json."""
    options = {"targets": 30, "reach": 8, "warm_up": 4, **options}
    effective_context.main(effective_context.Options(tuple(paths), out=out, **options))
    return json.loads((out / "results.json").read_text())


def test_a_run_leaves_figures_of_every_model_a_table_and_a_picture(runs, tmp_path, capsys):
    results = measured(tmp_path / "out", runs["rnn"], runs["better"])
    shown = capsys.readouterr().out
    assert [each["name"] for each in results["models"]] == ["RNN", "LSTM"]
    assert (results["targets"], results["length"], results["perturb"]) == (30, 12, "replace")
    assert results["text"] == "valid text of cats" and results["text"] in shown
    for each, name in zip(results["models"], ("rnn", "better"), strict=True):
        model, corpus = open_run(runs[name])
        rng = generator(1)
        texts = sample_texts(corpus.valid, 12, 30, rng)
        norms = gradient_norms(model, texts, 8)
        assert each["kept"] == [1, 2, 3, 5, 7, 8]
        losses, increases = loss_increases(model, texts, each["kept"], "replace", corpus.valid, rng)
        assert each["gradient"] == pytest.approx(norms.mean(axis=0).tolist())
        assert each["increase"] == pytest.approx(increases.mean(axis=0).tolist())
        error = increases[:, 0].std(ddof=1) / math.sqrt(30)
        assert each["increase_error"][0] == pytest.approx(error)
        assert each["perplexity"] == pytest.approx(math.exp(losses.mean()))
        assert f"{each['gradient'][0]:.2e}" in shown and f"{each['increase'][0]:+.4f}" in shown
    picture = (tmp_path / "out" / "effective_context.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 200_000

    rows = list(
        csv.DictReader((tmp_path / "out" / "effective_context.csv").read_text().splitlines())
    )
    assert len(rows) == 2 * (8 + 6)
    first = rows[0]
    assert (first["name"], first["measure"], first["k"]) == ("RNN", "gradient", "0")
    assert float(first["mean"]) == results["models"][0]["gradient"][0]
    last = rows[-1]
    assert (last["name"], last["measure"], last["k"]) == ("LSTM", "increase", "8")
    assert float(last["standard_error"]) == results["models"][1]["increase_error"][-1]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["script"] == "effective_context"
    assert config["options"]["runs"] == [str(runs["rnn"]), str(runs["better"])]


@pytest.mark.parametrize("perturb", ["shuffle", "drop"])
def test_what_becomes_of_the_words_further_back_is_chosen(perturb, runs, tmp_path, capsys):
    results = measured(tmp_path / "out", runs["lstm"], perturb=perturb, split="test")
    assert results["perturb"] == perturb and results["text"] == "test text of cats"
    assert "when words further back are " in capsys.readouterr().out
    again = measured(tmp_path / "again", runs["lstm"], perturb=perturb, split="test")
    other = measured(tmp_path / "other", runs["lstm"], perturb=perturb, split="test", seed=2)
    [a, b, c] = [each["models"][0]["increase"] for each in (results, again, other)]
    assert a == b != c


def test_a_text_of_ones_own_needs_no_corpus(runs, tmp_path, capsys):
    file = tmp_path / "own.txt"
    file.write_text("the dog ran to the mat .\n" * 20, encoding="utf-8")
    _, words = open_model(runs["dogs"])
    unknown = 20 * sum(word not in words.word_to_id for word in ("ran", "to", "mat"))
    results = measured(tmp_path / "out", runs["lstm"], runs["dogs"], text=file)
    assert results["text"] == str(file) and results["targets"] == 30
    assert f"note: {unknown} of 160 tokens of {file} are <unk>" in capsys.readouterr().err


def test_characters_are_called_so(runs, tmp_path, capsys):
    results = measured(tmp_path / "out", runs["chars"])
    assert results["unit"] == "characters"
    assert "characters kept" in capsys.readouterr().out


def test_what_is_measured_is_kept_when_a_later_run_fails(runs, tmp_path, monkeypatch):
    measure, calls = effective_context.measure, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(effective_context, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path / "out", runs["rnn"], runs["lstm"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["name"] for each in results["models"]] == ["RNN"]
    assert len((tmp_path / "out" / "effective_context.csv").read_text().splitlines()) == 15


# ---- names and tables ----


def test_models_have_the_names_that_people_give_them():
    assert kind_and_size(Rnnlm(9, 4, 5, rng=1)) == ("LSTM", "5")
    assert kind_and_size(Rnnlm(9, 4, 5, rng=1, cell="gru", num_layers=2)) == ("GRU", "2 × 5")
    assert kind_and_size(Rnnlm(9, 4, 5, rng=1, cell="min_gru"))[0] == "MinGRU"
    assert kind_and_size(AwdRnnlm(9, 4, 6, 2, rng=1)) == ("AWD-LSTM", "2 × 6")


def test_names_say_as_little_as_tells_the_models_apart(tmp_path):
    lstm, gru = Rnnlm(9, 4, 5, rng=1), Rnnlm(9, 4, 5, rng=1, cell="gru")
    wide = BetterRnnlm(9, 6, 6, rng=1)
    paths = [tmp_path / name for name in ("a", "b", "c")]
    assert names_of([lstm, gru], paths[:2]) == ["LSTM", "GRU"]
    assert names_of([lstm, gru, wide], paths) == ["LSTM, 5", "GRU, 5", "LSTM, 2 × 6"]
    assert names_of([lstm, lstm, gru], paths) == ["LSTM, 5 (a)", "LSTM, 5 (b)", "GRU, 5"]
    assert names_of([lstm, gru], paths[:2], ["small", "gated"]) == ["small", "gated"]


def look_of(name, context, reach):
    errors = [0.001] * 3
    return Look(
        *("run", name, 99.5, [4.0, 2.0, 1.0], errors, [1, 2, 3], [0.5, 0.25, 0.002], errors),
        *(context, reach, 1.0),
    )


def test_tables_have_a_column_a_model_and_say_where_the_end_is_not_reached():
    looks = [look_of("RNN", 3, 2), look_of("LSTM", None, None)]
    head, *rows = (line.split() for line in gradient_table(looks))
    assert head == ["steps", "back", "RNN", "LSTM"]
    assert rows[0] == ["0", "4.00e+00", "4.00e+00"]
    assert rows[-1] == ["below", "1", "%", "from", "2", "more", "than", "2"]
    head, *rows = (line.split() for line in increase_table(looks, "words"))
    assert rows[0] == ["1", "+0.5000", "±", "0.0010", "+0.5000", "±", "0.0010"]
    assert rows[-2] == ["effective", "context", "3", "more", "than", "3"]
    assert rows[-1] == ["perplexity", "99.50", "99.50"]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "expected a run or more, got none"),
        (["rnn"], {"labels": ("a", "b")}, "--labels: expected one for each of 1 runs, got 2"),
        (["rnn"], {"reach": 0}, "--reach: expected 1 or more, got 0"),
        (["rnn"], {"targets": 1}, "--targets: expected 2 or more, got 1"),
        (["rnn"], {"warm_up": -1}, "--warm-up: expected 0 or more, got -1"),
        (["rnn"], {"text": "own.txt", "corpus": "c.txt"}, "find the text of --split; leave them"),
        (["rnn", "dogs"], {}, "cannot be compared with .*its vocabulary has 8 tokens and not 10"),
        (["rnn"], {"reach": 5000}, r"expected a text of 5,006 tokens or more, cats has \d+"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_there_is_a_folder(
    names, options, message, runs, tmp_path
):
    with pytest.raises(ValueError, match=message):
        measured(tmp_path / "out", *(runs[name] for name in names), **options)
    assert not (tmp_path / "out").exists()


def test_words_and_characters_do_not_stand_in_one_picture(runs, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("the cat sat .\n" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match="expected runs of one level, got word, char"):
        measured(tmp_path / "out", runs["rnn"], runs["chars"], text=file)


def test_gradients_that_vanish_are_drawn_as_far_as_they_go(tmp_path):
    flat = [1.0, 0.5, 0.0, 0.0]
    errors = [0.01] * 4
    look = Look(
        "run", "RNN", 9.0, flat, errors, [1, 2, 3, 4], [0.5, 0.1, 0, -0.01], errors, 3, 2, 1.0
    )
    with effective_context.readable():
        effective_context.draw([look, look], "replace", "words")
        effective_context.show_or_save(tmp_path / "picture.png")
    assert np.frombuffer((tmp_path / "picture.png").read_bytes(), "u1").size > 10_000
