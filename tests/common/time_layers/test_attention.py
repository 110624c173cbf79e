"""Attention: what it computes, what a mask hides, and what it refuses."""

import numpy
import pytest

from common.gradient_check import check_layer
from common.np import np, to_cpu
from common.time_layers import TimeAdditiveAttention, TimeAttention, TimeGeneralAttention
from common.time_layers.attention import ATTENTIONS
from tests.builders import D, H, N, T, close, floats, generator, same, spoil

S, K, A = T + 1, D, 6  # the encoder is H wide, the decoder K
every_kind = pytest.mark.parametrize("kind", ["dot", "general", "additive"])
on_both = pytest.mark.usefixtures("backend")


def layer_of(kind, dtype="float64"):
    rng = generator(1)
    shapes = {"dot": [], "general": [(K, H)], "additive": [(K, A), (H, A), (A,)]}[kind]
    return ATTENTIONS[kind](*(floats(rng, *shape, dtype=dtype) for shape in shapes))


def example_of(kind, dtype="float64"):
    rng = generator(2)
    width = H if kind == "dot" else K
    return floats(rng, N, S, H, dtype=dtype), floats(rng, N, T, width, dtype=dtype)


def score_of(kind, params, d, e):
    if kind == "dot":
        return d @ e
    if kind == "general":
        return d @ params[0] @ e
    W, U, v = params
    return numpy.tanh(d @ W + e @ U) @ v


def by_hand(kind, params, hs_enc, hs_dec, mask):
    """Contexts and weights, one sequence and one step after the other."""
    contexts, weights = numpy.zeros((N, T, H)), numpy.zeros((N, T, S))
    for n in range(N):
        seen = numpy.flatnonzero(mask[n])
        for t in range(T):
            scores = numpy.array([score_of(kind, params, hs_dec[n, t], hs_enc[n, s]) for s in seen])
            a = numpy.exp(scores) / numpy.exp(scores).sum()
            weights[n, t, seen] = a
            contexts[n, t] = sum(w * hs_enc[n, s] for w, s in zip(a, seen, strict=True))
    return contexts, weights


@on_both
@every_kind
@pytest.mark.parametrize("hidden", [[], [(0, 3)], [(0, 0), (1, 1), (1, 2)]])
def test_contexts_and_weights_are_those_of_the_equations_step_by_step(kind, hidden):
    layer, (hs_enc, hs_dec) = layer_of(kind), example_of(kind)
    mask = numpy.ones((N, S), dtype=bool)
    for place in hidden:
        mask[place] = False
    context = layer.forward(hs_enc, hs_dec, np.asarray(mask) if hidden else None)
    params = [to_cpu(param) for param in layer.params]
    expected = by_hand(kind, params, to_cpu(hs_enc), to_cpu(hs_dec), mask)
    close(context, expected[0])
    close(layer.attention_weights, expected[1])


@every_kind
def test_what_a_mask_hides_has_no_share_in_contexts_or_gradients(kind):
    layer, (hs_enc, hs_dec) = layer_of(kind), example_of(kind)
    dcontext = floats(generator(3), N, T, H)
    layer.forward(hs_enc[:, : S - 1], hs_dec)
    short = [*layer.backward(dcontext), *(grad.copy() for grad in layer.grads)]
    hs_enc[:, -1] = 1e6
    mask = np.ones((N, S), dtype=bool)
    mask[:, -1] = False
    context = layer.forward(hs_enc, hs_dec, mask)
    dhs_enc, dhs_dec = layer.backward(dcontext)
    assert abs(context).max() < 1e3
    assert not dhs_enc[:, -1].any()
    for now, want in zip([dhs_enc[:, :-1], dhs_dec, *layer.grads], short, strict=True):
        close(now, want)


@every_kind
def test_the_gradients_behind_a_mask_are_those_of_the_loss(kind):
    mask = np.asarray(generator(4).random((N, S)) < 0.6)
    mask[:, 1] = True
    report = check_layer(layer_of(kind), *example_of(kind), mask, rng=generator(5))
    assert report.ok, report


@every_kind
def test_a_sequence_without_a_step_to_look_at_gets_zeros_and_gives_none(kind):
    layer, (hs_enc, hs_dec) = layer_of(kind), example_of(kind)
    mask = np.ones((N, S), dtype=bool)
    mask[1] = False
    context = layer.forward(hs_enc, hs_dec, mask)
    dhs_enc, dhs_dec = layer.backward(np.ones((N, T, H)))
    assert context[0].all() and not context[1].any()
    assert not dhs_enc[1].any() and not dhs_dec[1].any()
    assert all(numpy.isfinite(grad).all() for grad in layer.grads)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_kind
def test_scores_of_any_size_make_a_distribution(kind, dtype):
    layer, (hs_enc, hs_dec) = layer_of(kind, dtype), example_of(kind, dtype)
    context = layer.forward(1000 * hs_enc, 1000 * hs_dec)
    assert context.dtype == layer.attention_weights.dtype == dtype
    assert numpy.isfinite(context).all()
    close(layer.attention_weights.sum(axis=2), numpy.ones((N, T), dtype), 1e-6)


def test_the_weights_that_are_kept_cannot_be_changed():
    layer, example = TimeAttention(), example_of("dot")
    assert layer.attention_weights is None
    layer.forward(*example)
    before = layer.attention_weights.copy()
    spoil(layer.attention_weights)
    same(layer.attention_weights, before)


@every_kind
def test_one_step_at_a_time_sees_what_all_steps_see_at_once(kind):
    layer, (hs_enc, hs_dec) = layer_of(kind), example_of(kind)
    together = layer.forward(hs_enc, hs_dec)
    for t in range(T):
        close(layer.forward(hs_enc, hs_dec[:, t : t + 1]), together[:, t : t + 1])


@every_kind
def test_a_seed_builds_one_layer_that_fits_its_widths(kind):
    first, second = (ATTENTIONS[kind].build(K, H, generator(7), "float64") for _ in range(2))
    for a, b in zip(first.params, second.params, strict=True):
        same(a, b)
        assert 0.3 < a.std() * len(a) ** 0.5 < 3
    hs_enc, hs_dec = example_of(kind)
    assert first.forward(hs_enc, hs_dec).shape == (N, T, H)


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        ("dot", [(N, S, H), (N, T, K)], r"TimeAttention: expected hs_dec of shape \(2, T, 5\)"),
        ("dot", [(N, H), (N, T, H)], r"TimeAttention: expected hs_enc of shape \(N, S, H\)"),
        ("dot", [(N, S, H), (1, T, H)], r"expected hs_dec of shape \(2, T, 5\), got \(1, 3, 5\)"),
        ("general", [(N, S, K), (N, T, K)], r"GeneralAttention: expected hs_enc .*5\), got .*4\)"),
        ("additive", [(N, S, H), (N, T, H)], r"AdditiveAttention: expected hs_dec .*4\), got .*5"),
        ("dot", [(N, S, H), (N, T, H), (N, T)], r"expected mask of shape \(2, 4\), got \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(kind, shapes, message):
    with pytest.raises(ValueError, match=message):
        layer_of(kind).forward(*(np.ones(shape) for shape in shapes))


def test_a_gradient_of_another_shape_is_refused():
    layer = TimeAttention()
    layer.forward(*example_of("dot"))
    with pytest.raises(ValueError, match=r"TimeAttention: expected dcontext of shape \(2, 3, 5\)"):
        layer.backward(np.ones((N, T, K)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimeGeneralAttention(np.ones(3)), "expected W of shape"),
        (lambda: TimeAdditiveAttention(np.ones((2, 3)), np.ones((2, 4)), np.ones(3)), "expected U"),
        (lambda: TimeAdditiveAttention(np.ones((2, 3)), np.ones((2, 3)), np.ones(4)), "expected v"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@every_kind
def test_nothing_waits_for_a_device(kind, waits):
    layer, (hs_enc, hs_dec) = layer_of(kind, "float32"), example_of(kind, "float32")
    mask = np.asarray(numpy.array([[True] * S, [True] * (S - 1) + [False]]))
    waits.clear()
    layer.backward(layer.forward(hs_enc, hs_dec, mask))
    assert waits == []
