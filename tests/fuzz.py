"""Spoil valid files at random and read them: a right load or a ValueError, or it is a failure.

python -m tests.fuzz pickle --minutes 3     # the book's weight files
python -m tests.fuzz tensors --minutes 3    # our own weight and tensor files

Case k of a seed is always the same file. What fails is kept as bytes in the folder --failures; a
file that ends the process itself is found there as ``current-pickle`` or ``current-tensors``.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from common.files.book_pickle import read_array_list
from common.files.tensors import read_tensors, write_tensors
from models import Rnnlm
from train.run.command import run_command

WRONG = "loaded, but not what the file says"
SLOW = 2.0  # seconds that no file of a few kilobytes may take
MEMORY = 4 << 30  # bytes of address space; what needs more ends as a MemoryError

NUMBERS = [0, 1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
NUMBERS += [2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
GLOBALS = ["os system", "builtins eval", "builtins getattr", "builtins bytearray", "numpy load"]
GLOBALS += ["numpy ndarray", "numpy dtype", "numpy zeros", "_codecs encode", "copyreg __newobj__"]
GLOBALS += ["numpy._core.multiarray _reconstruct", "numpy.core.numeric _frombuffer", "a", "", "é ü"]


@dataclass(frozen=True)
class Options:
    """Read spoilt files until the time is over; exit code 1 if one of them was a failure."""

    target: tyro.conf.Positional[Literal["pickle", "tensors"]]
    """Which reader."""
    minutes: float = 3.0
    """How long."""
    seed: int = 1
    """Other files with another seed."""
    failures: Path = Path("fuzz-failures")
    """Folder for the files that failed."""


# ---- spoiling ----


def interesting_bytes(rng: random.Random) -> bytes:
    """A number that sits at a limit, in 1, 2, 4 or 8 bytes."""
    size = rng.choice([1, 2, 4, 8])
    return (rng.choice(NUMBERS) % 256**size).to_bytes(size, "little")


def spoil_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change ``data`` without knowing what it means; ``other`` is a file to take pieces from."""
    i, j = sorted(rng.randint(0, len(data)) for _ in range(2))
    k, l = sorted(rng.randint(0, len(other)) for _ in range(2))
    number = interesting_bytes(rng)
    match rng.randrange(8):
        case 0:
            bit = bytes([data[i] ^ 1 << rng.randrange(8)]) if i < len(data) else b""
            return data[:i] + bit + data[i + 1 :]
        case 1:
            return data[:i] + rng.randbytes(rng.randint(1, 8)) + data[i + rng.randint(0, 8) :]
        case 2:
            return data[:i] + number + data[i + len(number) :]
        case 3:
            return data[:i] + number + data[i:]
        case 4:
            return data[:i] + data[j:]
        case 5:
            return data[:j] + data[i:j] * rng.randint(1, 3) + data[j:]
        case 6:
            return data[:i] + other[k:l] + data[j:]
        case _:
            return data[:i]


def opcode_with_argument(rng: random.Random) -> bytes:
    """One opcode of the language of pickles, with an argument of about the right form."""
    opcode = rng.choice(pickletools.opcodes)
    code = opcode.code.encode("latin1")
    kind = opcode.arg.name if opcode.arg else ""
    text = rng.choice([*GLOBALS, "latin1", "f2", "<", "b", "C", "F", "\\ud800", "\\x"])
    match kind:
        case "":
            return code
        case "stringnl_noescape_pair":
            return code + rng.choice(GLOBALS).replace(" ", "\n").encode() + b"\n"
        case "decimalnl_short" | "decimalnl_long" | "floatnl":
            number = rng.choice([str(rng.choice(NUMBERS)), "01", "-1", "nan", "9L"])
            return code + number.encode() + b"\n"
        case "stringnl" | "stringnl_noescape" | "unicodestringnl":
            return code + rng.choice(["'%s'", "%s"]).replace("%s", text).encode() + b"\n"
        case _ if kind[-1] in "148" and not kind.startswith(("uint", "int")):
            size = int(kind[-1])
            length = rng.choice([len(text.encode()), *NUMBERS]) % 256**size
            return code + length.to_bytes(size, "little") + text.encode()
        case _:
            return code + interesting_bytes(rng)


def spoil_pickle(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Insert, drop, repeat or move whole opcodes."""
    try:
        starts = [position for _, _, position in pickletools.genops(data)]
    except ValueError:  # spoilt before
        return spoil_bytes(data, other, rng)
    i, j = sorted(rng.choice(starts) for _ in range(2))
    match rng.randrange(5):
        case 0:
            return data[:i] + opcode_with_argument(rng) + data[i:]
        case 1:
            name = rng.choice(GLOBALS).replace(" ", "\n", 1).encode() + b"\n"
            use = rng.choice([b")R", b"N\x85R", b"b", b"Nb"])
            return data[:i] + b"c" + name + use + data[j:]
        case 2:
            return data[:i] + data[j:]
        case 3:
            return data[:j] + data[i:j] + data[j:]
        case _:
            return data[:i] + b"".join(opcode_with_argument(rng) for _ in range(5)) + data[i:]


def spoil_header(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change what the header of a safetensors file says, or how it says it."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        key = rng.choice(sorted(header))
        inside = header[key]
        part = rng.choice(sorted(inside.keys()))
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):  # spoilt
        return spoil_bytes(data, other, rng)
    value = rng.choice([*NUMBERS, -1, 1.5, None, "", "F32", "F16", "BF16", "BOOL", [], {}, [0, 4]])
    match rng.randrange(7):
        case 0:
            inside[part] = value
        case 1:
            inside[part] = [rng.choice(NUMBERS) for _ in range(rng.randint(0, 3))]
        case 2:
            del inside[part]
        case 3:
            header[rng.choice(["W", "embedding.W", "__metadata__", "\0", "é"])] = inside
        case 4:
            del header[key]
        case 5:
            header[key] = value
        case _:
            inside["time_layers"] = "[" * rng.choice([1, 100, 5000])
    text = json.dumps(header).encode() + b" " * rng.randint(0, 8)
    declared = len(text) if rng.random() < 0.9 else rng.choice(NUMBERS)
    return declared.to_bytes(8, "little") + text + data[8 + size :]


# ---- reading ----


class PlainUnpickler(pickle.Unpickler):
    """The real one, for files that the reader has taken: they name nothing but arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("numpy", "_codecs"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


class Pickles:
    """The book's lists, in every protocol; what loads is compared with what pickle makes of it."""

    spoil = staticmethod(spoil_pickle)

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(0)
        W, b = rng.standard_normal((3, 2)).astype("f2"), rng.standard_normal(4).astype("f4")
        lists = [W, W.T, b], [b.astype(">f4")]
        protocols = range(pickle.HIGHEST_PROTOCOL + 1)
        files = [pickle.dumps(arrays, protocol) for arrays in lists for protocol in protocols]
        self.valid = files + [pickletools.optimize(data) for data in files]

    def read(self, path: Path) -> list[np.ndarray]:
        """What the reader makes of the file."""
        return read_array_list(path)

    def judge(self, arrays: list[np.ndarray], path: Path) -> str:
        """Whether that is right."""
        if sum(array.nbytes for array in arrays) > 2 * path.stat().st_size:
            return WRONG
        try:
            with warnings.catch_warnings(action="ignore"):  # NumPy's, of dtypes of the past
                expected = PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        except Exception:  # a frame that ends elsewhere, a protocol of the future
            return "loaded, refused by pickle"
        return "loaded" if same_arrays(arrays, expected) else WRONG


class Tensors:
    """A weights file and one of every dtype; what has a checksum and loads is the original."""

    spoil = staticmethod(spoil_header)

    def __init__(self, path: Path) -> None:
        self.model = Rnnlm(3, 2, 2, rng=1)
        self.model.save_params(path)
        self.valid = [path.read_bytes()]
        dtypes = ("f2", "f4", "f8", "i4", "u1", "?")
        tensors = {dtype: np.arange(6).astype(dtype).reshape(2, 3) for dtype in dtypes}
        write_tensors(path, tensors, {"step": 3, "rates": [0.1, None]})
        self.valid.append(path.read_bytes())
        self.content = []
        for data in self.valid:
            path.write_bytes(data)
            self.content.append(read_tensors(path))

    def read(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What the reader makes of the file."""
        return read_tensors(path)

    def judge(self, content: tuple[dict[str, np.ndarray], dict[str, Any]], path: Path) -> str:
        """Whether that is right, and whether a model takes it."""
        tensors, about = content
        if about and not any(
            about == there
            and tensors.keys() == known.keys()
            and same_arrays(tensors.values(), [known[name] for name in tensors])
            for known, there in self.content
        ):
            return WRONG
        try:
            self.model.load_params(path)
        except ValueError:
            return "loaded" if about else "loaded without checksum"
        return "loaded as weights" if about else "loaded as weights without checksum"


def same_arrays(arrays: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> bool:
    """Whether the two hold the same numbers, to the last bit, in the same shapes and dtypes."""

    def content(array: np.ndarray) -> tuple[Any, ...]:
        native = array.astype(array.dtype.newbyteorder("="))
        return native.dtype, native.shape, native.tobytes()

    return [content(array) for array in arrays] == [content(array) for array in others]


TARGETS: dict[str, Callable[[Path], Any]] = {"pickle": Pickles, "tensors": Tensors}


def fuzz(options: Options, max_cases: int | None = None) -> Counter[str]:
    """Read spoilt files; returns how often each outcome came, ``failure`` among them."""
    options.failures.mkdir(parents=True, exist_ok=True)
    current = options.failures / f"current-{options.target}"
    target = TARGETS[options.target](current)
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    case = 0
    while time.monotonic() < end and case != max_cases:
        rng = random.Random(f"{options.target} {options.seed} {case}")
        data = rng.choice(target.valid)
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
            spoil = rng.choice([spoil_bytes, target.spoil])
            data = spoil(data, rng.choice(target.valid), rng)
        current.write_bytes(data)
        start = time.monotonic()
        seconds = 0.0
        try:
            content = target.read(current)
            seconds = time.monotonic() - start
            outcome = target.judge(content, current)
        except ValueError as error:
            seconds = time.monotonic() - start
            outcome = "refused" if str(current) in str(error) else f"unnamed: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if seconds > SLOW:
            outcome = f"took {seconds:.1f} s"
        if outcome == WRONG or not outcome.startswith(("loaded", "refused")):
            print(f"failure in case {case}: {outcome}")
            (options.failures / f"{options.target}-{options.seed}-{case}").write_bytes(data)
            outcome = "failure"
        outcomes[outcome] += 1
        case += 1
    current.unlink()
    if not any(options.failures.iterdir()):
        options.failures.rmdir()
    return outcomes


def main(options: Options) -> None:
    """Run the command."""
    import resource  # which Windows does not have

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes = fuzz(options)
    for outcome, count in outcomes.most_common():
        print(f"{count:9,} {outcome}")
    print(f"{outcomes.total():9,} cases in {options.minutes:g} minutes")
    if outcomes["failure"]:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, Options)
