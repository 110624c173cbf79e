"""Tokens of a text as it comes: of a file of any length, of a pipe, of what a person types."""

from __future__ import annotations

import codecs
import gzip
import io
import select
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from datasets.text import GZIP, has_text
from datasets.vocabulary import Vocabulary, encode_tokens, split_words

__all__ = ["Piece", "open_text", "read_pieces", "tokens_of"]

SIZE = 1 << 16  # bytes that are read at once


@dataclass(frozen=True)
class Piece:
    """Some tokens of a text.

    Args:
        tokens: As they stand in the text; one that the vocabulary lacks is not ``<unk>`` here.
        ids: Their ids, int32 of shape (tokens,).
        size: How much of the text was read for them, in the unit in which its length is counted.
        pauses: Whether the next piece has to be waited for, or there is none.
    """

    tokens: list[str]
    ids: np.ndarray
    size: int
    pauses: bool


def tokens_of(text: str, vocabulary: Vocabulary) -> list[str]:
    r"""Tokens of ``text`` as ``datasets.text`` makes them of a file: words, or characters.

    "\n" is the end of a line; where the vocabulary has no token for it, it is left out.
    """
    if vocabulary.eos_id is None:
        text = text.replace("\n", " " if vocabulary.level == "word" else "")
    return split_words(text) if vocabulary.level == "word" else list(text)


def open_text(name: str) -> AbstractContextManager[io.BufferedIOBase]:
    """The bytes of the file ``name``, of standard input for "-"; a file of gzip is unpacked.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A folder.
        OSError: The file cannot be read.
    """
    if name == "-":
        if sys.stdin is None:
            raise ValueError("text: standard input is closed")
        return nullcontext(cast(io.BufferedIOBase, sys.stdin.buffer))
    path = Path(name).expanduser()
    if path.is_dir():
        raise ValueError(f"text: expected a text file, got the folder {name}")
    if not path.exists():
        raise FileNotFoundError(f"text: no such file: {name}")
    return gzip.open(path) if path.suffix == ".gz" or _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    """Whether a file begins as those of gzip do; of a pipe nothing may be read yet."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def read_pieces(source: io.BufferedIOBase, vocabulary: Vocabulary, name: str) -> Iterator[Piece]:
    r"""Read UTF-8 text and make it tokens as ``datasets.text`` does, no more of it than came.

    Every line has its end, the last one too; "\r\n" and "\r" count as "\n"; a byte order mark is
    skipped. A word that may go on is held back until its end has come.

    Args:
        source: Where the text comes from; sizes of pieces are in its bytes.
        vocabulary: What the ids mean.
        name: What errors call the text.

    Raises:
        ValueError: A byte that is not UTF-8, a damaged file of gzip, a token that is not in the
            vocabulary where that has no ``<unk>``, or a text without any.
    """
    rest, any_text, num_bytes = "", False, 0
    for text, size, is_last in _texts(source, name):
        num_bytes += size
        any_text = any_text or (text != "" and has_text(text, vocabulary.level))
        text = rest + text
        tokens, rest = tokens_of(text, vocabulary), ""
        if vocabulary.level == "word" and not is_last and tokens and not text[-1].isspace():
            rest = tokens.pop()
        try:
            ids = encode_tokens(tokens, vocabulary.word_to_id)
        except ValueError as error:
            raise ValueError(f"text: {name}: {error}") from error
        yield Piece(tokens, ids, size, is_last or _pauses(source))
    if not any_text:
        raise ValueError(f"text: {name}: expected text, got {num_bytes} bytes without any")


def _texts(source: io.BufferedIOBase, name: str) -> Iterator[tuple[str, int, bool]]:
    r"""Text with "\n" at the end of every line, its bytes, and whether it is the last."""
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    lines, ending, is_last = 0, "\n", False
    while not is_last:
        data = _read(source, name)
        is_last = not data
        try:
            text = decoder.decode(data, final=is_last)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            raise ValueError(
                f"text: {name}: line {lines + before.count(10) + 1}: byte "
                f"0x{error.object[error.start]:02x} is not UTF-8 ({error.reason}); convert the "
                "text to UTF-8"
            ) from error
        ending = text[-1:] or ending
        if is_last and ending != "\n":
            text += "\n"
        lines += text.count("\n")
        yield text, len(data), is_last


def _read(source: io.BufferedIOBase, name: str) -> bytes:
    """What there is, SIZE bytes at most; waits for the first of them; nothing at the end."""
    try:
        return source.read1(SIZE)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"text: {name} is not an intact gzip file ({error})") from error


def _pauses(source: io.BufferedIOBase) -> bool:
    """Whether the next byte has to be waited for; no, where that cannot be known."""
    try:
        return not select.select([source], [], [], 0)[0]
    except (OSError, ValueError):  # it has no descriptor, or is no socket on Windows
        return False
