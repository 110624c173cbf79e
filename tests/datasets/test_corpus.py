import copy
import hashlib
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from datasets.corpus import Corpus, corpus_from_tokens
from datasets.vocabulary import Vocabulary, split_words


@pytest.fixture
def corpus():
    splits = ("the cat sat\non the mat\n", "the mat\n", "a cat\n")
    return corpus_from_tokens("tiny", *map(split_words, splits), level="word")


def test_ids_follow_the_first_appearance_in_train(corpus):
    assert list(corpus.word_to_id) == ["the", "cat", "sat", "<eos>", "on", "mat", "<unk>"]
    assert corpus.train.tolist() == [0, 1, 2, 3, 4, 0, 5, 3]
    assert corpus.valid.tolist() == [0, 5, 3]
    assert corpus.test.tolist() == [6, 1, 3]  # "a" is not in train
    assert corpus.train.dtype == corpus.valid.dtype == corpus.test.dtype == np.int32


def test_a_corpus_answers_for_its_vocabulary(corpus):
    vocabulary = corpus.vocabulary
    assert corpus.vocab_size == vocabulary.vocab_size == 7
    assert corpus.word_to_id == vocabulary.word_to_id
    assert corpus.id_to_word == vocabulary.id_to_word
    assert corpus.level == vocabulary.level == "word"
    assert corpus.eos_id == corpus.first_id == 3
    assert corpus.encode("the  cat\nsat") == [0, 1, 3, 2]
    assert corpus.decode(corpus.train) == "the cat sat\non the mat\n"
    assert corpus.vocabulary_hash() == vocabulary.hash()


def test_it_prints_as_its_name_and_its_sizes(corpus):
    assert repr(corpus) == "Corpus('tiny', V=7, tokens: 8 train, 3 valid, 3 test)"


def test_the_fields_are_fixed(corpus):
    with pytest.raises(FrozenInstanceError):
        corpus.train = corpus.test


def test_without_an_end_of_line_the_first_id_is_zero():
    corpus = corpus_from_tokens("c", "ab", "a", "b", level="char")
    assert corpus.eos_id is None
    assert corpus.first_id == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": [0, 1]}, TypeError, "expected train to be an int32 array, got list"),
        ({"valid": np.zeros(3, np.int64)}, TypeError, "valid to be an int32 array, got int64"),
        ({"test": np.zeros((2, 2), np.int32)}, ValueError, r"of shape \(tokens,\), got \(2, 2\)"),
        ({"train": np.array([0, 7], np.int32)}, ValueError, r"in 0\.\.6, got 0 to 7"),
        ({"train": np.array([-1], np.int32)}, ValueError, r"in 0\.\.6, got -1 to -1"),
        ({"vocabulary": Vocabulary(("the",), "word")}, ValueError, r"train in 0\.\.0, got 0 to 5"),
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
    assert corpus.word_to_id["cat"] == 1


def test_a_corpus_can_be_built_by_hand():
    ids = np.array([0, 1, 0], np.int32)
    corpus = Corpus("ab", ids, ids, ids, Vocabulary(("a", "b"), "symbol"))
    assert corpus.decode(ids) == "aba"
    assert corpus.encode("bb") == [1, 1]
    assert corpus.about == ""


def test_every_split_has_its_size_and_its_hash(corpus):
    assert corpus.split_sizes() == {"train": 8, "valid": 3, "test": 3}
    hashes = corpus.split_hashes()
    assert hashes["valid"] == hashlib.sha256(b"\0\0\0\0\5\0\0\0\3\0\0\0").hexdigest()
    other = replace(corpus, test=corpus.test[::-1]).split_hashes()
    assert other["train"] == hashes["train"]
    assert other["test"] != hashes["test"]


class TestTheVocabularyOfAnotherCorpus:
    def test_it_is_taken_as_it_is_and_what_it_lacks_is_unk(self):
        words = Vocabulary(("c", "<unk>", "a", "z"), "char")
        corpus = corpus_from_tokens("c", "abab", "az", "bbac", level="char", vocabulary=words)
        assert corpus.vocabulary is words
        assert [part.tolist() for part in (corpus.train, corpus.valid, corpus.test)] == [
            *([2, 1, 2, 1], [2, 3], [1, 1, 2, 0]),
        ]
        assert corpus.about.endswith(
            "\n<unk> for tokens that the vocabulary lacks: 50 % of train, 50 % of test"
        )

    def test_without_unk_the_tokens_that_it_lacks_are_listed(self):
        words = Vocabulary(("a", "b"), "char")
        assert corpus_from_tokens("c", "ab", "a", "b", level="char", vocabulary=words).train.size
        with pytest.raises(ValueError, match=r"corpus 'c': 3 of its tokens .*: 'x', 'y', 'z'$"):
            corpus_from_tokens("c", "abz", "xa", "by", level="char", vocabulary=words)
        with pytest.raises(ValueError, match=r"20 of its .*'c', .*'l', \.\.\.$"):
            letters = "abcdefghijklmnopqrstuv"
            corpus_from_tokens("c", letters, "a", "b", level="char", vocabulary=words)

    def test_another_level_is_refused(self):
        words = Vocabulary(("a", "<unk>"), "char")
        with pytest.raises(ValueError, match=r"level 'word', those of the vocabulary .* 'char'"):
            corpus_from_tokens("c", "ab", "a", "b", level="word", vocabulary=words)


class TestAbout:
    def test_sizes_follow_what_the_loader_says(self):
        corpus = corpus_from_tokens("c", "ab", "a", "b", level="char", about="letters")
        assert corpus.about == "letters\n2 training, 1 validation and 1 test tokens"

    def test_the_share_of_tokens_that_training_lacks(self):
        corpus = corpus_from_tokens("c", "abab", "aabcacca", "abb", level="char")
        assert corpus.about.endswith("\n<unk> for tokens that training lacks: 37.5 % of valid")
        assert np.mean(corpus.valid == corpus.word_to_id["<unk>"]) == 0.375

    def test_the_share_of_tokens_that_the_limit_drops(self):
        corpus = corpus_from_tokens("c", "aabbaabbcd", "abcz", "ab", level="char", max_vocab=3)
        assert corpus.about.splitlines()[1:] == [
            "<unk> for tokens that training lacks: 25 % of valid",
            "<unk> for tokens beyond the limit of the vocabulary: 20 % of train, 25 % of valid",
        ]

    def test_unk_in_the_text_itself_is_known(self):
        tokens = ["a", "<unk>"]
        assert "<unk>" not in corpus_from_tokens("c", tokens, tokens, tokens, level="word").about
