"""Gradient clipping, measures, and copies between CPU and GPU under the names of the book."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from common.np import GPU, Array, np, to_cpu, to_gpu
from common.optimizer import clip_grads, clip_grads_value
from common.perplexity.protocols import eval_perplexity, eval_perplexity_exact, evaluation

__all__ = [
    "GPU",
    "clip_grads",
    "clip_grads_value",
    "eval_perplexity",
    "eval_perplexity_exact",
    "eval_seq2seq",
    "evaluation",
    "np",
    "to_cpu",
    "to_gpu",
]


def eval_seq2seq(
    model: Any,
    question: Array,
    correct: Array,
    id_to_char: Mapping[int, str],
    verbose: bool = False,
    is_reverse: bool = False,
) -> int:
    """1 where the model's answer to one question is right in every character, else 0.

    Args:
        model: has ``generate(question, start_id, length)``, which returns ``length`` ids.
        question: ids (1, T).
        correct: ids (1, 1 + length) of the answer, behind the id that starts it.
        id_to_char: the character of each id.
        verbose: print question, answer and guess; what the screen cannot show by its number.
        is_reverse: whether the question's ids stand from right to left; printed the other way.
    """
    start_id, *answer = map(int, to_cpu(correct).reshape(-1))
    guess = [int(i) for i in model.generate(question, start_id, len(answer))]
    is_right = guess == answer
    if verbose:
        asked = map(int, to_cpu(question).reshape(-1)[:: -1 if is_reverse else 1])
        for mark, ids in (("Q", asked), ("T", answer), (_mark(is_right), guess)):
            text = "".join(id_to_char[i] for i in ids)
            print(mark, text.encode(_encoding(), "backslashreplace").decode(_encoding()))
        print("---")
    return int(is_right)


def _mark(is_right: bool) -> str:
    """A ticked or a crossed box; O or X where the screen has no such character."""
    mark, plain = ("☑", "O") if is_right else ("☒", "X")
    return plain if mark.encode(_encoding(), "replace") == b"?" else mark


def _encoding() -> str:
    """That of the screen; where it has none, as a text in memory, it takes everything."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"
