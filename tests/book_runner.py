"""Run one script of the book in its folder, shortened and without chance, and keep its losses.

python -P book_runner.py SCRIPT LOSSES, in the folder of the script; ``common`` and ``dataset`` are
what PYTHONPATH leads to. It must not import anything of this project by itself.
"""

import json
import os
import re
import sys
from pathlib import Path

import numpy

LOSSES = []


class SameOrder(numpy.random.Generator):
    """A generator that shuffles nothing."""

    def permutation(self, x, axis=0):
        return numpy.arange(x)


def without_chance():
    """Seed what draws weights and words; let every epoch have its examples in order."""
    choice = numpy.random.choice
    numpy.random.seed(7)  # noqa: NPY002 (the scripts draw from it)
    numpy.random.permutation = lambda x: x
    numpy.random.default_rng = lambda seed=None: SameOrder(numpy.random.PCG64(7))
    # One draw as a number: int() of an array with one element is an error since NumPy 2.4.
    numpy.random.choice = lambda a, size, p: choice(a, size, p=p)[0]


def watch(time_layers):
    """Drop nothing, and keep every loss."""
    dropout, loss_layer = time_layers.TimeDropout, time_layers.TimeSoftmaxWithLoss
    build, forward = dropout.__init__, loss_layer.forward

    def keep(self, xs, ts):
        loss = forward(self, xs, ts)
        LOSSES.append(float(loss))
        return loss

    dropout.__init__ = lambda self, dropout_ratio=0.5: build(self, 0.0)
    loss_layer.forward = keep


def as_in_the_book(adam):
    """Let ``Adam`` add 1e-7 to the root of the uncorrected mean of squares, the one other way."""
    update = adam.update

    def update_with_its_eps(self, params, grads):
        self.eps = 1e-7 / (1 - self.beta2 ** (self.iter + 1)) ** 0.5
        update(self, params, grads)

    adam.update = update_with_its_eps


def main(script, losses):
    sys.path.insert(0, os.getcwd())
    without_chance()
    from common import optimizer, time_layers

    print(time_layers.__file__, file=sys.stderr)
    watch(time_layers)
    as_in_the_book(optimizer.Adam)  # which the book's own code does not notice
    source = Path(script).read_text(encoding="utf-8")
    source = re.sub(r"^max_epoch = \d+", "max_epoch = 1", source, flags=re.MULTILINE)
    exec(compile(source, script, "exec"), {"__name__": "__main__", "__file__": script})
    Path(losses).write_text(json.dumps(LOSSES), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
