import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Event, Thread

import numpy as np
import pooch
import pytest
import requests

from datasets import ptb
from tests.builders import PATIENCE

TEXTS = {
    "train": " the cat sat \n the N <unk> ran \n",
    "valid": " the cat ran \n",
    "test": " N sat \n",
}
NAMES = {split: f"ptb.{split}.txt" for split in TEXTS}
BYTES = {NAMES[split]: text.encode() for split, text in TEXTS.items()}


def put(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in BYTES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A Penn Treebank of three sentences, an empty cache, and no network."""
    files = {
        split: ptb._File(name, len(BYTES[name]), hashlib.sha256(BYTES[name]).hexdigest())
        for split, name in NAMES.items()
    }
    monkeypatch.setattr(ptb, "FILES", files)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("TIMELAYERS_DATA", raising=False)
    return Mirrors(monkeypatch)


class Mirrors:
    """Stands in for the two servers; ``answer`` maps (mirror 0 or 1, name) to bytes or an error.

    It replaces only what goes over the wire: the cache and its checks are those of pooch.
    """

    def __init__(self, monkeypatch):
        self.answer = lambda mirror, name: requests.ConnectionError("no route to host")
        self.asked = []

        def download(downloader, url, output_file, pooch, check_only=False):
            base, name = url.rsplit("/", 1)
            mirror = ptb.MIRRORS.index(base + "/")
            self.asked.append((mirror, name))
            answer = self.answer(mirror, name)
            if isinstance(answer, BaseException):
                raise answer
            Path(output_file).write_bytes(answer)

        monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)


def cached(tmp_path):
    return tmp_path / "cache" / "time-layers"


def test_words_and_ids(tiny, tmp_path):
    corpus, word_to_id, id_to_word = ptb.load_data("train", put(tmp_path / "data"))
    assert list(word_to_id) == ["the", "cat", "sat", "<eos>", "N", "<unk>", "ran"]
    assert corpus.tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 3]
    assert corpus.dtype == np.int32
    assert id_to_word == {i: word for word, i in word_to_id.items()}


def test_every_split_has_the_vocabulary_of_train(tiny, tmp_path):
    data = put(tmp_path / "data")
    assert ptb.load_data("valid", data)[0].tolist() == [0, 1, 6, 3]
    assert ptb.load_data("val", data)[0].tolist() == [0, 1, 6, 3]
    assert ptb.load_data("test", data)[0].tolist() == [4, 2, 3]
    corpus = ptb.load_corpus(data)
    assert (corpus.name, corpus.level, corpus.eos_id, corpus.vocab_size) == ("ptb", "word", 3, 7)
    assert corpus.decode(corpus.test) == "N sat\n"


def test_an_unknown_split(tiny):
    with pytest.raises(ValueError, match=r"data_type in \('train', .*'test'\), got 'dev'"):
        ptb.load_data("dev")


def test_callers_may_change_what_they_get(tiny, tmp_path):
    data = put(tmp_path / "data")
    ids, word_to_id, id_to_word = ptb.load_data("train", data)
    ids[:] = 0
    word_to_id.clear()
    id_to_word.clear()
    corpus = ptb.load_corpus(data)
    assert corpus.train.tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 3]
    assert corpus.vocab_size == 7


class TestLocalFolder:
    def test_in_a_subfolder(self, tiny, tmp_path):
        put(tmp_path / "data" / "ptb")
        assert ptb.load_corpus(str(tmp_path / "data")).vocab_size == 7

    def test_named_by_the_environment(self, tiny, tmp_path, monkeypatch):
        monkeypatch.setenv("TIMELAYERS_DATA", str(put(tmp_path / "data")))
        assert ptb.load_corpus().vocab_size == 7
        assert tiny.asked == []

    def test_the_argument_comes_before_the_environment(self, tiny, tmp_path, monkeypatch):
        monkeypatch.setenv("TIMELAYERS_DATA", str(tmp_path / "nowhere"))
        assert ptb.load_corpus(put(tmp_path / "data")).vocab_size == 7

    def test_read_once(self, tiny, tmp_path):
        data = put(tmp_path / "data")
        ptb.load_corpus(data)
        for name in BYTES:
            (data / name).unlink()
        assert ptb.load_data("test", data)[0].tolist() == [4, 2, 3]

    @pytest.mark.parametrize("by", ["argument", "environment"])
    def test_a_missing_file_is_named_and_not_downloaded(self, tiny, tmp_path, monkeypatch, by):
        data = put(tmp_path / "data")
        (data / "ptb.valid.txt").unlink()
        if by == "environment":
            monkeypatch.setenv("TIMELAYERS_DATA", str(data))
        with pytest.raises(FileNotFoundError, match=r"ptb\.valid\.txt is missing") as caught:
            ptb.load_corpus(data if by == "argument" else None)
        assert str(data / "ptb.valid.txt") in str(caught.value)
        assert str(data / "ptb" / "ptb.valid.txt") in str(caught.value)
        assert tiny.asked == []

    def test_another_text_is_rejected(self, tiny, tmp_path):
        data = put(tmp_path / "data")
        other = BYTES["ptb.test.txt"].replace(b"\n", b"\r\n")
        (data / "ptb.test.txt").write_bytes(other)
        with pytest.raises(ValueError, match=r"ptb\.test\.txt is not the file expected") as caught:
            ptb.load_corpus(data)
        for data in (BYTES["ptb.test.txt"], other):
            assert f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}" in str(
                caught.value
            )


class TestDownload:
    def test_the_first_mirror_is_enough_and_is_asked_once(self, tiny, tmp_path):
        tiny.answer = lambda mirror, name: BYTES[name]
        assert ptb.load_corpus().vocab_size == 7
        assert tiny.asked == [(0, name) for name in BYTES]
        ptb._load.cache_clear()  # as a second process would find it
        assert ptb.load_data("test")[0].tolist() == [4, 2, 3]
        assert len(tiny.asked) == 3
        assert sorted(p.name for p in cached(tmp_path).iterdir()) == sorted(BYTES)

    @pytest.mark.parametrize(
        "first",
        [
            lambda name: requests.ConnectionError("no route to host"),
            lambda name: requests.HTTPError("404 Client Error"),
            lambda name: BYTES[name][:-5],
            lambda name: b"<html>please log in</html>",
        ],
        ids=["unreachable", "not found", "truncated", "altered"],
    )
    def test_the_second_mirror_stands_in_for_the_first(self, tiny, tmp_path, first):
        tiny.answer = lambda mirror, name: BYTES[name] if mirror else first(name)
        assert ptb.load_corpus().vocab_size == 7
        assert tiny.asked == [(mirror, name) for name in BYTES for mirror in (0, 1)]
        assert sorted(p.name for p in cached(tmp_path).iterdir()) == sorted(BYTES)

    def test_without_network_the_error_says_what_to_do(self, tiny, tmp_path):
        with pytest.raises(RuntimeError, match="could not be downloaded") as caught:
            ptb.load_corpus()
        message = str(caught.value)
        for mirror in ptb.MIRRORS:
            assert f"{mirror}ptb.train.txt: no route to host" in message
        for hint in (*BYTES, "by hand", "TIMELAYERS_DATA", "--data-dir"):
            assert hint in message

    def test_bad_data_from_both_mirrors_never_reaches_the_cache(self, tiny, tmp_path):
        tiny.answer = lambda mirror, name: BYTES[name][:5]
        with pytest.raises(RuntimeError, match=r"ptb\.train\.txt .* could not be downloaded"):
            ptb.load_corpus()
        assert list(cached(tmp_path).iterdir()) == []

    def test_a_spoilt_cache_is_fetched_again(self, tiny, tmp_path):
        put(cached(tmp_path))
        (cached(tmp_path) / "ptb.test.txt").write_bytes(BYTES["ptb.test.txt"][:3])
        tiny.answer = lambda mirror, name: BYTES[name]
        assert ptb.load_data("test")[0].tolist() == [4, 2, 3]
        assert tiny.asked == [(0, "ptb.test.txt")]
        assert (cached(tmp_path) / "ptb.test.txt").read_bytes() == BYTES["ptb.test.txt"]

    def test_an_interruption_leaves_nothing_behind(self, tiny, tmp_path):
        tiny.answer = lambda mirror, name: KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            ptb.load_corpus()
        assert list(cached(tmp_path).iterdir()) == []

    def test_two_at_once_do_not_meet(self, tiny, tmp_path):
        together = Barrier(2, timeout=PATIENCE)

        def answer(mirror, name):
            together.wait()  # both have found the cache empty and are writing now
            return BYTES[name]

        tiny.answer = answer
        cache = cached(tmp_path)
        cache.mkdir(parents=True)
        file = ptb.FILES["train"]
        with ThreadPoolExecutor(2) as pool:
            paths = list(pool.map(lambda _: ptb._download(file, cache), range(2)))
        assert paths == [cache / "ptb.train.txt"] * 2
        assert paths[0].read_bytes() == BYTES["ptb.train.txt"]
        assert list(cache.iterdir()) == [paths[0]]

    @pytest.mark.parametrize("length", [0, 1, 5, -1])
    def test_a_file_cut_short_in_the_cache_is_never_read_without_network(
        self, tiny, tmp_path, length
    ):
        put(cached(tmp_path))
        (cached(tmp_path) / "ptb.train.txt").write_bytes(BYTES["ptb.train.txt"][:length])
        with pytest.raises(RuntimeError, match=r"no intact ptb\.train\.txt"):
            ptb.load_corpus()
        assert tiny.asked == [(mirror, "ptb.train.txt") for mirror in (0, 1)]

    def test_a_file_spoilt_after_the_download_is_never_read(self, tiny, tmp_path, monkeypatch):
        put(cached(tmp_path))

        def retrieve(url, fname, path, **options):
            (path / fname).write_bytes(BYTES[fname][:-1])  # by someone else, just now
            return str(path / fname)

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        with pytest.raises(ValueError, match=r"ptb\.train\.txt is not the file expected"):
            ptb.load_corpus()

    def test_a_cache_that_cannot_be_written(self, tiny, tmp_path):
        (tmp_path / "cache").write_text("a file where the folder should be")
        with pytest.raises(RuntimeError, match="could not be downloaded"):
            ptb.load_corpus()


# ---- over the wire, to processes of their own ----


class Server:
    """Two mirrors on this machine: /0/ breaks off in the middle or alters a byte, /1/ is good.

    The first answer of each mirror waits until ``together`` processes have asked.
    """

    def __init__(self, spoil, together):
        barrier = Barrier(together, timeout=PATIENCE)
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                _, mirror, name = self.path.split("/")
                data = BYTES[name]
                if asked.count(self.path) <= together and name == "ptb.train.txt":
                    barrier.wait()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data if mirror == "1" else spoil(data))

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        host, port = self.server.server_address
        self.mirrors = tuple(f"http://{host}:{port}/{mirror}/" for mirror in (0, 1))
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


LOAD = """
import json
import sys
from pathlib import Path
import pooch
from datasets import ptb

*mirrors, cache, files, patience = sys.argv[1:]
pooch.downloaders.DEFAULT_TIMEOUT = int(patience)  # the server lets one wait for the other
ptb.MIRRORS = tuple(mirrors)
ptb.FILES = {split: ptb._File(*file) for split, file in json.loads(files).items()}
pooch.os_cache = lambda project: Path(cache)
print(ptb.load_corpus().train.tolist())
"""


def start_loading(server, cache):
    """A process that loads the corpus through ``server`` into ``cache``."""
    environment = {k: v for k, v in os.environ.items() if k != "TIMELAYERS_DATA"}
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            LOAD,
            *server.mirrors,
            str(cache),
            json.dumps(ptb.FILES),
            str(PATIENCE),
        ],
        env={**environment, "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_start_at_once_both_end_with_the_right_text(tiny, tmp_path):
    cache = tmp_path / "cache"

    def spoil(data):
        return data.replace(b"N sat", b"M sat") if b"N sat" in data else data[:5]

    with Server(spoil, together=2) as server:
        processes = [start_loading(server, cache) for _ in range(2)]
        for process in processes:
            out, error = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, error
            assert out == "[0, 1, 2, 3, 0, 4, 5, 6, 3]\n"
    assert server.asked.count("/0/ptb.train.txt") == 2  # both found nothing in the cache
    assert server.asked.count("/1/ptb.train.txt") == 2
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == BYTES


def test_a_process_that_is_killed_in_a_download_leaves_nothing_that_is_taken_for_whole(
    tiny, tmp_path
):
    cache = tmp_path / "cache"
    begun, killed = Event(), Event()

    def spoil(data):
        begun.set()
        killed.wait(timeout=PATIENCE)
        return data[:5]

    with Server(spoil, together=1) as server:
        process = start_loading(server, cache)
        assert begun.wait(timeout=PATIENCE)
        process.kill()
        process.communicate(timeout=PATIENCE)
        killed.set()
        left = [path.name for path in cache.iterdir()]
        assert len(left) == 1 and left[0] not in BYTES  # what it was writing
        again = start_loading(server, cache)
        out, error = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, error
    assert out == "[0, 1, 2, 3, 0, 4, 5, 6, 3]\n"


def test_tls_is_verified():
    """The downloader that pooch picks for the mirrors hands requests no options at all."""
    for mirror in ptb.MIRRORS:
        assert mirror.startswith("https://")
        downloader = pooch.downloaders.choose_downloader(mirror + "ptb.train.txt")
        assert downloader.kwargs.get("verify", True) is True


@pytest.mark.skipif(
    not os.environ.get("TIMELAYERS_DATA"),
    reason="set TIMELAYERS_DATA to a folder with the three PTB files to check the real ones",
)
def test_the_real_ptb():
    corpus = ptb.load_corpus()
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (929_589, 73_760, 82_430)
    assert corpus.vocab_size == 10_000
    first = {"aer": 0, "banknote": 1, "berlitz": 2, "<eos>": 24, "<unk>": 26, "N": 27}
    assert {word: corpus.word_to_id[word] for word in first} == first
    assert corpus.train.max() == 9_999
    assert [np.sum(ids == corpus.eos_id) for ids in (corpus.train, corpus.valid, corpus.test)] == [
        42_068,
        3_370,
        3_761,
    ]
    assert corpus.decode(corpus.test[:9]) == "no it was n't black monday\nbut while"
