"""Text in, int32 ids out. The data sets know nothing of models and always use NumPy.

    pydoc     the language reference that ships with Python: no file, no network
    ptb       the Penn Treebank, downloaded once or read from a folder
    archives  WikiText-2 and -103, text8, enwik8, likewise
    text      text files of your own, by words or by characters; one file or one for each split
    markov    an artificial source whose best perplexity is known exactly
    sequence  pairs of texts, to learn one from the other: additions, dates, files of your own

Every one of them but ``sequence`` has ``load_corpus``, which returns a ``Corpus``: three splits
and one ``Vocabulary``, which can be kept and read again without the text. ``datasets.load_corpus``
finds the corpus that a name or a path means.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from datasets import archives, markov, ptb, pydoc, sequence, text
from datasets.corpus import Corpus
from datasets.vocabulary import Vocabulary

__all__ = [
    "NAMES",
    "Corpus",
    "Vocabulary",
    "archives",
    "load_corpus",
    "markov",
    "ptb",
    "pydoc",
    "sequence",
    "text",
]

NAMES = ("pydoc", "ptb", "markov", *archives.ARCHIVES)


def load_corpus(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    level: Literal["word", "char"] = "word",
    max_vocab: int | None = None,
    vocabulary: Vocabulary | None = None,
) -> Corpus:
    """Load a corpus by its name, or from text files.

    Args:
        name_or_path: "pydoc", "ptb", "markov", "wikitext2", "wikitext103", "text8", "enwik8", or
            the path of a text file or of a folder with
            one for each split (``./ptb`` for a path that is one of the names).
        data_dir: Folder with the files of "ptb" or of ``datasets.archives``; the others read
            nothing from it.
        level: For text files, what a token is; a named corpus has its own level.
        max_vocab: For text files and "pydoc", V at most; None for no limit and for the default
            of "pydoc".
        vocabulary: That of another corpus, in place of this one's own and of ``max_vocab``; tokens
            that it lacks are ``<unk>``.

    Raises:
        FileNotFoundError: Neither a known name nor a path.
        ValueError: An option that the corpus does not have, a ``data_dir`` that is not a folder, a
            ``vocabulary`` of another level or without ``<unk>`` that lacks tokens, or see the
            ``load_corpus`` of the corpus and ``datasets.text.load_folder``.
        RuntimeError: See ``datasets.ptb``, ``datasets.archives`` and ``datasets.pydoc``.
    """
    name = os.fspath(name_or_path)
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise ValueError(f"--data-dir: expected a folder, got {os.fspath(data_dir)!r}")
    if name not in NAMES:
        path = Path(os.path.expanduser(name))
        if not name or not path.exists():
            raise FileNotFoundError(
                f"--corpus: expected one of {', '.join(NAMES)}, or the path of a text file or of a "
                f"folder of text files; got {name!r}, and there is no such file or folder"
            )
        load = text.load_folder if path.is_dir() else text.load_corpus
        return load(path, level=level, max_vocab=max_vocab, vocabulary=vocabulary)
    if level != "word":
        raise ValueError(f"--level: {name} has no level {level!r}; only text files do")
    if name == "pydoc":
        limit = {} if max_vocab is None else {"max_vocab": max_vocab}
        return pydoc.load_corpus(**limit, vocabulary=vocabulary)
    if max_vocab is not None:
        raise ValueError(f"--max-vocab: the vocabulary of {name} is fixed")
    if name in archives.ARCHIVES:
        return archives.load_corpus(name, data_dir, vocabulary)
    if name == "ptb":
        return ptb.load_corpus(data_dir, vocabulary)
    corpus = markov.load_corpus()
    if vocabulary not in (None, corpus.vocabulary):
        raise ValueError(f"corpus 'markov': its {corpus.vocab_size} symbols are not the vocabulary")
    return corpus
