"""A run that computes in another way than usual says so before its first iteration."""

import json
import os
import subprocess
import sys

from tests.builders import PATIENCE
from tests.train.processes import ROOT, TEXT, new_run


def test_without_kernels_one_line_says_so_and_the_folder_knows_it(tmp_path):
    text = tmp_path / "cats.txt"
    text.write_text(TEXT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "train.rnnlm", *map(str, new_run(text, tmp_path / "r", epochs=1))],
        env={**os.environ, "TIMELAYERS_NATIVE": "off"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("computing with NumPy alone") and "TIMELAYERS_NATIVE" in line
    machine = json.loads((tmp_path / "r" / "config.json").read_text())["machine"]
    assert not machine["compiled"] and "TIMELAYERS_NATIVE" in machine["reason"]
