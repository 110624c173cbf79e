"""Dynamic evaluation and the neural cache of a finished run, from the command to results.json."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from common.util import eval_perplexity_exact
from datasets.corpus import corpus_from_tokens
from train import dynamic_evaluation, neural_cache, rnnlm
from train.run.folder import RunFolder, add_result, read_results
from train.run.saved_run import open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 100


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run; no test changes it but by adding results."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cats.txt").write_text(TEXT, encoding="utf-8")
    sizes = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 5, "time_size": 10}
    rnnlm.main(rnnlm.Options(corpus=str(folder / "cats.txt"), out=folder / "run", **sizes))
    return folder / "run"


@pytest.fixture
def run(trained):
    """The same with the results that training left."""
    before = (trained / "results.json").read_bytes()
    yield trained
    (trained / "results.json").write_bytes(before)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (dynamic_evaluation, {"lr": 0.0, "decay": 0.5}),
        (dynamic_evaluation, {"lr": 0.0, "rule": "sgd"}),
        (neural_cache, {"weight": 0.0}),
    ],
)
def test_with_nothing_to_learn_or_to_remember_the_figures_are_the_exact_ones(module, options, run):
    module.main(module.Options(run, **options))
    results = json.loads((run / "results.json").read_text())
    for split in ("valid", "test"):
        assert results[module.NAME][split] == pytest.approx(results[f"{split}_exact"], rel=1e-5)


@pytest.mark.parametrize("rule", ["rms", "sgd"])
def test_what_dynamic_evaluation_finds_stands_under_its_own_name(rule, run, capsys):
    before, weights = json.loads((run / "results.json").read_text()), (run / "weights.safetensors")
    bytes_before = weights.read_bytes()
    options = dynamic_evaluation.Options(run, rule=rule, lr=3e-3 if rule == "rms" else 1.0)
    dynamic_evaluation.main(options)
    after = json.loads((run / "results.json").read_text())
    found = after.pop("dynamic_evaluation")
    assert after == before and weights.read_bytes() == bytes_before
    assert found["test"] < 0.99 * before["test_exact"]  # the text repeats two lines
    assert found["settings"]["lr"] == options.lr
    assert ("epsilon" in found["settings"]) == (rule == "rms")
    assert f"test   {found['test']:8.2f} by dynamic evaluation" in capsys.readouterr().out


def test_what_the_neural_cache_finds_stands_under_its_own_name(run):
    before = json.loads((run / "results.json").read_text())
    neural_cache.main(neural_cache.Options(run, cache_size=50, theta=1.0, weight=0.3))
    dynamic_evaluation.main(dynamic_evaluation.Options(run))
    neural_cache.main(neural_cache.Options(run, cache_size=40, theta=1.0, weight=0.3))
    after = json.loads((run / "results.json").read_text())
    cache, dynamic = after.pop("neural_cache"), after.pop("dynamic_evaluation")
    assert after == before and dynamic.keys() == cache.keys()
    assert cache["settings"] == {"cache_size": 40, "theta": 1.0, "weight": 0.3}  # the later one


@pytest.mark.parametrize("module", [dynamic_evaluation, neural_cache])
def test_tuning_asks_the_validation_text_only_and_looks_at_the_test_text_once(
    module, run, monkeypatch, capsys
):
    asked = []
    name = "eval_perplexity_dynamic" if module is dynamic_evaluation else "eval_perplexity_cache"
    evaluate = getattr(module, name)
    monkeypatch.setattr(
        module,
        name,
        lambda model, text, *a, **kw: (asked.append(len(text)), evaluate(model, text, *a, **kw))[1],
    )
    monkeypatch.setattr(module, "open_run", lambda path, *where: _short_test(*open_run(path)))
    options = {"tune_tokens": 200} if module is dynamic_evaluation else {}
    module.main(module.Options(run, tune=True, **options))
    printed = capsys.readouterr()
    tried = [line for line in printed.out.splitlines() if "validation perplexity" in line]
    best = min(line.split()[-1] for line in tried)
    found = json.loads((run / "results.json").read_text())[module.NAME]
    assert "best on" in printed.out
    if module is dynamic_evaluation:
        assert len(tried) >= 9
        chosen = f"| lr {found['settings']['lr']:g} | decay {found['settings']['decay']:g} |"
    else:
        chosen = f"size {found['settings']['cache_size']} | theta {found['settings']['theta']:g} |"
    assert [line.split()[-1] for line in tried if chosen in line] == [best]
    assert asked.count(77) == 1 == asked[-1:].count(77)
    assert len(asked) == (len(tried) + 2 if module is dynamic_evaluation else 2)


@pytest.mark.parametrize(
    ("best_lr", "best_decay", "settings"),
    [
        (2e-4, 1e-3, 9),  # inside the first grid
        (2.5e-5, 1e-3, 9 + 3 * 3),  # 5e-5 and 2.5e-5 are better, 1.25e-5 is not
        (1.6e-3, 0.0, 9 + 3 * 3),
        (2e-4, 2e-2, 9 + 2 * 3),
        (5e-5, 8e-2, 9 + 2 * 3 + 3 * 5),
        (1e-9, 1e-3, 9 + 8 * 3),  # it ends somewhere
    ],
)
def test_the_grid_grows_until_its_best_setting_lies_inside(
    best_lr, best_decay, settings, monkeypatch, capsys
):
    def bowl(model, tokens, first_id, options, scales):
        away = abs(math.log(options.lr / best_lr)) + abs(options.decay - best_decay)
        return 100 + away

    monkeypatch.setattr(dynamic_evaluation, "measure", bowl)
    corpus = corpus_from_tokens("tiny", ["a", "b"], ["a"], ["b"], level="word")
    options = dynamic_evaluation.Options(Path("run"))
    found = dynamic_evaluation.tuned(None, corpus, options, None)
    if settings < 9 + 8 * 3:
        assert (found.lr, found.decay) == pytest.approx((best_lr, best_decay))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| lr")]
    assert len(lines) == len(set(lines)) == settings


def test_settings_that_explode_come_last(monkeypatch):
    monkeypatch.setattr(
        dynamic_evaluation,
        "measure",
        lambda model, tokens, first_id, options, scales: (
            100.0 if (options.lr, options.decay) == (2e-4, 1e-3) else math.nan
        ),
    )
    corpus = corpus_from_tokens("tiny", ["a", "b"], ["a"], ["b"], level="word")
    found = dynamic_evaluation.tuned(None, corpus, dynamic_evaluation.Options(Path("run")), None)
    assert (found.lr, found.decay) == (2e-4, 1e-3)


def _short_test(model, corpus):
    """The corpus with a test text of 77 words, a length that no other text has."""
    return model, replace(corpus, test=corpus.test[:77])


@pytest.mark.parametrize(
    ("module", "options"),
    [(dynamic_evaluation, {"tune_tokens": 100, "statistics_windows": 2}), (neural_cache, {})],
)
def test_characters_are_shown_in_bits_too(module, options, tmp_path, capsys):
    (tmp_path / "cats.txt").write_text(TEXT, encoding="utf-8")
    sizes = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 5, "time_size": 10}
    out = tmp_path / "run"
    rnnlm.main(rnnlm.Options(corpus=str(tmp_path / "cats.txt"), level="char", out=out, **sizes))
    capsys.readouterr()
    module.main(module.Options(out, tune=True, **options))
    shown = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())[module.NAME]
    for split in ("valid", "test"):
        assert found[f"{split}_bits"] == math.log2(found[split])
        assert f" | {found[f'{split}_bits']:.3f} bits per character\n" in shown
    tried = [line for line in shown.splitlines() if "validation perplexity" in line]
    assert tried and all(line.endswith(" bits per character") for line in tried)


def test_the_figures_of_a_setting_are_those_of_the_library(run):
    neural_cache.main(neural_cache.Options(run, cache_size=50, theta=1.0, weight=0.3))
    found = json.loads((run / "results.json").read_text())["neural_cache"]
    model, corpus = open_run(run)
    assert found["test"] == neural_cache.eval_perplexity_cache(
        model, corpus.test, corpus.first_id, cache_size=50, theta=1.0, weight=0.3
    )
    plain = eval_perplexity_exact(model, corpus.test, corpus.first_id)
    assert found["test"] != pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_size": 0}, "--time-size: expected 1 or more, got 0"),
        ({"statistics_windows": 0}, "--statistics-windows: expected 1 or more, got 0"),
        ({"lr": -1.0}, "--lr: expected 0 or more, got -1"),
        ({"decay": 2.0}, "--decay: expected 0 to 1, got 2"),
        ({"epsilon": 0.0}, "--epsilon: expected a number above 0, got 0"),
    ],
)
def test_numbers_that_cannot_work_are_refused(options, message, run):
    with pytest.raises(ValueError, match=message):
        dynamic_evaluation.main(dynamic_evaluation.Options(run, **options))


def test_a_run_that_is_not_finished_is_refused_before_anything_is_measured(run):
    (run / "results.json").unlink()
    for script in (dynamic_evaluation, neural_cache):
        with pytest.raises(ValueError, match="its training has not ended"):
            script.main(script.Options(run))
        assert not (run / "results.json").exists()


@pytest.mark.parametrize("options", [{"weight": 1.0}, {"theta": -0.1}])
def test_a_cache_setting_out_of_range_is_refused(options, run):
    (name,) = options
    with pytest.raises(ValueError, match=f"--{name}: expected 0 to below"):
        neural_cache.main(neural_cache.Options(run, **options))


def test_results_that_are_damaged_or_not_there(tmp_path):
    run = RunFolder(tmp_path)
    assert read_results(run) == {}
    add_result(tmp_path, "neural_cache", {"test": 1.0}, {})
    assert read_results(run) == {"neural_cache": {"test": 1.0}}
    for damaged in ("{", "[1]"):
        run.results_file.write_text(damaged)
        with pytest.raises(ValueError, match="not the results of a run"):
            add_result(tmp_path, "neural_cache", {"test": 2.0}, {})
        assert run.results_file.read_text() == damaged
