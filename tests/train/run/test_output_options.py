"""Runs with an adaptive softmax, from the options to a folder that stands alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common.time_layers import TimeAdaptiveEmbedding, TimeAdaptiveOutput, TimeEmbedding
from common.util import eval_perplexity_exact
from tests.builders import same
from tests.train.processes import expect_same_run
from train import (
    awd_rnnlm,
    better_rnnlm,
    dynamic_evaluation,
    evaluate,
    generate,
    neural_cache,
    torch_weights,
)
from train.run.saved_options import saved_options
from train.run.saved_run import open_model, open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 300  # ten words, V 10
SIZES = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 4, "time_size": 7, "epochs": 2}
ADAPTIVE = {"output": "adaptive", "cutoffs": "3,6"}

SCRIPTS = {
    "better_rnnlm": (better_rnnlm, {"dropout": 0.1}),
    "untied": (better_rnnlm, {"dropout": 0.1, "tied": False, "wordvec_size": 6}),
    "awd_rnnlm": (awd_rnnlm, {"embed_dropout": 0.1, "weight_drop": 0.2, "lr": 5.0}),
}
every_script = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run_small(name, text_file, out, **changes):
    module, options = SCRIPTS[name]
    kept = {**SIZES, **ADAPTIVE, **options, **changes}
    module.main(module.Options(corpus=str(text_file), out=out, **kept))
    return out


def config_of(run):
    return json.loads((run / "config.json").read_text())


@every_script
@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(name, average, text_file, tmp_path):
    options = {"average": average, "weight_decay": 1e-5, "unigram_bias": True}
    whole = run_small(name, text_file, tmp_path / "whole", **options)
    out = run_small(name, text_file, tmp_path / "run", **{**options, "epochs": 1})
    module = SCRIPTS[name][0]
    module.main(replace(saved_options(config_of(out)["script"], module.Options, out), epochs=2))
    expect_same_run(out, whole)
    results = json.loads((out / "results.json").read_text())
    assert results["test_exact"] < 9  # of 10 words


@every_script
def test_the_folder_needs_no_text_to_write_and_is_measured_in_every_way(
    name, text_file, tmp_path, capsys
):
    out = run_small(name, text_file, tmp_path / "run")
    exact = json.loads((out / "results.json").read_text())["test_exact"]
    capsys.readouterr()
    evaluate.main(evaluate.Options(out))
    assert f"{exact:8.2f}" in capsys.readouterr().out
    neural_cache.main(neural_cache.Options(out, weight=0.0))
    dynamic_evaluation.main(dynamic_evaluation.Options(out, lr=0.0, statistics_windows=5))
    results = json.loads((out / "results.json").read_text())
    for measure in ("neural_cache", "dynamic_evaluation"):
        assert results[measure]["test"] == pytest.approx(exact, rel=1e-4)

    model, corpus = open_run(out)
    counts = np.bincount(corpus.train, minlength=corpus.vocab_size)
    ranks = model.layers[-1].clusters.ranks
    assert (np.diff(counts[np.argsort(ranks)]) <= 0).all()
    text_file.unlink()
    alone, _ = open_model(out)
    same(alone.layers[-1].clusters.ranks, ranks)
    assert eval_perplexity_exact(alone, corpus.test, corpus.first_id) == exact
    capsys.readouterr()
    generate.main(generate.Options(out, prompt="the cat", length=12))
    assert capsys.readouterr().out.startswith("the cat")


@every_script
def test_the_embedding_is_adaptive_where_it_is_tied(name, text_file, tmp_path):
    model, _ = open_model(run_small(name, text_file, tmp_path / "run", epochs=1))
    kind = TimeEmbedding if name == "untied" else TimeAdaptiveEmbedding
    assert type(model.layers[0]) is kind
    assert type(model.layers[-1]) is TimeAdaptiveOutput
    assert model.layers[-1].clusters.edges == [0, 3, 6, 10]


def test_cutoffs_that_are_not_given_are_chosen_from_the_text_and_kept(text_file, tmp_path):
    out = run_small("better_rnnlm", text_file, tmp_path / "run", cutoffs=None, epochs=1)
    chosen = config_of(out)["options"]["cutoffs"]
    model, _ = open_model(out)
    assert model.layers[-1].clusters.edges == [0, *map(int, chosen.split(",")), 10]
    better_rnnlm.main(replace(saved_options("better_rnnlm", better_rnnlm.Options, out), epochs=2))
    assert config_of(out)["options"]["cutoffs"] == chosen


def test_a_run_that_starts_from_another_has_its_cutoffs_and_its_order(text_file, tmp_path):
    base = run_small("better_rnnlm", text_file, tmp_path / "base")
    other = tmp_path / "other.txt"
    other.write_text("mat . dog to ran the\n" * 300, encoding="utf-8")
    options = {"cutoffs": None, "start_from": base}
    tuned = run_small("better_rnnlm", other, tmp_path / "tuned", **options)
    assert config_of(tuned)["options"]["cutoffs"] == "3,6"
    (one, _), (two, _) = open_model(base), open_model(tuned)
    same(one.layers[-1].clusters.ranks, two.layers[-1].clusters.ranks)
    stopped = run_small("better_rnnlm", other, tmp_path / "stopped", **{**options, "epochs": 1})
    resumed = replace(saved_options("better_rnnlm", better_rnnlm.Options, stopped), epochs=2)
    better_rnnlm.main(resumed)
    expect_same_run(stopped, tuned)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("better_rnnlm", {"cutoffs": "6,3"}, "--cutoffs: expected whole numbers .* got 6,3"),
        ("better_rnnlm", {"cutoffs": "3,3"}, "--cutoffs: expected whole numbers .* got 3,3"),
        ("better_rnnlm", {"cutoffs": "0,3"}, "--cutoffs: expected whole numbers .* got 0,3"),
        ("better_rnnlm", {"cutoffs": "3,x"}, "--cutoffs: expected whole numbers .* got 3,x"),
        ("better_rnnlm", {"cutoffs": ""}, "--cutoffs: expected whole numbers"),
        ("better_rnnlm", {"cutoffs": "3,10"}, "--cutoffs: .* below the 10 words of cats, got 3,10"),
        ("better_rnnlm", {"output": "dense"}, "--cutoffs: 3,6 does nothing without --output"),
        ("awd_rnnlm", {"sampled_classes": 5}, "--sampled-classes: 5, and an adaptive softmax"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(
    name, changes, message, text_file, tmp_path
):
    with pytest.raises(ValueError, match=message):
        run_small(name, text_file, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_preset_that_samples_says_what_to_do():
    preset = awd_rnnlm.Options.PRESETS["cpu10"]
    with pytest.raises(ValueError, match="whatever the preset says"):
        awd_rnnlm.Options(preset="cpu10", output="adaptive", **preset).check()


def test_without_a_text_the_cutoffs_must_be_given():
    with pytest.raises(ValueError, match="--output adaptive: expected --cutoffs"):
        better_rnnlm.Options(output="adaptive").build(50, np.random.default_rng(1))


@pytest.mark.parametrize("changes", [{"cutoffs": "3,7"}, {"output": "dense", "cutoffs": None}])
def test_they_do_not_change_when_a_run_goes_on(changes, text_file, tmp_path):
    out = run_small("better_rnnlm", text_file, tmp_path / "run", epochs=1)
    saved = saved_options("better_rnnlm", better_rnnlm.Options, out)
    with pytest.raises(ValueError, match="the run was made with --"):
        better_rnnlm.main(replace(saved, epochs=2, **changes))


@pytest.mark.parametrize("name", ["better_rnnlm", "untied"])
def test_pytorchs_layout_which_has_no_place_for_it_is_refused(name, text_file, tmp_path):
    out = run_small(name, text_file, tmp_path / "run", epochs=1)
    with pytest.raises(ValueError, match=r"BetterRnnlm: expected an embedding, .*AdaptiveOutput"):
        torch_weights.export_weights(torch_weights.ExportOptions(out, tmp_path / "x.safetensors"))
    assert not (tmp_path / "x.safetensors").exists()
