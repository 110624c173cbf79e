"""From a dataclass of options to a running command: help, errors a person can read, exit codes."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy
import tyro

from common import config
from common.np import to_gpu
from train.run.saved_options import saved_options
from train.run.signals import Stopped

Options = TypeVar("Options")


def run_command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Parse the command line into ``options`` and call ``main`` with it.

    What a user can cause ends as one line on stderr and exit code 1; an unknown option as tyro's
    message and exit code 2; Ctrl-C and SIGTERM as 130 and 143. With ``--resume RUN`` the options of
    that run take the place of the defaults, with ``--preset NAME`` those in ``options.PRESETS``.
    """
    _begin()
    with _reported_errors():
        defaults = _defaults(options)
    _run(main, tyro.cli(options, prog=_program(), default=defaults))


def run_subcommands(commands: dict[str, tuple[Callable[[Any], None], type]]) -> None:
    """``run_command`` for a script of several commands: a main and its options by name."""
    _begin()
    mains = {options: main for main, options in commands.values()}
    parsed = tyro.extras.subcommand_cli_from_dict(
        {name: options for name, (_, options) in commands.items()}, prog=_program()
    )
    _run(mains[type(parsed)], parsed)


def _defaults(options: type[Options]) -> Options | None:
    """The options of the run that ``--resume`` names, or of the preset; None for the defaults."""
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--preset")
    try:
        given = parser.parse_known_args()[0]
    except argparse.ArgumentError:  # nothing named: tyro explains
        return None
    if "resume" in names and given.resume is not None:
        return saved_options((_program() or "").rpartition(".")[2], options, given.resume)
    presets: dict[str, dict[str, Any]] = getattr(options, "PRESETS", {})
    if given.preset in presets:
        return replace(options(), preset=given.preset, **presets[given.preset])  # type: ignore[type-var]
    return None


def _program() -> str | None:
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _begin() -> None:
    """Ctrl-C raises from here on, and no reader of the output can end a run."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)


class Output(io.TextIOBase):
    """A stream that cannot fail: what its encoding does not have is escaped.

    A line is written when it ends, into a file or a pipe too. Where nobody reads any more
    (``| tee`` that Ctrl-C has ended), or the disk is full, what is written goes nowhere.

    Args:
        stream: standard output or error; None where there is none.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        self._try("flush")

    def _try(self, name: str, *arguments: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, name)(*arguments)
        except (OSError, ValueError):  # ValueError: closed
            self._give_up()

    def _give_up(self) -> None:
        """Point the stream at nothing, so that Python's last flush does not fail either."""
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except (OSError, ValueError):
            self._stream = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """tyro chooses the boxes around its help by it; the base class would answer None."""
        return getattr(self._stream, "encoding", "ascii")

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream is not None and self._stream.isatty()


@contextmanager
def _reported_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        sys.exit(f"error: there is not enough memory for this ({error or 'no size is known'})")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(main: Callable[[Any], None], parsed: Any) -> None:
    with _reported_errors():
        if getattr(parsed, "gpu", False):
            config.GPU = True
        if config.GPU:
            to_gpu(numpy.zeros(1))  # say now what is missing, not after the corpus is read
        main(parsed)
