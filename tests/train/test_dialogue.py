"""A text written in turns: commands through a pipe, keys in a terminal."""

import io
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from models.writer import Sampling, Writer
from tests.builders import PATIENCE
from tests.train.processes import ROOT, TEXT
from train import dialogue, generate, rnnlm
from train.dialogue import Dialogue, shown, unknown_tokens
from train.run.saved_run import open_model

SIZES = {"wordvec_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 4, "time_size": 7}


@pytest.fixture(autouse=True)
def ordinary_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs by level; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    in_one_line = TEXT.replace("\n", " ")  # so that every answer is one
    (folder / "cats.txt").write_text(in_one_line, encoding="utf-8")
    found = {}
    for level in ("word", "char"):
        found[level] = folder / level
        options = {"corpus": str(folder / "cats.txt"), "level": level, "out": found[level]}
        rnnlm.main(rnnlm.Options(**SIZES, **options, max_vocab=8 if level == "word" else None))
    return found


@pytest.fixture
def answers(runs, monkeypatch, capsys):
    """What is printed, and said on stderr, for lines from a pipe."""

    def run(*lines, level="word", **options):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        options = {"length": 6, **options}
        generate.main(generate.Options(runs[level], interactive=True, **options))
        return capsys.readouterr()

    return run


@pytest.mark.parametrize("level", ["word", "char"])
def test_the_first_answer_goes_on_as_the_command_without_turns_does(level, runs, answers, capsys):
    for options in ({}, {"seed": 4, "temperature": 0.7}, {"greedy": True}):
        generate.main(generate.Options(runs[level], prompt="the cat", length=6, **options))
        whole = capsys.readouterr().out
        (answer, text) = answers("the cat", ":text", level=level, **options).out.split("\n", 1)
        assert text == whole
        assert whole.removesuffix("\n").endswith(answer)
        assert answers(prompt="the cat", level=level, **options).out == answer + "\n"


def test_an_empty_line_and_more_go_on(answers):
    *_, text = answers("the cat", "", ":more 3", ":more", ":text").out.splitlines()
    whole = answers("the cat", ":more 15", ":text").out.splitlines()
    assert text == whole[-1]  # one stream, whatever the turns


def test_back_takes_away_the_models_words_and_then_ones_own(answers):
    out = answers("the cat", ":back", ":text", ":back", ":text", ":back", greedy=True)
    lines = out.out.splitlines()
    assert lines[1:3] == ["the cat", "the cat"]
    assert lines[3:] == ["", ""]
    assert out.err == "error: :back: there is nothing to take away\n"


def test_back_twice_at_once_and_the_model_writes_something_else(answers):
    first, *_, again, text = answers("the cat", ":back 2", "the cat", ":text").out.splitlines()
    assert text == f"the cat {again}"
    assert first != again


def test_settings_change_what_is_written_and_are_told(answers):
    lines = answers(
        *(":temperature", ":temperature 0.5", ":temperature", ":top-k", ":top-k 3", ":top-k"),
        *(":top-k off", ":top-k", ":top-p 0.5", ":top-p", ":greedy on", ":greedy", ":length 2"),
        *(":length", ":greedy off", ":greedy"),
    ).out.splitlines()
    assert lines == ["1.0", "0.5", "off", "3", "off", "0.5", "on", "2", "off"]
    greedy = answers("the cat", greedy=True).out
    assert answers(":greedy on", "the cat").out == greedy
    assert answers(":top-k 1", "the cat").out == greedy
    assert answers(":temp 0.0001", "the cat").out == greedy  # cut short
    assert len(answers(":length 2", "the cat").out.split()) <= 2 < len(greedy.split())


def test_what_may_come_next_is_shown_with_its_probability(answers, runs):
    out = answers("the cat", ":back", ":show 3", ":text").out.splitlines()
    assert out[-1] == "the cat"
    rows = [line.split() for line in out[-4:-1]]
    model, vocabulary = open_model(runs["word"])
    writer = Writer(model, vocabulary.first_id)
    writer.read(vocabulary.encode("the cat"))
    best = sorted(zip(writer.next_probabilities(), vocabulary.words, strict=True))[::-1][:3]
    assert rows == [[f"{100 * p:.2f}", "%", word] for p, word in best]


def test_the_text_is_saved_and_no_foreign_file_replaced(answers, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    new = tmp_path / "new.txt"
    out = answers(
        *("the cat", f":save {new}", ":more 2", f":save {new}", ":text"),
        *(f":save {tmp_path / 'mine.txt'}", ":save", f":save {tmp_path / 'no' / 'folder'}"),
    )
    assert new.read_text(encoding="utf-8") == out.out.splitlines()[-1] + "\n"
    assert (tmp_path / "mine.txt").read_text() == "mine"
    errors = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert "mine.txt exists already; name another file" in errors[0]
    assert errors[1] == "error: :save: expected the name of a file"
    assert len(errors) == 3


def test_new_begins_anew(answers):
    assert answers("the cat", ":new", ":text", ":show 1").out.splitlines()[1] == ""


def test_words_that_the_model_does_not_know_are_said(answers):
    out = answers("the zebra saw the Cat zebra")
    assert "note: <unk> stands for zebra, saw, Cat, which" in out.err
    assert out.out.strip()


def test_a_letter_that_cannot_be_read_is_an_error_and_the_text_stays(answers):
    out = answers("the", "é", ":back", ":text", level="char", greedy=True)
    assert "error: token 'é' is not among" in out.err
    assert out.out.splitlines()[-1] == "the"


def test_the_end_of_a_line_of_letters_is_shown_as_such():
    assert shown("\n") == r"'\n'"
    assert (shown(" "), shown("the"), shown("é")) == ("' '", "the", "é")


def test_help_names_every_command(answers):
    out = answers(":help", ":quit", "never read").out
    names = [line.split()[0] for line in out.splitlines() if line.startswith("  :")]
    assert names == [f":{name}" for name in (
        *("more", "back", "show", "text", "new", "temperature", "top-k", "top-p", "greedy"),
        *("length", "save", "help", "quit"),
    )]  # fmt: skip
    assert "never" not in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":nonsense", ":nonsense: expected one of :more, :back"),
        (":", ":: expected one of :more, :back"),
        (":t 3", ":t: expected one of :text, :temperature, :top-k, :top-p"),
        (":temperature hot", ":temperature: expected a number, got 'hot'"),
        (":temperature 0", ":temperature: sampling: expected a temperature above 0, got 0.0"),
        (":top-k 1.5", ":top-k: expected a whole number, got '1.5'"),
        (":more 0", ":more: expected 1 or more, got 0"),
        (":greedy perhaps", ":greedy: expected on or off, got 'perhaps'"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_dialogue_goes_on(line, message, answers):
    out = answers(line, "the cat", greedy=True)
    assert out.err.startswith(f"error: {message}")
    assert out.out == answers("the cat", greedy=True).out


def test_two_colons_begin_a_text_that_begins_with_one(answers):
    out = answers("::text of", ":back", ":text")
    assert "note: <unk> stands for :text, of, which" in out.err


def test_a_pipe_that_is_closed_is_the_end(runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    generate.main(generate.Options(runs["word"], interactive=True))
    assert capsys.readouterr().out == ""


def test_unknown_tokens_are_named_once_in_their_order(runs):
    _, vocabulary = open_model(runs["word"])
    assert unknown_tokens("b the a b\n", vocabulary) == ["b", "a", "<eos>"]
    _, letters = open_model(runs["char"])
    assert unknown_tokens("the Zoo Z", letters) == ["Z"]


# ---- Ctrl-C ----


@pytest.fixture
def talk(runs, capsys):
    """A dialogue with a writer whose tokens can be counted."""
    model, vocabulary = open_model(runs["word"])
    writer = Writer(model, vocabulary.first_id)
    return Dialogue(writer, vocabulary, Sampling(greedy=True), 6, None)


def interrupting(writer, monkeypatch, *at):
    """Let Ctrl-C come when the model has been asked for tokens ``at``."""
    predict, asked = writer.model.predict, []

    def wrapped(xs, train_flg=False):
        asked.append(1)
        if len(asked) in at:
            signal.raise_signal(signal.SIGINT)
            if at.count(len(asked)) > 1:
                signal.raise_signal(signal.SIGINT)
        return predict(xs, train_flg)

    monkeypatch.setattr(writer.model, "predict", wrapped)


def test_ctrl_c_stops_the_model_and_what_it_has_written_stays(talk, monkeypatch, capsys):
    interrupting(talk.writer, monkeypatch, 4)
    lines = iter(["the cat", ":text", ":more 2", ":text", None])
    monkeypatch.setattr(dialogue, "_next_line", lambda: next(lines))
    before = signal.getsignal(signal.SIGINT)
    talk.run()
    assert signal.getsignal(signal.SIGINT) is before
    _, text, _, longer = capsys.readouterr().out.splitlines()
    assert len(text.split()) == 2 + 4
    assert longer.startswith(text) and len(longer.split()) == 2 + 6


def test_a_second_ctrl_c_at_once_leaves_the_text_as_well(talk, monkeypatch, capsys):
    interrupting(talk.writer, monkeypatch, 4, 4)
    lines = iter(["the cat", ":text", None])
    monkeypatch.setattr(dialogue, "_next_line", lambda: next(lines))
    monkeypatch.setattr(dialogue, "_at_terminal", lambda: True)
    talk.run()
    *_, text = capsys.readouterr().out.splitlines()
    assert len(text.split()) == 2 + 3


def test_ctrl_c_where_nobody_types_ends_the_command(talk, monkeypatch):
    monkeypatch.setattr(dialogue, "_next_line", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        talk.run()


# ---- processes ----


def start(run, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "train.generate", str(run), "--interactive", "--length", "5"],
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1"},
        **streams,
    )


def test_lines_from_a_pipe_are_answered_by_the_command(runs):
    process = start(runs["word"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(b"the cat\n:text\n", timeout=PATIENCE)
    assert process.returncode == 0
    answer, text = out.decode().splitlines()
    assert text == f"the cat {answer}"


class Terminal:
    """A command on a terminal of its own, for as long as ``with`` says."""

    def __init__(self, run):
        pty = pytest.importorskip("pty")
        self.keys, of_command = pty.openpty()
        streams = {"stdin": of_command, "stdout": of_command, "stderr": of_command}
        self.process = start(run, **streams, start_new_session=True, preexec_fn=take_terminal)
        os.close(of_command)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.keys)

    def type(self, keys):
        os.write(self.keys, keys)

    def until(self, wanted, times=1):
        """Wait until ``wanted`` has come so many times since the last wait; what has come."""
        deadline = time.monotonic() + PATIENCE
        while self.seen.count(wanted) < times:
            ready, _, _ = select.select([self.keys], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.seen
            try:
                self.seen += os.read(self.keys, 1 << 16)
            except OSError:  # the other side has gone
                raise AssertionError(self.seen.decode()) from None
        seen, self.seen = self.seen.decode(), b""
        return seen.replace("\r", "")


def take_terminal():
    """Let Ctrl-C on standard input be for this process, also where the tests ignore it."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of its own")
def test_at_a_terminal_ctrl_c_stops_the_model_keys_bring_lines_back_and_ctrl_d_ends(runs):
    with Terminal(runs["word"]) as terminal:
        assert ":help lists the commands" in terminal.until(b"> ")
        terminal.type(b"the cat\n")
        answer = terminal.until(b"> ").splitlines()[1]
        terminal.type(b":text\n")
        assert f"the cat {answer}" in terminal.until(b"> ")
        terminal.type(b":more 100000000\n")
        terminal.until(b" the ", 3)
        terminal.type(b"\x03")
        terminal.until(b"> ")
        terminal.type(b"half a line\x03")
        terminal.until(b"> ")
        terminal.type(b":length 3\n")
        terminal.until(b"> ")
        terminal.type(b"\x1b[A" if has_readline() else b":length 3")  # the line before, by a key
        terminal.until(b":length 3")
        terminal.type(b"\n")
        terminal.until(b"> ")
        terminal.type(b":length\n")
        assert "\n3\n" in terminal.until(b"3\r\n> ")
        terminal.type(b"\x04")
        assert terminal.process.wait(PATIENCE) == 0


def has_readline():
    try:
        import readline  # noqa: F401
    except ImportError:
        return False
    return True
