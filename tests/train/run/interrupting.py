"""Ways to break a run off, or to look at it, between two iterations or in the midst of one."""

import importlib

from common.trainer import RnnlmTrainer


class Broken(BaseException):
    """Stands for a process that is gone."""


def break_at(monkeypatch, where, call):
    """Let the given call of a function, named with its module or class, raise instead."""
    owner, _, name = where.rpartition(".")
    target = RnnlmTrainer if owner == "RnnlmTrainer" else importlib.import_module(owner)
    original, calls = getattr(target, name), []

    def broken(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Broken
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, broken)


def after_iterations(monkeypatch, look):
    """Call ``look(trainer)`` after each iteration, when the run has saved and validated."""
    iterations = RnnlmTrainer.iterations

    def watched(trainer, *arguments, **options):
        for record in iterations(trainer, *arguments, **options):
            yield record
            look(trainer)

    monkeypatch.setattr(RnnlmTrainer, "iterations", watched)
