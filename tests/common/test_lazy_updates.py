"""Update rules and averages that see the rows that were read, beside those that see an array."""

import tracemalloc

import numpy
import pytest

from common import config
from common.averaging import WeightAverage
from common.divergence import DivergenceError
from common.files.tensors import read_checkpoint, write_checkpoint
from common.kernels.passes import add_rows
from common.np import np, to_cpu
from common.optimizer import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    RMSprop,
    UniqueParameters,
    clip_grads,
)
from common.perplexity.dynamic_evaluation import eval_perplexity_dynamic, gradient_scales
from common.row_gradient import RowGradient
from common.time_layers import TimeEmbedding
from common.trainer import RnnlmTrainer
from models import Rnnlm
from tests.builders import D, H, V, close, floats, generator, ids, same, snapshot

RULES = {
    "SGD": lambda: SGD(0.1),
    "SGD with weight decay": lambda: SGD(0.1, 0.2),
    "Momentum": lambda: Momentum(0.1),
    "Nesterov": lambda: Nesterov(0.1),
    "AdaGrad": lambda: AdaGrad(0.1),
    "RMSprop": lambda: RMSprop(0.1),
    "Adam": lambda: Adam(0.1),
    "AdamW": lambda: AdamW(0.1),
}
every_rule = pytest.mark.parametrize("rule", RULES)
on_both = pytest.mark.usefixtures("backend")


class Table:
    """A table that is updated by a rule, with rows or with an array for a gradient."""

    def __init__(self, rule, sparse, rows=V):
        self.W = floats(generator(), rows, D)
        self.grad = RowGradient(self.W) if sparse else np.zeros_like(self.W)
        self.rule = RULES[rule]()

    def update(self, read, rows):
        self.grad[...] = 0
        add_rows(self.grad, np.asarray(read), rows)
        self.rule.update([self.W], [self.grad])

    def arrays(self):
        """The weights, and what the rule keeps of them."""
        return [self.W, *(array for slot in self.rule.state.values() for array in slot)]


def updates(reads):
    rng = generator(1)
    return [(read, floats(rng, len(read), D)) for read in reads]


# ---- rules ----


@on_both
@pytest.mark.parametrize("rule", ["SGD", "AdaGrad"])
def test_a_rule_that_leaves_rows_without_gradient_alone_gives_the_weights_of_the_array(rule):
    ours, theirs = Table(rule, True), Table(rule, False)
    for update in updates([[1, 4, 4], [4], [0, 6, 1, 6], [2]]):
        for table in (ours, theirs):
            table.update(*update)
    for now, want in zip(ours.arrays(), theirs.arrays(), strict=True):
        same(now, want)


@on_both
@every_rule
def test_where_all_rows_are_read_every_rule_gives_the_weights_of_the_array(rule):
    ours, theirs = Table(rule, True), Table(rule, False)
    for update in updates([[*range(V), 3], range(V), [*range(V), 0, 0]]):
        for table in (ours, theirs):
            table.update(*update)
    for now, want in zip(ours.arrays(), theirs.arrays(), strict=True):
        same(now, want)


@on_both
@every_rule
def test_rows_that_are_not_read_keep_their_weights_and_their_state(rule):
    table = Table(rule, True)
    first, second = updates([range(V), [5, 1, 5]])
    table.update(*first)
    before = [to_cpu(array).copy() for array in table.arrays()]
    table.update(*second)
    for now, then in zip(table.arrays(), before, strict=True):
        moved = (to_cpu(now) != then).any(axis=1)
        assert moved.tolist() == [row in (1, 5) for row in range(V)]


@every_rule
def test_rows_that_are_read_move_as_if_the_table_had_no_others(rule):
    ours, alone = Table(rule, True), Table(rule, False, 2)
    read = numpy.array([2, 5])
    alone.W[...] = ours.W[read]
    for _, rows in updates([[0, 1]] * 4):
        ours.update(read, rows)
        alone.update([0, 1], rows)
    for now, want in zip(ours.arrays(), alone.arrays(), strict=True):
        same(now[read], want)


def test_lazy_adam_counts_every_update_and_lets_the_means_of_other_rows_stand():
    """One weight for a row, on paper: beta1 = 1/2, beta2 = 3/4, the gradients 1 in both."""
    W = np.array([[1.0], [1.0]])
    adam, grad = Adam(0.1, 0.5, 0.75, eps=0), RowGradient(W)
    for row in (0, 1):
        grad[...] = 0
        add_rows(grad, np.array([row]), np.ones((1, 1)))
        adam.update([W], [grad])
    # row 0 in update 1: m = 1/2 over 1/2, v = 1/4 over 1/4: a step of 0.1
    # row 1 in update 2: m = 1/2 over 3/4, v = 1/4 over 7/16: 0.1 (2/3) / sqrt(4/7)
    close(W, np.array([[0.9], [1 - 0.1 * (2 / 3) / (4 / 7) ** 0.5]]))
    close(adam.state["m"][0], np.array([[0.5], [0.5]]))


# ---- averages ----


@on_both
@pytest.mark.parametrize("decay", [None, 0.0, 0.5, 0.99])
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_an_average_that_is_made_up_for_is_the_average_of_every_update(rule, decay):
    table = Table(rule, True)
    lazy, plain = WeightAverage([table.W], decay), WeightAverage([table.W], decay)
    for read in [[1, 4, 4], [4], [0, 1], [2], [4, 0], [3]] * 2:
        table.grad[...] = 0
        add_rows(table.grad, np.asarray(read), np.ones((len(read), D)))
        lazy.begin_update([table.grad])
        table.rule.update([table.W], [table.grad])
        for average in (lazy, plain):
            average.update()
        weights = table.W.copy()
        with lazy.applied():
            close(table.W, plain.averages[0], 1e-13)
        same(table.W, weights)
        same(table.W[5], lazy.averages[0][5])  # never read


def test_an_average_that_began_with_arrays_goes_on_with_rows_and_back():
    table = Table("SGD", True)
    lazy, plain = WeightAverage([table.W], 0.9), WeightAverage([table.W], 0.9)
    gradient = table.grad
    for k, read in enumerate([[1, 4], [4], [0, 1], [2], [4, 0], [3], [1]]):
        array = k in (0, 1, 4, 5)
        add_rows(gradient, np.asarray(read), np.ones((len(read), D)))
        lazy.begin_update([gradient.dense() if array else gradient])
        table.rule.update([table.W], [gradient])
        gradient[...] = 0
        for average in (lazy, plain):
            average.update()
        assert bool(lazy.up_to) is not array
    with lazy.applied():
        close(table.W, plain.averages[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"up_to.0": numpy.zeros(3)}),
            r"expected up_to.0 of shape \(7,",
        ),
        (lambda state: state.update({"up_to.7": numpy.zeros(7)}), "expected count, decay and 1 av"),
    ],
)
def test_a_state_with_other_rows_is_refused(change, message):
    table = Table("SGD", True)
    average = WeightAverage([table.W])
    average.begin_update([table.grad])
    state = average.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(state)


# ---- training ----


CORPUS = ids(generator(1), V, 4 * 30 + 1)
FIT = {"batch_size": 4, "time_size": 2, "max_grad": 0.25, "eval_interval": None}
AVERAGES = {"none": {}, "asgd": {"decay": None}, "ema": {"decay": 0.9}}


def trainer_of(sparse, rule="SGD", average="none", dtype="float64"):
    model = Rnnlm(V, D, H, 1, dtype, sparse=sparse)
    trainer = RnnlmTrainer(model, RULES[rule](), lambda record: None, generator())
    if AVERAGES[average]:
        trainer.average = WeightAverage(
            UniqueParameters(model.params, model.grads).params, **AVERAGES[average]
        )
    return trainer


def go_on(trainer, stop=None, epochs=2):
    for _ in trainer.iterations(CORPUS[:-1], CORPUS[1:], epochs - trainer.epoch, **FIT):
        if trainer.iteration == stop:
            break
    return trainer


def averaged(trainer):
    if trainer.average is None:
        return snapshot(trainer.model)
    with trainer.average.applied():
        return snapshot(trainer.model)


@on_both
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("rule", ["SGD", "AdaGrad"])
def test_a_training_gives_the_weights_and_the_averages_of_one_with_an_array(rule, average):
    ours, theirs = (go_on(trainer_of(sparse, rule, average)) for sparse in (True, False))
    for now, want in zip(averaged(ours), averaged(theirs), strict=True):
        close(now, want, 1e-11)
    for now, want in zip(snapshot(ours.model), snapshot(theirs.model), strict=True):
        close(now, want, 1e-11)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_training_goes_on_from_a_file_bit_for_bit_and_asking_changes_nothing(
    rule, average, tmp_path
):
    unbroken = go_on(trainer_of(True, rule, average, "float32"))
    first = go_on(trainer_of(True, rule, average, "float32"), stop=11)
    write_checkpoint(tmp_path / "state", first.state_dict())
    averaged(first)
    second = trainer_of(True, rule, average, "float32")
    second.load_state_dict(read_checkpoint(tmp_path / "state"))
    for resumed in (first, second):
        go_on(resumed)
        for now, want in zip(averaged(resumed), averaged(unbroken), strict=True):
            same(now, want)
        for now, want in zip(snapshot(resumed.model), snapshot(unbroken.model), strict=True):
            same(now, want)


def test_a_gradient_that_is_not_finite_stops_the_training_and_is_named():
    trainer = trainer_of(True)
    embedding, backward = trainer.model.layers[0], trainer.model.layers[0].backward

    def spoilt(dys):
        backward(dys)
        if trainer.iteration == 3:
            embedding.grads[0].rows[0, 0] = numpy.nan

    embedding.backward = spoilt
    with pytest.raises(DivergenceError, match=r"iteration 4 .* in the gradient of embedding\.W"):
        go_on(trainer)


@on_both
@pytest.mark.parametrize("scaled", [False, True])
def test_dynamic_evaluation_is_that_with_an_array(scaled):
    found = []
    for sparse in (True, False):
        model = trainer_of(sparse).model
        scales = gradient_scales(model, CORPUS, 4, 5) if scaled else None
        found.append(
            eval_perplexity_dynamic(model, CORPUS[:40], 0, lr=0.1, decay=0.01, scales=scales)
        )
    assert found[0] == pytest.approx(found[1], rel=1e-12)


# ---- memory ----


def traced_peak(work):
    """Bytes that ``work`` holds at most beyond what was there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def one_step(layer, rule, xs, average=None):
    def step():
        layer.forward(xs)
        layer.backward(np.ones((*xs.shape, layer.params[0].shape[1]), dtype="float32"))
        clip_grads(layer.grads, 0.25)
        if average is not None:
            average.begin_update(layer.grads)
        rule.update(layer.params, layer.grads)
        if average is not None:
            average.update()

    return step


def test_an_update_of_a_million_rows_takes_the_memory_of_those_that_were_read():
    W = np.zeros((1_000_000, 64), dtype="float32")  # whose pages are there once they are touched
    xs = ids(generator(), len(W), 20, 35)
    built = []
    assert traced_peak(lambda: built.append(TimeEmbedding(W, sparse=True))) < 1 << 16
    step = one_step(built[0], SGD(1.0), xs)
    rows = xs.size * W.shape[1] * 4
    for _ in range(2):
        assert traced_peak(step) < 10 * rows < W.nbytes / 100


@pytest.mark.parametrize("rule", ["Momentum", "Adam"])
def test_with_a_state_and_an_average_neither_grows_with_the_table(rule):
    peaks = []
    for size in (10_000, 40_000):
        layer = TimeEmbedding(np.ones((size, 16), dtype="float32"), sparse=True)
        average = WeightAverage(layer.params, 0.99)
        step = one_step(layer, RULES[rule](), ids(generator(), size, 5, 20), average)
        step()  # the first makes the state
        peaks.append(max(traced_peak(step) for _ in range(2)))
    assert max(peaks) < 1 << 19
    assert peaks[1] < 1.5 * peaks[0]


def test_the_device_of_a_gradient_is_that_of_the_table(waits):
    gradient = RowGradient(np.zeros((V, D)))
    assert config.GPU
    assert type(gradient.rows) is type(gradient.ids) is type(np.zeros(1))
    assert waits == []
