"""WikiText, text8 and enwik8 by small archives: the real ones are not in this repository."""

import hashlib
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pooch
import pytest

import datasets
from datasets import archives
from datasets.vocabulary import Vocabulary

WIKI = {
    "train": " = Cat = \n the cat sat \n\n the <unk> ran\u00a0far \n",
    "valid": " the cat ran \n",
    "test": " sat \n",
}
BYTES = "né\nabba né\n".encode()


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The four archives, small, in a folder; an empty cache and no network."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.delenv("TIMELAYERS_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    for name, archive in archives.ARCHIVES.items():
        if archive.level == "word":
            contents = [WIKI[split].encode() for split in ("train", "valid", "test")]
            counts = {"sizes": (14, 4, 2), "vocab_size": 9}
        else:
            text = BYTES if archive.level == "byte" else b"ab cab bab c"
            contents, counts = [text], {"sizes": (len(text) - 5, 3, 2)}
            counts["vocab_size"] = len({*text})
            counts["content_md5"] = hashlib.md5(text).hexdigest()
        members = dict(zip(archive.members, contents, strict=True))
        path = zipped(folder / archive.address.rpartition("/")[2], members)
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        small = archive._replace(address=f"http://127.0.0.1:9/{path.name}", zip_hash=digest)
        monkeypatch.setitem(archives.ARCHIVES, name, small._replace(**counts))
    return folder


@pytest.mark.parametrize("name", ["wikitext2", "wikitext103"])
def test_words_of_wikitext(tiny, name, monkeypatch):
    monkeypatch.setattr(archives, "_PIECE", 1)  # every line a piece of its own
    corpus = datasets.load_corpus(name, data_dir=tiny)
    words = ["=", "Cat", "<eos>", "the", "cat", "sat", "<unk>", "ran", "far"]
    assert list(corpus.word_to_id) == words  # a no-break space is a blank
    assert corpus.train.tolist() == [0, 1, 0, 2, 3, 4, 5, 2, 2, 3, 6, 7, 8, 2]
    assert (corpus.valid.tolist(), corpus.test.tolist()) == ([3, 4, 7, 2], [5, 2])


def test_characters_of_text8(tiny):
    corpus = datasets.load_corpus("text8", data_dir=tiny)
    assert (corpus.level, corpus.eos_id, corpus.vocab_size) == ("char", None, 4)
    splits = (corpus.train, corpus.valid, corpus.test)
    assert [corpus.decode(ids) for ids in splits] == ["ab cab ", "bab", " c"]


def test_bytes_of_enwik8(tiny, monkeypatch):
    monkeypatch.setattr(archives, "_PIECE", 2)  # cuts inside of a character
    corpus = datasets.load_corpus("enwik8", data_dir=tiny)
    assert corpus.level == "byte"
    assert [ord(word) for word in corpus.word_to_id] == sorted({*BYTES})
    ids = np.concatenate([corpus.train, corpus.valid, corpus.test])
    assert corpus.decode(ids) == BYTES.decode()
    assert corpus.encode("n\u00e9\n") == ids[:4].tolist()
    assert corpus.decode(ids[:2]) == "n\ufffd"
    assert corpus.eos_id == ids[3]
    assert "bits per byte" in corpus.vocabulary.bits_beside(4.0)
    assert Vocabulary.from_json(corpus.vocabulary.to_json()) == corpus.vocabulary


@pytest.mark.parametrize("subfolder", [True, False])
@pytest.mark.parametrize("name", ["wikitext2", "text8", "enwik8"])
def test_what_the_archive_holds_does_as_well(tiny, name, subfolder, tmp_path, monkeypatch):
    expected = datasets.load_corpus(name, data_dir=tiny)
    archive = archives.ARCHIVES[name]
    with zipfile.ZipFile(tiny / archive.address.rpartition("/")[2]) as whole:
        for member in archive.members:
            path = tmp_path / "unpacked" / (member if subfolder else member.rpartition("/")[2])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(whole.read(member))
    monkeypatch.setenv("TIMELAYERS_DATA", str(tmp_path / "unpacked"))
    assert datasets.load_corpus(name).split_hashes() == expected.split_hashes()
    path.write_bytes(b"another text\n")
    with pytest.raises(ValueError, match=f"{name}: .*expected .*, got"):
        datasets.load_corpus(name)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing; looked for .*by hand"):
        datasets.load_corpus(name)


def test_an_archive_that_is_another(tiny):
    (tiny / "enwik8.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"enwik8\.zip is not the file expected: .*got [0-9a-f]+"):
        datasets.load_corpus("enwik8", data_dir=tiny)


def test_words_of_another_corpus(tiny):
    other = Vocabulary(("the", "cat", "<eos>", "<unk>"), "word")
    corpus = datasets.load_corpus("wikitext2", data_dir=tiny, vocabulary=other)
    assert corpus.decode(corpus.valid) == "the cat <unk>\n"
    with pytest.raises(ValueError, match="of level 'byte'"):
        datasets.load_corpus("enwik8", data_dir=tiny, vocabulary=other)


@pytest.mark.parametrize("options", [{"max_vocab": 5}, {"level": "char"}])
def test_options_that_a_named_corpus_does_not_have(tiny, options):
    with pytest.raises(ValueError, match=r"--(max-vocab|level): "):
        datasets.load_corpus("enwik8", data_dir=tiny, **options)


class TestDownload:
    @pytest.fixture
    def server(self, tiny, monkeypatch):
        """Serves the archives, but refuses the name that Python gives by default."""
        agents = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                agents.append(self.headers["User-Agent"])
                if "python" in agents[-1].lower():
                    self.send_error(403)
                    return
                data = (tiny / self.path[1:]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            for name, archive in archives.ARCHIVES.items():
                file = archive.address.rpartition("/")[2]
                address = f"http://127.0.0.1:{server.server_port}/{file}"
                monkeypatch.setitem(archives.ARCHIVES, name, archive._replace(address=address))
            yield agents
            server.shutdown()
            thread.join()

    @pytest.mark.parametrize("name", ["wikitext2", "enwik8"])
    def test_once_and_under_a_name_of_its_own(self, server, tiny, name):
        for _ in range(2):
            corpus = datasets.load_corpus(name)
            expected = datasets.load_corpus(name, data_dir=tiny)
            assert corpus.split_hashes() == expected.split_hashes()
        assert server == ["time-layers"]

    def test_another_archive_is_refused_and_not_kept(self, server, tiny, tmp_path):
        (tiny / "text8.zip").write_bytes(b"please log in")
        with pytest.raises(RuntimeError, match=r"could not be downloaded.*\n.*by hand"):
            datasets.load_corpus("text8")
        assert list((tmp_path / "cache" / "time-layers").iterdir()) == []

    def test_without_network(self, tiny):
        with pytest.raises(RuntimeError, match=r"text8: no intact text8\.zip .*could not be"):
            datasets.load_corpus("text8")
