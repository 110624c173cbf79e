"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["read_whole", "write_atomically"]


def read_whole(path: str | os.PathLike, most: int = -1) -> bytes:
    """The content of a file, or its first ``most`` bytes.

    Raises:
        FileNotFoundError: where there is no such file.
        OSError: where it cannot be read; where ``path`` is a folder, or a device or a pipe, which
            may never end.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file that could be read", str(path))
    with open(path, "rb") as file:
        return file.read(most)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write beside ``path``, flush to disk, then rename: a crash leaves the old file or the new.

    Raises:
        OSError: where the folder does not exist, cannot be written, or the disk is full; where
            ``path`` is a device, a folder or anything else but a file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file that could be replaced", str(path))
    try:
        _write(path, data)
    except OSError as error:  # names the file that was meant, not the one beside it
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
