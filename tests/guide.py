"""A reader of the guide, who does what a page says in a folder of their own."""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from docs.tools.pages import Block

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


class Reader:
    """Runs the blocks of one page, one after the other.

    Args:
        folder: where the reader works; the current folder, and on Python's path.
    """

    def __init__(self, folder):
        self.folder, self.names = folder, {"__name__": "page"}

    def follow(self, block):
        """What the block prints; "" for one that is not run.

        Raises:
            AssertionError: where it is not in the file that it is quoted from.
        """
        if block.title and (ROOT / block.title).is_file():
            source = (ROOT / block.title).read_text(encoding="utf-8")
            missing = [part for part in parts(block.text) if not is_quoted(part, source)]
            assert not missing, f"not in {block.title}:\n{missing[0]}"
        elif block.title:
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            return self.run_python(block)
        elif block.kind == "console":
            return "".join(f"$ {c}\n{self.run_command(c)}" for c in commands(block))
        return ""

    def run_python(self, block):
        """Lines of an error are those of the page."""
        code = compile("\n" * block.line + block.text, "page", "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.names)
        return printed.getvalue()

    def run_command(self, command):
        """Its output and its messages, as a terminal would mix them.

        A page is the same with kernels and without, so what says that there are none is left out,
        but where the page has asked for it.
        """
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        added = {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "MPLBACKEND": "Agg"}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | added,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if "TIMELAYERS_NATIVE" in command:
            return done.stdout
        return re.sub(r"^computing with NumPy alone.*\n", "", done.stdout, flags=re.MULTILINE)


def commands(block):
    """The commands of a console, without their output."""
    joined = block.text.replace("\\\n", "")
    return re.findall(r"^\$ (.*)$", joined, re.MULTILINE)


def parts(text):
    """What stands between lines of three dots."""
    return [part.strip("\n") for part in re.split(r"^ *\.\.\.\n", text, flags=re.MULTILINE)]


def is_quoted(part, source):
    """Whether these lines follow one another in ``source``, all indented by as much."""
    lines = part.split("\n")
    return any(
        "\n" + "\n".join(" " * indent + line if line else "" for line in lines) + "\n" in source
        for indent in range(0, 24, 4)
    )


def tidy(text):
    """Without blanks at the ends of lines."""
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").split("\n"))


def difference(shown, printed):
    """How what was printed differs from what a page shows; or "".

    Three dots stand for anything, on a line of their own for any number of lines.
    """
    shown, printed, checker = tidy(shown), tidy(printed), doctest.OutputChecker()
    shown = re.sub(r"^\.\.\.\n", "...", shown, flags=re.MULTILINE)
    if checker.check_output(shown, printed, FLAGS):
        return ""
    return checker.output_difference(doctest.Example("", shown), printed, FLAGS)


def shown_after(blocks, k):
    """What the page shows as the output of its block k."""
    if blocks[k].kind == "console":
        return blocks[k].text.replace("\\\n", "")
    following: Block | None = blocks[k + 1] if k + 1 < len(blocks) else None
    return following.text if following is not None and following.kind == "output" else ""
