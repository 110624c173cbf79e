import platform
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from datasets import pydoc


@pytest.fixture
def topics(monkeypatch):
    """Stands in for the topics of this Python; starts out empty."""
    topics = {}
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", SimpleNamespace(topics=topics))
    return topics


def sentences(count):
    return "\n\n".join(f"This is the plain sentence number {i}." for i in range(count))


def paragraphs(corpus, split):
    return corpus.decode(getattr(corpus, split)).removesuffix("\n").split("\n")


def test_the_text_of_this_python():
    corpus = pydoc.load_corpus()
    assert corpus.vocab_size == 2000
    assert corpus.level == "word"
    assert corpus.id_to_word[corpus.eos_id] == "<eos>"
    assert len(corpus.train) > 30_000
    for ids in (corpus.valid, corpus.test):
        assert 0.04 < len(ids) / len(corpus.train) < 0.08
        assert ids[-1] == corpus.eos_id
        assert np.mean(ids == corpus.word_to_id["<unk>"]) < 0.08
    assert "<unk>" not in corpus.decode(corpus.encode("the value of the expression is"))
    assert not {">>>", "::=", '"', "***"} & corpus.word_to_id.keys()


def test_the_corpus_says_of_which_python_it_is():
    assert f"of Python {platform.python_version()}," in pydoc.load_corpus().about


def test_loading_twice_gives_the_same_ids():
    a, b = pydoc.load_corpus(), pydoc.load_corpus()
    assert a.word_to_id == b.word_to_id
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(a, split), getattr(b, split))


def test_no_paragraph_is_in_two_splits_or_twice_in_one():
    corpus = pydoc.load_corpus(max_vocab=100_000)  # all words, lest <unk> makes paragraphs alike
    train, valid, test = (paragraphs(corpus, split) for split in ("train", "valid", "test"))
    assert len(set(train)) == len(train)
    assert not set(train) & set(valid)
    assert not set(train) & set(test)


def test_of_twenty_paragraphs_one_is_for_validation_and_one_for_the_test(topics):
    topics["count"] = sentences(45)
    corpus = pydoc.load_corpus(max_vocab=50)
    assert [int(p.split()[-2]) for p in paragraphs(corpus, "train")] == [
        i for i in range(45) if i % 20 not in (9, 19)
    ]
    # The numbers of the others are not in train, and so unknown.
    assert len(paragraphs(corpus, "valid")) == len(paragraphs(corpus, "test")) == 2


def test_repeated_paragraphs_count_once(topics):
    topics["one"] = sentences(20)
    topics["two"] = sentences(20).replace("the plain", "the\n   plain").upper().replace("IS", "Is")
    corpus = pydoc.load_corpus(max_vocab=50)
    assert sum(len(paragraphs(corpus, s)) for s in ("train", "valid", "test")) == 20


def test_only_prose_is_kept(topics):
    topics["mixture"] = """Heading
*******

This sentence should stay in the corpus.

   >>> print("this is typed at the prompt")
   this is typed at the prompt

   rule ::= "this is the rule of a grammar" .

   for item in items:
       print(item.name, item.value, 1, 2, 3)

+------+-----------------------------+
| name | this is the row of a table. |
+------+-----------------------------+

* this item of a list ends here;

Too short.
"""
    topics["more"] = sentences(20)
    corpus = pydoc.load_corpus(max_vocab=60)
    assert paragraphs(corpus, "train")[:3] == [
        "this sentence should stay in the corpus .",
        "this item of a list ends here ;",
        "this is the plain sentence number 0 .",
    ]


def test_the_cap_turns_rare_words_into_unk(topics):
    topics["count"] = sentences(40)
    corpus = pydoc.load_corpus(max_vocab=9)
    words = "this is the plain sentence number ."
    assert corpus.word_to_id.keys() == {*words.split(), "<eos>", "<unk>"}
    assert paragraphs(corpus, "train")[0] == "this is the plain sentence number <unk> ."
    with pytest.raises(ValueError, match=r"max_vocab: expected at least 3 .* got 2"):
        pydoc.load_corpus(max_vocab=2)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('A "TypeError" is raised.', "a typeerror is raised ."),
        ("the object’s built-in *name*, e.g. **that**", "the object's built-in name , e.g . that"),
        ("see sys.path (in 3.11), or __init__()", "see sys.path ( in 3.11 ) , or __init__ ()"),
        ('"x **= 2" or "y <= *args"', "x ** = 2 or y <= * args"),
        ("pseudo-\n  compiled code", "pseudo-compiled code"),
        ("", ""),
    ],
)
def test_tokenize(text, tokens):
    assert pydoc.tokenize(text) == tokens.split()


def test_a_python_without_the_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(RuntimeError, match=r"pydoc: this Python came without pydoc_data\.topics"):
        pydoc.load_corpus()
