"""The folder of a run and its files.

config.json          the script, its options, the text, the versions, and what computes
vocabulary.json      the words in the order of their ids
log.jsonl            one line for each report and each validation
checkpoint.safetensors  everything that the rest of the run depends on, while it trains and after
weights.safetensors  the best weights so far
results.json         the final figures; there once the run is finished
curve.png            the picture; of a script that trains no language model SCRIPT.png
events.out.tfevents.*  the log for TensorBoard, with --tensorboard
run.lock             there while a process writes into the folder; names the process

log.jsonl of a language model has a JSON object a line; null is a number that is not finite. With
--log-interval n a line is left by the first iteration of the run, by every n-th of an epoch and by
its last:

epoch              1 for the first
iteration          its number in the epoch, from 1
iterations         of the whole epoch; about, where windows have random sizes
step               iterations over all epochs
lr                 learning rate of the last update
loss               nats a token without penalties, mean since the line before
perplexity         exp of the loss
ms_per_iteration   milliseconds, mean since the line before
tokens_per_second  targets that count, mean since the line before
skipped            updates left out so far; with --on-nan skip only
seconds            spent on the run by all processes so far, validations and checkpoints included

The validation after an epoch leaves a line of epoch, step, seconds and

valid              perplexity of the validation text by the exact protocol; of the averaged weights
                   where there is an average

``python -m train.export_log RUN`` prints all that as CSV. Other scripts log fields of their own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy

from common import kernels
from common.base_model import BaseModel
from common.files.atomic import read_whole, write_atomically
from datasets.corpus import SPLITS, Corpus
from datasets.vocabulary import Vocabulary
from train.run.tensorboard import EventFile

try:
    import fcntl
except ImportError:  # not on Unix
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CALL_OPTIONS",
    "InUseError",
    "RunFolder",
    "add_result",
    "fixed_options",
    "note_differences",
    "read_json",
    "read_results",
    "require_finished",
    "require_finite",
    "version_of",
]

CALL_OPTIONS = ("resume", "out")  # they say where the run lies, not what it computes


class RunFolder:
    """The files of one training run.

    Args:
        path: the folder.
        writes: whether this process writes into it; of several that work on a run, one does.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.config_file = path / "config.json"
        self.log_file = path / "log.jsonl"
        self.checkpoint_file = path / "checkpoint.safetensors"
        self.weights_file = path / "weights.safetensors"
        self.results_file = path / "results.json"
        self.curve_file = path / "curve.png"
        self.vocabulary_file = path / "vocabulary.json"
        self.lock_file = path / "run.lock"
        self._log_digest = hashlib.sha256()
        self._events: EventFile | None = None

    @classmethod
    def create(
        cls, script: str, subject: str, options: Any, corpus: Corpus | None = None
    ) -> RunFolder:
        """Make ``options.out``, or the next free ``runs/SCRIPT-SUBJECT-K``, and write config.json.

        Args:
            script: the command's name.
            subject: what the run is of, such as the corpus; may be empty.
            options: the command's; ``out`` is a folder or None.
            corpus: the text, whose words the folder keeps; None for a run without one.

        Raises:
            FileExistsError: where the folder holds a run already, or a file that one has left.
            InUseError: where another process is making it at this moment.
            OSError: where it cannot be made or written.
        """
        name = f"{script}-{subject}" if subject else script
        path = _next_free(name) if options.out is None else Path(options.out).expanduser()
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"--out {path}: there is a file of that name; name a folder")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        with run.locked():
            if run.config_file.exists():
                go_on = f", or go on with it: --resume {path}" if hasattr(options, "resume") else ""
                raise FileExistsError(f"{path} holds a run already; name another --out{go_on}")
            for file in (run.log_file, run.checkpoint_file, run.weights_file, run.results_file):
                if os.path.lexists(file):  # it would be taken for one of this run
                    raise FileExistsError(
                        f"{path} holds {file.name} of another run; name another --out"
                    )
            run.write_config(script, options, corpus)
        return run

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, dict]:
        """The folder of an earlier run, and its config.

        Raises:
            FileNotFoundError: where there is no run.
            ValueError: where config.json is damaged.
        """
        run = cls(path)
        if not run.config_file.exists():
            raise FileNotFoundError(f"{path} is not the folder of a run: it has no config.json")
        config = read_json(run.config_file, "the config of a run")
        if not isinstance(config.get("script"), str) or not isinstance(config.get("options"), dict):
            raise ValueError(
                f"{run.config_file}: not the config of a run (no script with its options)"
            )
        return run, config

    def read_vocabulary(self) -> Vocabulary:
        """The words of the run in the order of their ids.

        Raises:
            FileNotFoundError: where the folder has none.
            ValueError: where the file is damaged.
        """
        try:
            return Vocabulary.from_json(read_whole(self.vocabulary_file).decode())
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.path} has no {self.vocabulary_file.name}: it was made by a version before "
                "words were kept, or of weights whose text was not there"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.vocabulary_file}: {error}") from error

    def expect_text(
        self, config: Mapping[str, Any], corpus: Corpus, flags: str = "--corpus or --data-dir"
    ) -> None:
        """Compare a text with what ``config`` says of the run's.

        Args:
            config: of the run.
            corpus: the text.
            flags: the options by which the right text can be named.

        Raises:
            ValueError: where words or a split differ; says which, and how to name the right text.
        """
        hashes, sizes, differs = corpus.split_hashes(), corpus.split_sizes(), []
        try:
            then, about = config["corpus"], config["corpus"]["about"]
            if then["vocabulary"] != corpus.vocabulary.hash():
                differs.append("the vocabulary")
            for split in SPLITS:
                before = then["splits"][split]
                if before["sha256"] != hashes[split]:
                    differs.append(f"{split} ({before['tokens']} tokens then, {sizes[split]} now)")
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.config_file}: it does not say which text it is of") from error
        if differs:
            raise ValueError(
                f"{self.path} is a run of another text: {', '.join(differs)} differ.\n"
                f"then: {about}\nnow:  {corpus.about}\n"
                f"Name the text of the run with {flags}"
            )

    def locked(self) -> AbstractContextManager[None]:
        """Keep processes of other runs out for as long as the block runs.

        Raises:
            InUseError: where one is in; names it.
        """
        return locked(self.lock_file) if self.writes else nullcontext()

    def write_config(self, script: str, options: Any, corpus: Corpus | None = None) -> None:
        """Write config.json: script, options, text, versions, and what computes.

        With a text its words are written, too. Of a run that starts from another it also has the
        hash of those weights, as they were when it was written first. Where no kernels compute, a
        line on stderr says so.
        """
        kernels.print_notice()
        about: dict[str, Any] = {
            "script": script,
            "options": {
                key: _plain(value) for key, value in asdict(options).items() if key != "resume"
            },
            "versions": _versions(),
            "machine": kernels.status(),
        }
        if getattr(options, "start_from", None) is not None:
            about["started_from"] = self.started_from() or {
                "run": str(options.start_from),
                "weights": RunFolder(options.start_from).weights_hash(),
            }
        if corpus is not None:
            write_atomically(self.vocabulary_file, corpus.vocabulary.to_json().encode())
            hashes, sizes = corpus.split_hashes(), corpus.split_sizes()
            about["corpus"] = {
                "name": corpus.name,
                "about": corpus.about,
                "vocabulary": corpus.vocabulary.hash(),
                "splits": {s: {"tokens": sizes[s], "sha256": hashes[s]} for s in SPLITS},
            }
        self.write_json(self.config_file, about)

    def started_from(self) -> dict[str, str]:
        """The run whose weights this one began with, and their hash; empty where there is none."""
        return self.open(self.path)[1].get("started_from", {}) if self.config_file.exists() else {}

    def weights_hash(self) -> str:
        """SHA-256 of the file of the best weights, in hexadecimal.

        Raises:
            FileNotFoundError: where there are none yet.
        """
        return hashlib.sha256(self.best_weights().read_bytes()).hexdigest()

    def best_weights(self) -> Path:
        """The file of the best weights.

        Raises:
            FileNotFoundError: where there are none yet.
        """
        if not self.weights_file.exists():
            raise FileNotFoundError(
                f"{self.path} has no weights yet: its first epoch has not ended"
            )
        return self.weights_file

    def keep_weights(self, model: BaseModel) -> None:
        """Write the best weights so far.

        Raises:
            OSError: where they cannot be written; older ones are then still whole.
        """
        if self.writes:
            model.save_params(self.weights_file)

    def log(self, record: dict) -> None:
        """Append one line to log.jsonl; a number that is not finite becomes null.

        Raises:
            OSError: where it cannot be written; ``go_back`` removes a part of a line.
        """
        if not self.writes:
            return
        line = (json.dumps(_finite(record), allow_nan=False) + "\n").encode()
        try:
            with open(self.log_file, "ab", opener=_own_file) as file:
                file.write(line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.log_file)) from error
        self._log_digest.update(line)
        if self._events is not None:
            self._events.add(_finite(record))

    def records(self) -> list[dict]:
        """What log.jsonl says; a line that is damaged or half written is left out.

        Raises:
            FileNotFoundError: where there is no log.
        """
        if not self.log_file.exists():
            raise FileNotFoundError(
                f"{self.path} has no {self.log_file.name}: it has not begun yet"
            )
        return _records(self.log_file.read_bytes())

    @contextmanager
    def event_file(self, wanted: bool, seconds: float) -> Iterator[None]:
        """Inside, what is logged goes into an event file, too, after what the log has already.

        Args:
            wanted: False for nothing of that.
            seconds: of training so far.
        """
        if not (wanted and self.writes):
            yield
            return
        records = self.records() if self.log_file.exists() else []
        with closing(EventFile(self.path, records, seconds)) as self._events:
            try:
                yield
            finally:
                self._events = None

    def log_state(self) -> dict[str, Any]:
        """Length and checksum of log.jsonl, once all of it is on disk."""
        with open(self.log_file, "ab", opener=_own_file) as file:
            os.fsync(file.fileno())
            return {"length": file.tell(), "sha256": self._log_digest.hexdigest()}

    def go_back(self, log: Mapping[str, Any] | None = None) -> list[dict]:
        """Bring the folder back to where a checkpoint was made.

        The log is cut to the length that it had then, in a new file, since a copy of the folder may
        share the old one. Files that a process left half written when it was killed are removed.
        The lock must be held.

        Args:
            log: what ``log_state`` was then; None for a log without a line.

        Returns:
            The records of the log.

        Raises:
            OSError: where the log cannot be read or written, or is a link.
        """
        for file in vars(self).values():
            if isinstance(file, Path) and file != self.path:
                for leftover in self.path.glob(f".{file.name}.*"):
                    leftover.unlink()
        text = b""
        if os.path.lexists(self.log_file):
            with open(self.log_file, "rb", opener=_own_file) as stream:
                text = stream.read(log["length"] if log else 0)
        write_atomically(self.log_file, text)
        self._log_digest = hashlib.sha256(text)
        if log and self._log_digest.hexdigest() != log["sha256"]:
            print(
                f"note: {self.log_file} is not as the run left it; the curve lacks what is missing",
                file=sys.stderr,
            )
        return _records(text)

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json.

        Raises:
            RuntimeError: for a figure that is not finite, once all is written.
        """
        self.write_json(self.results_file, results)
        require_finite(self.path, results)

    def write_json(self, path: Path, content: dict) -> None:
        """Write one file of the folder, whole; a number that is not finite becomes null."""
        text = json.dumps(_finite(content), indent=2, allow_nan=False)
        write_atomically(path, (text + "\n").encode())


def _plain(value: Any) -> Any:
    """The value of an option as JSON has it: a path as its text, a tuple as a list."""
    return json.loads(json.dumps(value, default=str))


def version_of(package: str) -> str:
    """The installed version; a word in its place where ``python -m`` finds the source alone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _versions() -> dict[str, str]:
    return {
        "time-layers": version_of("time-layers"),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def note_differences(config: Mapping[str, Any], made_by: str | None = None) -> None:
    """Say on stderr what computes otherwise than it did when the run began.

    Args:
        config: of the run.
        made_by: the version of this project that wrote its checkpoint, if the config's is older.
    """
    then, now = config.get("versions", {}), _versions()
    machine, here = config.get("machine", {}), kernels.status()
    pairs = [
        ("time-layers", made_by or then.get("time-layers"), now["time-layers"]),
        ("NumPy", then.get("numpy"), now["numpy"]),
        ("Python", then.get("python"), now["python"]),
        ("compiled kernels", machine.get("key") or "none", here["key"] or "none"),
        ("BLAS", machine.get("blas"), here["blas"]),
    ]
    for what, before, today in pairs:
        if before != today:
            print(
                f"note: {what} {before} when the run began, {today} now; the last digits may "
                "differ from here on",
                file=sys.stderr,
            )


def _finite(value: Any) -> Any:
    """``value`` with null, which JSON has, in place of infinity and NaN, which it has not."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(log: bytes) -> list[dict]:
    """What the lines of a log say, without damaged ones."""
    records = []
    for line in log.splitlines():
        with suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def _own_file(path: str | Path, flags: int) -> int:
    """Open a file of the folder: not what a link in its place points to, nor a pipe, which waits.

    Raises:
        OSError: where it is no file, or cannot be opened.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | careful, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file that a run could have written", str(path))
    return descriptor


def _next_free(name: str) -> Path:
    """Make runs/NAME-K for the smallest K that nobody has."""
    number, runs = 1, Path("runs")
    runs.mkdir(exist_ok=True)
    while True:
        path = runs / f"{name}-{number}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        what: it should be, for the error.

    Raises:
        FileNotFoundError: where there is no such file.
        OSError: where it cannot be read, or is no file.
        ValueError: where it is damaged, or holds something else than an object.
    """
    try:
        content = json.loads(read_whole(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not {what} ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not {what}")
    return content


def require_finite(where: Path, figures: Mapping[str, Any]) -> None:
    """Raise RuntimeError where a figure is infinite or NaN; name it and ``where`` it is from."""
    wrong = [
        f"{name} {value}"
        for name, value in figures.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if wrong:
        raise RuntimeError(f"{where}: expected finite figures, got {', '.join(wrong)}")


def read_results(run: RunFolder) -> dict[str, Any]:
    """What results.json says; nothing where training has not ended.

    Raises:
        ValueError: where the file is damaged.
    """
    if not run.results_file.exists():
        return {}
    return read_json(run.results_file, "the results of a run")


def require_finished(path: Path) -> dict[str, Any]:
    """The results of the run in ``path``, to which figures are to be added once they are measured.

    Raises:
        InUseError: where another process writes into the folder.
        ValueError: where its training has not ended, or results.json is damaged.
    """
    run = RunFolder(path)
    with run.locked():
        results = read_results(run)
    if not results:
        raise ValueError(f"{path}: its training has not ended, there is no results.json yet")
    return results


def add_result(path: Path, name: str, figures: dict[str, Any], measured: Mapping[str, Any]) -> None:
    """Put ``figures`` under ``name`` into results.json, in place of earlier ones of that name.

    Args:
        path: the folder.
        name: what the figures are called.
        figures: to be added.
        measured: the results of the run when ``require_finished`` read them.

    Raises:
        InUseError: where another process writes into the folder.
        RuntimeError: for a figure that is not finite; nothing is written.
        ValueError: where the file is damaged, or the run was trained on in the meantime.
    """
    run = RunFolder(path)
    require_finite(path, {f"{name} of {split}": value for split, value in figures.items()})
    with run.locked():
        results = read_results(run)
        training = [key for key, value in measured.items() if not isinstance(value, dict)]
        if any(results.get(key) != measured[key] for key in training):
            raise ValueError(f"{path}: it was trained on while this was measured; measure again")
        run.write_json(run.results_file, {**results, name: figures})


class InUseError(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for as long as the block runs.

    The lock is the operating system's, which takes it back however the process ends; the file
    says who holds it, and is removed afterwards. A file that a dead process left is taken over.
    Where the system has no such lock the file itself is the lock.

    Raises:
        InUseError: where another process holds it; names that process.
        OSError: where the file cannot be written.
    """
    descriptor = _open(path) if fcntl is not None else _create(path)
    try:
        holder = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        }
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, (json.dumps(holder) + "\n").encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield
    finally:
        if fcntl is None:  # such a system may not remove a file that is open
            os.close(descriptor)
            path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)  # while the lock is held
            os.close(descriptor)


def _open(path: Path) -> int:
    while True:
        descriptor = _own_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InUseError(_refusal(path)) from None
        except OSError as error:  # a file system without locks: better to train than to refuse
            print(
                f"note: {path.parent} cannot be locked ({error.strerror}); see that no other "
                "process trains in it",
                file=sys.stderr,
            )
            return descriptor
        try:
            about = os.fstat(descriptor)
            if os.path.samestat(about, os.stat(path)):
                if about.st_nlink > 1:
                    os.close(descriptor)
                    raise OSError(errno.EMLINK, "it is a file of another name, too", str(path))
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # the holder before us has just removed this file: once more


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise InUseError(f"{_refusal(path)}; if it has ended, delete {path}") from None


def _refusal(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not written its name yet
        who = "another process"
    return f"{path.parent} is in use by {who}"


def fixed_options(options: Any, changeable: Sequence[str] = ()) -> dict[str, Any]:
    """The options that decide what a run computes, with values as JSON has them."""
    return {
        name: _plain(value)
        for name, value in asdict(options).items()
        if name not in (*changeable, *CALL_OPTIONS)
    }
