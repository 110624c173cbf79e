"""What lm-zoo asks of a model: tokens, unknown tokens, surprisals, one for one."""

import numpy as np
import pytest

from common.perplexity.protocols import eval_perplexity_exact
from datasets.vocabulary import EOS, UNK, Vocabulary
from models import Rnnlm
from tests.builders import ids, same
from train.run.sentences import get_surprisals, tokenize, unkify

WORDS = Vocabulary(("the", "cat", EOS, UNK, "sat"), "word")
SENTENCES = ["the cat sat", "the dog  sat\n", "", "sat sat sat the\r\n"]


@pytest.fixture
def model():
    model = Rnnlm(5, 6, 7, rng=1)
    for param in model.params:
        param += np.random.default_rng(2).standard_normal(param.shape, dtype="float32")
    return model


def test_tokens_and_masks_are_those_of_the_rows(model):
    found = tokenize(WORDS, SENTENCES)
    assert found[:3] == [["the", "cat", "sat", EOS], ["the", UNK, "sat", EOS], [EOS]]
    assert unkify(WORDS, SENTENCES) == [[0, 0, 0, 0], [0, 1, 0, 0], [0], [0, 0, 0, 0, 0]]
    rows = get_surprisals(model, WORDS, SENTENCES)
    assert [(r.sentence_id, r.token_id, r.token) for r in rows] == [
        (s, t, token) for s, sentence in enumerate(found, 1) for t, token in enumerate(sentence, 1)
    ]
    assert rows[0]._fields == ("sentence_id", "token_id", "token", "surprisal")


def test_a_sentence_costs_what_it_would_cost_alone(model):
    rows = get_surprisals(model, WORDS, SENTENCES)
    for number, sentence in enumerate(SENTENCES, start=1):
        bits = [row.surprisal for row in rows if row.sentence_id == number]
        exact = eval_perplexity_exact(
            model, np.asarray(WORDS.encode(sentence.strip() + "\n")), WORDS.first_id
        )
        assert 2 ** np.mean(bits) == pytest.approx(exact, rel=1e-12)


def test_the_training_state_is_kept(model):
    model.forward(ids(np.random.default_rng(0), 5, 2, 3), ids(np.random.default_rng(1), 5, 2, 3))
    [before] = model.get_state()
    get_surprisals(model, WORDS, SENTENCES)
    for kept, was in zip(*model.get_state(), before, strict=True):
        same(kept, was)


def test_characters_are_tokens_too():
    chars = Vocabulary(("a", "b", "\n", " "), "char")
    assert tokenize(chars, ["a b"]) == [["a", " ", "b", "\n"]]
    assert unkify(chars, ["a b"]) == [[0, 0, 0, 0]]
    without = Vocabulary(("a", "b"), "symbol")
    assert tokenize(without, ["ab", ""]) == [["a", "b"], []]
    model = Rnnlm(2, 3, 3, rng=1)
    rows = get_surprisals(model, without, ["ab", "", "b"])
    assert [row[:3] for row in rows] == [(1, 1, "a"), (1, 2, "b"), (3, 1, "b")]


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ("the cat", TypeError, "expected a list of sentences, got a string: 'the cat'"),
        ([b"the"], TypeError, "expected sentences to be strings, got b'the'"),
        (["the\ncat"], ValueError, "expected sentences of one line each"),
        (["the\rcat"], ValueError, "expected sentences of one line each"),
    ],
)
def test_what_is_no_list_of_sentences_is_refused(sentences, error, message):
    with pytest.raises(error, match=f"^{message}"):
        tokenize(WORDS, sentences)


def test_an_unknown_word_without_unk_is_an_error(model):
    for ask in (tokenize, unkify, lambda *asked: get_surprisals(model, *asked)):
        with pytest.raises(ValueError, match="token 'dog' is not among the 3 tokens"):
            ask(Vocabulary(("the", "cat", EOS), "word"), ["the dog"])
