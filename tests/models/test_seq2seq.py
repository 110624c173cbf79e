"""From sequence to sequence: what the three models compute, and how they write."""

import copy
import functools
import itertools
import pickle

import numpy
import pytest

from common.functions import log_softmax
from common.layers import LSTM
from common.np import np, to_cpu
from common.optimizer import SGD, Adam
from common.trainer import Trainer
from models import AttentionSeq2seq, PeekySeq2seq, Seq2seq
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same

S = T + 2
MODELS = {"Seq2seq": Seq2seq, "PeekySeq2seq": PeekySeq2seq, "AttentionSeq2seq": AttentionSeq2seq}
every_model = pytest.mark.parametrize("name", MODELS)
on_both = pytest.mark.usefixtures("backend")


def model_of(name, dtype="float64", seed=0, scale=0.7, **options):
    """A model whose weights are normal numbers, so that its answers differ; V ids, H wide."""
    model, rng = MODELS[name](V, D, H, seed, dtype, **options), generator(seed + 1)
    for param in model.params:
        param[...] = scale * floats(rng, *param.shape, dtype=dtype)
    return model


def example(num=N):
    """What is read (N, S), and what is written (N, T + 1) from a start on; without id 0."""
    rng = generator(5)
    return 1 + ids(rng, V - 1, num, S), 1 + ids(rng, V - 1, num, T + 1)


START, END = 0, 3  # of the answers of taught models, which know two ids more


@functools.cache
def taught(name):
    """A model that has begun to repeat what it reads, up to a length that it can but guess."""
    rng = generator(3)
    x, t = rng.integers(1, 3, (256, S)), numpy.full((256, S + 1), END)
    lengths = 1 + (x == 1).sum(axis=1) // 2 + rng.integers(0, 3, 256)
    for row, said, length in zip(t, x, lengths, strict=True):
        row[: length + 1] = [START, *said[:length]]
    model = MODELS[name](4, D, 12, rng=1, dtype="float64")
    trainer = Trainer(model, Adam(0.03), lambda record: None, rng)
    trainer.fit(x, t, 12, batch_size=32)
    return model


def questions(num):
    return generator(4).integers(1, 3, (num, S))


def log_likelihood(model, xs, start_id, answers):
    """log p of each whole answer (N, T), from one pass under teacher forcing."""
    ts = numpy.concatenate([numpy.full((len(xs), 1), start_id), answers], axis=1)
    log_p = to_cpu(log_softmax(model.predict(xs, np.asarray(ts))))
    return numpy.take_along_axis(log_p, ts[:, 1:, None], axis=2)[..., 0].sum(axis=1)


# ---- what they compute ----


def by_hand(name, model, xs, ts):
    """Scores of one example (1, S), (1, T + 1), from cells of one step."""
    p = model.named_params()
    reader, writer = (
        LSTM(*(p[f"{coder}.lstm.{key}"] for key in ("Wx", "Wh", "b")))
        for coder in ("encoder", "decoder")
    )
    h, c = numpy.zeros((1, H)), numpy.zeros((1, H))
    read = []
    for k in xs[0]:
        h, c = reader.forward(p["encoder.embedding.W"][[k]], h, c)
        read.append(h)
    last, c = h, numpy.zeros((1, H))
    scores = []
    for k in ts[0, :-1]:
        x = p["decoder.embedding.W"][[k]]
        if name == "PeekySeq2seq":
            x = numpy.hstack([last, x])
        h, c = writer.forward(x, h, c)
        seen = [h]
        if name == "PeekySeq2seq":
            seen = [last, h]
        if name == "AttentionSeq2seq":
            weights = numpy.exp([(h @ e.T).item() for e in read])
            seen = [sum(w * e for w, e in zip(weights / weights.sum(), read, strict=True)), h]
        scores.append(numpy.hstack(seen) @ p["decoder.affine.W"] + p["decoder.affine.b"])
    return numpy.stack(scores, axis=1)


@every_model
def test_scores_are_those_of_cells_one_step_after_the_other(name):
    model, (xs, ts) = model_of(name), example()
    scores = model.predict(xs, ts)
    for n in range(N):
        close(scores[n : n + 1], by_hand(name, model, xs[n : n + 1], ts[n : n + 1]), 1e-10)


@on_both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_model
def test_scores_loss_and_gradients_have_their_shapes_and_dtype(name, dtype):
    model, (xs, ts) = MODELS[name](V, D, H, 0, dtype), example()
    scores = model.predict(xs, ts)
    assert (scores.shape, scores.dtype) == ((N, T, V), dtype)
    loss = model.forward(xs, ts)
    assert loss.shape == () and abs(float(loss) - numpy.log(V)) < 1
    assert model.backward() is None
    assert all(grad.any() and grad.dtype == dtype for grad in model.grads)


@every_model
def test_the_loss_is_the_mean_surprise_at_all_ids_behind_the_start(name):
    model, (xs, ts) = model_of(name), example()
    log_p = log_softmax(model.predict(xs, ts))
    close(model.forward(xs, ts), -numpy.take_along_axis(log_p, ts[:, 1:, None], axis=2).mean())


@every_model
def test_every_example_stands_alone_in_batches_of_any_size(name):
    model, (xs, ts) = model_of(name), example(4)
    together = model.predict(xs, ts)
    for n in range(4):
        close(model.predict(xs[n : n + 1], ts[n : n + 1])[0], together[n])


@every_model
def test_a_step_that_is_written_later_changes_no_score_before_it(name):
    model, (xs, ts) = model_of(name), example()
    before, other = model.predict(xs, ts), ts.copy()
    other[:, 1] = ts[:, 1] % (V - 1) + 1
    after = model.predict(xs, other)
    same(after[:, 0], before[:, 0])
    assert abs(after[:, 1:] - before[:, 1:]).min() > 0


@every_model
def test_what_is_read_first_counts_in_the_answer(name):
    model, (xs, ts) = model_of(name), example()
    before, other = model.predict(xs, ts), xs.copy()
    other[:, 0] = xs[:, 0] % (V - 1) + 1
    assert abs(model.predict(other, ts) - before).max() > 1e-6


@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_the_weights_of_attention_are_kept_a_row_for_each_step_written(score):
    model, (xs, ts) = model_of("AttentionSeq2seq", score=score), example()
    model.predict(xs, ts)
    weights = model.decoder.attention.attention_weights
    assert weights.shape == (N, T, S)
    close(weights.sum(axis=2), numpy.ones((N, T)))


# ---- padding ----


def padded(row, where, pad):
    """``row`` with two ids of padding before it, behind it, or one between its first two."""
    return {
        "before": [pad, pad, *row],
        "behind": [*row, pad, pad],
        "between": [row[0], pad, *row[1:], pad],
    }[where]


@on_both
@pytest.mark.parametrize("where", ["before", "behind", "between"])
@every_model
def test_padding_changes_neither_scores_nor_loss_nor_gradients(name, where):
    model, (xs, ts) = model_of(name, pad_id=0), example()
    scores, loss = model.predict(xs, ts), model.forward(xs, ts)
    model.backward()
    expected = [to_cpu(array).copy() for array in (scores, loss, *model.grads)]
    rows = np.asarray([padded(row, where, 0) for row in to_cpu(xs).tolist()])
    scores, loss = model.predict(rows, ts), model.forward(rows, ts)
    model.backward()
    for now, want in zip([scores, loss, *model.grads], expected, strict=True):
        close(now, want)


@every_model
def test_rows_of_different_lengths_give_the_mean_of_what_each_gives_alone(name):
    model, (xs, ts) = model_of(name, pad_id=0), example()
    xs[1, 2:] = ts[1, 2:] = 0
    loss = model.forward(xs, ts)
    long, short = (float(model.forward(xs[n : n + 1], ts[n : n + 1])) for n in range(2))
    close(loss, numpy.float64((T * long + short) / (T + 1)))
    close(model.forward(xs[1:, :2], ts[1:, :2]), numpy.float64(short))


@every_model
def test_a_trainer_reports_the_mean_over_the_targets_that_count(name):
    model = model_of(name, pad_id=0)
    xs, ts = 1 + ids(generator(3), V - 1, 7, S), 1 + ids(generator(4), V - 1, 7, T + 1)
    for n in range(5):
        ts[n, 2 + n % 2 :] = 0  # answers of one and of two ids, and of T in the last batch
    losses = [float(model.forward(xs[n : n + 1], ts[n : n + 1])) for n in range(7)]
    counts = [int((row[1:] != 0).sum()) for row in ts]
    trainer = Trainer(model, SGD(0.0), lambda record: None, generator(5))
    trainer.fit(xs, ts, max_epoch=2, batch_size=2, max_grad=None, eval_interval=None)
    expected = np.average(losses, weights=counts)
    assert trainer.loss_list[-1] == pytest.approx(expected, rel=1e-9)
    assert abs(expected - np.mean(losses)) > 1e-4


def test_no_attention_falls_on_padding():
    model, (xs, ts) = model_of("AttentionSeq2seq", pad_id=0), example()
    xs[0, :2] = 0
    model.predict(xs, ts)
    weights = model.decoder.attention.attention_weights
    assert not weights[0, :, :2].any() and weights[0, :, 2:].all() and weights[1].all()


@every_model
def test_padding_does_not_change_what_is_written(name):
    model, (xs, _) = model_of(name, pad_id=0), example()
    rows = numpy.asarray([padded(row, "before", 0) for row in xs.tolist()])
    for beam_size in (1, 3):
        expected = model.generate_batch(xs, 1, 4, beam_size)
        same(model.generate_batch(rows, 1, 4, beam_size), expected)


# ---- how they write ----


def read_again(model, xs, start_id, length):
    """The likeliest id after all that stands so far, each time from the beginning."""
    ts = numpy.full((len(xs), 1), start_id)
    for _ in range(length):
        more = numpy.concatenate([ts, ts[:, :1]], axis=1)  # the last is not read
        ts = numpy.concatenate([ts, model.predict(xs, more)[:, -1:].argmax(axis=2)], axis=1)
    return ts[:, 1:]


@every_model
def test_greedy_takes_the_likeliest_id_after_all_that_it_has_written(name):
    model, xs = taught(name), questions(20)
    answers = model.generate_batch(xs, START, 6)
    assert answers.shape == (20, 6) and len({tuple(row) for row in answers}) > 1
    same(answers, read_again(model, xs, START, 6))


@on_both
@pytest.mark.parametrize("beam_size", [1, 3])
@every_model
def test_a_batch_is_written_as_each_alone(name, beam_size):
    model, (xs, _) = model_of(name), example(5)
    together = model.generate_batch(xs, 2, 4, beam_size)
    assert isinstance(together, numpy.ndarray)
    for n in range(5):
        alone = model.generate(xs[n : n + 1], 2, 4, beam_size)
        assert alone == together[n].tolist()
        assert {type(k) for k in alone} == {int}


def brute_force(model, xs, start_id, length):
    """The likeliest of all answers to each sequence, and its log p."""
    num_ids = len(model.params[-1])
    answers = numpy.array(list(itertools.product(range(num_ids), repeat=length)))
    best, values = [], []
    for n in range(len(xs)):
        log_p = log_likelihood(model, xs[[n] * len(answers)], start_id, answers)
        best.append(answers[log_p.argmax()])
        values.append(log_p.max())
    return numpy.array(best), numpy.array(values)


@every_model
def test_a_beam_that_misses_nothing_finds_the_likeliest_of_all_answers(name):
    model, xs = taught(name), questions(20)
    best, values = brute_force(model, xs, START, 4)
    same(model.generate_batch(xs, START, 4, beam_size=4**3), best)
    found = [
        log_likelihood(model, xs, START, model.generate_batch(xs, START, 4, beam_size))
        for beam_size in (1, 2, 6)
    ]
    assert (found[0] < values - 1e-6).any()  # greedy misses some
    for log_p in found:
        assert (log_p <= values + 1e-9).all()
    means = [log_p.mean() for log_p in found]
    assert means[0] < means[1] <= means[2] + 1e-9


@every_model
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_nothing_follows_the_end(name, beam_size):
    model, xs = taught(name), questions(20)
    answers = model.generate_batch(xs, START, 8, beam_size, END)
    lengths = [row.index(END) + 1 if END in row else 8 for row in answers.tolist()]
    for n, length in enumerate(lengths):
        assert set(answers[n, length:]) <= {END}
        alone = model.generate(xs[n : n + 1], START, 8, beam_size, END)
        assert alone == answers[n, :length].tolist()
    if beam_size == 1:  # until there it is what would have been written anyway
        assert len(set(lengths)) > 1
        free = model.generate_batch(xs, START, 8)
        for n, length in enumerate(lengths):
            same(answers[n, :length], free[n, :length])


@every_model
def test_the_likeliest_answer_with_an_end_counts_nothing_behind_it(name):
    model, xs = taught(name), questions(3)
    answers = model.generate_batch(xs, START, 4, beam_size=4**3, end_id=END)
    every_answer = numpy.array(list(itertools.product(range(4), repeat=4)))
    for x, answer in zip(xs, answers.tolist(), strict=True):
        values = {}
        for row, of_steps in zip(
            every_answer.tolist(), per_step(model, x, every_answer), strict=True
        ):
            length = row.index(END) + 1 if END in row else 4
            values[tuple(row[:length])] = of_steps[:length].sum()
        best = max(values, key=values.get)
        assert answer == [*best, *[END] * (4 - len(best))]


def per_step(model, x, answers):
    ts = numpy.concatenate([numpy.full((len(answers), 1), START), answers], axis=1)
    log_p = log_softmax(model.predict(numpy.tile(x, (len(answers), 1)), ts))
    return numpy.take_along_axis(log_p, answers[..., None], axis=2)[..., 0]


@every_model
def test_writing_leaves_training_alone(name):
    model, twin, (xs, ts) = model_of(name), model_of(name), example()
    losses = []
    for one in (model, twin):
        trainer = Trainer(one, Adam(0.01), lambda record: None, generator(1))
        for _ in range(2):
            trainer.fit(xs, ts, 1, batch_size=1)
            if one is model:
                one.generate_batch(xs[:1], 1, 5, beam_size=2)
        losses.append([record["loss"] for record in trainer.curve])
    assert losses[0] == losses[1]
    for a, b in zip(model.params, twin.params, strict=True):
        same(a, b)


@every_model
def test_an_answer_of_no_id_is_empty(name):
    xs, _ = example()
    assert model_of(name).generate_batch(xs, 1, 0).shape == (N, 0)
    assert model_of(name).generate(xs[:1], 1, 0) == []


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("pad_id", [None, 0])
@every_model
def test_a_device_computes_and_writes_what_the_cpu_does(name, pad_id, monkeypatch):
    xs, ts = (to_cpu(array) for array in example())
    xs[0, 0] = xs[1, -1] = 0
    there = model_of(name, pad_id=pad_id)
    loss = there.forward(xs, ts)
    there.backward()
    found = [to_cpu(array) for array in (loss, *there.grads)]
    answers = there.generate_batch(xs, 1, 4, beam_size=3)
    monkeypatch.setattr("common.config.GPU", False)
    here = model_of(name, pad_id=pad_id)
    expected = [here.forward(xs, ts), *(here.backward(), here.grads)[1]]
    for now, want in zip(found, expected, strict=True):
        close(now, want, 1e-9)
    same(answers, here.generate_batch(xs, 1, 4, beam_size=3))


@every_model
def test_a_training_pass_does_not_wait_for_a_device(name, waits):
    model, (xs, ts) = model_of(name, "float32"), (to_cpu(array) for array in example())
    xs, ts = numpy.asarray(xs), numpy.asarray(ts)
    waits.clear()
    model.forward(xs, ts)
    model.backward()
    assert waits == []


# ---- what every model can do ----


@pytest.mark.parametrize("name", ["PeekySeq2seq", "AttentionSeq2seq"])
def test_each_learns_to_say_three_symbols_backwards(name):
    x = numpy.array(list(itertools.product(range(1, 5), repeat=3)))
    t = numpy.concatenate([numpy.zeros((len(x), 1), int), x[:, ::-1]], axis=1)
    model = MODELS[name](5, 8, 24, rng=1)
    trainer = Trainer(model, Adam(0.02), lambda record: None, generator(1))
    trainer.fit(x, t, 60, batch_size=32, max_grad=5.0)
    right = (model.generate_batch(x, 0, 3) == t[:, 1:]).all(axis=1).mean()
    assert right > 0.95


@every_model
def test_one_seed_makes_one_model(name):
    first, second, other = (
        MODELS[name](V, D, H, rng) for rng in (3, numpy.random.default_rng(3), 4)
    )
    for a, b, c in zip(first.params, second.params, other.params, strict=True):
        same(a, b)
        assert not a.any() or abs(a - c).max() > 0  # biases begin at zero


@every_model
def test_weights_come_back_from_a_file(name, tmp_path):
    model, other = model_of(name, "float32"), model_of(name, "float32", seed=1)
    model.save_params(tmp_path / "weights")
    other.load_params(tmp_path / "weights")
    xs, ts = example()
    same(other.predict(xs, ts), model.predict(xs, ts))


@every_model
def test_weights_have_names_in_the_order_of_the_book(name):
    lstm = ["lstm.Wx", "lstm.Wh", "lstm.b"]
    assert list(model_of(name).named_params()) == [
        *(f"encoder.{key}" for key in ["embedding.W", *lstm]),
        *(f"decoder.{key}" for key in ["embedding.W", *lstm, "affine.W", "affine.b"]),
    ]
    names = list(model_of("AttentionSeq2seq", score="additive").named_params())
    assert [name for name in names if "attention" in name] == [
        f"decoder.additiveattention.{key}" for key in "WUv"
    ]


@every_model
def test_a_copy_and_a_pickle_learn_like_the_model(name):
    model, (xs, ts) = model_of(name), example()
    model.forward(xs, ts)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RuntimeError, match="forward"):
            other.backward()
        same(other.forward(xs, ts), model.forward(xs, ts))
        other.backward()
        model.backward()
        for a, b in zip(other.grads, model.grads, strict=True):
            same(a, b)
        Adam(0.1).update(other.params, other.grads)
        assert float(other.forward(xs, ts)) < float(model.forward(xs, ts))


@every_model
def test_gradients_may_be_written_into_other_arrays(name):
    model, (xs, ts) = model_of(name), example()
    model.forward(xs, ts)
    model.backward()
    before = [grad.copy() for grad in model.grads]
    arrays = [numpy.zeros_like(grad) for grad in model.grads]
    model.replace_gradients(arrays)
    model.backward()
    for array, want in zip(arrays, before, strict=True):
        same(array, want)


@pytest.mark.parametrize("pad_id", [None, 0])
@every_model
def test_backward_twice_is_the_same(name, pad_id):
    model, (xs, ts) = model_of(name, pad_id=pad_id), example()
    xs[0, 0] = 0
    model.forward(xs, ts)
    model.backward()
    first = [grad.copy() for grad in model.grads]
    model.backward()
    for a, b in zip(first, model.grads, strict=True):
        same(a, b)


@every_model
def test_backward_needs_a_forward_pass_that_nothing_has_replaced(name):
    model, (xs, ts) = model_of(name), example()
    with pytest.raises(RuntimeError, match="call forward first"):
        model.backward()
    for work in (
        lambda: model.predict(xs, ts),
        lambda: model.forward(xs, ts, train_flg=False),
        lambda: model.generate(xs[:1], 1, 2),
    ):
        model.forward(xs, ts)
        work()
        with pytest.raises(RuntimeError, match=f"^{name}.backward: .*call forward"):
            model.backward()


# ---- what is refused ----


@pytest.mark.parametrize("size", ["vocab_size", "wordvec_size", "hidden_size"])
@every_model
def test_a_size_of_zero_is_refused(name, size):
    sizes = {"vocab_size": V, "wordvec_size": D, "hidden_size": H, size: 0}
    with pytest.raises(ValueError, match=rf"^{name}: expected {size} of 1 or more, got 0"):
        MODELS[name](**sizes)


@pytest.mark.parametrize("pad_id", [-1, V])
def test_padding_that_is_no_id_is_refused(pad_id):
    with pytest.raises(ValueError, match=rf"^Seq2seq: expected pad_id in 0..6, got {pad_id}"):
        Seq2seq(V, D, H, pad_id=pad_id)


def test_a_score_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"expected a score of dot, general, additive, got 'sum'"):
        AttentionSeq2seq(V, D, H, score="sum")


def test_a_row_of_padding_alone_is_refused():
    model, (xs, ts) = model_of("Seq2seq", pad_id=0), example()
    xs[1] = 0
    with pytest.raises(ValueError, match="expected an id beside padding in each row"):
        model.forward(xs, ts)


@pytest.mark.parametrize("shape", [(N, 1), (N,), (N + 1, 3)])
def test_answers_that_do_not_fit_are_refused(shape):
    model, (xs, _) = model_of("Seq2seq"), example()
    with pytest.raises(ValueError, match=r"^Seq2seq: expected ts of shape \(2, T \+ 1\), the st"):
        model.forward(xs, numpy.ones(shape, int))


@pytest.mark.parametrize("pad_id", [None, 0])
@pytest.mark.parametrize(("bad", "error"), [(V, ValueError), (-1, ValueError), (0.5, TypeError)])
@every_model
def test_ids_out_of_range_are_refused(name, bad, error, pad_id):
    model, (xs, ts) = model_of(name, pad_id=pad_id), example()
    wrong = xs.astype(type(bad))
    wrong[0, 0] = bad
    with pytest.raises(error, match="expected xs"):
        model.forward(wrong, ts)
    with pytest.raises(error, match="expected xs"):
        model.generate(wrong[:1], 1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_size": 0}, "expected beam_size of 1 or more, got 0"),
        ({"sample_size": -1}, "expected sample_size of 0 or more, got -1"),
        ({"start_id": V}, "expected xs in 0..6, got 7"),
        ({"end_id": V}, "expected end_id in 0..6, got 7"),
        ({"end_id": -1}, "expected end_id in 0..6, got -1"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments, message):
    model, (xs, _) = model_of("Seq2seq"), example()
    with pytest.raises(ValueError, match=message):
        model.generate_batch(xs, **{"start_id": 1, "sample_size": 2, **arguments})


def test_several_sequences_are_for_generate_batch():
    model, (xs, _) = model_of("Seq2seq"), example()
    with pytest.raises(ValueError, match=r"Seq2seq.generate: expected one sequence \(1, S\)"):
        model.generate(xs, 1, 2)


def test_weights_that_have_diverged_write_nothing():
    model, (xs, _) = model_of("Seq2seq"), example()
    model.params[-1][0] = numpy.nan
    with pytest.raises(ValueError, match=r"Seq2seq.generate: expected scores that are numbers"):
        model.generate(xs[:1], 1, 2)
