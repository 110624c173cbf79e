"""Chance in layers, models and training: by seed, layer, pass and stream, whoever draws."""

import copy
import pickle

import pytest

from common.base_model import BaseModel
from common.files.tensors import read_checkpoint, write_checkpoint
from common.layers import Dropout
from common.masks import Masks
from common.np import np
from common.optimizer import SGD
from common.time_layers import (
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    TimeOutputWithLoss,
    TimeSoftmaxWithLoss,
    TimeStack,
    TimeWeightDrop,
)
from common.trainer import RnnlmTrainer
from tests.builders import D, H, N, T, V, cell_weights, floats, generator, ids, same, tiny_model

XS = np.ones((N, T, 40))


def masks_of(layer, xs=XS):
    """What the next training pass keeps of ones."""
    return layer.forward(xs) != 0


# ---- one layer ----


def test_two_layers_of_their_own_differ_and_two_of_one_seed_do_not():
    assert not bool((masks_of(TimeDropout(0.5)) == masks_of(TimeDropout(0.5))).all())
    first, second = (TimeDropout(0.5, rng=generator(4)) for _ in range(2))
    for _ in range(2):
        same(masks_of(first), masks_of(second))


def test_layers_that_share_a_generator_differ_and_take_no_draw_from_it():
    rng, untouched = generator(4), generator(4)
    layers = [TimeDropout(0.5, rng=rng) for _ in range(3)]
    assert [layer.masks.layer for layer in layers] == [0, 1, 2]
    first, second, third = map(masks_of, layers)
    assert not bool((first == second).all() or (second == third).all())
    assert rng.random() == untouched.random()


def test_the_seed_does_not_depend_on_what_was_drawn_before():
    early, late = generator(4), generator(4)
    late.standard_normal(1000)
    assert Masks(early).seed == Masks(late).seed != Masks(generator(5)).seed


def test_a_number_serves_as_a_seed():
    assert Masks(4).seed == Masks(generator(4)).seed


@pytest.mark.parametrize("variational", [False, True])
def test_a_sequence_is_dropped_from_alike_in_any_batch(variational):
    many, few = (TimeDropout(0.4, variational, generator(4)) for _ in range(2))
    xs = np.ones((6, T, 40))
    for _ in range(2):
        same(many.forward(xs)[:2], few.forward(xs[:2]))


def test_the_one_step_dropout_has_a_stream_for_every_row():
    many, few = (Dropout(0.4, generator(4)) for _ in range(2))
    for _ in range(2):
        same(many.forward(np.ones((6, 4, 5)))[:2], few.forward(np.ones((2, 4, 5))))


@pytest.mark.parametrize("make", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_with_the_same_masks_by_itself(make):
    layer = TimeDropout(0.5, rng=generator(4))
    masks_of(layer)
    other = make(layer)
    expected = masks_of(layer)
    masks_of(layer)
    same(masks_of(other), expected)
    assert (layer.masks.passes, other.masks.passes) == (3, 2)


def test_setting_the_count_back_repeats_a_pass():
    layer = TimeDropout(0.5, rng=generator(4))
    first, second = masks_of(layer), masks_of(layer)
    layer.masks.passes = 0
    same(masks_of(layer), first)
    same(masks_of(layer), second)


def test_evaluation_is_not_counted():
    layer = TimeDropout(0.5, rng=generator(4))
    for train_flg in (True, False, False, True):
        layer.train_flg = train_flg
        layer.forward(XS)
    assert layer.masks.passes == 2


def test_every_weight_that_is_dropped_from_has_a_mask_of_its_own():
    kept, scale = Masks(4).shared(0.25, (30, 40), (30, 40), (7,))
    assert [mask.shape for mask in kept] == [(30, 40), (30, 40), (7,)]
    assert not bool((kept[0] == kept[1]).all())
    assert scale == 1 / 0.75


def test_the_scale_is_that_of_the_ratio_as_it_is_taken():
    masks = Masks(4)
    assert (
        masks.shared(0.4, (3,))[1] == masks.of_streams(0.4, 2, 3, 4)[1] == 65536 / (65536 - 26214)
    )


# ---- a model ----


def composed(rng, *between):
    """Embedding, LSTM and two dropouts around ``between``, layers that keep the width H."""
    embedding = TimeEmbedding(floats(rng, V, H), 0.4, rng)
    first, last = TimeDropout(0.5, rng=rng), TimeDropout(0.5, True, rng)
    output = TimeAffine(floats(rng, H, V), np.zeros(V))
    model = BaseModel()
    model.compose([embedding, first, *between, last, output], TimeSoftmaxWithLoss())
    return model


def places(model):
    return [(masks.seed, masks.layer) for masks in model.masks()]


def test_a_model_numbers_what_drops_from_its_input_to_its_loss_and_has_one_seed():
    seed = Masks(generator(4)).seed
    rng = generator(4)
    lstm = TimeWeightDrop(TimeLSTM(*(floats(rng, *s) for s in [(H, 4 * H)] * 2 + [(4 * H,)])), 0.5)
    stack = TimeStack(H, H, num_layers=3, dropout=0.5)
    model = composed(rng, lstm, stack)
    assert places(model) == [(seed, number) for number in range(6)]
    drops = [model.layers[0], model.layers[1], lstm, *stack.dropouts, model.layers[4]]
    for layer, masks in zip(drops, model.masks(), strict=True):
        assert layer.masks is masks


def test_a_model_without_dropout_has_no_masks():
    assert tiny_model("Rnnlm").masks() == []


def test_a_layer_more_that_does_not_drop_changes_no_mask_one_that_drops_those_behind_it():
    xs = ids(generator(1), V, N, T)

    def seen(*between):
        model = composed(generator(4), *between)
        model.predict(xs, train_flg=True)
        masks = [model.layers[k].cache for k in (0, 1, -2)]
        return masks[0][1], masks[1][0], masks[2][0]

    plain = seen()
    with_lstm = seen(TimeLSTM(*(floats(generator(), *s) for s in [(H, 4 * H)] * 2 + [(4 * H,)])))
    for a, b in zip(plain, with_lstm, strict=True):
        same(a, b)
    with_dropout = seen(TimeDropout(0.5))
    same(plain[0], with_dropout[0])
    same(plain[1], with_dropout[1])
    assert not bool((plain[2] == with_dropout[2]).all())


@pytest.mark.parametrize("name", ["BetterRnnlm", "AwdRnnlm"])
def test_a_batch_in_two_halves_has_the_masks_of_the_whole(name):
    """The second half as a process of its own would draw it: the streams behind the first's."""
    xs = ids(generator(1), V, 4, T)
    whole, half = (tiny_model(name, seed=3, dropout_ratio=0.4) for _ in range(2))
    for _ in range(2):
        whole.predict(xs, train_flg=True)
        half.predict(xs[:2], train_flg=True)
        for one, other in zip(whole.layers, half.layers, strict=True):
            if isinstance(one, TimeDropout):
                same(one.cache[0][:2], other.cache[0])
            elif isinstance(one, TimeWeightDrop):
                same(one.cache[0][0], other.cache[0][0])


def test_initial_weights_are_those_of_a_model_without_dropout():
    for dropping, plain in zip(
        tiny_model("AwdRnnlm", dropout_ratio=0.4).params, tiny_model("AwdRnnlm").params, strict=True
    ):
        same(dropping, plain)


# ---- training ----

CORPUS = ids(generator(1), V, 201)
RANDOM = {"batch_size": 4, "time_size": 8, "random_offset": True, "random_sizes": True}


def trainer_of(seed=0):
    model = tiny_model("AwdRnnlm", seed=seed, dropout_ratio=0.3)
    return RnnlmTrainer(model, SGD(0.5), lambda record: None, generator(seed))


def train(trainer, count=None):
    """So many iterations more, or to the end of the second epoch."""
    left = trainer.iterations(CORPUS[:-1], CORPUS[1:], 2 - trainer.epoch, **RANDOM)
    for done, _ in enumerate(left, start=1):
        if done == count:
            return trainer
    return trainer


def expect_same(trainer, expected):
    assert trainer.iteration == expected.iteration
    for a, b in zip(trainer.model.params, expected.model.params, strict=True):
        same(a, b)
    passes = [[masks.passes for masks in t.model.masks()] for t in (trainer, expected)]
    assert passes[0] == passes[1] == [trainer.iteration] * len(passes[0])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("stopped_after", [1, 4, 9])
def test_a_run_of_every_chance_goes_on_from_a_file_bit_for_bit(stopped_after, tmp_path):
    first = train(trainer_of(), stopped_after)
    write_checkpoint(tmp_path / "run", first.state_dict())
    second = trainer_of(seed=5)  # other weights, masks and windows: all must come from the file
    second.load_state_dict(read_checkpoint(tmp_path / "run"))
    expect_same(train(second), train(trainer_of()))


def test_a_checkpoint_holds_counts_and_no_generator():
    trainer = train(trainer_of(), 3)
    state = trainer.state_dict()
    assert state["model"]["masks"] == [
        {"layer": number, "seed": trainer.seed, "passes": 3} for number in range(6)
    ]
    assert "bit_generator" not in repr(state)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("iteration", [1, 3, 8])
def test_an_iteration_that_is_interrupted_repeats_its_window_and_its_masks(
    where, iteration, monkeypatch
):
    trainer, calls = trainer_of(), []
    original = getattr(TimeOutputWithLoss, where)

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == iteration:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(TimeOutputWithLoss, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    assert trainer.iteration == iteration - 1
    train(trainer)
    monkeypatch.undo()
    expect_same(trainer, train(trainer_of()))


def older(state):
    """As the version before kept it."""
    generators = [generator().bit_generator.state]
    model = {key: value for key, value in state["model"].items() if key != "masks"}
    kept = {key: value for key, value in state.items() if key != "seed"}
    return {**kept, "rng": generators[0], "model": {**model, "generators": generators}}


def test_a_state_that_holds_generators_is_refused_and_changes_nothing():
    trainer = train(trainer_of(), 2)
    other = trainer_of(seed=5)
    before = [param.copy() for param in other.model.params]
    with pytest.raises(ValueError, match=r"^RnnlmTrainer: .*older version, which kept generators"):
        other.load_state_dict(older(trainer.state_dict()))
    for now, then in zip(other.model.params, before, strict=True):
        same(now, then)


def test_the_state_of_a_model_that_drops_elsewhere_is_refused():
    model = tiny_model("BetterRnnlm", dropout_ratio=0.3)
    trainer = RnnlmTrainer(model, SGD(0.1))
    state = trainer.state_dict()
    state["model"]["masks"].pop()
    with pytest.raises(ValueError, match=r"3 layers that drop, got 2"):
        trainer.load_state_dict(state)


def test_weight_drop_alone_draws_anew_for_every_window():
    layer = TimeWeightDrop(TimeLSTM(*cell_weights("TimeLSTM")), 0.5, generator(3))
    seen = []
    for _ in range(2):
        layer.forward(np.ones((N, T, D)))
        seen.append(layer.cache[0][0])
    assert not bool((seen[0] == seen[1]).all())
