"""What can be known of the GPU path without a device, with a strict double of CuPy."""

import copy

import numpy
import pytest

from common import config
from common import np as np_module
from common.functions import one_hot
from common.kernels.passes import add_rows
from common.kernels.philox import keep
from common.np import Parts, in_one_piece, np, to_cpu
from common.optimizer import Adam, UniqueParameters
from common.perplexity.dynamic_evaluation import eval_perplexity_dynamic, gradient_scales
from common.perplexity.neural_cache import eval_perplexity_cache
from common.perplexity.per_token import token_losses
from common.perplexity.protocols import (
    eval_perplexity,
    eval_perplexity_exact,
    inputs_and_targets,
    streams,
)
from common.time_layers import TimeAffine, TimeEmbedding, TimeOutputWithLoss
from common.trainer import RnnlmTrainer, Trainer
from models import BetterRnnlm, Rnnlm, shapes
from models.char_rnn import CharRnn
from models.memory import ConcatReciter, Reciter
from tests import cupy_double
from tests.builders import D, H, N, T, V, awd_rnnlm, close, floats, generator, same
from tests.cupy_double import counters


def add_on_device(table, ids, rows):
    """``table`` after ``add_rows`` on the device; all are NumPy arrays here."""
    there = np.asarray(table)
    add_rows(there, np.asarray(ids), np.asarray(rows))
    return there.get()


def added(table, ids, rows):
    """The same in float64."""
    table = table.astype("float64")
    numpy.add.at(table, ids, rows)
    return table


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("num_rows", [1, 2, 3, 31, 700])
def test_rows_are_added_as_often_as_their_ids_occur(num_rows):
    rng = generator()
    table = rng.standard_normal((7, 5), dtype="float32")
    ids = rng.integers(0, 6, num_rows)  # the last row of the table is not asked for
    rows = rng.standard_normal((num_rows, 5), dtype="float32")
    numpy.testing.assert_allclose(
        add_on_device(table, ids, rows), added(table, ids, rows), rtol=1e-6, atol=1e-5
    )


@pytest.mark.usefixtures("waits")
def test_rows_are_added_to_a_transposed_table_in_place():
    rng = generator()
    table, ids = rng.standard_normal((5, 7)), rng.integers(0, 7, 30)
    rows = rng.standard_normal((30, 5))
    there = np.asarray(table)
    add_rows(there.T, np.asarray(ids), np.asarray(rows))
    close(there, added(table.T, ids, rows).T)


@pytest.mark.usefixtures("waits")
def test_a_large_row_costs_the_rows_of_other_ids_no_digits():
    table = numpy.zeros((3, 1), dtype="float32")
    ids = numpy.array([0, 1, 2, 1, 2])
    rows = numpy.array([[1e8], [0.1], [0.2], [0.3], [0.4]], dtype="float32")
    found = add_on_device(table, ids, rows)
    numpy.testing.assert_allclose(found[:, 0], [1e8, 0.4, 0.6], rtol=1e-6)
    # CuPy's own sums of segments do not have them:
    ordered, starts = rows[numpy.argsort(ids, kind="stable")], numpy.array([0, 1, 3])
    sums = np.add.reduceat(np.asarray(ordered), np.asarray(starts), axis=0).get()
    assert sums[0, 0] == 1e8
    assert not numpy.allclose(sums[1:, 0], [0.4, 0.6], rtol=0.5)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("value", [numpy.inf, numpy.nan])
def test_a_row_that_is_not_finite_spoils_its_own_id_alone(value):
    table = numpy.zeros((3, 1), dtype="float32")
    rows = numpy.array([[value], [1], [2], [4], [8]], dtype="float32")
    found = add_on_device(table, numpy.array([1, 0, 1, 2, 2]), rows)
    numpy.testing.assert_array_equal(found[:, 0], [1, value, 12])


def test_adding_rows_waits_for_nothing(waits):
    ids = np.asarray(generator().integers(0, V, 20))
    add_rows(np.zeros((V, H)), ids, np.ones((20, H)))
    assert waits == []


def embedding_and_output(dtype="float64"):
    rng = generator()
    embedding = TimeEmbedding(floats(rng, V, H, dtype=dtype))
    output = TimeAffine(floats(rng, H, V, dtype=dtype), floats(rng, V, dtype=dtype))
    return embedding, TimeOutputWithLoss(output)


def test_the_backward_passes_of_embedding_and_output_wait_for_nothing(waits, monkeypatch):
    rng = generator(1)
    xs, ts = rng.integers(0, V, (N, T)), rng.integers(0, V, (N, T))
    ts[0, 0] = -1  # ignored

    def gradients():
        embedding, loss = embedding_and_output()
        hs = embedding.forward(np.asarray(xs))
        loss.forward(hs, np.asarray(ts))
        embedding.backward(loss.backward())
        return [*embedding.grads, *loss.output.grads]

    there = gradients()
    assert waits == []
    monkeypatch.setattr(config, "GPU", False)
    for on_device, on_cpu in zip(there, gradients(), strict=True):
        close(on_device, on_cpu)


def test_ids_from_the_host_are_looked_at_there_before_they_go_over(waits):
    rng = generator(1)
    xs, ts = rng.integers(0, V, (N, T)), rng.integers(0, V, (N, T))
    embedding, loss = embedding_and_output()
    hs = embedding.forward(xs)
    loss.forward(hs, ts)
    assert waits == []
    for wrong in (-1, V):
        xs[0, 0] = wrong
        with pytest.raises(ValueError, match=rf"TimeEmbedding: expected xs in .*, got {wrong}$"):
            embedding.forward(xs)
    ts[0, 0] = V
    with pytest.raises(ValueError, match=rf"TimeOutputWithLoss: expected ts in .*, got {V}$"):
        loss.forward(hs, ts)


def trained(model, trainer_class, x, t, **sizes):
    """The parameters after two epochs, on the CPU, and what was waited for between two reports."""
    trainer = trainer_class(model, Adam(0.01), lambda record: None, generator(1))
    waits = cupy_double.DeviceArray.waits
    waits.clear()
    trainer.fit(x, t, 2, max_grad=0.25, eval_interval=None, **sizes)
    waited = list(waits)
    return [to_cpu(param) for param in model.params], waited


LANGUAGE_MODELS = {
    "Rnnlm sparse": lambda: Rnnlm(V, D, H, 1, "float64", sparse=True),
    "BetterRnnlm": lambda: BetterRnnlm(V, H, H, 0.4, 1, "float64"),
    "AwdRnnlm": lambda: awd_rnnlm(0.4, num_layers=2, rng=1, dtype="float64"),
    "AwdRnnlm with sampled classes": lambda: awd_rnnlm(
        0.4, num_layers=2, rng=1, dtype="float64", sampled_classes=4
    ),
    "CharRnn": lambda: CharRnn(V, H, rng=1, dtype="float64"),
    "Reciter": lambda: Reciter(V, H, "gru", rng=1, dtype="float64"),
    "ConcatReciter": lambda: ConcatReciter(V, H, "lstm", rng=1, dtype="float64"),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model_learns_there_what_it_learns_here_and_waits_for_reports_alone(
    name, waits, monkeypatch
):
    build, corpus = LANGUAGE_MODELS[name], generator().integers(0, V, 201)
    sizes = {"batch_size": 4, "time_size": 5}
    there, waited = trained(build(), RnnlmTrainer, corpus[:-1], corpus[1:], **sizes)
    assert waited == ["float"] * 3  # the first iteration and both ends of an epoch
    monkeypatch.setattr(config, "GPU", False)
    here, _ = trained(build(), RnnlmTrainer, corpus[:-1], corpus[1:], **sizes)
    for on_device, on_cpu in zip(there, here, strict=True):
        close(on_device, on_cpu, 1e-9)


@pytest.mark.usefixtures("waits")
def test_a_text_that_is_larger_than_a_piece_goes_over_piece_by_piece(monkeypatch):
    corpus = generator().integers(0, V, 201)
    found = []
    for piece in (1 << 26, 60):  # all of it, and 15 columns at a time
        monkeypatch.setattr(np_module, "PIECE", piece)
        model = LANGUAGE_MODELS["BetterRnnlm"]()
        counters.clear()
        params, _ = trained(model, RnnlmTrainer, corpus[:-1], corpus[1:], batch_size=4, time_size=7)
        found.append((params, counters.total("upload")))
    (params, uploads), (of_pieces, more_uploads) = found
    for one, other in zip(params, of_pieces, strict=True):
        same(one, other)
    assert (uploads, more_uploads) == (2, 2 * 2 * 4)  # of xs and ts, in two epochs


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("wrong", "at"), [(-1, 30), (V, 30), (V, 200)])
def test_an_id_out_of_range_is_found_before_the_first_step(wrong, at):
    corpus = generator().integers(0, V, 201)
    corpus[at] = wrong
    model = LANGUAGE_MODELS["BetterRnnlm"]()
    counters.clear()
    with pytest.raises(ValueError, match=rf"expected [xt]s in 0\.\.{V - 1}, got {wrong}$"):
        trained(model, RnnlmTrainer, corpus[:-1], corpus[1:], batch_size=4, time_size=7)
    assert counters.total("upload") == 0


@pytest.mark.parametrize("ratio", [0.5, 0.3, 0.0])
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 1, 700), (1, 1, 4096)])
def test_a_mask_has_the_same_bits_there_and_is_not_waited_for(shape, ratio, waits, monkeypatch):
    there = keep(ratio, shape, 1 << 63 | 12345, 3, 7, 5)
    assert waits == []
    assert counters.total("upload") == 0
    monkeypatch.setattr(config, "GPU", False)
    same(there, keep(ratio, shape, 1 << 63 | 12345, 3, 7, 5))


@pytest.mark.usefixtures("waits")
def test_all_parameters_of_a_model_lie_in_one_memory_also_in_a_copy():
    model = LANGUAGE_MODELS["AwdRnnlm"]()
    for one in (model, copy.deepcopy(model)):
        unique = UniqueParameters(one.params, one.grads)
        (params,), (grads,) = in_one_piece(unique.params, unique.grads)
        params[...], grads[...] = 3, 4
        for layer in one.layers:
            for param, grad in zip(layer.params, layer.grads, strict=True):
                assert (param.get() == 3).all()
                assert (grad.get() == 4).all()


@pytest.mark.usefixtures("waits")
def test_arrays_of_one_memory_that_do_not_fill_it_are_no_whole():
    memory = np.zeros(64)
    parts = [memory[:16].reshape(4, 4).T, memory[16:32], memory[32:64]]
    assert Parts(parts).whole is not None
    for arrays in (parts[:2], [*parts[:2], np.zeros(32)], [], [numpy.zeros(3)], [np.zeros(3)]):
        assert Parts(arrays).whole is None
    in_another_order = [parts[1], parts[0], parts[2]]
    assert in_one_piece(Parts(parts), Parts(in_another_order))[0] == parts


SHAPES = {
    "OneToOne": ((), ()),
    "OneToMany": ((), (3,)),
    "ManyToOne": ((T,), ()),
    "ReadThenWrite": ((T,), (3,)),
    "StepByStep": ((T,), (T,)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_of_vectors_learns_there_what_it_learns_here(name, waits, monkeypatch):
    read, written = SHAPES[name]
    number = [3] if name in ("OneToMany", "ReadThenWrite") else []
    rng = generator()
    x, t = rng.standard_normal((20, *read, D)), rng.integers(0, V, (20, *written))

    def learn():
        model = getattr(shapes, name)(D, H, V, *number, rng=1, dtype="float64")
        return trained(model, Trainer, x, t, batch_size=8)

    there, waited = learn()
    assert waited == ["float"] * 3
    wrong = t.copy()
    wrong[0] = V
    with pytest.raises(ValueError, match=rf"expected \w+ in 0\.\.{V - 1}, got .*{V}$"):
        trained(getattr(shapes, name)(D, H, V, *number, rng=1), Trainer, x, wrong, batch_size=20)
    monkeypatch.setattr(config, "GPU", False)
    for on_device, on_cpu in zip(there, learn()[0], strict=True):
        close(on_device, on_cpu, 1e-9)


MEASURES = {
    "book": lambda model, corpus: eval_perplexity(model, corpus, 3, 4),
    "exact": lambda model, corpus: eval_perplexity_exact(model, corpus, 0, 20),
    "dynamic": lambda model, corpus: eval_perplexity_dynamic(model, corpus, 0, lr=0.1),
    "cache": lambda model, corpus: eval_perplexity_cache(
        model, corpus, 0, cache_size=9, theta=0.3, weight=0.1, time_size=20
    ),
    "tokens": lambda model, corpus: token_losses(model, corpus, 0).sum(),
    "scales": lambda model, corpus: float(
        sum(R.sum() for R in gradient_scales(model, corpus, 4, 5))
    ),
    "generated": lambda model, corpus: sum(model.generate(corpus[:5], 9, greedy=True)),
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", ["AwdRnnlm", "CharRnn"])
@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_measured_there_is_what_is_measured_here(measure, name, monkeypatch):
    corpus = generator().integers(0, V, 61)
    there = MEASURES[measure](LANGUAGE_MODELS[name](), corpus)
    monkeypatch.setattr(config, "GPU", False)
    here = MEASURES[measure](LANGUAGE_MODELS[name](), corpus)
    assert there == pytest.approx(here, rel=1e-9)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("wrong", [-1, V])
def test_a_measure_looks_at_the_ids_of_its_text_on_the_host(wrong):
    for at in (1, -1) if wrong == V else (1,):  # a last target of -1 is ignored
        corpus = generator().integers(0, V, 20)
        corpus[at] = wrong
        for measure in ("exact", "dynamic", "cache", "tokens"):
            with pytest.raises(ValueError, match=rf"in 0\..*, got {wrong}$|got 1 ignored$"):
                MEASURES[measure](LANGUAGE_MODELS["AwdRnnlm"](), corpus)


@pytest.mark.parametrize("rows", [[0, 3], [[1, 2], [3, 0]]])
def test_one_hot_rows_of_ids_from_the_host_are_waited_for_by_nobody(rows, waits):
    found = one_hot(numpy.asarray(rows), 4)
    assert waits == []
    close(found, numpy.eye(4, dtype="float32")[rows])
    with pytest.raises(ValueError, match=r"one_hot: expected ids in 0\.\.3, got 0\.\.4"):
        one_hot(numpy.array([0, 4]), 4)


@pytest.mark.usefixtures("waits")
def test_a_corpus_stays_on_the_host_until_a_layer_has_looked_at_its_ids():
    corpus = numpy.arange(20)
    for tokens in (streams(corpus, 3), *inputs_and_targets(corpus, 7, "test")):
        assert isinstance(tokens, numpy.ndarray)
    xs, ts = inputs_and_targets(corpus, 7, "test")
    assert xs[0].tolist() == [7, *corpus[:-1]]
    assert ts[0].tolist() == corpus.tolist()


def test_a_window_without_a_target_costs_nothing_and_is_not_waited_for(waits):
    _, loss = embedding_and_output()
    hs = np.asarray(floats(generator(), N, T, H))
    found = loss.forward(hs, np.full((N, T), -1))
    dhs = loss.backward()
    assert waits == []
    assert float(found) == 0
    for gradient in (dhs, *loss.output.grads):
        assert not gradient.get().any()
