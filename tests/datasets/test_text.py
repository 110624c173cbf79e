import gzip
import os

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


def splits(corpus):
    return [corpus.decode(ids) for ids in (corpus.train, corpus.valid, corpus.test)]


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


@pytest.mark.parametrize("ending", ["\n" * 50, " \t\n\r\n", "<eos>\n"])
def test_blank_lines_at_the_end_are_in_no_split(write, ending):
    corpus, same = (text.load_corpus(write(numbered(40) + end)) for end in (ending, ""))
    assert splits(corpus) == splits(same)
    assert "at the end left out" in corpus.about
    assert "left out" not in same.about


def test_blank_lines_inside_stay_but_no_split_is_made_of_them(write):
    content = numbered(40).replace("\n", "\n\n\n\n\n\n")
    train, valid, test = splits(text.load_corpus(write(content), level="char"))
    assert train + valid + test == content.rstrip() + "\n"
    assert valid.split("\n\n\n\n\n\n") == ["line 36", "line 37", ""]
    assert test.split("\n\n\n\n\n\n") == ["line 38", "line 39\n"]


def test_blank_lines_at_the_end_of_a_split_with_a_file_of_its_own_stay(write):
    paths = [write("a b\n\n\n", name) for name in ("train", "valid", "test")]
    assert splits(text.load_corpus(*paths)) == ["a b\n\n\n"] * 3


def test_one_line_is_cut_between_its_words(write):
    words = [f"word{i % 7}" for i in range(100)]
    for ending in ("", "\n", "\n\n \n"):
        corpus = text.load_corpus(write(" ".join(words) + ending))
        assert splits(corpus) == [
            " ".join(words[:90]),
            " ".join(words[90:95]),
            " ".join(words[95:]),
        ]
        assert corpus.eos_id is None  # there is no end of a line to learn
        assert corpus.vocab_size == 7
        assert (
            "tokens 1 to 90 train, 91 to 95 valid, 96 to 100 test, because there are fewer than "
            "20 lines"
        ) in corpus.about


def test_one_line_is_cut_between_its_characters(write):
    corpus = text.load_corpus(write("abcdefghij" * 10 + "\n"), level="char")
    assert splits(corpus) == ["abcdefghij" * 9, "abcde", "fghij"]
    assert corpus.eos_id is None


def test_a_few_lines_are_cut_as_one_so_that_a_long_one_is_not_all_of_a_split(write):
    corpus = text.load_corpus(write("title\n" + "a b " * 100 + "\nthe end\n"), level="word")
    train, valid, test = splits(corpus)
    assert train.startswith("title\na b a b ")
    assert len(valid.split()) == len(test.split()) == 10
    assert test.endswith("a b\n<unk> <unk>")  # "the end" is not in train


def test_nineteen_lines_are_cut_by_tokens_and_twenty_by_lines(write):
    assert "\ntokens 1 to " in text.load_corpus(write(numbered(19))).about
    assert "\nlines 1 to 18 train, 19 to 19 valid, 20 to 20 test\n" in (
        text.load_corpus(write(numbered(20))).about
    )


@pytest.mark.parametrize("content", ["a\n", "a b\n", "a\nb\n", "\n\n\nb\nc\n", "a b <eos> <eos>"])
def test_too_little_text_to_cut_from(write, content):
    with pytest.raises(ValueError, match=r"train\.txt: no text is left .* valid and test are cut"):
        text.load_corpus(write(content))


def test_three_words_are_enough_to_cut_from(write):
    assert splits(text.load_corpus(write("a\na\n\na\n"))) == ["a\n", "a\n\n", "a"]


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


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="expected a text file, got the folder "):
        text.load_corpus(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_and_a_device_are_refused_before_they_are_read(write, tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link.txt"
    os.mkfifo(pipe)  # nobody writes into it: to open it would wait for ever
    link.symlink_to("/dev/zero")
    for path in (pipe, link, "/dev/zero"):
        with pytest.raises(ValueError, match=f"text file, got {path}, which is a device or a pipe"):
            text.load_corpus(path)
        with pytest.raises(ValueError, match="which is a device or a pipe"):
            text.load_corpus(write(numbered(20)), valid=path)


@pytest.mark.parametrize("name", ["my.txt.gz", "my.gz", "my.txt"])
def test_a_compressed_file_is_read_like_another(write, name):
    plain = text.load_corpus(write(numbered(100), "my.txt"))
    packed = text.load_corpus(write(gzip.compress(numbered(100).encode()), name))
    assert packed.name == plain.name == "my"
    assert packed.vocabulary == plain.vocabulary
    assert packed.split_hashes() == plain.split_hashes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"a b c\n" * 100)[:-9], "is not an intact gzip file"),
        (gzip.compress(b"a b c\n" * 100)[:12] + b"\xff" * 20, "is not an intact gzip file"),
        (b"a b c\n" * 100, "is not an intact gzip file"),
        (b"", "expected text, got 0 bytes"),
        (gzip.compress(b""), "expected text, got 0 bytes"),
        (gzip.compress(b"\xff"), "line 1: byte 0xff is not UTF-8"),
    ],
    ids=["cut", "damaged", "not compressed", "no bytes", "nothing inside", "not UTF-8 inside"],
)
def test_a_compressed_file_that_cannot_be_read_is_named(write, content, message):
    with pytest.raises(ValueError, match=rf"my\.txt\.gz:? {message}"):
        text.load_corpus(write(content, "my.txt.gz"))


def test_the_name_tells_the_level(write):
    path = write(numbered(20), "my.txt")
    assert text.load_corpus(path).name == "my"
    assert text.load_corpus(path, level="char").name == "my-char"
    assert text.load_corpus(path, level="char", name="letters").name == "letters"


def test_the_text_says_how_it_was_read(write):
    path = write(numbered(100) + "\n\n")
    assert text.load_corpus(path).about.splitlines() == [
        f"{path}: words split on blanks, <eos> at the end of every line",
        "lines 1 to 90 train, 91 to 95 valid, 96 to 100 test; 2 blank lines at the end left out",
        "270 training, 15 validation and 15 test tokens",
        "<unk> for tokens that training lacks: 33.3 % of valid, 33.3 % of test",
    ]
    by_characters = text.load_corpus(path, path, level="char").about.splitlines()
    assert by_characters[0] == f"{path}: every character a token, the end of a line too"
    assert by_characters[1].startswith("lines 1 to 95 train, 96 to 100 test; ")


class TestFolder:
    @pytest.mark.parametrize(
        "names",
        [
            ("train.txt", "valid.txt", "test.txt"),
            ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
            ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
            ("my_train", "my_val", "my_test"),
            ("TRAIN.TXT", "Validation.txt", "test-2.txt"),
            ("train.txt", "dev.txt", "test.txt"),
        ],
    )
    def test_the_files_are_found_by_their_names(self, tmp_path, names):
        folder = tmp_path / "mine"
        (folder / "train").mkdir(parents=True)  # neither a folder
        (folder / ".train.txt.swp").write_bytes(b"\0")  # nor a hidden file
        (folder / "README.txt").write_text("about the training text")
        for name, content in zip(names, ("a b\n\n", "a c\n", "b\n"), strict=True):
            (folder / name).write_text(content)
        corpus = text.load_folder(folder)
        assert splits(corpus) == ["a b\n\n", "a <unk>\n", "b\n"]
        assert corpus.name == "mine"
        assert all(str(folder / name) in corpus.about for name in names)
        assert text.load_folder(folder, level="char").name == "mine-char"

    def test_compressed_files(self, tmp_path):
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.txt.gz").write_bytes(gzip.compress(b"a b\n"))
        assert splits(text.load_folder(tmp_path)) == ["a b\n"] * 3

    def test_the_folder_that_one_is_in_has_a_name_too(self, tmp_path, monkeypatch):
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.txt").write_text("a\n")
        monkeypatch.chdir(tmp_path)
        assert text.load_folder(".").name == tmp_path.name

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ((), "for train there is none"),
            (("train.txt", "test.txt"), "named such as valid.txt; for valid there is none"),
            (("train.txt", "valid.txt", "test.txt", "test.txt.gz"), "is test.txt, test.txt.gz"),
            (("train.txt", "valid.txt", "dev.txt", "test.txt"), "is dev.txt, valid.txt"),
            (("training_set.txt", "invalid.txt", "test.txt"), "for valid there is none"),
        ],
    )
    def test_a_split_with_no_file_or_with_two(self, tmp_path, names, message):
        for name in names:
            (tmp_path / name).write_text("a\n")
        with pytest.raises(ValueError, match="expected exactly one file for each of") as caught:
            text.load_folder(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert message in str(caught.value)

    def test_what_is_no_folder(self, tmp_path, write):
        for path in (write("a\n"), tmp_path / "nowhere"):
            with pytest.raises(ValueError, match=f"expected a folder, got {path}"):
                text.load_folder(path)


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
        whole = "".join(splits(corpus))
        read = files[0].decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        if "<unk>" not in corpus.word_to_id:
            assert whole.rstrip() == read.rstrip()
