"""Numbers that are not finite: noticed in time, named, or skipped and counted."""

import math

import numpy as np
import pytest

from common.divergence import DivergenceError
from common.files.tensors import read_checkpoint, write_checkpoint
from common.optimizer import SGD, Momentum
from common.trainer import RnnlmTrainer
from tests.builders import MODELS, V, generator, ids, same, snapshot, tiny_model

CORPUS = ids(generator(1), V, 121)
FIT = {"batch_size": 4, "time_size": 5, "max_grad": 0.25, "eval_interval": 2}  # six windows


def trainer_of(name="Rnnlm", optimizer=None, **options):
    model = tiny_model(name)
    return RnnlmTrainer(model, optimizer or SGD(0.1), lambda record: None, generator(), **options)


def fit(trainer, epochs=1, **changes):
    trainer.fit(CORPUS[:-1], CORPUS[1:], epochs, **{**FIT, **changes})


def iterations(trainer):
    return trainer.iterations(CORPUS[:-1], CORPUS[1:], 1, **FIT)


def spoil(trainer, at, layer, place=0, value=math.nan):
    """Let a layer write a bad number into one of its gradients in the given backward passes."""
    backward = layer.backward

    def spoilt(*douts):
        dxs = backward(*douts)
        if trainer.iteration + 1 in at:
            layer.grads[place].flat[0] = value
        return dxs

    layer.backward = spoilt


@pytest.mark.parametrize("max_grad", [0.25, None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_gradient_is_named_before_it_reaches_the_weights(max_grad, value):
    trainer = trainer_of()
    spoil(trainer, [4], trainer.model.layers[1], 2, value)
    with pytest.raises(
        DivergenceError,
        match=r"the norm of the gradients is (nan|inf) at iteration 4 of epoch 1, "
        r"first in the gradient of lstm\.b; try a smaller learning rate",
    ):
        fit(trainer, max_grad=max_grad)
    assert trainer.iteration == 3
    assert all(np.isfinite(param).all() for param in trainer.model.params)


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_weight_is_named_first(name):
    trainer = trainer_of(name)
    trainer.model.params[1].flat[3] = math.nan
    (_, second, *_) = trainer.model.named_params()
    pattern = f"the loss is nan at iteration 1 of epoch 1, first in the parameter {second};"
    with pytest.raises(DivergenceError, match=pattern):
        fit(trainer)


def test_a_rate_beyond_float32_stops_the_run():
    with pytest.raises(DivergenceError, match=r"at iteration [23] of epoch 1"):
        fit(trainer_of(optimizer=SGD(1e39)), max_grad=None)


def test_weights_that_grow_without_bound_stop_the_run():
    with pytest.raises(DivergenceError, match=r"at iteration \d+ of epoch \d+"):
        fit(trainer_of(optimizer=SGD(10.0, weight_decay=10.0)), epochs=100, max_grad=None)


def test_gradients_whose_squares_only_are_too_large_are_clipped():
    trainer = trainer_of()
    spoil(trainer, [2], trainer.model.layers[1], 2, 1e30)
    fit(trainer)
    assert trainer.iteration == 6
    assert all(np.isfinite(param).all() for param in trainer.model.params)


def test_skipping_leaves_out_just_those_updates_and_counts_them(tmp_path):
    trainer = trainer_of(optimizer=Momentum(0.1), on_nan="skip")
    spoil(trainer, [2, 5], trainer.model.layers[0])
    before = [snapshot(trainer.model) for _ in iterations(trainer)]
    for k in (2, 5):
        for a, b in zip(before[k - 2], before[k - 1], strict=True):
            same(a, b)
    assert not np.array_equal(before[2][0], before[1][0])
    assert (trainer.iteration, trainer.skipped, trainer.optimizer.iter) == (6, 2, 4)
    # a report every two iterations; at the second there is nothing to report yet
    assert [(r["iteration"], r["skipped"]) for r in trainer.curve] == [(1, 0), (4, 1), (6, 2)]
    write_checkpoint(tmp_path / "run", trainer.state_dict())
    again = trainer_of(optimizer=Momentum(0.1), on_nan="skip")
    again.load_state_dict(read_checkpoint(tmp_path / "run"))
    assert again.skipped == 2


def test_a_state_that_is_not_finite_is_reset_when_its_update_is_skipped():
    trainer = trainer_of(on_nan="skip")
    lstm, forward = trainer.model.layers[1], trainer.model.layers[1].forward

    def spoilt(xs):
        hs = forward(xs)
        if trainer.iteration == 2:
            hs, lstm.h = hs * math.nan, lstm.h * math.nan
        return hs

    lstm.forward = spoilt
    states = [trainer.model.get_state()[0] for _ in iterations(trainer)]
    assert states[2] is None and states[3] is not None
    assert trainer.skipped == 1


def test_skipping_does_not_hide_weights_that_are_spoilt_already():
    trainer = trainer_of(on_nan="skip")
    trainer.model.params[0].flat[0] = math.inf
    with pytest.raises(DivergenceError, match=r"first in the parameter embedding\.W"):
        fit(trainer)


def test_skipping_is_given_up_when_a_whole_epoch_taught_nothing():
    trainer = trainer_of(on_nan="skip")
    spoil(trainer, range(5, 100), trainer.model.layers[1], 1)
    pattern = r"20 updates in a row were not finite at .* first in the gradient of lstm\.Wh"
    with pytest.raises(DivergenceError, match=pattern):
        fit(trainer, epochs=10)
    assert (trainer.iteration, trainer.skipped) == (24, 20)


def test_spoilt_weights_are_never_kept():
    trainer = trainer_of()
    fit(trainer)
    trainer.model.params[2].flat[0] = math.nan
    with pytest.raises(DivergenceError, match=r"no checkpoint after 6 .* the parameter lstm\.Wh"):
        trainer.state_dict()


def test_another_answer_to_bad_numbers_is_refused():
    with pytest.raises(ValueError, match="expected on_nan stop or skip, got 'ignore'"):
        trainer_of(on_nan="ignore")
