import copy
from collections import Counter
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.corpus import Corpus, build_vocab, corpus_from_tokens, encode_tokens, split_words

words = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=3)
token_lists = st.lists(words, min_size=1, max_size=40)


@pytest.fixture
def corpus():
    train = split_words("the cat sat\non the mat\n")
    return corpus_from_tokens(
        "tiny", train, split_words("the mat\n"), split_words("a cat\n"), level="word", eos="<eos>"
    )


def test_ids_follow_the_first_appearance_in_train(corpus):
    assert list(corpus.word_to_id) == ["the", "cat", "sat", "<eos>", "on", "mat", "<unk>"]
    assert corpus.train.tolist() == [0, 1, 2, 3, 4, 0, 5, 3]
    assert corpus.valid.tolist() == [0, 5, 3]
    assert corpus.test.tolist() == [6, 1, 3]  # "a" is not in train
    assert corpus.train.dtype == corpus.valid.dtype == corpus.test.dtype == np.int32
    assert corpus.vocab_size == 7
    assert corpus.eos_id == corpus.first_id == 3


def test_the_fields_are_fixed(corpus):
    with pytest.raises(FrozenInstanceError):
        corpus.train = corpus.test


def test_encode_and_decode_words(corpus):
    assert corpus.encode("the  cat\nsat") == [0, 1, 3, 2]
    assert corpus.decode([0, 1, 3, 2]) == "the cat\nsat"
    assert corpus.decode(corpus.train) == "the cat sat\non the mat\n"
    assert corpus.decode([3, 3, 0, 3, 3, 1]) == "\n\nthe\n\ncat"  # no blank beside a newline
    assert corpus.encode("") == []
    assert corpus.decode([]) == ""


def test_encode_and_decode_characters():
    corpus = corpus_from_tokens("c", "ab b\n", "a\n", "b\n", level="char", eos="\n")
    assert corpus.encode("b a\n") == [1, 2, 0, 3]
    assert corpus.decode([1, 2, 0, 3]) == "b a\n"
    assert corpus.first_id == corpus.eos_id == 3


def test_an_unknown_token_is_unk_or_an_error(corpus):
    assert corpus.encode("the dog") == [0, corpus.word_to_id["<unk>"]]
    closed = corpus_from_tokens("c", "ab", "a", "b", level="char", eos="\n")
    with pytest.raises(ValueError, match=r"token 'z' .* 2 tokens .* '<unk>'"):
        closed.encode("abz")


def test_without_an_end_of_line_the_first_id_is_zero():
    corpus = corpus_from_tokens("c", "ab", "a", "b", level="char", eos="\n")
    assert corpus.eos_id is None
    assert corpus.first_id == 0


@pytest.mark.parametrize("i", [-1, 7])
def test_decode_rejects_an_id_outside_the_vocabulary(corpus, i):
    with pytest.raises(ValueError, match=rf"Corpus 'tiny': expected ids in 0\.\.6, got {i}"):
        corpus.decode([0, i])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"level": "line"}, ValueError, "expected level in .* got 'line'"),
        ({"train": [0, 1]}, TypeError, "expected train to be an int32 array, got list"),
        ({"valid": np.zeros(3, np.int64)}, TypeError, "valid to be an int32 array, got int64"),
        ({"test": np.zeros((2, 2), np.int32)}, ValueError, r"of shape \(tokens,\), got \(2, 2\)"),
        ({"train": np.array([0, 7], np.int32)}, ValueError, r"in 0\.\.6, got 0 to 7"),
        ({"train": np.array([-1], np.int32)}, ValueError, r"in 0\.\.6, got -1 to -1"),
        ({"id_to_word": {0: "the"}}, ValueError, "inverse of word_to_id"),
        (
            {"word_to_id": {"the": 1}, "id_to_word": {1: "the"}},
            ValueError,
            "with ids 0 to 0",
        ),
        ({"eos_id": 7}, ValueError, r"eos_id in 0\.\.6, got 7"),
    ],
)
def test_a_corpus_that_contradicts_itself_is_rejected(corpus, changes, error, message):
    with pytest.raises(error, match=f"Corpus 'tiny': .*{message}"):
        replace(corpus, **changes)


def test_a_copy_shares_nothing(corpus):
    other = copy.deepcopy(corpus)
    other.train[:] = 0
    other.word_to_id.clear()
    assert corpus.train[1] == 1
    assert corpus.vocab_size == 7


class TestBuildVocab:
    def test_the_cap_keeps_the_most_frequent_and_of_equals_the_earlier(self):
        # e is the rarest, and of d, c and b, twice each, b came last: both are out, and <unk>
        # stands where e appeared.
        assert list(build_vocab("eddccbbaaa", max_vocab=4)) == ["<unk>", "d", "c", "a"]
        assert list(build_vocab("eddccbbaaa", max_vocab=3)) == ["<unk>", "d", "a"]

    def test_a_cap_that_fits_drops_nothing(self):
        assert list(build_vocab("bab", max_vocab=2)) == ["b", "a"]

    def test_an_unseen_token_elsewhere_needs_unk(self):
        assert list(build_vocab(["b", "a"], (["a"], ["c"]))) == ["b", "a", "<unk>"]
        # ... and unk takes the last place under the cap.
        assert list(build_vocab(["b", "a", "a"], (["c"],), max_vocab=2)) == ["<unk>", "a"]

    def test_the_token_to_keep_survives_the_cap_but_is_not_invented(self):
        assert list(build_vocab("aabbcc\n", max_vocab=3, keep="\n")) == ["a", "<unk>", "\n"]
        assert list(build_vocab("aabbcd", max_vocab=3, keep="\n")) == ["a", "b", "<unk>"]

    def test_unk_in_the_text_is_the_same_unk(self):
        tokens = ["a", "<unk>", "a", "b", "c", "c"]
        assert list(build_vocab(tokens, max_vocab=3)) == ["a", "<unk>", "c"]

    @pytest.mark.parametrize(("max_vocab", "keep"), [(1, None), (0, None), (-5, None), (2, "\n")])
    def test_a_cap_without_room_for_a_token_is_rejected(self, max_vocab, keep):
        with pytest.raises(ValueError, match=rf"max_vocab: expected at least .* got {max_vocab}"):
            build_vocab("abc", max_vocab=max_vocab, keep=keep)

    def test_a_cap_that_is_no_whole_number_is_rejected(self):
        with pytest.raises(TypeError, match=r"max_vocab: expected a whole number, got 2\.5"):
            build_vocab("abc", max_vocab=2.5)

    @given(token_lists, token_lists, st.none() | st.integers(2, 12))
    def test_laws(self, train, other, max_vocab):
        vocab = build_vocab(train, (other,), max_vocab=max_vocab)
        assert list(vocab.values()) == list(range(len(vocab)))
        assert max_vocab is None or len(vocab) <= max_vocab
        encode_tokens(train, vocab), encode_tokens(other, vocab)  # neither raises
        counts = Counter(train)
        dropped = [n for token, n in counts.items() if token not in vocab]
        kept = [n for token, n in counts.items() if token in vocab and token != "<unk>"]
        assert not dropped or max(dropped) <= min(kept)


@given(token_lists)
def test_words_survive_the_round_trip(tokens):
    corpus = corpus_from_tokens("t", tokens, tokens, tokens, level="word", eos="<eos>")
    assert corpus.encode(corpus.decode(corpus.train)) == corpus.train.tolist()
    assert corpus.decode(corpus.encode(" ".join(tokens))) == " ".join(tokens)


@given(st.text(min_size=1))
def test_characters_survive_the_round_trip(text):
    corpus = corpus_from_tokens("t", text, text, text, level="char", eos="\n")
    assert corpus.decode(corpus.encode(text)) == text


def test_a_corpus_can_be_built_by_hand():
    ids = np.array([0, 1, 0], np.int32)
    corpus = Corpus("ab", ids, ids, ids, {"a": 0, "b": 1}, {0: "a", 1: "b"}, "symbol", None)
    assert corpus.decode(ids) == "aba"
    assert corpus.encode("bb") == [1, 1]
