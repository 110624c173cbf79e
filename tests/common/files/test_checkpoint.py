"""Stop anywhere, keep everything in a file, build anew, load, go on: nothing shows."""

import math
import resource
from types import SimpleNamespace

import numpy as np
import pytest

from common.averaging import WeightAverage
from common.base_model import BaseModel
from common.files.tensors import read_checkpoint, write_checkpoint
from common.layers import Affine, Dropout, SoftmaxWithLoss
from common.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from common.schedules import schedule
from common.trainer import RnnlmTrainer, Trainer
from tests.builders import MODELS, V, floats, generator, ids, same, snapshot, tiny_model

TIMES = {"ms_per_iteration", "tokens_per_second"}
CORPUS = ids(generator(1), V, 201)
# four streams of 50: windows of 8 steps and a last one of 2; a report after every third
FIT = {"batch_size": 4, "time_size": 8, "max_grad": 0.25, "eval_interval": 3}
WINDOWS = 7


def build(name, optimizer, seed=0, **options):
    model = tiny_model(name, seed=seed, dropout_ratio=0.3)
    return RnnlmTrainer(model, optimizer, lambda record: None, generator(seed), **options)


def iterations(trainer, epochs=2, **changes):
    left = epochs - trainer.epoch
    return trainer.iterations(CORPUS[:-1], CORPUS[1:], left, **{**FIT, **changes})


def finish(iterations):
    for _ in iterations:
        pass


def stop_after(iteration, trainer, iterations):
    for _ in iterations:
        if trainer.iteration == iteration:
            return
    raise AssertionError(f"there were only {trainer.iteration} iterations")


def without_times(curve):
    return [{key: r[key] for key in r.keys() - TIMES} for r in curve]


def broken_off(make, iterations, iteration, path):
    """The trainer that ``make(seed)`` builds, stopped after some iterations and taken up anew."""
    first = make(0)
    stop_after(iteration, first, iterations(first))
    write_checkpoint(path, first.state_dict())
    second = make(5)  # other weights, other masks: all must come from the file
    second.load_state_dict(read_checkpoint(path))
    finish(iterations(second))
    return second


def expect_equal(resumed, unbroken):
    for a, b in zip(snapshot(resumed.model), snapshot(unbroken.model), strict=True):
        same(a, b)
    assert without_times(resumed.curve) == without_times(unbroken.curve)
    assert resumed.iteration == unbroken.iteration
    assert resumed.optimizer.lr == unbroken.optimizer.lr
    assert resumed.seed == unbroken.seed
    if resumed.shuffles:
        assert resumed.rng.random() == unbroken.rng.random()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("iteration", [1, 5, WINDOWS - 1, WINDOWS, WINDOWS + 4, 2 * WINDOWS])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_goes_on_from_every_place_bit_for_bit(name, iteration, tmp_path):
    """In mid-interval, before the short last window, between epochs, at the very end."""

    def make(seed):
        return build(name, Momentum(0.1), seed)

    unbroken = make(0)
    finish(iterations(unbroken))
    expect_equal(broken_off(make, iterations, iteration, tmp_path / "run"), unbroken)


@pytest.mark.parametrize("rule", [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW])
def test_every_optimizer_goes_on_bit_for_bit(rule, tmp_path):
    def make(seed):
        return build("BetterRnnlm", rule(0.01), seed)

    unbroken = make(0)
    finish(iterations(unbroken))
    expect_equal(broken_off(make, iterations, 4, tmp_path / "run"), unbroken)


def test_a_rate_that_was_changed_on_the_way_is_kept(tmp_path):
    def with_decay(trainer):
        while trainer.epoch < 3:
            yield from iterations(trainer, trainer.epoch + 1)
            trainer.optimizer.lr /= 2

    def make(seed):
        return build("Rnnlm", SGD(1.0), seed)

    unbroken = make(0)
    finish(with_decay(unbroken))
    expect_equal(broken_off(make, with_decay, WINDOWS + 2, tmp_path / "run"), unbroken)


@pytest.mark.parametrize("iteration", [1, 4, 9])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_schedule_an_average_and_random_windows_go_on_bit_for_bit(iteration, decay, tmp_path):
    def make(seed):
        trainer = build("AwdRnnlm", SGD(1.0, weight_decay=1e-3), seed)
        trainer.schedule = schedule("cosine", 1.0, epochs=2)
        trainer.average = WeightAverage(trainer.model.params, decay)
        return trainer

    def randomly(trainer):
        return iterations(trainer, random_offset=True, random_sizes=True)

    unbroken = make(0)
    finish(randomly(unbroken))
    resumed = broken_off(make, randomly, iteration, tmp_path / "run")
    expect_equal(resumed, unbroken)
    for a, b in zip(resumed.average.averages, unbroken.average.averages, strict=True):
        same(a, b)


def test_arrays_whose_paths_are_the_same_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two arrays would have the name 'a\.b'"):
        write_checkpoint(tmp_path / "run", {"a.b": np.ones(2), "a": {"b": np.zeros(2)}})


def test_an_average_is_not_lost_unseen():
    with_average, without = build("Rnnlm", SGD(1.0)), build("Rnnlm", SGD(1.0))
    with_average.average = WeightAverage(with_average.model.params)
    for kept, other in [(with_average, without), (without, with_average)]:
        with pytest.raises(ValueError, match="has no average"):
            other.load_state_dict(kept.state_dict())


class Classifier(BaseModel):
    """Cells outside the time layers: a mask on the input, one layer."""

    class Masked(Dropout):
        def forward(self, x):
            return super().forward(x, True)

    def __init__(self, seed):
        rng = generator(seed)
        output = Affine(floats(rng, 3, 2), np.zeros(2))
        self.compose([self.Masked(0.2, rng), output], SoftmaxWithLoss())


def test_plain_data_goes_on_in_the_middle_of_an_epoch_with_the_same_order(tmp_path):
    x, t = floats(generator(1), 10, 3), ids(generator(2), 2, 10)

    def plain(trainer):
        return trainer.iterations(x, t, 3 - trainer.epoch, batch_size=3, eval_interval=3)

    def make(seed):
        return Trainer(Classifier(seed), Adam(0.05), lambda record: None, generator(seed))

    unbroken = make(0)
    finish(plain(unbroken))
    expect_equal(broken_off(make, plain, 6, tmp_path / "run"), unbroken)


def test_going_on_in_the_same_process_is_as_exact():
    unbroken, trainer = (build("BetterRnnlm", Momentum(0.1)) for _ in range(2))
    finish(iterations(unbroken))
    stop_after(4, trainer, iterations(trainer))
    finish(iterations(trainer))
    expect_equal(trainer, unbroken)


def test_a_state_is_a_copy_that_later_training_does_not_change():
    trainer = build("BetterRnnlm", Adam(0.01))
    finish(iterations(trainer, 1))
    state = trainer.state_dict()
    finish(iterations(trainer, 3))
    again = build("BetterRnnlm", Adam(0.01), seed=3)
    again.load_state_dict(state)
    finish(iterations(again, 3))
    expect_equal(again, trainer)


def test_time_between_two_iterations_is_not_time_of_training(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("common.trainer.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def pass_time(seconds):
        clock.now += seconds

    trainer = build("Rnnlm", SGD(0.1))
    forward = trainer.model.forward
    monkeypatch.setattr(trainer.model, "forward", lambda *xs: (pass_time(0.25), forward(*xs))[1])
    for _ in iterations(trainer):
        pass_time(5.0)
    assert len(trainer.curve) > 4
    assert {r["ms_per_iteration"] for r in trainer.curve} == {250.0}


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("SimpleRnnlm", SGD(0.1)), r"SimpleRnnlm: .* it belongs to Rnnlm"),
        (lambda: build("Rnnlm", Momentum(0.1)), r"expected the state of .*Momentum.*'SGD'"),
        (
            lambda: RnnlmTrainer(MODELS["Rnnlm"](V + 1, 4, 5, 0), SGD(0.1)),
            r"embedding\.W: expected \(8, 4\) float32, got \(7, 4\) float32",
        ),
        (
            lambda: RnnlmTrainer(tiny_model("Rnnlm", "float64"), SGD(0.1)),
            r"expected \(7, 4\) float64, got \(7, 4\) float32",
        ),
    ],
)
def test_the_state_of_something_else_is_refused_and_changes_nothing(make, message):
    trainer = build("Rnnlm", SGD(0.1))
    finish(iterations(trainer, 1))
    other = make()
    before = snapshot(other.model)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(trainer.state_dict())
    for a, b in zip(before, snapshot(other.model), strict=True):
        same(a, b)
    assert other.iteration == 0


def test_an_order_drawn_by_another_kind_of_generator_is_refused():
    trainer = Trainer(Classifier(0), SGD(0.1), rng=np.random.Generator(np.random.MT19937(1)))
    other = Trainer(Classifier(0), SGD(0.1), rng=generator())
    with pytest.raises(ValueError, match="expected a generator PCG64, got MT19937"):
        other.load_state_dict(trainer.state_dict())


def test_a_model_that_hides_its_state_cannot_be_kept():
    model = tiny_model("Rnnlm")

    class Hidden:
        params, grads = model.params, model.grads

        def reset_state(self):
            pass

    with pytest.raises(TypeError, match="Hidden has reset_state but no get_state"):
        RnnlmTrainer(Hidden(), SGD(0.1)).state_dict()


# ---- the file ----


def test_a_nest_of_anything_comes_back_exactly(tmp_path):
    state = {
        "arrays": [np.arange(3, dtype=np.int64), {"half": np.float16([[0.1]])}, np.zeros((0, 2))],
        "scalar": np.float32(0.1),
        "numbers": [0.1, math.inf, 2**100, True, None],
        "text": "ü",
        "empty": {},
    }
    write_checkpoint(tmp_path / "file", state)
    back = read_checkpoint(tmp_path / "file")
    same(back["arrays"][0], state["arrays"][0])
    same(back["arrays"][1]["half"], state["arrays"][1]["half"])
    same(back["arrays"][2], state["arrays"][2])
    same(back["scalar"], np.array(state["scalar"]))
    for key in ("numbers", "text", "empty"):
        assert back[key] == state[key]


def test_a_file_of_weights_is_no_checkpoint(tmp_path):
    tiny_model("Rnnlm").save_params(tmp_path / "weights")
    with pytest.raises(ValueError, match=r"weights: a safetensors file, but not a checkpoint"):
        read_checkpoint(tmp_path / "weights")


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = tmp_path / "file"
    write_checkpoint(path, {"a": np.ones(5)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_checkpoint(path)


def test_on_a_full_disk_the_checkpoint_before_stays_whole(tmp_path):
    path = tmp_path / "file"
    write_checkpoint(path, {"a": np.ones(5)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write the checkpoint \(File too large\)"):
            write_checkpoint(path, {"a": np.ones(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    same(read_checkpoint(path)["a"], np.ones(5))
