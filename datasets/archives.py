"""WikiText-2, WikiText-103, text8 and enwik8, each out of the one archive that its authors offer.

An archive, or what it holds, is looked for in the folder the caller names, else in the one the
environment variable ``TIMELAYERS_DATA`` names; else the archive is downloaded once into the user's
cache folder. Archives are checked by hash, so are the contents of text8 and enwik8; the numbers of
tokens and of words are checked of all. The downloads themselves are untried: nothing but a server
on the same machine has answered them yet.

Sources: Merity, Xiong, Bradbury and Socher, Pointer sentinel mixture models, ICLR 2017 (WikiText);
Mahoney, About the test data, mattmahoney.net/dc/textdata (text8, enwik8).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pooch

from datasets.corpus import SPLITS, Corpus, encoded_corpus
from datasets.ptb import DATA_VARIABLE, named_folder
from datasets.vocabulary import EOS, Level, Vocabulary, split_words

__all__ = ["ARCHIVES", "load_corpus"]

_AGENT = "time-layers"  # the server of WikiText refuses the name that Python gives by default
_PIECE = 1 << 20  # bytes of a text that are read at a time; larger ones are cut more slowly


class Archive(NamedTuple):
    """One zip file and what must be in it."""

    address: str
    zip_hash: str  # as pooch writes it, algorithm:digits
    members: tuple[str, ...]  # one for each split, or one that is cut
    level: Level
    sizes: tuple[int | None, ...]  # tokens of training, validation and test; None for unknown
    vocab_size: int
    content_md5: str = ""  # of a single member


_WIKI = "https://wikitext.smerity.com/"
_MAHONEY = "http://mattmahoney.net/dc/"
_CUT = (90_000_000, 5_000_000, 5_000_000)

ARCHIVES = {
    "wikitext2": Archive(
        f"{_WIKI}wikitext-2-v1.zip",
        "sha256:92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        tuple(f"wikitext-2/wiki.{split}.tokens" for split in SPLITS),
        "word",
        (2_088_628, 217_646, 245_569),
        33_278,
    ),
    "wikitext103": Archive(
        f"{_WIKI}wikitext-103-v1.zip",
        "md5:9ddaacaf6af0710eda8c456decff7832",
        tuple(f"wikitext-103/wiki.{split}.tokens" for split in SPLITS),
        "word",
        (103_227_021, 217_646, 245_569),
        267_735,
    ),
    "text8": Archive(
        f"{_MAHONEY}text8.zip",
        "sha256:a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        ("text8",),
        "char",
        _CUT,
        27,
        "3bea1919949baf155f99411df5fada7e",
    ),
    "enwik8": Archive(
        f"{_MAHONEY}enwik8.zip",
        "sha256:547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        ("enwik8",),
        "byte",
        _CUT,
        205,
        "a1fa5ffddb56f4953e226637dabbb36a",
    ),
}


def load_corpus(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    vocabulary: Vocabulary | None = None,
) -> Corpus:
    """All three splits of the corpus ``name``.

    WikiText: words split on blanks, every newline ``<eos>``. text8: 90, 5 and 5 million
    characters. enwik8: as many bytes, each a token of its own.

    Args:
        name: One of ``ARCHIVES``.
        data_dir: Folder with the archive, or with its files as it would unpack them, with or
            without its subfolder. None stands for the folder in ``TIMELAYERS_DATA``, or, where
            that is not set, for the user's cache, filled from the network when needed.
        vocabulary: See ``corpus_from_tokens``.

    Raises:
        FileNotFoundError: The named folder has neither archive nor files.
        ValueError: What is named is not a folder, a file is not the one expected, by its hash or
            by its tokens, or see ``corpus_from_tokens``.
        RuntimeError: The archive could not be downloaded.
    """
    archive = ARCHIVES[name]
    folder = named_folder(name, data_dir)
    download = folder is None
    places = _download(name, archive) if folder is None else _find(name, archive, folder)
    own, parts = _read(name, archive, places)
    _check_counts(name, archive, own, parts)
    how = {
        "word": f"words split on blanks, {EOS} at the end of every line",
        "char": "every character a token",
        "byte": "every byte a token",
    }[archive.level]
    where = "downloaded" if download else str(places[0])
    return encoded_corpus(name, parts, own, vocabulary, f"{name} ({where}), {how}")


def _read(name: str, archive: Archive, places: list[Path]) -> tuple[Vocabulary, list[np.ndarray]]:
    """The vocabulary of the training split and the ids of all three."""
    if archive.level == "word":
        word_to_id = _Numbered()
        parts = []
        for member, place in zip(archive.members, places, strict=True):
            with _opened(name, place, member) as file:
                parts.append(_joined(_ids_of_lines(file, word_to_id)))
        return Vocabulary(tuple(word_to_id), "word"), parts
    digest, pieces = hashlib.md5(usedforsecurity=False), []
    with _opened(name, places[0], archive.members[0]) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            pieces.append(np.frombuffer(piece, np.uint8))
    if digest.hexdigest() != archive.content_md5:
        raise ValueError(
            f"{name}: {places[0]} does not hold the text expected: expected md5 "
            f"{archive.content_md5}, got {digest.hexdigest()}"
        )
    occurs = np.any([np.bincount(piece, minlength=256) for piece in pieces], axis=0)
    table = (occurs.cumsum() - 1).astype(np.int32)  # bytes in the order of their values
    tokens = tuple(chr(value) for value in np.flatnonzero(occurs).tolist())
    ids = _joined(table[piece] for piece in pieces)
    ends = np.cumsum([size for size in archive.sizes[:-1] if size is not None])
    return Vocabulary(tokens, archive.level), np.split(ids, ends)


class _Numbered(dict[str, int]):
    """Gives every word that it is asked for an id, in the order of first appearance."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def _ids_of_lines(file: IO[bytes], word_to_id: _Numbered) -> Iterator[np.ndarray]:
    """int32 ids of the words, some lines at a time: a list of all words would take gigabytes."""
    while lines := file.readlines(_PIECE):
        words = split_words(b"".join(lines).decode())
        yield np.fromiter(map(word_to_id.__getitem__, words), np.int32, count=len(words))


def _joined(pieces: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int32), *pieces])


def _check_counts(
    name: str, archive: Archive, vocabulary: Vocabulary, parts: list[np.ndarray]
) -> None:
    sizes = tuple(map(len, parts))
    if sizes != archive.sizes or vocabulary.vocab_size != archive.vocab_size:
        raise ValueError(
            f"{name}: this is another text: expected {archive.sizes} tokens and V = "
            f"{archive.vocab_size:,}, got {sizes} and V = {vocabulary.vocab_size:,}"
        )


@contextmanager
def _opened(name: str, place: Path, member: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of the ``member`` of an archive."""
    try:
        if place.suffix != ".zip":
            with open(place, "rb") as file:
                yield file
            return
        with zipfile.ZipFile(place) as whole, whole.open(member) as file:
            yield file
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{name}: {place} is not an archive with {member} ({error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {place} is not the text expected ({error})") from error


def _find(name: str, archive: Archive, folder: Path) -> list[Path]:
    """For each member the file that holds it: the archive, or the member itself."""
    file = archive.address.rpartition("/")[2]
    if (folder / file).is_file():
        kind, _, expected = archive.zip_hash.partition(":")
        got = pooch.file_hash(str(folder / file), alg=kind)
        if got != expected:
            raise ValueError(
                f"{name}: {folder / file} is not the file expected: expected {kind} {expected}, "
                f"got {got}"
            )
        return [folder / file] * len(archive.members)
    found = []
    for member in archive.members:
        places = (folder / member, folder / Path(member).name)
        there = [place for place in places if place.is_file()]
        if not there:
            raise FileNotFoundError(
                f"{name}: {member} is missing; looked for {folder / file}, {places[0]} and "
                f"{places[1]}. {_by_hand(archive)}"
            )
        found.append(there[0])
    return found


def _download(name: str, archive: Archive) -> list[Path]:
    """The archive in the cache; pooch fetches it if it is missing or has another hash."""
    folder, file = Path(pooch.os_cache("time-layers")), archive.address.rpartition("/")[2]
    try:
        path = pooch.retrieve(
            archive.address,
            known_hash=archive.zip_hash,
            fname=file,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, headers={"User-Agent": _AGENT}),
        )
    except (OSError, ValueError) as error:  # no connection or no space; another hash
        raise RuntimeError(
            f"{name}: no intact {file} in {folder}, and it could not be downloaded: {error}\n"
            f"{_by_hand(archive)}"
        ) from error
    return [Path(path)] * len(archive.members)


def _by_hand(archive: Archive) -> str:
    return (
        f"Download {archive.address} by hand, put it in a folder, and name it with "
        f"{DATA_VARIABLE} or --data-dir."
    )
