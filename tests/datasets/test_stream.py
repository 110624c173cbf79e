"""A text that comes in pieces becomes the tokens that a file becomes."""

import gzip
import io
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import stream, text
from datasets.stream import open_text, read_pieces, tokens_of
from datasets.vocabulary import EOS, UNK, Vocabulary

WORDS = Vocabulary(("the", "cat", EOS, UNK), "word")
CHARS = Vocabulary(("a", "b", "\n", " ", UNK), "char")


class InParts(io.BytesIO):
    """Bytes of which only so many can be read at once."""

    def __init__(self, data, size):
        super().__init__(data)
        self.size = size

    def read1(self, size=-1):
        return super().read1(self.size)


def tokens(data, vocabulary, size=1000):
    pieces = list(read_pieces(InParts(data, size), vocabulary, "it"))
    assert all(piece.ids.dtype == np.int32 for piece in pieces)
    assert [piece.pauses for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert sum(piece.size for piece in pieces) == len(data)
    return [token for piece in pieces for token in piece.tokens]


@given(
    st.text(st.sampled_from("ab \n\r\té\ufeff"), min_size=1, max_size=40),
    st.sampled_from(["word", "char"]),
    st.integers(1, 9),
)
def test_any_pieces_of_a_file_are_the_tokens_of_the_whole(content, level, size):
    """Cut between the bytes of a letter, within a word, between the two of an end of line."""
    data = ("x" + content).encode()
    expected = text._tokenize(_lines(data, level), level)
    assert tokens(data, WORDS if level == "word" else CHARS, size) == list(expected)


def _lines(data, level):
    path = _lines.folder / "text"
    path.write_bytes(data)
    return text.read_lines(path, level)


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    _lines.folder = tmp_path_factory.mktemp("stream")


def test_what_the_vocabulary_lacks_keeps_its_letters_and_has_the_id_of_unk():
    [piece, last] = read_pieces(io.BytesIO(b"the dog\n"), WORDS, "it")
    assert piece.tokens == ["the", "dog", EOS] and piece.ids.tolist() == [0, 3, 2]
    assert last.tokens == [] and last.pauses


def test_a_byte_order_mark_and_the_ends_of_lines_of_others():
    assert tokens(b"\xef\xbb\xbfthe\r\ncat\rcat", WORDS, 4) == ["the", EOS, "cat", EOS, "cat", EOS]


def test_where_no_token_ends_a_line_its_end_is_left_out():
    assert tokens(b"a b\n\na\n", Vocabulary(("a", "b"), "word")) == ["a", "b", "a"]
    assert tokens(b"ab\n\na\n", Vocabulary(("a", "b"), "symbol")) == ["a", "b", "a"]
    assert tokens_of("ab\na", Vocabulary(("a", "b"), "char")) == ["a", "b", "a"]


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\r\n", b"<eos>\n"])
def test_a_text_without_any_is_an_error_once_it_is_over(data):
    with pytest.raises(ValueError, match=rf"^text: it: expected text, got {len(data)} bytes"):
        tokens(data, WORDS)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(size):
    with pytest.raises(ValueError, match=r"^text: it: line 3: byte 0xe9 is not UTF-8 \(invalid"):
        tokens(b"the\r\nthe cat\ncaf\xe9 the", WORDS, size)


def test_a_letter_that_is_cut_off_at_the_end_is_not_utf8():
    with pytest.raises(ValueError, match=r"line 1: byte 0xc3 is not UTF-8 \(unexpected end"):
        tokens(b"caf\xc3", WORDS)


def test_a_token_that_nothing_stands_for_is_named_with_the_text():
    with pytest.raises(ValueError, match=r"^text: it: token 'dog' is not among the 2 tokens"):
        tokens(b"the dog\n", Vocabulary(("the", EOS), "word"))


def test_a_file_of_gzip_is_known_by_its_name_or_by_its_first_bytes(tmp_path):
    for name in ("text.gz", "text"):
        (tmp_path / name).write_bytes(gzip.compress(b"the cat\n"))
        with open_text(str(tmp_path / name)) as source:
            [piece, _] = read_pieces(source, WORDS, name)
        assert piece.tokens == ["the", "cat", EOS]


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: b"the cat"])
def test_a_file_of_gzip_that_is_damaged_is_an_error(spoil, tmp_path):
    path = tmp_path / "text.gz"
    path.write_bytes(spoil(gzip.compress(b"the cat\n" * 1000)))
    with (
        pytest.raises(ValueError, match=r"^text: it is not an intact gzip file"),
        open_text(str(path)) as source,
    ):
        list(read_pieces(source, WORDS, "it"))


def test_what_is_no_text_is_refused_when_it_is_opened(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^text: no such file: "):
        open_text(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"^text: expected a text file, got the folder "):
        open_text(str(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match=r"^text: standard input is closed"):
        open_text("-")


def test_what_was_written_to_a_pipe_is_there_before_more_comes():
    """As a person types: a line is given when it is ended, a word that may go on is not."""
    reader, writer = os.pipe()
    with open(reader, "rb") as source:
        pieces = read_pieces(source, WORDS, "it")
        os.write(writer, b"the cat\nthe c")
        piece = next(pieces)
        assert piece.tokens == ["the", "cat", EOS, "the"] and piece.pauses
        os.write(writer, b"at")
        assert next(pieces).tokens == []
        os.close(writer)
        assert [piece.tokens for piece in pieces] == [["cat", EOS]]


def test_no_more_than_a_piece_of_a_long_text_is_there_at_once(monkeypatch):
    monkeypatch.setattr(stream, "SIZE", 64)
    source = io.BytesIO(b"the cat\n" * 1000)
    first = next(read_pieces(source, WORDS, "it"))
    assert source.tell() == 64 and len(first.tokens) == 24
