"""The user's own text files, by words or by characters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from datasets.corpus import EOS, Corpus, corpus_from_tokens, split_words

__all__ = ["load_corpus"]

PathLike = str | os.PathLike[str]

_BOM = b"\xef\xbb\xbf"


def load_corpus(
    train: PathLike,
    valid: PathLike | None = None,
    test: PathLike | None = None,
    *,
    level: Literal["word", "char"] = "word",
    max_vocab: int | None = None,
    name: str | None = None,
) -> Corpus:
    r"""Read UTF-8 text files; the vocabulary is that of the training split alone.

    By words, tokens are split on blanks and the end of a line is ``<eos>``. By characters,
    every character is a token, and the end of a line is the character ``"\n"``. Every line has
    its end, the last one too; ``\r\n`` and ``\r`` count as ``\n``; a byte order mark is skipped.

    A split without a file of its own is cut from the end of ``train``: 5 % of its lines, at
    least one. Where both are missing, ``valid`` comes first and ``test`` last.

    Args:
        train: Path of the training text.
        valid: Path of the validation text, or None.
        test: Path of the test text, or None.
        level: What a token is, a "word" or a "char".
        max_vocab: V at most, ``<unk>`` and the end of a line included; None for no limit.
            ``<unk>`` is in the vocabulary if the limit drops a token, or if ``valid`` or
            ``test`` has a token that ``train`` has not.
        name: Name of the corpus; None for the name of the training file without its suffix.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A folder, a file without text, a byte that is not UTF-8, too few lines to
            cut, an unknown level, or too small a ``max_vocab``.
    """
    if level not in ("word", "char"):
        raise ValueError(f"text: expected level 'word' or 'char', got {level!r}")
    path = Path(train)
    lines = _read_lines(path)
    cut = [split for split, given in (("valid", valid), ("test", test)) if given is None]
    share = max(1, len(lines) // 20)
    test_lines = _cut(lines, share) if test is None else _read_lines(Path(test))
    valid_lines = _cut(lines, share) if valid is None else _read_lines(Path(valid))
    if not _has_text(lines):
        raise ValueError(
            f"text: {path}: no text is left for training once {' and '.join(cut)} are cut from "
            "the end; add lines, or give valid and test files of their own"
        )

    def tokenize(lines: list[str]) -> list[str] | str:
        text = "".join(lines)
        return split_words(text) if level == "word" else text

    return corpus_from_tokens(
        path.stem if name is None else name,
        tokenize(lines),
        tokenize(valid_lines),
        tokenize(test_lines),
        level=level,
        eos=EOS if level == "word" else "\n",
        max_vocab=max_vocab,
    )


def _read_lines(path: Path) -> list[str]:
    r"""Lines of a file, every one with "\n" at its end and nowhere else."""
    if path.is_dir():
        raise ValueError(f"text: expected a text file, got the folder {path}")
    if not path.exists():
        raise FileNotFoundError(f"text: no such file: {path}")
    data = path.read_bytes().removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"text: {path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8 "
            f"({error.reason}); convert the file to UTF-8"
        ) from error
    lines = [line + "\n" for line in text.removesuffix("\n").split("\n")]
    if not _has_text(lines):
        raise ValueError(f"text: {path}: expected text, got {len(data)} bytes without any")
    return lines


def _has_text(lines: list[str]) -> bool:
    return any(line.strip() for line in lines)


def _cut(lines: list[str], count: int) -> list[str]:
    """Take the last ``count`` lines out of ``lines``."""
    tail = lines[-count:]
    del lines[-count:]
    return tail
