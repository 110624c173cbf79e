"""English prose that is on every machine: the language reference that ships with CPython.

``pydoc_data.topics`` holds the text behind ``help("topics")``. Its wording follows the Python
that runs, so a perplexity on it compares runs of one Python version only.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator

from datasets.corpus import Corpus, corpus_from_tokens
from datasets.vocabulary import EOS, Vocabulary

__all__ = ["load_corpus", "tokenize"]

# Words with their inner hyphens, apostrophes and dots (built-in, object's, sys.path, 3.11),
# operators of two or three characters, and any other character on its own.
_TOKEN = re.compile(r"\w+(?:[-'.]\w+)*|\(\)|\.\.\.|\*\*|//|<<|>>|->|[-+*/%@&|^<>=!:]=|\S")
_PLAIN_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")

# Prompts of the interpreter, rules of a grammar, and lines drawn under headings or in tables.
_NOT_PROSE = re.compile(r"^\s*(?:>>> |\.\.\. )|::=|^\s*[*=~^+|-]{3}", re.MULTILINE)
_END_OF_SENTENCE = re.compile(r"[.:;!?][\")”*]*$")

_LIST_MARKER = re.compile(r"^(?:[*-]|\d+\.|\[\d+\])\s+")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}(\w[^*]*)\*{1,2}(?!\w)")
_BROKEN_AT_HYPHEN = re.compile(r"(?<=\w-)\n\s*(?=[a-z])")


def load_corpus(max_vocab: int = 2000, vocabulary: Vocabulary | None = None) -> Corpus:
    """The prose of the topics, one ``<eos>`` after every paragraph.

    Paragraphs that are no prose (headings, code, grammar, tables) are left out, and so is every
    repetition of a paragraph: topics share whole sections, which would carry training text into
    the other splits. Of twenty paragraphs in order the tenth goes to ``valid``, the twentieth
    to ``test``, and the rest to ``train``, so the three read alike.

    Args:
        max_vocab: V at most, ``<unk>`` and ``<eos>`` included. The default keeps about every
            word that occurs twice.
        vocabulary: See ``corpus_from_tokens``.

    Returns:
        A corpus of some 50,000 tokens. Their number and the words depend on the version of
        Python, which ``about`` names.

    Raises:
        RuntimeError: This Python came without ``pydoc_data``.
        ValueError: ``max_vocab`` is too small, or see ``corpus_from_tokens``.
    """
    paragraphs = list(dict.fromkeys(_paragraphs(_read_topics())))
    train: list[str] = []
    valid: list[str] = []
    test: list[str] = []
    for i, tokens in enumerate(paragraphs):
        split = {9: valid, 19: test}.get(i % 20, train)
        split += tokens
        split.append(EOS)
    return corpus_from_tokens(
        "pydoc",
        train,
        valid,
        test,
        level="word",
        max_vocab=max_vocab,
        vocabulary=vocabulary,
        about=(
            f"the language reference of Python {platform.python_version()}, {EOS} after every "
            "paragraph; of 20 paragraphs the 10th valid, the 20th test"
        ),
    )


def tokenize(text: str) -> list[str]:
    """Lower-case words and marks of ``text``, as in the corpus.

    The markup of the topics is dropped: asterisks around emphasis, double quotes around code.
    """
    text = _BROKEN_AT_HYPHEN.sub("", text.replace("’", "'").replace('"', ""))
    return _TOKEN.findall(_EMPHASIS.sub(r"\1", text).lower())


def _read_topics() -> list[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise RuntimeError(
            "pydoc: this Python came without pydoc_data.topics (some distributions leave it "
            "out); install the full standard library, or train on a text file of your own"
        ) from error
    return list(topics.values())


def _paragraphs(topics: list[str]) -> Iterator[tuple[str, ...]]:
    """Tokens of every paragraph of prose, in order, repetitions included."""
    for topic in topics:
        for paragraph in re.split(r"\n\s*\n", topic):
            paragraph = _LIST_MARKER.sub("", paragraph.strip())
            tokens = tuple(tokenize(paragraph))
            if _is_prose(paragraph, tokens):
                yield tokens


def _is_prose(paragraph: str, tokens: tuple[str, ...]) -> bool:
    """Whether a paragraph ends like a sentence and is made of words for the better part."""
    plain = sum(_PLAIN_WORD.fullmatch(token) is not None for token in tokens)
    return (
        _NOT_PROSE.search(paragraph) is None
        and _END_OF_SENTENCE.search(paragraph) is not None
        and plain >= max(4, len(tokens) / 2)
    )
