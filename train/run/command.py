"""From a dataclass of options to a running command: help, errors a person can read, exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy
import tyro

from common import config
from common.np import to_gpu
from common.processes import connected
from train.run.process import Stopped, is_first, number_started, this_process
from train.run.saved_options import saved_options

Options = TypeVar("Options")


def run_command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Parse the command line into ``options`` and call ``main`` with it.

    What a user can cause ends as one line on stderr and exit code 1; so does standard output that
    could not be written, but for a reader that is gone. An unknown option ends as tyro's message
    and exit code 2; Ctrl-C and SIGTERM as 130 and 143. With ``--resume RUN`` the options of that
    run take the place of the defaults, with ``--preset NAME`` those in ``options.PRESETS``.

    Of several processes that ``mpiexec`` has started, the first alone is heard, and all end where
    one cannot go on.
    """
    with _command():
        defaults = this_process().from_first(lambda: _defaults(options))
        _run(main, tyro.cli(options, prog=_program(), default=defaults))


def run_subcommands(commands: dict[str, tuple[Callable[[Any], None], type]]) -> None:
    """``run_command`` for a script of several commands: a main and its options by name."""
    mains = {options: main for main, options in commands.values()}
    with _command():
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


def _keep_standard_streams() -> None:
    """Open those of the three that are closed: a file of the run would take their place.

    What is meant for standard error, a word of a library written in C as well, would then stand in
    that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


class Interrupted:
    """The handler of Ctrl-C for as long as a command runs.

    Attributes:
        received: whether it has raised. An import that it breaks off may make another error of it.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, signum: int, frame: Any) -> None:
        """Raise KeyboardInterrupt."""
        self.received = True
        raise KeyboardInterrupt


class Output(io.TextIOBase):
    """A stream that cannot fail: what its encoding does not have is escaped.

    A line is written when it ends, into a file or a pipe too. Where nobody reads any more
    (``| tee`` that Ctrl-C has ended), or the disk is full, what is written goes nowhere.

    Args:
        stream: standard output or error; None where there is none.

    Attributes:
        failure: why something was not written, if not for want of a reader; or None.
        goes_nowhere: whether nothing more can be written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        self.goes_nowhere = False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
            with suppress(OSError, ValueError):
                os.set_blocking(stream.fileno(), True)  # wait for a slow reader

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
        except (OSError, ValueError) as error:  # ValueError: closed
            if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EIO):
                self.failure = self.failure or error
            self._give_up()

    def _give_up(self) -> None:
        """Point the stream at nothing, so that Python's last flush does not fail either."""
        self.goes_nowhere = True
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
def _command() -> Iterator[None]:
    """From the command line to the exit code."""
    interrupted = Interrupted()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, interrupted)
        _keep_standard_streams()
        sys.stdout, sys.stderr = output, _ = Output(sys.stdout), Output(sys.stderr)
        if number_started() == 1:
            yield
        else:
            with _together():
                yield
        output.flush()
        if output.failure is not None:
            sys.exit(f"error: standard output: {output.failure.strerror}")
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        if interrupted.received:
            _leave(130)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if isinstance(error, MemoryError):
            about = str(error) or "no size is known"
            sys.exit(f"error: there is not enough memory for this ({about})")
        if isinstance(error, (ValueError, RuntimeError, OSError)):
            sys.exit(f"error: {error}")
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that could be kept


@contextmanager
def _together() -> Iterator[None]:
    """Connect the processes; the others are not heard, and none is left behind.

    What ends one process ends all: an exception here is told and ends them with its code.
    """
    err = sys.stderr
    if not is_first():
        sys.stdout, sys.stderr = Output(None), Output(None)
    together = connected(number_started())
    together.stderr = err
    try:
        yield
        together.leave()
    except Stopped as stop:
        together.end(stop.exit_code)
    except SystemExit as end:  # tyro has explained
        if not end.code:
            together.leave()
            raise
        together.end(end.code if isinstance(end.code, int) else 1)
    except KeyboardInterrupt:
        together.end(130)
    except (ValueError, RuntimeError, OSError) as error:
        together.end(1, f"error: {error}")
    except MemoryError as error:
        together.end(1, f"error: there is not enough memory for this ({error})")
    except BaseException:
        together.end(1, traceback.format_exc())


def _leave(code: int) -> NoReturn:
    """End the process without taking Python down: Ctrl-C in an import may have left a module half
    made, and that would crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(main: Callable[[Any], None], parsed: Any) -> None:
    process = this_process()
    if process.size > 1 and not getattr(parsed, "on_processes", False):
        raise ValueError(
            f"{_program()} works in one process, and {process.size} were started; leave out mpiexec"
        )
    if process.size > getattr(parsed, "batch_size", process.size):
        raise ValueError(
            f"--batch-size {parsed.batch_size}: expected a stream or more for each of "
            f"{process.size} processes"
        )
    if getattr(parsed, "seed", 0) < 0:
        raise ValueError(f"--seed: expected 0 or more, got {parsed.seed}")
    if getattr(parsed, "gpu", False):
        config.GPU = True
    if config.GPU:
        process.use_device()
        to_gpu(numpy.zeros(1))  # say now what is missing, not after the corpus is read
    main(parsed)
