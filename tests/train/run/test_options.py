"""Options of the language-model scripts: what they build, and what cannot work."""

import numpy as np
import pytest

from common import config
from common.optimizer import SGD, Adam, AdamW
from common.row_gradient import RowGradient
from train import awd_rnnlm, better_rnnlm, rnnlm, simple_rnnlm

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 200
SMALL = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 5, "time_size": 10, "log_interval": 7}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "kind", "weight_decay"),
    [
        ({}, SGD, 0.0),
        ({"weight_decay": 0.1}, SGD, 0.1),
        ({"optimizer": "adam"}, Adam, None),
        ({"optimizer": "adamw", "weight_decay": 0.1}, AdamW, 0.1),
    ],
)
def test_the_optimizer_is_the_one_that_is_named(options, kind, weight_decay):
    optimizer = rnnlm.Options(lr=0.5, **options).build_optimizer()
    assert type(optimizer) is kind
    assert optimizer.lr == 0.5
    assert getattr(optimizer, "weight_decay", None) == weight_decay


@pytest.mark.parametrize("options", [{"weight_decay": -1.0}, {"weight_decay": float("nan")}])
def test_a_weight_decay_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="--weight-decay"):
        rnnlm.Options(**options).build_optimizer()


def test_adam_refuses_a_weight_decay_that_it_would_ignore():
    with pytest.raises(ValueError, match="adamw"):
        rnnlm.Options(optimizer="adam", weight_decay=0.1).build_optimizer()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1, "lr": 0.1}, "--weight-decay"),
        ({"optimizer": "adam"}, "--lr: expected at most 1"),
        ({"max_grad": 0.0}, "--max-grad"),
        ({"warmup": 4.0}, "--warmup"),
        ({"average_decay": 1.0}, "--average-decay"),
        ({"average_window": 0}, "--average-window"),
        ({"stop_after": 0}, "--stop-after: expected 1 or more, got 0"),
        ({"time_size": 5000}, "expected at least 25,001 training tokens"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(
    options, message, text_file, tmp_path
):
    where = {"corpus": str(text_file), "out": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        rnnlm.main(rnnlm.Options(**{**SMALL, **options}, **where))
    assert not (tmp_path / "run").exists()


ROWS = {
    "yes, sgd": ({"sparse": "yes"}, RowGradient, ""),
    "yes, weight decay": ({"sparse": "yes", "weight_decay": 0.1}, RowGradient, "weight decay"),
    "yes, adam": ({"sparse": "yes", "optimizer": "adam", "lr": 0.1}, RowGradient, "Adam"),
    "yes, adamw": ({"sparse": "yes", "optimizer": "adamw", "lr": 0.1}, RowGradient, "AdamW"),
    "auto, adam": ({"optimizer": "adam", "lr": 0.1}, np.ndarray, ""),  # of few words
    "no, adam": ({"sparse": "no", "optimizer": "adam", "lr": 0.1}, np.ndarray, ""),
}


@pytest.mark.parametrize("script", [simple_rnnlm, rnnlm, better_rnnlm])
@pytest.mark.parametrize("case", ROWS)
def test_what_a_rule_does_to_few_rows_alone_is_said(case, script, text_file, capsys):
    changes, kind, rule = ROWS[case]
    untied = {"tied": False} if script is better_rnnlm else {}
    options = script.Options(**{**SMALL, **changes, **untied}, corpus=str(text_file))
    options.check()
    model = options.new_model(options.load_corpus(), np.random.default_rng(0))
    assert type(model.grads[0]) is kind
    said = f"of the embedding {rule} changes the rows that a window reads alone (--sparse)\n"
    assert capsys.readouterr().out == (said if rule else "")


def test_rows_alone_are_refused_for_a_tied_weight():
    with pytest.raises(ValueError, match=r"--sparse: .*expected --no-tied with it"):
        better_rnnlm.Options(sparse="yes").check()


def test_gpu_by_the_environment_is_written_down(text_file, tmp_path, monkeypatch):
    """As far as a machine without one can tell: the option is set before anything is computed."""
    seen = []

    def look(options, run):
        seen.append(options.gpu)
        raise ValueError("seen")

    monkeypatch.setattr(config, "GPU", True)
    monkeypatch.setattr(rnnlm.Options, "load_corpus", look)
    with pytest.raises(ValueError, match="seen"):
        rnnlm.main(rnnlm.Options(corpus=str(text_file), out=tmp_path / "run"))
    assert seen == [True]


@pytest.mark.parametrize("preset", awd_rnnlm.Options.PRESETS)
def test_every_preset_builds_its_model(preset):
    options = awd_rnnlm.Options(preset=preset, **awd_rnnlm.Options.PRESETS[preset])
    model = options.build(50, np.random.default_rng(0))
    loss = model.forward(np.zeros((2, 3), int), np.ones((2, 3), int))
    model.backward()
    assert np.isfinite(loss)


@pytest.mark.parametrize("name", ["sampled_classes", "whole_epochs"])
def test_a_negative_count_is_refused(name):
    flag = name.replace("_", "-")
    with pytest.raises(ValueError, match=f"--{flag}: expected 0 or more, got -1"):
        awd_rnnlm.Options(**{name: -1}).check()


def test_a_dropout_between_lstms_is_refused_where_there_is_one():
    with pytest.raises(ValueError, match=r"--hidden-dropout: 0\.25 is between LSTMs"):
        awd_rnnlm.Options(num_layers=1).check()
    awd_rnnlm.Options(num_layers=1, hidden_dropout=0.0).check()
    awd_rnnlm.Options().check()


def test_a_forget_bias_is_refused_where_the_cell_has_no_forget_gate():
    with pytest.raises(ValueError, match=r"--forget-bias: 1\.0, and cell gru has no forget gate"):
        awd_rnnlm.Options(cell="gru", forget_bias=1.0).check()
    awd_rnnlm.Options(cell="gru").check()
    awd_rnnlm.Options(cell="peephole_lstm", forget_bias=1.0).check()
