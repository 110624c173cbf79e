"""Text files of your own, by words or by characters."""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from datasets.corpus import SPLITS, Corpus, corpus_from_tokens
from datasets.vocabulary import EOS, Level, Vocabulary, split_words

__all__ = ["GZIP", "has_text", "load_corpus", "load_folder", "read_lines"]

PathLike = str | os.PathLike[str]
TextLevel = Literal["word", "char"]

GZIP = b"\x1f\x8b"  # how a file of gzip begins

_BOM = b"\xef\xbb\xbf"
_SHARE = 20  # of so many lines (or tokens) one is for validation and one for the test

# Names that files of a split go by, between dots, hyphens and underscores.
_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
_HOW_READ = {
    "word": f"words split on blanks, {EOS} at the end of every line",
    "char": "every character a token, the end of a line too",
}


def load_corpus(
    train: PathLike,
    valid: PathLike | None = None,
    test: PathLike | None = None,
    *,
    level: TextLevel = "word",
    max_vocab: int | None = None,
    vocabulary: Vocabulary | None = None,
    name: str | None = None,
) -> Corpus:
    r"""Read UTF-8 text files; the vocabulary is that of the training split alone.

    By words, tokens are split on blanks and the end of a line is ``<eos>``. By characters,
    every character is a token, and the end of a line is the character ``"\n"``. Every line has
    its end, the last one too; ``\r\n`` and ``\r`` count as ``\n``; a byte order mark is skipped.
    Files that gzip has compressed are read like others.

    A split without a file of its own is cut from the end of ``train``: 5 % of its lines. Where
    both are missing, ``valid`` comes first and ``test`` last. Of a text of fewer than 20 lines it
    is 5 % of the words or characters, at least one, the cut may fall inside a line, and the last
    line has no end. Blank lines at the end of a text that is cut are left out; those inside stay,
    as an end of a line each, but do not count towards the 5 %, so that every split has text to
    predict. A file for each split is read as it is; ``about`` says where it ends in blank lines.

    Args:
        train: Path of the training text.
        valid: Path of the validation text, or None.
        test: Path of the test text, or None.
        level: What a token is, a "word" or a "char".
        max_vocab: V at most, ``<unk>`` and the end of a line included; None for no limit.
            ``<unk>`` is in the vocabulary if the limit drops a token, or if ``valid`` or
            ``test`` has a token that ``train`` has not.
        vocabulary: See ``corpus_from_tokens``.
        name: Name of the corpus; None for the name of the training file without its suffix, and
            with ``-char`` for characters.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Something that is not a file (a folder, a device, a pipe), a file without
            text, a byte that is not UTF-8, a damaged gzip file, too little text to cut, an unknown
            level, too small a ``max_vocab``, or see ``corpus_from_tokens``.
    """
    if level not in _HOW_READ:
        raise ValueError(f"text: expected level 'word' or 'char', got {level!r}")
    path = Path(train)
    given = {"train": path, "valid": valid, "test": test}
    lines = {split: read_lines(Path(p), level) for split, p in given.items() if p is not None}
    missing = [split for split in SPLITS if split not in lines]
    if missing:
        tokens, where = _cut(path, lines["train"], missing, level)
    else:
        tokens, where = {}, _blank_ends(lines)
    for split in given.keys() - tokens.keys():
        tokens[split] = _tokenize(lines[split], level)
    files = ", ".join(str(p) for p in dict.fromkeys(given.values()) if p is not None)
    return corpus_from_tokens(
        _name(path.stem if path.suffix != ".gz" else Path(path.stem).stem, level)
        if name is None
        else name,
        *(tokens[split] for split in SPLITS),
        level=level,
        max_vocab=max_vocab,
        vocabulary=vocabulary,
        about="\n".join(filter(None, (f"{files}: {_HOW_READ[level]}", where))),
    )


def load_folder(
    folder: PathLike,
    *,
    level: TextLevel = "word",
    max_vocab: int | None = None,
    vocabulary: Vocabulary | None = None,
    name: str | None = None,
) -> Corpus:
    """Read the three files of a folder that are named after their splits.

    Such as train.txt, valid.txt and test.txt; ptb.train.txt, ...; wiki.train.tokens, ...;
    train.txt.gz, ....

    Args:
        folder: Path of the folder; its subfolders are not searched.
        level: See ``load_corpus``.
        max_vocab: See ``load_corpus``.
        vocabulary: See ``corpus_from_tokens``.
        name: Name of the corpus; None for the name of the folder, and with ``-char`` for
            characters.

    Raises:
        ValueError: There is no such folder, it does not have exactly one file for each split, or
            see ``load_corpus``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"text: expected a folder, got {folder}")
    entries = sorted(p for p in folder.iterdir() if not p.is_dir() and p.name[0] != ".")
    paths = {}
    for split, names in _NAMES.items():
        found = [p for p in entries if {*re.split(r"[-._]", p.name.lower())} & {*names}]
        if len(found) != 1:
            what = "none" if not found else ", ".join(p.name for p in found)
            raise ValueError(
                f"text: expected exactly one file for each of {', '.join(SPLITS)} in the folder "
                f"{folder}, named such as {split}.txt; for {split} there is {what}"
            )
        [paths[split]] = found
    if name is None:
        name = _name(folder.resolve().name, level)
    return load_corpus(**paths, level=level, max_vocab=max_vocab, vocabulary=vocabulary, name=name)


def _name(stem: str, level: TextLevel) -> str:
    return stem if level == "word" else f"{stem}-{level}"


def read_lines(path: Path, level: TextLevel) -> list[str]:
    r"""Lines of a UTF-8 file, every one with "\n" at its end and nowhere else.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Something that is not a file, a file without text, a byte that is not UTF-8, or
            a damaged gzip file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"text: no such file: {path}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"text: expected a text file, got the folder {path}")
    if not stat.S_ISREG(mode):  # a device or a pipe may never end
        raise ValueError(f"text: expected a text file, got {path}, which is a device or a pipe")
    data = path.read_bytes()
    if path.suffix == ".gz" or data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"text: {path} is not an intact gzip file ({error})") from error
    data = data.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"text: {path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8 "
            f"({error.reason}); convert the file to UTF-8"
        ) from error
    lines = [line + "\n" for line in text.removesuffix("\n").split("\n")]
    if not any(has_text(line, level) for line in lines):
        raise ValueError(f"text: {path}: expected text, got {len(data)} bytes without any")
    return lines


def _blank_ends(lines: dict[str, list[str]]) -> str:
    """Says which splits end in blank lines; nothing where none does."""
    counts = {
        split: sum(1 for _ in takewhile(str.isspace, reversed(part)))
        for split, part in lines.items()
    }
    shown = [f"{count:,} of {split}" for split, count in counts.items() if count]
    return f"blank lines at the end, read as they are: {', '.join(shown)}" if shown else ""


def has_text(piece: str, level: Level) -> bool:
    """Whether a line or a token is more than blanks and the end of a line."""
    if level == "char":
        return not piece.isspace()
    return any(word != EOS for word in piece.split())


def _tokenize(lines: list[str], level: TextLevel) -> Sequence[str]:
    text = "".join(lines)
    return split_words(text) if level == "word" else text


def _cut(
    path: Path, lines: list[str], missing: list[str], level: TextLevel
) -> tuple[dict[str, Sequence[str]], str]:
    """Cut the splits that have no file of their own from the end of the training text.

    Returns:
        Tokens of the training split and of the missing ones, by split; a text that says which
        lines or tokens they are.
    """
    num_lines = len(lines)
    while not has_text(lines[-1], level):
        del lines[-1]
    blank = num_lines - len(lines)
    pieces: Sequence[str] = lines
    unit = "line"
    if sum(has_text(line, level) for line in lines) < _SHARE:
        pieces = _tokenize(lines, level)[:-1]  # one line has no end that could be learnt
        unit = "token"
    places = [i for i, piece in enumerate(pieces) if has_text(piece, level)]
    share = max(1, len(places) // _SHARE)
    if share * len(missing) >= len(places):
        raise ValueError(
            f"text: {path}: no text is left for training once {' and '.join(missing)} are cut from "
            f"the end; add text, or give a folder with files for {', '.join(SPLITS)}"
        )
    starts = [0, *(places[-share * k] for k in range(len(missing), 0, -1))]
    tokens: dict[str, Sequence[str]] = {}
    ranges = []
    for split, start, end in zip(
        ("train", *missing), starts, [*starts[1:], len(pieces)], strict=True
    ):
        part = pieces[start:end]
        tokens[split] = part if unit == "token" else _tokenize(list(part), level)
        ranges.append(f"{start + 1:,} to {end:,} {split}")
    where = f"{unit}s {', '.join(ranges)}"
    if unit == "token":
        where += f", because there are fewer than {_SHARE} lines"
    if blank:
        where += f"; {blank:,} blank line{'s' if blank > 1 else ''} at the end left out"
    return tokens, where
