import importlib

import pytest

import datasets


def test_submodules_are_there_either_way():
    from datasets import ptb

    assert importlib.import_module("datasets.ptb") is ptb
    assert datasets.ptb is ptb


@pytest.mark.parametrize("name", ["pydoc", "markov"])
def test_by_name(name):
    assert datasets.load_corpus(name).name == name


def test_ptb_reads_the_folder_it_is_given(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt is missing") as caught:
        datasets.load_corpus("ptb", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_by_path(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a b c\n" * 20, encoding="utf-8")
    by_words = datasets.load_corpus(path)
    assert (by_words.name, by_words.level, by_words.vocab_size) == ("mine", "word", 4)
    assert datasets.load_corpus(str(path), max_vocab=3).vocab_size == 3
    assert datasets.load_corpus(str(path), level="char").vocab_size == 5


def test_by_folder(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("a b c\n", encoding="utf-8")
    corpus = datasets.load_corpus(tmp_path, level="char", max_vocab=4)
    assert (corpus.name, corpus.vocab_size) == (f"{tmp_path.name}-char", 4)


def test_pydoc_takes_a_cap():
    assert datasets.load_corpus("pydoc").vocab_size == 2000
    assert datasets.load_corpus("pydoc", max_vocab=500).vocab_size == 500


def test_the_words_of_another_corpus(tmp_path):
    other = datasets.load_corpus("pydoc", max_vocab=300).vocabulary
    (tmp_path / "mine.txt").write_text("the name of a cat\n" * 20, encoding="utf-8")
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("the name of a cat\n", encoding="utf-8")
    for source in ("pydoc", tmp_path / "mine.txt", tmp_path):
        corpus = datasets.load_corpus(source, vocabulary=other)
        assert corpus.vocabulary is other
        assert corpus.decode(corpus.test[:4]) != "the name of a" or source != "pydoc"
    assert corpus.decode(corpus.train) == "the name of a <unk>\n"


def test_the_symbols_of_markov_are_its_own():
    own = datasets.load_corpus("markov").vocabulary
    assert datasets.load_corpus("markov", vocabulary=own).vocab_size == 8
    other = datasets.Vocabulary(own.words[::-1], "symbol")
    with pytest.raises(ValueError, match="its 8 symbols are not the vocabulary"):
        datasets.load_corpus("markov", vocabulary=other)


@pytest.mark.parametrize("name", ["ptbb", "", "nowhere/my.txt"])
def test_neither_a_name_nor_a_path(name):
    with pytest.raises(FileNotFoundError, match=rf"--corpus: .* pydoc, ptb, markov.*'{name}'"):
        datasets.load_corpus(name)


@pytest.mark.parametrize("name", ["pydoc", "ptb"])
def test_a_data_dir_that_is_no_folder(tmp_path, name):
    file = tmp_path / "a file"
    file.touch()
    for path in (file, tmp_path / "nowhere", "/dev/null"):
        with pytest.raises(ValueError, match=f"--data-dir: expected a folder, got '{path}'"):
            datasets.load_corpus(name, data_dir=path)


@pytest.mark.parametrize("name", ["pydoc", "markov"])
def test_every_corpus_says_what_it_is(name):
    assert "test tokens" in datasets.load_corpus(name).about


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pydoc", {"level": "char"}, "--level: pydoc has no level 'char'"),
        ("ptb", {"level": "char"}, "--level: ptb has no level 'char'"),
        ("markov", {"max_vocab": 5}, "--max-vocab: the vocabulary of markov is fixed"),
        ("ptb", {"max_vocab": 5000}, "--max-vocab: the vocabulary of ptb is fixed"),
    ],
)
def test_an_option_the_corpus_does_not_have(name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load_corpus(name, **options)
