"""Text in, int32 ids out. The data sets know nothing of models and always use NumPy.

    pydoc   the language reference that ships with Python: no file, no network
    ptb     the Penn Treebank, downloaded once or read from a folder
    text    text files of your own, by words or by characters
    markov  an artificial source whose best perplexity is known exactly

Every one of them has ``load_corpus``, which returns a ``Corpus``: three splits and one
vocabulary. ``datasets.load_corpus`` finds the one that a name or a path means.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from datasets import markov, ptb, pydoc, text
from datasets.corpus import Corpus

__all__ = ["NAMES", "Corpus", "load_corpus", "markov", "ptb", "pydoc", "text"]

NAMES = ("pydoc", "ptb", "markov")


def load_corpus(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    level: Literal["word", "char"] = "word",
    max_vocab: int | None = None,
) -> Corpus:
    """Load a corpus by its name, or from a text file.

    Args:
        name_or_path: "pydoc", "ptb", "markov", or the path of a text file (``./ptb`` for a file
            that has one of the names).
        data_dir: Folder with the files of "ptb"; the others read nothing from it.
        level: For a text file, what a token is; the named corpora are words (or symbols).
        max_vocab: For a text file and "pydoc", V at most; None for no limit and for the default
            of "pydoc".

    Raises:
        FileNotFoundError: Neither a known name nor a file.
        ValueError: An option that the corpus does not have, or see its ``load_corpus``.
        RuntimeError: See ``datasets.ptb`` and ``datasets.pydoc``.
    """
    name = os.fspath(name_or_path)
    if name not in NAMES:
        if not Path(name).exists():
            raise FileNotFoundError(
                f"load_corpus: expected one of {', '.join(NAMES)}, or the path of a text file; "
                f"got {name!r}, and there is no such file"
            )
        return text.load_corpus(name, level=level, max_vocab=max_vocab)
    if level != "word":
        raise ValueError(f"load_corpus: {name} has no level {level!r}; only text files do")
    if name == "pydoc":
        return pydoc.load_corpus() if max_vocab is None else pydoc.load_corpus(max_vocab)
    if max_vocab is not None:
        raise ValueError(f"load_corpus: {name} takes no max_vocab; its vocabulary is fixed")
    return ptb.load_corpus(data_dir) if name == "ptb" else markov.load_corpus()
