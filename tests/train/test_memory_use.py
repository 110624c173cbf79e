"""A long run needs no more memory at its end than at its beginning.

TIMELAYERS_ITERATIONS=10000 pytest tests/train/test_memory_use.py -s    # instead of 1,000
"""

import os
from pathlib import Path

import pytest

from tests.train.processes import TEXT
from train import better_rnnlm
from train.run.language_model import Training

ITERATIONS = int(os.environ.get("TIMELAYERS_ITERATIONS", "1000"))
STATUS = Path("/proc/self/status")


def resident_megabytes():
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the memory in use in /proc")
def test_memory_does_not_grow_with_the_iterations(tmp_path, monkeypatch, capsys):
    text_file = tmp_path / "cats.txt"
    text_file.write_text(TEXT, encoding="utf-8")
    first, last, seen = ITERATIONS // 10, ITERATIONS, []
    between_iterations = Training._between_iterations

    def watched(training, trainer):
        between_iterations(training, trainer)
        if trainer.iteration % 10 == 0:
            training.save()
        if trainer.iteration in (first, last):
            seen.append(resident_megabytes())

    monkeypatch.setattr(Training, "_between_iterations", watched)
    sizes = {"wordvec_size": 32, "hidden_size": 32, "batch_size": 4, "time_size": 7}
    often = {"epochs": -(-ITERATIONS // 62), "checkpoint_every": 0}  # an epoch: 62 windows
    options = {"corpus": str(text_file), "out": tmp_path / "run", "lr": 0.5, "lr_decay": 1.0}
    better_rnnlm.main(better_rnnlm.Options(**options, **sizes, **often))
    with capsys.disabled():
        print(f"\n{seen[0]:.1f} MB after {first}, {seen[1]:.1f} MB after {last} iterations")
    assert seen[1] < seen[0] + 5
