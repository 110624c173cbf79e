"""What every measure by the exact protocol begins with and ends in."""

import math

import pytest

from common.np import np
from common.perplexity.protocols import inputs_and_targets, perplexity_of, require_language_model
from tests.builders import same, tiny_model


@pytest.mark.usefixtures("backend")
def test_every_token_is_a_target_once_and_read_before_the_next():
    xs, ts = inputs_and_targets(np.array([5, 6, 4], dtype="int32"), 9, "somebody")
    same(xs, np.array([[9, 5, 6]], dtype="int32"))
    same(ts, np.array([[5, 6, 4]], dtype="int32"))


def test_an_empty_text_is_an_error_in_the_name_of_who_asked():
    with pytest.raises(ValueError, match=r"^somebody: a corpus of 0 tokens"):
        inputs_and_targets([], 9, "somebody")


def test_perplexity_is_infinite_where_float64_ends():
    assert perplexity_of(math.log(50)) == pytest.approx(50)
    assert perplexity_of(708) < perplexity_of(710) == math.inf
    assert math.isnan(perplexity_of(math.nan))


def test_a_model_that_is_composed_of_layers_is_let_through_and_no_other():
    require_language_model(tiny_model("Rnnlm"), "somebody")
    with pytest.raises(TypeError, match=r"^somebody: .* such as models\.LanguageModel, got list"):
        require_language_model([], "somebody")
