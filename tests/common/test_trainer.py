"""The training loop: every window once, and a second ``fit`` goes on where the first stopped."""

import math
import os
import re

import numpy as np
import pytest

from common.base_model import BaseModel
from common.functions import log_softmax
from common.layers import Affine, Sigmoid, SoftmaxWithLoss
from common.optimizer import SGD, Adam, Momentum
from common.perplexity.protocols import eval_perplexity_exact
from common.trainer import RnnlmTrainer, Trainer
from models.char_rnn import CharRnn
from models.shapes import StepByStep
from tests.builders import D, H, V, close, floats, generator, ids, same, snapshot, tiny_model


class Recorder:
    """A model of one weight with the gradient 1 that keeps the windows it was trained on.

    Args:
        stop_at: number of the forward pass, from 1, that Ctrl-C interrupts.
        losses: what the forward passes return; 1.0 after the last of them.
    """

    def __init__(self, stop_at=None, losses=()):
        self.params, self.grads = [np.zeros(1)], [np.ones(1)]
        self.windows, self.resets, self.calls = [], [], 0
        self.stop_at, self.losses = stop_at, list(losses)

    def reset_state(self):
        self.resets.append(len(self.windows))

    def forward(self, xs, ts):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.windows.append((xs.copy(), ts.copy()))
        return self.losses.pop(0) if self.losses else 1.0

    def backward(self):
        pass

    def read(self):
        """The inputs of every window, as lists."""
        return [xs.tolist() for xs, _ in self.windows]


def silent(record):
    pass


def recorded(model, optimizer=None):
    return RnnlmTrainer(model, optimizer or SGD(0.1), on_record=silent)


def test_the_reports_so_far_are_lists_of_losses_and_of_perplexities():
    trainer = recorded(Recorder(losses=[3.0, 2.0, 1.0]))
    assert (trainer.loss_list, trainer.ppl_list, trainer.current_epoch) == ([], [], 0)
    for epoch in (1, 2):
        trainer.fit(np.arange(8), np.arange(8), 1, batch_size=2, time_size=2, eval_interval=1)
        assert trainer.current_epoch == epoch
    assert trainer.loss_list == [3.0, 2.0, 1.0, 1.0]
    assert trainer.ppl_list == pytest.approx([math.exp(loss) for loss in trainer.loss_list])


CORPUS = np.arange(23)  # two streams of 11, read as windows of 4, 4 and 3; one token is left over
XS, TS = CORPUS[:-1], CORPUS[1:]
WINDOWS = [
    [[0, 1, 2, 3], [11, 12, 13, 14]],
    [[4, 5, 6, 7], [15, 16, 17, 18]],
    [[8, 9, 10], [19, 20, 21]],
]
SIZES = {"batch_size": 2, "time_size": 4}


# ---- which windows, in which order ----


def test_an_epoch_reads_every_window_once_in_order_the_shorter_last_one_too():
    model = Recorder()
    recorded(model).fit(XS, TS, max_epoch=2, **SIZES)
    assert model.read() == 2 * WINDOWS
    for xs, ts in model.windows:
        np.testing.assert_array_equal(ts, xs + 1)


def test_the_state_is_reset_at_the_beginning_of_every_epoch_and_nowhere_else():
    model = Recorder()
    recorded(model).fit(XS, TS, max_epoch=3, **SIZES)
    assert model.resets == [0, 3, 6]  # windows read before each reset


def test_a_second_fit_continues_epoch_iteration_and_curve():
    trainer = recorded(Recorder())
    for epoch in (1, 2):
        trainer.fit(XS, TS, max_epoch=1, eval_interval=1, **SIZES)
        assert (trainer.epoch, trainer.iteration, trainer.column) == (epoch, 3 * epoch, 0)
    assert [(r["epoch"], r["iteration"], r["step"]) for r in trainer.curve] == [
        (1, 1, 1),
        (1, 2, 2),
        (1, 3, 3),
        (2, 1, 4),
        (2, 2, 5),
        (2, 3, 6),
    ]


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_after_an_interruption_fit_goes_on_at_the_window_that_was_not_trained_on(stop_at):
    model = Recorder(stop_at)
    trainer = recorded(model)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(XS, TS, max_epoch=3, **SIZES)
    finished, done = divmod(stop_at - 1, 3)
    assert (trainer.epoch, trainer.iteration) == (finished, stop_at - 1)
    assert trainer.column == 4 * done
    trainer.fit(XS, TS, max_epoch=3 - finished, **SIZES)  # the broken epoch counts as one
    assert model.read() == 3 * WINDOWS
    assert sorted(set(model.resets)) == [0, 3, 6]
    assert (trainer.epoch, trainer.iteration, trainer.column) == (3, 9, 0)


def test_the_rest_of_a_broken_epoch_counts_its_iterations_from_where_it_was():
    trainer = recorded(Recorder(stop_at=3))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(XS, TS, max_epoch=1, eval_interval=1, **SIZES)
    trainer.fit(XS, TS, max_epoch=1, eval_interval=1, **SIZES)
    assert [r["iteration"] for r in trainer.curve] == [1, 2, 3]
    assert {r["iterations"] for r in trainer.curve} == {3}


def test_a_shorter_corpus_after_an_interruption_begins_anew():
    model = Recorder(stop_at=3)
    trainer = recorded(model)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(XS, TS, max_epoch=1, **SIZES)
    assert trainer.column == 8
    trainer.fit(XS[:16], TS[:16], max_epoch=1, **SIZES)
    assert model.read()[2:] == [[[0, 1, 2, 3], [8, 9, 10, 11]], [[4, 5, 6, 7], [12, 13, 14, 15]]]


def test_no_epochs_change_nothing():
    model = Recorder()
    trainer = recorded(model)
    trainer.fit(XS, TS, max_epoch=0, **SIZES)
    assert (trainer.epoch, trainer.iteration, trainer.curve, model.windows) == (0, 0, [], [])


# ---- real models ----


def trained(name, calls, **options):
    """A model and its trainer after ``fit`` was called once for each number of epochs."""
    model, corpus = tiny_model(name, dropout_ratio=0.3), ids(generator(1), V, 200)
    trainer = RnnlmTrainer(model, Momentum(0.1), on_record=silent)
    for epochs in calls:
        trainer.fit(corpus[:-1], corpus[1:], epochs, 4, 7, max_grad=0.25, **options)
    return model, trainer


def losses(trainer):
    return [(r["step"], r["loss"]) for r in trainer.curve]


@pytest.mark.parametrize("name", ["SimpleRnnlm", "Rnnlm", "BetterRnnlm"])
def test_two_fits_of_one_epoch_are_one_fit_of_two_bit_for_bit(name):
    apart, first = trained(name, [1, 1])
    together, second = trained(name, [2])
    for a, b in zip(apart.params, together.params, strict=True):
        same(a, b)
    assert losses(first) == losses(second)
    assert losses(first)[-1][0] == 14


def test_an_interrupted_run_ends_at_the_weights_of_one_that_was_not(monkeypatch):
    expected, _ = trained("Rnnlm", [2])
    model, corpus = tiny_model("Rnnlm"), ids(generator(1), V, 200)
    trainer = RnnlmTrainer(model, Momentum(0.1), on_record=silent)
    forward, calls = model.forward, []

    def interrupted(xs, ts):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(xs, ts)

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(corpus[:-1], corpus[1:], 2, 4, 7, max_grad=0.25)
    trainer.fit(corpus[:-1], corpus[1:], 2, 4, 7, max_grad=0.25)
    for a, b in zip(model.params, expected.params, strict=True):
        same(a, b)


@pytest.mark.parametrize("name", ["Rnnlm", "BetterRnnlm"])
def test_a_fixed_seed_gives_the_same_run_bit_for_bit(name):
    (first, one), (second, two) = trained(name, [2]), trained(name, [2])
    for a, b in zip(first.params, second.params, strict=True):
        same(a, b)
    assert losses(one) == losses(two)
    untrained = tiny_model(name)
    assert not any(
        np.array_equal(a, b) for a, b in zip(first.params, untrained.params, strict=True)
    )


@pytest.mark.usefixtures("backend")
def test_training_lowers_the_loss_of_a_corpus_that_repeats():
    model = tiny_model("Rnnlm")
    trainer = RnnlmTrainer(model, SGD(5.0), on_record=silent)
    corpus = np.tile(np.arange(V), 40)
    trainer.fit(corpus[:-1], corpus[1:], 10, 4, 7, max_grad=0.25)
    assert trainer.curve[0]["perplexity"] == pytest.approx(V, rel=0.1)
    assert trainer.curve[-1]["perplexity"] < 1.5


# ---- the update ----


class Fixed:
    """A model whose backward pass writes the gradients it was given, whatever was read."""

    def __init__(self, params, gradients):
        self.params, self.gradients = params, gradients
        self.grads = [np.zeros_like(g) for g in gradients]

    def reset_state(self):
        pass

    def forward(self, xs, ts):
        return 1.0

    def backward(self):
        for grad, value in zip(self.grads, self.gradients, strict=True):
            grad[...] = value


def fit_windows(model, count, **options):
    """Train on ``count`` windows with a learning rate of 1."""
    trainer = recorded(model, SGD(1.0))
    trainer.fit(np.arange(2 * count), np.arange(2 * count), 1, 1, 2, **options)
    assert trainer.iteration == count


def test_an_array_listed_twice_is_updated_once_by_the_sum_of_both_gradients():
    W, b = floats(generator(), 2, 3), np.zeros(2)
    g1, gb, g2 = np.full((2, 3), 1.0), np.array([0.5, -0.5]), np.full((2, 3), 10.0)
    start = W.copy()
    fit_windows(Fixed([W, b, W], [g1, gb, g2]), 2)
    close(W, start - 2 * (g1 + g2))
    close(b, -2 * gb)


def test_a_transposed_view_is_updated_once_by_the_sum_of_both_gradients():
    W = floats(generator(), 2, 3)
    g1, g2 = floats(generator(1), 2, 3), floats(generator(2), 3, 2)
    start = W.copy()
    fit_windows(Fixed([W, W.T], [g1, g2]), 2)
    close(W, start - 2 * (g1 + g2.T))


def test_equal_weights_that_are_two_arrays_are_not_tied():
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    fit_windows(Fixed([first, second], [np.ones((2, 2)), 2 * np.ones((2, 2))]), 1)
    same(first, -np.ones((2, 2)))
    same(second, -2 * np.ones((2, 2)))


def test_max_grad_bounds_the_norm_of_all_gradients_together_a_tied_one_counted_once():
    W, b = np.zeros((1, 1)), np.zeros(1)
    # summed over the tie 3, and 4 beside it: a norm of 5
    fit_windows(Fixed([W, b, W.T], [[[1.0]], [4.0], [[2.0]]]), 2, max_grad=2.5)
    close(W, np.array([[-3.0]]), 1e-6)  # two steps of 1.5
    close(b, np.array([-4.0]), 1e-6)


def test_gradients_within_max_grad_are_left_alone():
    W = np.zeros(2)
    fit_windows(Fixed([W], [[0.3, 0.4]]), 2, max_grad=0.6)
    close(W, np.array([-0.6, -0.8]))


def test_the_optimizer_keeps_its_state_from_fit_to_fit():
    trainer = recorded(Recorder(), Momentum(1.0, momentum=0.5))
    for _ in range(2):
        trainer.fit(np.arange(2), np.arange(2), 1, 1, 2)
    close(trainer.model.params[0], np.array([-1 - 1.5]))


# ---- what is reported ----


def test_a_record_says_where_how_fast_and_how_well():
    records = []
    model = Recorder(losses=[5.0, 1.0, 2.0, 3.0, 4.0, 7.0])
    trainer = RnnlmTrainer(model, SGD(0.5), on_record=records.append)
    trainer.fit(np.arange(24), np.arange(24), 1, 2, 2, eval_interval=2)
    assert records == trainer.curve
    # after the first iteration, then every second, each the mean since the report before
    assert [(r["iteration"], r["loss"]) for r in records] == [(1, 5), (2, 1), (4, 2.5), (6, 5.5)]
    assert [r["perplexity"] for r in records] == [math.exp(r["loss"]) for r in records]
    assert set(records[0]) == {
        *("epoch", "iteration", "iterations", "step", "lr"),
        *("loss", "perplexity", "ms_per_iteration", "tokens_per_second"),
    }
    for r in records:
        assert (r["epoch"], r["iterations"], r["lr"], r["step"]) == (1, 6, 0.5, r["iteration"])
        # 4 tokens in each iteration
        assert r["tokens_per_second"] * r["ms_per_iteration"] == pytest.approx(4000)


def test_the_last_window_of_an_epoch_is_always_reported():
    trainer = recorded(Recorder())
    trainer.fit(XS, TS, max_epoch=2, eval_interval=100, **SIZES)
    assert [(r["epoch"], r["iteration"]) for r in trainer.curve] == [(1, 1), (1, 3), (2, 3)]


def test_a_shorter_window_weighs_less_in_the_mean():
    trainer = recorded(Recorder(losses=[0.0, 1.0, 5.0]))
    trainer.fit(XS, TS, max_epoch=1, **SIZES)
    assert trainer.curve[-1]["loss"] == pytest.approx((1 * 8 + 5 * 6) / 14)


def test_without_a_callback_a_line_is_printed_for_every_record(capsys):
    trainer = RnnlmTrainer(Recorder(losses=[math.log(50)]), SGD(20))
    trainer.fit(XS, TS, max_epoch=1, **SIZES)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"\| epoch 1 \| iteration 1 / 3 \| \d\d:\d\d left, run \d\d:\d\d \| perplexity 50\.00 "
        r"\| lr 20 \| [\d.]+ ms/it \| [\d,]+ tokens/s",
        first,
    )
    assert second.startswith("| epoch 1 | iteration 3 / 3 | 00:00 left, run 00:00 | ")


def test_a_second_fit_counts_the_time_that_is_left_anew(capsys):
    trainer = RnnlmTrainer(Recorder(), SGD(20))
    for _ in range(2):
        trainer.fit(XS, TS, max_epoch=2, eval_interval=None, **SIZES)
    *_, third, fourth = capsys.readouterr().out.splitlines()
    assert third.startswith("| epoch 3 |") and fourth.startswith("| epoch 4 |")
    assert "| 00:00 left, run 00:00 |" in fourth


def test_no_interval_reports_as_seldom_as_the_book_does():
    trainer = recorded(Recorder())
    trainer.fit(XS, TS, max_epoch=1, eval_interval=None, **SIZES)
    assert trainer.epoch == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_iteration(loss):
    trainer = recorded(Recorder(losses=[1.0, 1.0, loss]))
    with pytest.raises(RuntimeError, match=f"loss is {loss} at iteration 3 of epoch 1.*learning"):
        trainer.fit(np.arange(20), np.arange(20), 1, 1, 4, eval_interval=1)
    assert [r["iteration"] for r in trainer.curve] == [1, 2]
    assert trainer.iteration == 2
    close(trainer.model.params[0], np.array([-0.2]))  # two updates of 0.1, not a third


def test_a_window_whose_targets_are_all_ignored_teaches_nothing_and_stops_nothing():
    corpus = ids(generator(), V, 41)
    targets = corpus[1:].copy()
    targets[[*range(5, 10), *range(25, 30)]] = -1  # the second of four windows, in both streams
    model = tiny_model("Rnnlm")
    trainer = recorded(model)
    weights = []
    for _ in trainer.iterations(corpus[:-1], targets, 1, 2, 5, eval_interval=1):
        weights.append(np.concatenate([param.ravel() for param in model.params]))
    assert [record["iteration"] for record in trainer.curve] == [1, 3, 4]
    same(weights[1], weights[0])
    assert (weights[2] != weights[1]).any()


@pytest.mark.parametrize("name", ["Rnnlm", "CharRnn"])
def test_a_report_is_the_mean_over_the_targets_that_count(name):
    model = CharRnn(V, H, rng=1) if name == "CharRnn" else tiny_model(name, scale=1.0)
    corpus = ids(generator(), V, 200)
    nll = -log_softmax(model.predict(corpus[None, :-1])[0])[np.arange(199), corpus[1:]]
    model.loss_layer.ignore_label = 3
    trainer = recorded(model, SGD(0.0))
    trainer.fit(corpus[:-1], corpus[1:], 2, 1, 10, eval_interval=None)
    right = float(nll[corpus[1:] != 3].mean())
    assert trainer.curve[-1]["loss"] == pytest.approx(right, rel=1e-5)
    exact = eval_perplexity_exact(model, corpus[1:], corpus[0], time_size=7)
    assert math.log(exact) == pytest.approx(right, rel=1e-5)


def test_one_hot_targets_that_are_ignored_do_not_count():
    model, ts = StepByStep(D, H, V, rng=1), ids(generator(), V, 20, 3)
    ts[5:11] = 3
    model.loss_layer.ignore_label = 3
    losses = []
    for targets in (ts, np.eye(V, dtype="float32")[ts]):
        trainer = Trainer(model, SGD(0.0), silent, generator(2))
        trainer.fit(floats(generator(1), 20, 3, D, dtype="float32"), targets, 2, 4)
        losses.append(trainer.curve[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_loss_that_a_model_adds_up_is_reported_as_a_mean():
    model = CharRnn(V, H, rng=1)
    trainer = recorded(model, SGD(0.0))
    corpus = ids(generator(), V, 200)
    trainer.fit(corpus[:-1], corpus[1:], 1, 1, 10, eval_interval=None)
    mean = trainer.curve[-1]["loss"]
    assert mean == pytest.approx(math.log(eval_perplexity_exact(model, corpus[1:], corpus[0])))


def test_a_consumer_may_predict_before_a_loss_that_is_not_finite_ends_the_run(monkeypatch):
    """On a device the loss is looked at when it is reported, after the update."""
    model = tiny_model("Rnnlm")
    trainer = recorded(model)
    monkeypatch.setattr(trainer, "_gradients", lambda *args: (model.forward(*args[:2]), None))
    monkeypatch.setattr(trainer.progress, "record", lambda: {"loss": math.inf})
    xs = ids(generator(), V, 40)
    with pytest.raises(RuntimeError, match="the loss is inf at iteration 1"):
        for _ in trainer.iterations(xs[:-1], xs[1:], 1, 2, 5):
            model.predict(xs[:10].reshape(2, 5))


def test_a_huge_finite_loss_is_no_trouble():
    trainer = recorded(Recorder(losses=[1e4]))
    trainer.fit(XS, TS, max_epoch=1, **SIZES)
    assert 1e300 < trainer.curve[0]["perplexity"] < math.inf


def test_plot_saves_a_picture_without_a_screen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trainer = recorded(Recorder())
    trainer.fit(XS, TS, max_epoch=2, eval_interval=1, **SIZES)
    trainer.plot(ylim=(0, 500))
    trainer.plot(path=str(tmp_path / "other.png"), valid=[(3, 4.0), (6, 3.0)])
    assert sorted(os.listdir(tmp_path)) == ["curve.png", "other.png"]
    for name in os.listdir(tmp_path):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in capsys.readouterr().out


# ---- bad input ----


@pytest.mark.parametrize(
    ("length", "targets", "options", "message"),
    [
        (7, 7, {}, "at least one batch, 2 streams of 4 steps = 8 tokens, .* got 7 and 7"),
        (0, 0, {}, "at least one batch, .* got 0"),
        (22, 21, {}, "one target for each; got 22 and 21 targets"),
        (22, 22, {"batch_size": 0}, "expected batch_size of 1 or more, got 0"),
        (22, 22, {"time_size": 0}, "expected time_size of 1 or more, got 0"),
        (22, 22, {"time_size": -4}, "expected time_size of 1 or more, got -4"),
        (22, 22, {"max_grad": 0}, "max_norm above 0, got 0"),
        (22, 22, {"eval_interval": 0}, "eval_interval"),
    ],
)
def test_bad_input_is_an_error_before_anything_is_learned(length, targets, options, message):
    model = Recorder()
    with pytest.raises(ValueError, match=message):
        recorded(model).fit(np.arange(length), np.arange(targets), 1, **{**SIZES, **options})
    same(model.params[0], np.zeros(1))


def test_a_corpus_of_two_axes_is_refused():
    with pytest.raises(ValueError, match=r"RnnlmTrainer: expected a corpus of shape \(length,\)"):
        recorded(Recorder()).fit(np.ones((30, 2)), np.ones((30, 2)), 1, 2, 4)


def test_one_batch_exactly_is_enough():
    model = Recorder()
    recorded(model).fit(XS[:8], TS[:8], 1, **SIZES)
    assert model.read() == [[[0, 1, 2, 3], [4, 5, 6, 7]]]


def test_a_model_with_more_parameters_than_gradients_is_refused():
    model = Recorder()
    model.params.append(np.zeros(1))
    with pytest.raises(ValueError):
        recorded(model).fit(XS, TS, 1, **SIZES)


# ---- plain data ----


class Xor(BaseModel):
    """Two layers: the smallest network that can tell equal from unequal bits."""

    def __init__(self):
        rng = generator(1)
        hidden = Affine(floats(rng, 2, 4), np.zeros(4))
        output = Affine(floats(rng, 4, 2), np.zeros(2))
        self.compose([hidden, Sigmoid(), output], SoftmaxWithLoss())


BITS, PARITY = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])


def xor_trainer():
    return Trainer(Xor(), Adam(0.05), on_record=silent, rng=generator())


def test_the_plain_trainer_learns_xor_and_goes_on_where_it_stopped():
    trainer = xor_trainer()
    trainer.fit(BITS, PARITY, max_epoch=20, batch_size=3)
    early = trainer.curve[-1]["loss"]
    trainer.fit(BITS, PARITY, max_epoch=280, batch_size=3)
    assert trainer.model.predict(BITS).argmax(axis=1).tolist() == PARITY.tolist()
    assert (trainer.epoch, trainer.iteration) == (300, 600)
    assert trainer.curve[-1]["loss"] < 0.1 < early
    steps = [r["step"] for r in trainer.curve]
    assert steps == sorted(set(steps))


def test_two_plain_fits_are_one_longer_fit_bit_for_bit():
    apart, together = xor_trainer(), xor_trainer()
    apart.fit(BITS, PARITY, 3, 3)
    apart.fit(BITS, PARITY, 2, 3)
    together.fit(BITS, PARITY, 5, 3)
    for a, b in zip(snapshot(apart.model), snapshot(together.model), strict=True):
        same(a, b)


def test_an_epoch_of_plain_data_shows_every_example_once_with_its_target_in_new_order():
    model = Recorder()
    trainer = Trainer(model, SGD(0.1), on_record=silent, rng=generator())
    x = np.arange(10)
    trainer.fit(x, 100 + x, max_epoch=2, batch_size=4)
    assert [len(xs) for xs, _ in model.windows] == [4, 4, 2] * 2
    for xs, ts in model.windows:
        np.testing.assert_array_equal(ts, 100 + xs)
    seen = np.concatenate([xs for xs, _ in model.windows])
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch) == x.tolist()
        assert epoch.tolist() != x.tolist()
    assert seen[:10].tolist() != seen[10:].tolist()


def test_an_interrupted_plain_epoch_goes_on_with_the_examples_that_are_left():
    model = Recorder(stop_at=2)
    trainer = Trainer(model, SGD(0.1), on_record=silent, rng=generator())
    x = np.arange(10)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, x, max_epoch=1, batch_size=4)
    assert (trainer.epoch, trainer.column) == (0, 4)
    trainer.fit(x, x, max_epoch=1, batch_size=4)
    assert [len(xs) for xs, _ in model.windows] == [4, 4, 2]
    assert sorted(np.concatenate([xs for xs, _ in model.windows])) == x.tolist()
    assert (trainer.epoch, trainer.column) == (1, 0)


def test_plain_data_may_be_lists():
    model = Recorder()
    Trainer(model, SGD(0.1), on_record=silent).fit([1, 2, 3], [4, 5, 6], max_epoch=1)
    assert sorted(model.windows[0][0]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("x", "t", "batch_size"), [([], [], 1), ([1, 2], [1], 1), ([1, 2], [1, 2], 0)]
)
def test_bad_plain_data_is_an_error_by_name(x, t, batch_size):
    trainer = Trainer(Recorder(), SGD(0.1), on_record=silent)
    with pytest.raises(ValueError, match=r"^Trainer: expected"):
        trainer.fit(np.array(x), np.array(t), 1, batch_size)
