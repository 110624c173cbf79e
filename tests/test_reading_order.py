"""What a reader has to open to follow one run from the command to its perplexity.

The list stands in the README. Here a small run is traced: whatever does its work is in that list,
or in the machinery around it that a reader may take as given.
"""

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

import numpy as np

from common import kernels
from common.time_layers import TimeLSTM
from train import rnnlm

ROOT = Path(__file__).parent.parent
MACHINERY = (
    "datasets/",  # corpora
    "train/run/command.py",  # the command line
    "train/run/options.py",
    "train/run/saved_options.py",
    "train/run/folder.py",  # the run folder, and how a run stops
    "train/run/process.py",
    "train/run/checkpoint.py",  # checkpoints and weights
    "common/files/",
    "common/plotting.py",
    "common/kernels/",  # what calls the kernels
    "common/np.py",  # the switch
    "common/config.py",
)


def reading_order():
    """The files that the README lists, in order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Reading one run")[1].split("\n## ")[0]
    return re.findall(r"^\| \d+ \| \[`([^`]+)`\]", section, re.MULTILINE)


def code_lines(path):
    """Numbers of the lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    silent = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def traced(work):
    """For each file of the project, the lines of code of the functions that ran in it."""
    ran = defaultdict(set)

    def note(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)):
            ran[Path(code.co_filename)].add(code)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    found = {}
    for path, codes in ran.items():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith((".venv", "tests/")):
            continue
        lines = code_lines(path)
        found[name] = set()
        for code in codes:
            last = max(line for _, _, line in code.co_lines() if line)
            found[name] |= lines & set(range(code.co_firstlineno, last + 1))
    return found


def test_a_run_is_done_by_the_files_that_the_readme_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = rnnlm.Options(epochs=1, hidden_size=16, wordvec_size=16, batch_size=50)
    ran = traced(lambda: rnnlm.main(options))
    listed = reading_order()
    assert {name for name in ran if not name.startswith(MACHINERY)} == set(listed)
    assert len(listed) <= 12
    assert sum(len(ran[name]) for name in listed) <= 1000
    assert len(ran) <= 30


def test_the_files_of_the_list_are_there_and_link_to_themselves():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert reading_order()
    for name in reading_order():
        assert (ROOT / name).exists()
        assert f"[`{name}`]({name})" in readme


def test_an_lstm_goes_forward_and_back_in_four_files():
    rng = np.random.default_rng(0)
    layer = TimeLSTM(*(rng.normal(size=s).astype("f") for s in ((4, 20), (5, 20), (20,))))
    layer.forward(np.ones((3, 6, 4), "f"))  # the kernels are loaded by now

    def work():
        for _ in range(2):
            layer.backward(layer.forward(np.ones((3, 6, 4), "f")))

    alone = set() if kernels.library() else {"common/kernels/threads.py"}  # NumPy on one thread
    assert set(traced(work)) - alone == {
        "common/base_layer.py",
        "common/kernels/__init__.py",
        "common/np.py",
        "common/time_layers/lstm.py",
    }
