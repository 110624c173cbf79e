import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import text


@pytest.fixture
def write(tmp_path):
    def write(content, name="train.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def numbered(count):
    return "".join(f"line {i}\n" for i in range(count))


def test_three_files_by_words(write):
    corpus = text.load_corpus(
        write("b a\n\na b\n"), write("a a\n", "valid.txt"), write("b\n", "test.txt")
    )
    assert corpus.name == "train"
    assert corpus.level == "word"
    assert list(corpus.word_to_id) == ["b", "a", "<eos>"]  # nothing unknown, so no <unk>
    assert corpus.train.tolist() == [0, 1, 2, 2, 1, 0, 2]  # the empty line is an <eos>
    assert corpus.valid.tolist() == [1, 1, 2]
    assert corpus.test.tolist() == [0, 2]
    assert corpus.eos_id == 2


def test_three_files_by_characters(write):
    corpus = text.load_corpus(
        write("ab\nb a\n"),
        write("a\n", "valid.txt"),
        write("c\n", "test.txt"),
        level="char",
        name="letters",
    )
    assert corpus.name == "letters"
    assert corpus.level == "char"
    assert list(corpus.word_to_id) == ["a", "b", "\n", " ", "<unk>"]
    assert corpus.decode(corpus.train) == "ab\nb a\n"
    assert corpus.decode(corpus.test) == "<unk>\n"
    assert corpus.eos_id == corpus.word_to_id["\n"]


def test_the_vocabulary_knows_the_training_split_only(write):
    corpus = text.load_corpus(write("a b\n"), write("a c\n", "v"), write("d b\n", "t"))
    assert list(corpus.word_to_id) == ["a", "b", "<eos>", "<unk>"]
    assert corpus.decode(corpus.valid) == "a <unk>\n"
    assert corpus.decode(corpus.test) == "<unk> b\n"


def test_missing_splits_are_the_last_lines_of_the_training_file(write):
    corpus = text.load_corpus(write(numbered(100)), level="char")
    lines = numbered(100).splitlines(keepends=True)
    assert corpus.decode(corpus.train) == "".join(lines[:90])
    assert corpus.decode(corpus.valid) == "".join(lines[90:95])
    assert corpus.decode(corpus.test) == "".join(lines[95:])


def test_only_what_is_missing_is_cut(write):
    path, extra = write(numbered(100)), write("line 0\n", "extra.txt")
    lines = numbered(100).splitlines(keepends=True)
    no_test = text.load_corpus(path, valid=extra, level="char")
    assert no_test.decode(no_test.train) == "".join(lines[:95])
    assert no_test.decode(no_test.valid) == "line 0\n"
    assert no_test.decode(no_test.test) == "".join(lines[95:])
    no_valid = text.load_corpus(path, test=extra, level="char")
    assert no_valid.decode(no_valid.valid) == "".join(lines[95:])
    assert no_valid.decode(no_valid.test) == "line 0\n"


def test_three_lines_are_the_least_to_cut_from(write):
    corpus = text.load_corpus(write("a b\na\nb\n"))
    assert [corpus.decode(ids) for ids in (corpus.train, corpus.valid, corpus.test)] == [
        "a b\n",
        "a\n",
        "b\n",
    ]


@pytest.mark.parametrize("content", ["a\n", "a\nb\n", "\n\n\nb\nc\n"])
def test_too_few_lines_to_cut_from(write, content):
    with pytest.raises(ValueError, match=r"train\.txt: no text is left .* valid and test are cut"):
        text.load_corpus(write(content))


def test_the_last_line_need_not_end(write):
    with_end = text.load_corpus(write("a\nb\na\na b\n", "with"), level="char")
    without = text.load_corpus(write("a\nb\na\na b", "without"), level="char")
    np.testing.assert_array_equal(with_end.test, without.test)


def test_newlines_of_every_system_are_one(write):
    corpora = [
        text.load_corpus(write(numbered(30).replace("\n", end), "t"), level="char")
        for end in ("\n", "\r\n", "\r")
    ]
    for corpus in corpora:
        assert corpus.decode(corpus.train) == corpora[0].decode(corpora[0].train)
        assert "\r" not in corpus.word_to_id


def test_a_byte_order_mark_is_no_token(write):
    corpus = text.load_corpus(write(b"\xef\xbb\xbfa\na\na\n"))
    assert list(corpus.word_to_id) == ["a", "<eos>"]


def test_other_separators_do_not_end_a_line(write):
    # str.splitlines would break at each of these.
    corpus = text.load_corpus(write("a\x0bb\x0cc\x1cd\x85e\u2028f\na\na\n"), level="char")
    assert len(corpus.train) == 12


def test_the_cap(write):
    line = "a a a b b c d\n"
    corpus = text.load_corpus(write(line * 20), max_vocab=4)
    assert list(corpus.word_to_id) == ["a", "b", "<unk>", "<eos>"]
    assert corpus.decode(corpus.valid) == "a a a b b <unk> <unk>\n"
    with pytest.raises(ValueError, match=r"max_vocab: expected at least 3 .* got 2"):
        text.load_corpus(write(line * 20), max_vocab=2)


def test_an_invalid_byte_is_named_with_file_and_line(write):
    bad = b"fine\r\nstill fine\r\ncaf\xe9 au lait\r\n"
    with pytest.raises(ValueError, match=r"train\.txt: line 3: byte 0xe9 is not UTF-8"):
        text.load_corpus(write(bad))
    with pytest.raises(ValueError, match=r"v\.txt: line 3: byte 0xe9"):
        text.load_corpus(write("a\n"), write(bad, "v.txt"), write("a\n", "t.txt"))


def test_utf16_is_named_by_its_first_byte(write):
    with pytest.raises(ValueError, match="line 1: byte 0xff is not UTF-8"):
        text.load_corpus(write("a\nb\nc\n".encode("utf-16-le").join([b"\xff\xfe", b""])))


def test_a_missing_file(tmp_path, write):
    with pytest.raises(FileNotFoundError, match=r"text: no such file: .*nowhere\.txt"):
        text.load_corpus(tmp_path / "nowhere.txt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        text.load_corpus(write("a\na\na\n"), test=tmp_path / "nowhere.txt")


def test_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a text file, got the folder "):
        text.load_corpus(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \t \r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("level", ["word", "char"])
def test_a_file_without_text(write, content, level):
    with pytest.raises(ValueError, match=r"train\.txt: expected text, got \d bytes without any"):
        text.load_corpus(write(content), level=level)
    with pytest.raises(ValueError, match=r"empty\.txt: expected text"):
        text.load_corpus(write("a\na\na\n", "a"), valid=write(content, "empty.txt"), level=level)


def test_an_unknown_level(write):
    with pytest.raises(ValueError, match="expected level 'word' or 'char', got 'line'"):
        text.load_corpus(write("a\n"), level="line")


@settings(deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text(st.sampled_from("ab \n\r\t\x0b\ufeffé\u2028"), max_size=60).map(str.encode),
    level=st.sampled_from(["word", "char"]),
    max_vocab=st.none() | st.integers(0, 6),
)
def test_any_bytes_either_load_or_are_a_value_error(tmp_path_factory, content, level, max_vocab):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content)
    try:
        corpus = text.load_corpus(path, level=level, max_vocab=max_vocab)
    except ValueError as error:
        assert "any.txt" in str(error) or "max_vocab" in str(error)
        return
    for ids in (corpus.train, corpus.valid, corpus.test):
        assert ids.size > 0
        assert corpus.encode(corpus.decode(ids)) == ids.tolist() or "<unk>" in corpus.word_to_id
    assert max_vocab is None or corpus.vocab_size <= max_vocab


any_bytes = st.binary(max_size=30) | st.lists(
    st.sampled_from([b"a", b"b c", b"\n", b"\r\n", b"\xff", "é".encode(), b"<unk>", b"<eos>", b" "])
).map(b"".join)


@given(
    files=st.tuples(any_bytes, st.none() | any_bytes, st.none() | any_bytes),
    level=st.sampled_from(["word", "char"]),
)
def test_any_three_files_are_a_corpus_or_an_error_that_names_one_of_them(
    tmp_path_factory, files, level
):
    paths = []
    for split, content in zip(("train", "valid", "test"), files, strict=True):
        path = tmp_path_factory.getbasetemp() / f"any.{split}"
        path.write_bytes(content or b"")
        paths.append(None if content is None else path)
    try:
        corpus = text.load_corpus(*paths, level=level)
    except ValueError as error:
        assert any(str(path) in str(error) for path in paths if path)
        return
    V = corpus.vocab_size
    for ids in (corpus.train, corpus.valid, corpus.test):
        assert ids.size > 0 and ids.min() >= 0 and ids.max() < V
    assert set(corpus.word_to_id) - {"<unk>"} <= {corpus.id_to_word[i] for i in corpus.train}
    if files[1] is None and files[2] is None and level == "char":  # nothing is lost by cutting
        whole = "".join(corpus.decode(ids) for ids in (corpus.train, corpus.valid, corpus.test))
        read = files[0].decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        if "<unk>" not in corpus.word_to_id:
            assert whole == read.removesuffix("\n") + "\n"
