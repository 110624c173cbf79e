"""What the host asks of a GPU: launches, waits and uploads, counted by the double of CuPy.

A launch costs the host some microseconds, so a step of a thousand is one of milliseconds whatever
the device can do; a wait lets the device run dry.
"""

import numpy
import pytest

from common.optimizer import SGD
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from models import AwdRnnlm, BetterRnnlm, Rnnlm
from tests.cupy_double import counters

N, T, V = 20, 35, 50  # batch and steps as in the README; widths and vocabulary change no count

MODELS = {
    "Rnnlm": lambda: Rnnlm(V, 8, 8, rng=1),
    "Rnnlm sparse": lambda: Rnnlm(V, 8, 8, rng=1, sparse=True),
    "BetterRnnlm": lambda: BetterRnnlm(V, 8, 8, 0.5, rng=1),
    "AwdRnnlm": lambda: AwdRnnlm(V, 8, 12, 3, rng=1),
    "adaptive": lambda: AwdRnnlm(V, 8, 12, 3, rng=1, cutoffs=(10, 25)),
}
# At most so many launches, waits and uploads. To lower one is progress.
BOUNDS = {
    ("step", "Rnnlm"): (31, 0, 0),
    ("step", "Rnnlm sparse"): (45, 0, 0),
    ("step", "BetterRnnlm"): (53, 0, 0),
    ("step", "AwdRnnlm"): (111, 0, 0),
    ("500 tokens", "Rnnlm"): (11, 0, 0),
    ("500 tokens", "BetterRnnlm"): (15, 0, 0),
    ("500 tokens", "AwdRnnlm"): (19, 0, 0),
    ("token", "Rnnlm"): (7, 1, 0),
    ("token", "BetterRnnlm"): (11, 1, 0),
    ("token", "AwdRnnlm"): (15, 1, 0),
    # The rows of each cluster are looked up on the host, and go over.
    ("step", "adaptive"): (168, 0, 12),
    ("500 tokens", "adaptive"): (40, 0, 11),
    ("token", "adaptive"): (47, 1, 3),
}


def ids(length):
    return numpy.random.default_rng(1).integers(0, V, length, dtype="int32")


def train(model, steps):
    corpus = ids(N * T * steps + 1)
    trainer = RnnlmTrainer(model, SGD(1.0), lambda record: None, numpy.random.default_rng(1))
    trainer.fit(corpus[:-1], corpus[1:], 1, N, T, max_grad=0.25, eval_interval=1000)


# Each twice, of different lengths: what the longer one asks for more is what one piece costs.
WORK = {
    "step": (train, 2, 3, 1),
    "500 tokens": (lambda model, n: eval_perplexity_exact(model, ids(n), 0), 500, 1000, 1),
    "token": (lambda model, n: model.generate([1], n, rng=1), 3, 8, 5),
}


def counted(work, model):
    """Launches, waits and uploads of one piece, and which lines asked for them."""
    run, short, long, pieces = WORK[work]
    run(model, short)  # what is made once in a process, such as the counters of a window
    totals, kinds = [], ("launch", "wait", "upload")
    run(model, short)  # what is asked for once in a process
    for length in (short, long):
        counters.clear()
        run(model, length)
        totals.append([counters.total(kind) for kind in kinds])
    found = [(more - less) / pieces for less, more in zip(*totals, strict=True)]
    return found, counters.report()


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("work", "name"), BOUNDS)
def test_no_more_is_asked_of_a_device_than_the_table_says(work, name):
    found, report = counted(work, MODELS[name]())
    for kind, number, bound in zip(
        ("launches", "waits", "uploads"), found, BOUNDS[work, name], strict=True
    ):
        assert number <= bound, f"{work} of {name}: {number} {kind}, {bound} at most\n{report}"


def test_a_text_goes_over_once_and_its_perplexity_comes_back_once(waits):
    model = Rnnlm(V, 8, 8, rng=1)
    counters.clear()
    eval_perplexity_exact(model, ids(1200), 0)
    assert waits == ["float"]
    assert counters.total("upload") == 2  # inputs and targets


def test_an_epoch_uploads_its_ids_and_waits_for_its_reports(waits):
    model = BetterRnnlm(V, 8, 8, 0.5, rng=1)
    counters.clear()
    train(model, 4)
    assert waits == ["float"] * 2  # after the first iteration and at the end of the epoch
    assert dict(counters.transferred) == {"up": 2 * 4 * N * T * 4, "down": 2 * 8}


def test_a_line_that_waits_in_every_step_would_be_seen(waits, monkeypatch):
    step = SGD._step

    def wait(self, param, grad):
        step(self, param, grad)
        float(grad.sum())

    monkeypatch.setattr(SGD, "_step", wait)
    (_, number, _), report = counted("step", Rnnlm(V, 8, 8, rng=1))
    assert number == 1
    assert "wait     float          tests/common/test_gpu_counts.py" in report
    assert waits
