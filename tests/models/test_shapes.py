"""The five shapes of recurrence: what each reads and answers, and that it learns its task."""

import numpy
import pytest

from common.functions import log_softmax
from common.gradient_check import check_model
from common.layers import LSTM
from common.np import np
from common.time_layers import TimeGRU, TimeLSTM, TimeRNN
from models import shapes
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same
from train.shapes import train

S = 4
SHAPES = {
    # what is read, what is answered
    "OneToOne": ((N, D), (N,)),
    "OneToMany": ((N, D), (N, S)),
    "ManyToOne": ((N, T, D), (N,)),
    "ReadThenWrite": ((N, T, D), (N, S)),
    "StepByStep": ((N, T, D), (N, T)),
}
every_shape = pytest.mark.parametrize("name", SHAPES)
on_both = pytest.mark.usefixtures("backend")


def model_of(name, rng=0, dtype="float64", **options):
    num_answers = [S] if name in ("OneToMany", "ReadThenWrite") else []
    return getattr(shapes, name)(D, H, V, *num_answers, rng=rng, dtype=dtype, **options)


def example_of(name, dtype="float64"):
    read, answered = SHAPES[name]
    return floats(generator(1), *read, dtype=dtype), ids(generator(2), V, *answered)


# ---- each learns a task that was made for it ----


@pytest.mark.parametrize(
    ("shape", "at_least"),
    [
        ("one to one", 0.97),
        ("one to many", 0.98),
        ("many to one", 0.98),
        pytest.param("read, then write", 0.99, marks=pytest.mark.slow),
        ("step by step", 0.97),
    ],
)
def test_every_answer_is_right_for_nearly_all_examples_that_it_has_not_seen(shape, at_least):
    trained = train(shape, seed=0)
    assert trained.accuracy > at_least
    assert trained.losses[-1] < trained.losses[0] / 5


# ---- what goes in and comes out ----


@on_both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_shape
def test_scores_loss_and_gradients_have_their_shapes_and_dtype(name, dtype):
    model, (xs, ts) = model_of(name, dtype=dtype), example_of(name, dtype)
    ys = model.predict(xs)
    assert (ys.shape, ys.dtype) == ((*ts.shape, V), dtype)
    loss = model.forward(xs, ts)
    assert loss.shape == () and abs(float(loss) - numpy.log(V)) < 1
    dxs = model.backward()
    assert (dxs.shape, dxs.dtype) == (xs.shape, dtype)
    assert all(grad.any() and grad.dtype == dtype for grad in model.grads)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "ReadThenWrite"])
def test_the_loss_is_the_mean_surprise_at_the_right_answers(name):
    model, (xs, ts) = model_of(name), example_of(name)
    log_p = numpy.take_along_axis(log_softmax(model.predict(xs)), ts[..., None], axis=-1)
    close(model.forward(xs, ts), -log_p.mean())


@every_shape
def test_every_example_stands_alone_in_batches_of_any_size(name):
    model, (xs, _) = model_of(name), example_of(name)
    together = model.predict(xs)
    for n in range(N):
        close(model.predict(xs[n : n + 1])[0], together[n])


@pytest.mark.parametrize("cell", [TimeRNN, TimeLSTM, TimeGRU])
def test_step_by_step_answers_before_it_has_read_on(cell):
    model, (xs, _) = model_of("StepByStep", cell=cell), example_of("StepByStep")
    before = model.predict(xs).copy()
    xs[:, -1] += 1
    after = model.predict(xs)
    same(after[:, :-1], before[:, :-1])
    assert abs(after[:, -1] - before[:, -1]).min() > 0


def test_one_to_many_is_step_by_step_that_reads_zeros_after_the_first_step():
    one_to_many, step_by_step = model_of("OneToMany"), model_of("StepByStep")
    x, _ = example_of("OneToMany")
    xs = np.zeros((N, S, D))
    xs[:, 0] = x
    same(one_to_many.predict(x), step_by_step.predict(xs))


@pytest.mark.parametrize("name", ["ManyToOne", "ReadThenWrite"])
def test_what_is_read_first_counts_in_the_answer(name):
    model, (xs, _) = model_of(name), example_of(name)
    before = model.predict(xs).copy()
    xs[:, 0] += 1
    assert abs(model.predict(xs) - before).min() > 0


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_writing_reads_what_was_written_as_training_reads_what_is_right(cell):
    model, (xs, _) = model_of("ReadThenWrite", cell=cell), example_of("ReadThenWrite")
    rng = generator()
    for param in model.params:
        param[...] = 3 * floats(rng, *param.shape)
    scores = model.predict(xs)
    written = scores.argmax(axis=2)
    assert (written[:, 1:] != written[:, :-1]).any()
    log_p = numpy.take_along_axis(log_softmax(scores), written[..., None], axis=2)
    close(model.forward(xs, written), -log_p.mean())


def test_the_reader_of_read_then_write_learns_through_the_state_alone():
    model, (xs, ts) = model_of("ReadThenWrite"), example_of("ReadThenWrite")
    model.forward(xs, ts)
    model.backward()
    assert all(grad.any() for grad in model.encoder.grads)
    model.decoder.backward = lambda dhs: None
    model.decoder.dstate = tuple(np.zeros((1, N, H)) for _ in "hc")
    model.backward()
    assert not any(grad.any() for grad in model.encoder.grads)


# ---- what every model can do ----


@every_shape
def test_one_seed_makes_one_model(name):
    first, second, other = (model_of(name, rng) for rng in (3, numpy.random.default_rng(3), 4))
    for a, b, c in zip(first.params, second.params, other.params, strict=True):
        same(a, b)
        assert abs(a - c).max() > 0


@every_shape
def test_weights_come_back_from_a_file(name, tmp_path):
    model, other = model_of(name, 0, "float32"), model_of(name, 1, "float32")
    model.save_params(tmp_path / "weights")
    other.load_params(tmp_path / "weights")
    xs, _ = example_of(name, "float32")
    same(other.predict(xs), model.predict(xs))


def test_weights_have_names():
    assert list(model_of("OneToOne").named_params()) == [
        *("affine1.W", "affine1.b", "affine2.W", "affine2.b"),
    ]
    assert list(model_of("ManyToOne", cell=TimeRNN).named_params()) == [
        *("rnn.Wx", "rnn.Wh", "rnn.b", "affine.W", "affine.b"),
    ]
    assert list(model_of("ReadThenWrite").named_params()) == [
        *("stack1.Wx_l0", "stack1.Wh_l0", "stack1.b_l0"),
        *("stack2.Wx_l0", "stack2.Wh_l0", "stack2.b_l0", "affine.W", "affine.b"),
    ]


@every_shape
def test_reset_state_changes_nothing_where_nothing_is_kept(name):
    model, (xs, _) = model_of(name), example_of(name)
    before = model.predict(xs)
    model.reset_state()
    same(model.predict(xs), before)


@every_shape
def test_backward_twice_is_the_same(name):
    model, (xs, ts) = model_of(name), example_of(name)
    model.forward(xs, ts)
    first = [model.backward(), *(grad.copy() for grad in model.grads)]
    for a, b in zip(first, [model.backward(), *model.grads], strict=True):
        same(a, b)


@every_shape
def test_backward_needs_a_forward_pass(name):
    with pytest.raises(RuntimeError, match="call forward first"):
        model_of(name).backward()


@every_shape
def test_backward_after_predict_or_evaluation_is_refused_until_the_next_forward(name):
    model, (xs, ts) = model_of(name), example_of(name)
    model.forward(xs, ts)
    expected = model.backward()
    for work in (lambda: model.predict(xs), lambda: model.forward(xs, ts, train_flg=False)):
        work()
        with pytest.raises(RuntimeError, match=f"^{name}.backward: predict .* since forward"):
            model.backward()
        model.forward(xs, ts)
        same(model.backward(), expected)


@pytest.mark.parametrize("cell", ["rnn", "peephole_lstm", LSTM])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "OneToOne"])
def test_a_cell_of_any_kind_has_the_gradients_of_its_loss(name, cell):
    model, rng = model_of(name, cell=cell), generator()
    for param in model.params:  # of a size where no gradient hides in the noise
        param[...] = 0.5 * floats(rng, *param.shape)
    report = check_model(model, *example_of(name))
    assert report.ok, report


@pytest.mark.parametrize("name", ["StepByStep", "ManyToOne"])
def test_a_cell_by_name_begins_at_the_weights_of_its_time_layer(name):
    for cell, layer in {"rnn": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}.items():
        by_name, by_layer = model_of(name, cell=cell), model_of(name, cell=layer)
        for a, b in zip(by_name.params, by_layer.params, strict=True):
            same(a, b)
        assert abs(by_name.params[1]).max() <= H**-0.5


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "OneToOne"])
def test_a_cell_that_is_not_known_is_refused(name):
    with pytest.raises(ValueError, match=r"cell 'lstn': expected rnn, lstm, gru"):
        model_of(name, cell="lstn")


@pytest.mark.parametrize("size", ["input_size", "hidden_size", "num_classes"])
@every_shape
def test_a_size_of_zero_is_refused(name, size):
    sizes = {"input_size": D, "hidden_size": H, "num_classes": V, size: 0}
    if name in ("OneToMany", "ReadThenWrite"):
        sizes["num_answers"] = S
    with pytest.raises(ValueError, match=rf"^{name}: expected {size} of 1 or more, got 0"):
        getattr(shapes, name)(**sizes)


@pytest.mark.parametrize("name", ["OneToMany", "ReadThenWrite"])
def test_answers_are_at_least_one(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected num_answers of 1 or more, got 0"):
        getattr(shapes, name)(D, H, V, 0)


@every_shape
def test_inputs_of_another_width_are_refused(name):
    model, (xs, ts) = model_of(name), example_of(name)
    with pytest.raises(ValueError, match=r"expected xs? of shape .*4\), got"):
        model.forward(xs[..., :-1], ts)
