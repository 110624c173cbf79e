"""The three questions that lm-zoo asks of any language model, answered by a run of ours.

lm-zoo (cpllab/lm-zoo on GitHub, docs/model_api.rst) fixes what goes in and what comes out, so that
one program asks all models:

    model, vocabulary = open_model(folder)
    tokenize(vocabulary, ["the cat sat"])               [["the", "cat", "<unk>", "<eos>"]]
    unkify(vocabulary, ["the cat sat"])                 [[0, 0, 1, 0]]
    get_surprisals(model, vocabulary, ["the cat sat"])  [(1, 1, "the", 5.1), ...]

The three agree token by token. The end of the line is a token of ours and comes last; each sentence
is read as if nothing had gone before. ``pandas.DataFrame(rows).set_index(["sentence_id",
"token_id"])`` is the table that lm-zoo itself returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy

from common.perplexity.protocols import evaluation
from common.perplexity.surprisal import predictions
from datasets.stream import tokens_of
from datasets.vocabulary import UNK, Vocabulary, encode_tokens
from models.language_model import LanguageModel

__all__ = ["TokenSurprisal", "get_surprisals", "tokenize", "unkify"]


class TokenSurprisal(NamedTuple):
    """A row of ``get_surprisals``.

    Attributes:
        sentence_id: number of the sentence, from 1.
        token_id: number of the token in it, from 1.
        token: as the model reads it.
        surprisal: -log2 of its probability.
    """

    sentence_id: int
    token_id: int
    token: str
    surprisal: float


def tokenize(vocabulary: Vocabulary, sentences: Iterable[str]) -> list[list[str]]:
    """The tokens of each sentence as the model reads them, those that it does not know ``<unk>``.

    Args:
        vocabulary: of the model.
        sentences: each without the end of its line, or with it.

    Raises:
        TypeError: for anything but a series of strings.
        ValueError: for a sentence of several lines, or a token that the vocabulary lacks where
            there is no ``<unk>``.
    """
    return [[vocabulary.words[i] for i in ids] for ids in _encoded(vocabulary, sentences)]


def unkify(vocabulary: Vocabulary, sentences: Iterable[str]) -> list[list[int]]:
    """For each token of ``tokenize`` 1 where it is ``<unk>``, else 0; arguments likewise."""
    unk = vocabulary.word_to_id.get(UNK)
    return [[int(i == unk) for i in ids] for ids in _encoded(vocabulary, sentences)]


def get_surprisals(
    model: LanguageModel, vocabulary: Vocabulary, sentences: Iterable[str]
) -> list[TokenSurprisal]:
    """A row for each token of ``tokenize``; every sentence begins from the zero state.

    Args:
        model: the model; its training state is kept.
        vocabulary: its words.
        sentences: see ``tokenize``.

    Raises:
        TypeError, ValueError: as ``tokenize`` does.
    """
    rows = []
    with evaluation(model):
        for number, ids in enumerate(_encoded(vocabulary, sentences), start=1):
            model.reset_state()
            xs = numpy.asarray([vocabulary.first_id, *ids[:-1]])
            bits = (
                bit
                for part in predictions(model, xs[: len(ids)], numpy.asarray(ids, int), best=0)
                for bit in part.surprisal.tolist()
            )
            for place, (i, surprisal) in enumerate(zip(ids, bits, strict=True), start=1):
                rows.append(TokenSurprisal(number, place, vocabulary.words[i], surprisal))
    return rows


def _encoded(vocabulary: Vocabulary, sentences: Iterable[str]) -> list[list[int]]:
    if isinstance(sentences, str):
        raise TypeError(f"expected a list of sentences, got a string: {sentences!r}")
    return [_ids(vocabulary, sentence) for sentence in sentences]


def _ids(vocabulary: Vocabulary, sentence: str) -> list[int]:
    if not isinstance(sentence, str):
        raise TypeError(f"expected sentences to be strings, got {sentence!r}")
    line = sentence.strip("\r\n")
    if "\n" in line or "\r" in line:
        raise ValueError(f"expected sentences of one line each, got {sentence!r}")
    return encode_tokens(tokens_of(line + "\n", vocabulary), vocabulary.word_to_id).tolist()
