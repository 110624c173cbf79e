"""A person and a trained model write a text in turns, in a terminal or through a pipe."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy

from common.files.atomic import write_atomically
from datasets.vocabulary import Vocabulary, split_words
from models.writer import Sampling, Writer

__all__ = ["Dialogue", "shown", "unknown_tokens"]

PROMPT = "> "
BEST = 10  # next tokens that :show lists
TAIL = 60  # characters of the text that are shown after a step back

HELP = """\
Type a text, and the model goes on with it. An empty line lets it go on once more.
  :more N           let it add N tokens (without N as many as :length says)
  :back             take away what was added last, by the model or by you; again, what was before
  :show N           the N likeliest next tokens, with their probabilities
  :text             the whole text
  :new              begin anew
  :temperature X    below 1 plays safe, above 1 takes risks
  :top-k N          draw from the N likeliest tokens only; off: from all
  :top-p X          draw from the fewest tokens whose probabilities reach X; off: from all
  :greedy on        always take the likeliest token; off: draw
  :length N         how many tokens the model adds; each of the last five alone says how it stands
  :save FILE        write the text into a file
  :help             this
  :quit             the end, as Ctrl-D
A command may be cut short (:temp 0.8). A line that begins with :: is text that begins with :.
Ctrl-C stops the model; what it has written stays."""


def unknown_tokens(text: str, vocabulary: Vocabulary) -> list[str]:
    """The tokens of ``text`` that the vocabulary lacks, each once."""
    tokens = split_words(text) if vocabulary.level == "word" else text
    return list(dict.fromkeys(t for t in tokens if t not in vocabulary.word_to_id))


def shown(token: str) -> str:
    r"""A token alone in its line: "\n" as two characters, a blank in quotation marks."""
    return token if token.isprintable() and token.strip() else repr(token)


class _Interrupts:
    """Ctrl-C: raises KeyboardInterrupt, but is noted first while the model writes.

    A token is finished then, and with it the state of the model. A second Ctrl-C raises all the
    same.
    """

    def __init__(self) -> None:
        self.noting = self.received = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.received or not self.noting:
            raise KeyboardInterrupt
        self.received = True

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Inside, Ctrl-C is this object's; where it is ignored it stays ignored."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before in (
            signal.SIG_IGN,
            None,
        ):
            yield
            return
        signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, a first Ctrl-C sets ``received``."""
        self.noting, self.received = True, False
        try:
            yield
        finally:
            self.noting = False


class Dialogue:
    """Lines of a person are added to a text, and after each the model goes on with it.

    Args:
        writer: the text.
        vocabulary: its words.
        sampling: how the model chooses at first.
        length: how many tokens it adds.
        rng: what they are drawn from.
    """

    def __init__(
        self,
        writer: Writer,
        vocabulary: Vocabulary,
        sampling: Sampling,
        length: int,
        rng: numpy.random.Generator,
    ) -> None:
        self.writer, self.vocabulary, self.sampling = writer, vocabulary, sampling
        self.length, self.rng = length, rng
        self._interrupts = _Interrupts()
        self._saved: set[Path] = set()  # what may be replaced, since it was saved from here
        self._commands: dict[str, Callable[[str], None]] = {
            "more": self._more,
            "back": self._back,
            "show": self._show,
            "text": lambda _: print(self._text()),
            "new": self._new,
            **{name: partial(self._set, name) for name in SETTINGS},
            "length": self._set_length,
            "save": self._save,
            "help": lambda _: print(HELP),
        }

    def run(self, prompt: str = "") -> None:
        """Read lines until there are none, or until one says so.

        Args:
            prompt: a text with which it begins; the model goes on with it at once.
        """
        if _at_terminal():
            with suppress(ImportError):  # not on Windows; input() has no history then
                import readline  # noqa: F401
            print("Type a text, and the model goes on with it; :help lists the commands.")
        with self._interrupts.handled():
            goes_on = True
            while goes_on:
                try:
                    goes_on = self._begin(prompt) if prompt else self._obey(_next_line())
                except KeyboardInterrupt:
                    if not _at_terminal():
                        raise
                    print()
                except (ValueError, OSError) as error:
                    print(f"error: {error}", file=sys.stderr)
                prompt = ""

    def _begin(self, prompt: str) -> bool:
        self._read(prompt)
        return True

    def _obey(self, line: str | None) -> bool:
        """Do what a line asks for; whether the dialogue goes on."""
        if line is None:
            return False
        if not line.startswith(":") or line.startswith("::"):
            return self._begin(line.removeprefix(":"))
        name, _, value = line[1:].strip().partition(" ")
        names = [*self._commands, "quit"]
        found = [known for known in names if known.startswith(name)] if name else []
        if name in names:
            found = [name]
        if len(found) != 1:
            which = ", ".join(f":{known}" for known in found or names)
            raise ValueError(f":{name}: expected one of {which}")
        if found == ["quit"]:
            return False
        try:
            self._commands[found[0]](value.strip())
        except ValueError as error:
            raise ValueError(f":{found[0]}: {error}") from error
        return True

    def _read(self, text: str) -> None:
        """Add what a person wrote, and go on with it."""
        unknown = unknown_tokens(text, self.vocabulary)
        if ids := self.vocabulary.encode(text):
            self.writer.read(ids)
        if unknown:
            say_unknown(unknown)
        self._write(self.length)

    def _more(self, value: str) -> None:
        self._write(_count(value, self.length))

    def _write(self, length: int) -> None:
        """Let the model go on, and show each token when it is there."""
        last: list[int] = []
        with self._interrupts.noted():
            for chosen, _ in self.writer.write(length, self.sampling, self.rng):
                print(self._addition(last, chosen), end="", flush=True)
                last = [chosen]
                if self._interrupts.received:
                    break
        print()

    def _addition(self, last: list[int], chosen: int) -> str:
        """What ``chosen`` adds to a text that ends with the ids ``last``, one or none."""
        decode = self.vocabulary.decode
        return decode([*last, chosen]).removeprefix(decode(last))

    def _back(self, value: str) -> None:
        for _ in range(_count(value, 1)):
            if not self.writer.back():
                raise ValueError("there is nothing to take away")
        text = self._text()
        print(f"...{text[-TAIL:]}" if len(text) > TAIL else text)

    def _new(self, _: str) -> None:
        while self.writer.back():
            pass

    def _show(self, value: str) -> None:
        probabilities = self.writer.next_probabilities()
        for i in numpy.argsort(-probabilities, kind="stable")[: _count(value, BEST)].tolist():
            print(f"{100 * probabilities[i]:6.2f} %  {shown(self.vocabulary.words[i])}")

    def _set(self, name: str, value: str) -> None:
        field, read = SETTINGS[name]
        if value:
            self.sampling = replace(self.sampling, **{field: read(value)})
        else:
            now = getattr(self.sampling, field)
            print("on" if now is True else "off" if now in (None, False) else now)

    def _set_length(self, value: str) -> None:
        if value:
            self.length = _count(value)
        else:
            print(self.length)

    def _save(self, value: str) -> None:
        if not value:
            raise ValueError("expected the name of a file")
        path = Path(value).expanduser().absolute()
        if path.exists() and path not in self._saved:
            raise ValueError(f"{value} exists already; name another file")
        write_atomically(path, (self._text() + "\n").encode())
        self._saved.add(path)
        print(f"saved to {value}", file=sys.stderr)

    def _text(self) -> str:
        return self.vocabulary.decode(self.writer.ids)


def say_unknown(tokens: list[str]) -> None:
    """Say on stderr which tokens of a person's text are ``<unk>`` for the model."""
    named = ", ".join(tokens[:10]) + (", ..." if len(tokens) > 10 else "")
    print(
        f"note: <unk> stands for {named}, which training has not seen "
        "(words are lower-case in pydoc and ptb)",
        file=sys.stderr,
    )


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _next_line() -> str | None:
    """A line without its end; None where there is none."""
    if not _at_terminal():
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.rstrip("\r\n") if line else None
    try:
        with redirect_stdout(sys.__stdout__):  # input() asks readline for that one alone
            return input(PROMPT)
    except EOFError:
        print()
        return None


def _number(kind: type, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"expected {what}, got {value!r}") from None


def _number_or_off(kind: type, value: str) -> Any:
    return None if value == "off" else _number(kind, value)


def _count(value: str, default: int | None = None) -> int:
    """A whole number of 1 or more; ``default``, if there is one, where nothing is given."""
    if not value and default is not None:
        return default
    number = _number(int, value)
    if number < 1:
        raise ValueError(f"expected 1 or more, got {number}")
    return number


def _is_on(value: str) -> bool:
    if value not in ("on", "off"):
        raise ValueError(f"expected on or off, got {value!r}")
    return value == "on"


# The commands that change how the model chooses: the field of ``Sampling``, and what a text means.
SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "temperature": ("temperature", partial(_number, float)),
    "top-k": ("top_k", partial(_number_or_off, int)),
    "top-p": ("top_p", partial(_number_or_off, float)),
    "greedy": ("greedy", _is_on),
}
