import hashlib
import json
import math
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.vocabulary import Vocabulary, build_vocab, encode_tokens

words = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=3)
token_lists = st.lists(words, min_size=1, max_size=40)

WORDS = ("the", "cat", "sat", "<eos>", "on", "mat", "<unk>")


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS, "word")


def test_ids_are_the_places_of_the_words(vocabulary):
    assert vocabulary.word_to_id["sat"] == 2
    assert [vocabulary.id_to_word[i] for i in range(7)] == list(WORDS)
    assert vocabulary.vocab_size == 7
    assert vocabulary.eos_id == vocabulary.first_id == 3


def test_the_fields_are_fixed(vocabulary):
    with pytest.raises(FrozenInstanceError):
        vocabulary.level = "char"


def test_characters_are_measured_in_bits_too(vocabulary):
    characters = Vocabulary(("a", "b", "\n"), "char")
    assert characters.in_bits({"valid": 8.0, "test": 2.0}) == {"valid_bits": 3.0, "test_bits": 1.0}
    assert characters.bits_beside(8.0) == " | 3.000 bits per character"
    assert characters.bits_beside(math.sqrt(2), ", ") == ", 0.500 bits per character"
    assert characters.in_bits({"of a broken model": math.inf}) == {
        "of a broken model_bits": math.inf
    }
    for other in (vocabulary, Vocabulary(("a", "b"), "symbol")):
        assert (other.in_bits({"valid": 8.0}), other.bits_beside(8.0)) == ({}, "")


def test_encode_and_decode_words(vocabulary):
    assert vocabulary.encode("the  cat\nsat") == [0, 1, 3, 2]
    assert vocabulary.decode([0, 1, 3, 2]) == "the cat\nsat"
    assert vocabulary.decode([3, 3, 0, 3, 3, 1]) == "\n\nthe\n\ncat"  # no blank by a newline
    assert vocabulary.encode("") == []
    assert vocabulary.decode([]) == ""


def test_encode_and_decode_characters():
    vocabulary = Vocabulary(("a", "b", " ", "\n"), "char")
    assert vocabulary.encode("b a\n") == [1, 2, 0, 3]
    assert vocabulary.decode([1, 2, 0, 3]) == "b a\n"
    assert vocabulary.first_id == vocabulary.eos_id == 3


def test_an_unknown_token_is_unk_or_an_error(vocabulary):
    assert vocabulary.encode("the dog") == [0, 6]
    with pytest.raises(ValueError, match=r"token 'z' .* 2 tokens .* '<unk>'"):
        Vocabulary(("a", "b"), "char").encode("abz")


@pytest.mark.parametrize(
    ("words", "level"), [(("a", "\n"), "word"), (("a", "<eos>"), "char"), (("<eos>",), "symbol")]
)
def test_what_ends_a_line_is_a_matter_of_the_level(words, level):
    vocabulary = Vocabulary(words, level)
    assert vocabulary.eos_id is None
    assert vocabulary.first_id == 0


@pytest.mark.parametrize("i", [-1, 7])
def test_decode_rejects_an_id_outside_the_vocabulary(vocabulary, i):
    with pytest.raises(ValueError, match=rf"Vocabulary: expected ids in 0\.\.6, got {i}"):
        vocabulary.decode([0, i])


@pytest.mark.parametrize(
    ("words", "level", "error", "message"),
    [
        (("a", "b", "a"), "word", ValueError, "expected every token once, got 'a' 2 times"),
        ((), "word", ValueError, "expected at least one token, got none"),
        (("a", 1), "word", TypeError, "expected tokens to be strings, got 1"),
        (("a",), "line", ValueError, "expected level in .* got 'line'"),
    ],
)
def test_what_is_no_vocabulary_is_rejected(words, level, error, message):
    with pytest.raises(error, match=f"Vocabulary: {message}"):
        Vocabulary(words, level)


def test_the_hash_is_that_of_words_order_and_level(vocabulary):
    others = [
        Vocabulary((*WORDS[1::-1], *WORDS[2:]), "word"),
        Vocabulary(WORDS[:-1], "word"),
        Vocabulary((*WORDS[:5], "mat,<unk>"), "word"),
        Vocabulary(WORDS, "symbol"),
    ]
    assert Vocabulary(WORDS, "word").hash() == vocabulary.hash()
    assert len({vocabulary.hash(), *(other.hash() for other in others)}) == 5


def test_the_hash_stays_what_it_was_in_runs_that_hold_it():
    content = rb'["char", ["a", "\u00e9", "\n"]]'
    assert Vocabulary(("a", "é", "\n"), "char").hash() == hashlib.sha256(content).hexdigest()


@given(st.lists(st.text(), min_size=1, unique=True), st.sampled_from(["word", "char", "symbol"]))
def test_a_vocabulary_survives_its_json(words, level):
    vocabulary = Vocabulary(tuple(words), level)
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.hash() == vocabulary.hash()
    assert vocabulary.to_json().isascii()


def test_a_word_that_no_encoding_can_write_survives_too():
    vocabulary = Vocabulary(("caf\udce9",), "word")  # from a command line that is not UTF-8
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert len(vocabulary.hash()) == 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "[" * 100_000,
        '{"level": "word"}',
        '{"words": ["a"]}',
        json.dumps({"level": "word", "words": "abc"}),
        json.dumps({"level": "word", "words": ["a", "a"]}),
        json.dumps({"level": "word", "words": ["a", None]}),
        json.dumps({"level": "line", "words": ["a"]}),
        json.dumps({"level": ["word"], "words": ["a"]}),
    ],
)
def test_other_json_is_rejected(text):
    with pytest.raises(ValueError, match="not the JSON of a vocabulary"):
        Vocabulary.from_json(text)


@given(token_lists)
def test_words_survive_the_round_trip(tokens):
    vocabulary = Vocabulary(tuple(dict.fromkeys(tokens)), "word")
    ids = encode_tokens(tokens, vocabulary.word_to_id).tolist()
    assert vocabulary.encode(vocabulary.decode(ids)) == ids
    assert vocabulary.decode(vocabulary.encode(" ".join(tokens))) == " ".join(tokens)


@given(st.text(min_size=1))
def test_characters_survive_the_round_trip(text):
    vocabulary = Vocabulary(tuple(dict.fromkeys(text)), "char")
    assert vocabulary.decode(vocabulary.encode(text)) == text


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
