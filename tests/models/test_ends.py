"""Language models with an adaptive softmax: what is tied, saved, measured and generated."""

import copy
import math

import numpy
import pytest

from common.files import model_state
from common.np import np, same_elements, to_cpu
from common.optimizer import Adam
from common.perplexity.dynamic_evaluation import eval_perplexity_dynamic, gradient_scales
from common.perplexity.neural_cache import eval_perplexity_cache
from common.perplexity.per_token import token_losses
from common.time_layers import (
    TimeAdaptiveEmbedding,
    TimeAdaptiveOutput,
    TimeAdaptiveOutputWithLoss,
    TimeEmbedding,
)
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from models import AwdRnnlm, BetterRnnlm
from tests.builders import awd_rnnlm, close, generator, same

V, D, H, N, T = 29, 8, 12, 3, 5
on_both = pytest.mark.usefixtures("backend")


def counts():
    return generator(4).permutation(numpy.arange(V) ** 2)


def told(model):
    """The same, once it knows which words are frequent."""
    model.layers[-1].clusters.set_counts(counts())
    return model


MODELS = {
    "AwdRnnlm": lambda **options: AwdRnnlm(
        V, D, H, 2, cutoffs=(6, 14), **{"rng": 1, "embed_scale": 0.1} | options
    ),
    "BetterRnnlm": lambda **options: BetterRnnlm(
        V, H, H, 0.0, cutoffs=(6, 14), **{"rng": 1} | options
    ),
    "BetterRnnlm untied": lambda **options: BetterRnnlm(
        V, D, H, 0.0, cutoffs=(6, 14), tied=False, **{"rng": 1} | options
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def text(length=200):
    return generator(5).integers(0, V, length).astype("int32")


def trained(model, steps=4):
    """After some steps, so that no weight is where it began."""
    trainer = RnnlmTrainer(model, Adam(0.02), lambda record: None, generator(3))
    trainer.fit(text(N * T * steps), text(N * T * steps + 1)[1:], 1, N, T, max_grad=1.0)
    return model


# ---- which layers, and what they share ----


def test_a_tied_model_is_adaptive_at_both_ends_and_an_untied_one_at_the_upper():
    for name, below in (("AwdRnnlm", TimeAdaptiveEmbedding), ("BetterRnnlm untied", TimeEmbedding)):
        model = MODELS[name]()
        assert type(model.layers[0]) is below
        assert type(model.layers[-1]) is TimeAdaptiveOutput
        assert type(model.loss_layer) is TimeAdaptiveOutputWithLoss


def test_words_and_projections_are_one_memory_with_one_gradient_and_the_order_one_object():
    model = MODELS["AwdRnnlm"]()
    embedding, output = model.layers[0], model.layers[-1]

    def pairs(layer):
        return {name: (layer.params[k], layer.grads[k]) for k, name in enumerate(layer.param_names)}

    below, above = pairs(embedding), pairs(output)
    for one, other in (("W0", "W0"), ("W1", "W1"), ("Q1", "P1"), ("W2", "W2"), ("Q2", "P2")):
        for a, b in zip(below[one], above[other], strict=True):
            assert a.T.shape == b.shape and np.shares_memory(a, b)
    assert embedding.clusters is output.clusters
    names = [name for name in model.named_params() if "adaptive" in name]
    assert names == [
        *(f"adaptiveembedding.{name}" for name in ("W0", "W1", "Q1", "W2", "Q2")),
        *(f"adaptiveoutput.{name}" for name in ("b0", "b1", "b2")),
    ]
    assert len(model.params) == len(model.named_params())


def test_a_copy_of_a_tied_model_is_tied_and_has_weights_of_its_own():
    model = told(MODELS["AwdRnnlm"]())
    twin = copy.deepcopy(model)
    for one, other in zip(twin.params, model.params, strict=True):
        same(one, other)
        assert not np.shares_memory(one, other)
    assert np.shares_memory(twin.layers[0].params[0], twin.layers[-1].params[0])
    for k, part in enumerate(twin.layers[-1].parts):
        assert same_elements(part.params[0], twin.layers[-1].params[3 * k])
    trained(twin)
    same(twin.layers[-1].params[3], twin.layers[0].params[1].T)


def test_the_other_masks_and_weights_are_those_of_a_model_that_is_dense():
    adaptive, dense = (
        awd_rnnlm(0.3, num_layers=2, rng=1, cutoffs=cutoffs) for cutoffs in ((2, 4), ())
    )
    ours, theirs = adaptive.masks(), dense.masks()
    assert [(m.seed, m.layer) for m in ours] == [(m.seed, m.layer) for m in theirs]


def test_cutoffs_beside_sampled_classes_are_refused():
    with pytest.raises(ValueError, match=r"^AwdRnnlm: expected sampled_classes 0 .* got 5"):
        MODELS["AwdRnnlm"](sampled_classes=5)


def test_cutoffs_that_are_none_are_refused():
    with pytest.raises(ValueError, match=rf"ascending order in 1\.\.{V - 1}, got 6, {V}"):
        BetterRnnlm(V, H, H, cutoffs=(6, V))


# ---- measured, trained, generated ----


@on_both
@every_model
def test_before_training_the_perplexity_is_near_the_size_of_the_vocabulary(name):
    """Each of three groups of words has a share of its own, so it is not quite that."""
    model = told(MODELS[name](embed_scale=0.01) if name == "AwdRnnlm" else MODELS[name]())
    uniform = numpy.log(numpy.full(V, 1 / V))
    model.layers[-1].set_bias(uniform)
    assert eval_perplexity_exact(model, text(), 0) == pytest.approx(V, rel=0.2)


@on_both
@every_model
def test_with_the_bias_of_the_counts_the_loss_begins_at_the_entropy_of_the_words(name):
    corpus = numpy.repeat(numpy.arange(V), counts() // 20)
    generator().shuffle(corpus)
    model = told(MODELS[name]())
    for part in model.layers[-1].parts:
        part.params[0][...] = 0
    found = numpy.bincount(corpus, minlength=V)
    model.set_output_bias(found)
    p = (found + 1) / (found + 1).sum()
    mean = -(found / found.sum() * numpy.log(p)).sum()
    assert eval_perplexity_exact(model, corpus, 0) == pytest.approx(math.exp(mean), rel=1e-4)


@on_both
@every_model
def test_exact_perplexity_is_that_of_the_scores_by_every_way_of_measuring(name):
    model = trained(told(MODELS[name]()))
    corpus = text(90)
    exact = eval_perplexity_exact(model, corpus, 0, time_size=40)
    assert math.exp(token_losses(model, corpus, 0).mean()) == pytest.approx(exact, rel=1e-4)
    cached = eval_perplexity_cache(model, corpus, 0, cache_size=20, theta=0.3, weight=0.0)
    assert cached == pytest.approx(exact, rel=1e-4)
    for scales in (None, gradient_scales(model, text(), 4, 5)):
        dynamic = eval_perplexity_dynamic(model, corpus, 0, lr=0.0, scales=scales)
        assert dynamic == pytest.approx(exact, rel=1e-4)


@every_model
def test_dynamic_evaluation_learns_a_text_that_repeats_and_puts_the_weights_back(name):
    model = trained(told(MODELS[name]()))
    corpus = numpy.tile([3, 17, 9, 25], 40)
    before = [param.copy() for param in model.params]
    exact = eval_perplexity_exact(model, corpus, 0)
    assert eval_perplexity_dynamic(model, corpus, 0, lr=1.0) < 0.7 * exact
    assert eval_perplexity_cache(model, corpus, 0, cache_size=20, theta=0.3, weight=0.5) < exact
    for got, want in zip(model.params, before, strict=True):
        same(got, want)


@on_both
@every_model
def test_it_learns_a_text_by_heart_and_generates_it(name, backend):
    cycle = [1, 20, 7, 28, 3, 11]
    options = dict.fromkeys(
        ("embed_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"), 0.0
    )
    more = {**options, "alpha": 0.0, "beta": 0.0} if name == "AwdRnnlm" else {}
    model, corpus = told(MODELS[name](**more)), numpy.tile(cycle, 60)
    trainer = RnnlmTrainer(model, Adam(0.02), lambda record: None, generator(3))
    trainer.fit(corpus[:-1], corpus[1:], 1 if backend == "gpu" else 25, N, T, max_grad=1.0)
    ids = model.generate(cycle[:2], 10, greedy=True)
    if backend == "cpu":
        assert ids == (cycle * 2)[:12]
        assert eval_perplexity_exact(model, corpus, cycle[-1]) < 1.1
    drawn = model.generate(0, 40, rng=1, temperature=2.0, skip_ids=[5])
    assert len(drawn) == 41 and 5 not in drawn and all(0 <= i < V for i in drawn)


# ---- saved with the order of its words ----


@every_model
def test_the_file_of_weights_has_the_order_of_the_words(name, tmp_path):
    model = trained(told(MODELS[name]()))
    file = tmp_path / "weights.safetensors"
    model.save_params(file)
    other = MODELS[name](rng=2)
    exact = eval_perplexity_exact(model, text(), 0)
    assert eval_perplexity_exact(other, text(), 0) != pytest.approx(exact, rel=1e-3)
    other.load_params(file)
    assert eval_perplexity_exact(other, text(), 0) == exact
    ranks = other.layers[-1].clusters.ranks
    same(ranks, model.layers[-1].clusters.ranks)
    assert other.layers[-1].constants["ranks"] is ranks


def test_a_checkpoint_has_it_and_training_goes_on_bit_for_bit(tmp_path):
    def trainer_of(seed):
        model = MODELS["AwdRnnlm"](rng=seed)
        return RnnlmTrainer(model, Adam(0.02), lambda record: None, generator(3))

    whole, begun, resumed = trainer_of(1), trainer_of(1), trainer_of(2)
    for trainer in (whole, begun):
        told(trainer.model)
    xs, ts = text(N * T * 6), text(N * T * 6 + 1)[1:]
    whole.fit(xs, ts, 2, N, T, 1.0)
    begun.fit(xs, ts, 1, N, T, 1.0)
    resumed.load_state_dict(begun.state_dict())
    resumed.fit(xs, ts, 1, N, T, 1.0)
    same(resumed.model.layers[0].clusters.ranks, whole.model.layers[0].clusters.ranks)
    for got, want in zip(resumed.model.params, whole.model.params, strict=True):
        same(got, want)


@pytest.mark.gpu
def test_weights_and_checkpoint_come_back_to_a_device(tmp_path, monkeypatch):
    from common import config

    model = told(MODELS["AwdRnnlm"]())
    model.save_params(tmp_path / "weights.safetensors")
    state = model_state.model_state(model)
    monkeypatch.setattr(config, "GPU", True)
    for load in (
        lambda other: other.load_params(tmp_path / "weights.safetensors"),
        lambda other: model_state.load_model_state(other, state),
    ):
        other = MODELS["AwdRnnlm"](rng=2)
        load(other)
        for got, want in zip(other.params, model.params, strict=True):
            same(to_cpu(got), want)
        same(other.layers[-1].clusters.ranks, model.layers[-1].clusters.ranks)


def test_a_list_of_weights_which_has_no_place_for_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no place for adaptiveembedding\.ranks of AwdRnnlm"):
        MODELS["AwdRnnlm"]().save_params(tmp_path / "weights.pkl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cutoffs", [(), (6, 20)])
def test_weights_of_a_dense_model_or_of_other_cutoffs_are_refused(cutoffs, tmp_path):
    AwdRnnlm(V, D, H, 2, cutoffs=cutoffs, rng=1).save_params(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"adaptiveembedding\.W1") as error:
        MODELS["AwdRnnlm"]().load_params(tmp_path / "weights.safetensors")
    assert ("adaptiveembedding.ranks is missing" in str(error.value)) == (not cutoffs)


def test_ranks_of_another_vocabulary_are_refused_before_a_weight_changes():
    model = MODELS["AwdRnnlm"]()
    state = model_state.model_state(model)
    state["params"]["adaptiveembedding.ranks"] = numpy.arange(V + 1, dtype="int32")
    with pytest.raises(ValueError, match=r"adaptiveembedding\.ranks: expected \(29,\) int32"):
        model_state.load_model_state(model, state)


@on_both
def test_scores_are_log_probabilities_in_the_order_of_the_ids():
    model = trained(told(MODELS["BetterRnnlm"]()))
    scores = model.predict(text(N * T).reshape(N, T))
    close(np.exp(scores).sum(axis=2), np.ones((N, T), "float32"), 1e-5)
