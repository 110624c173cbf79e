"""Gradient clipping, perplexity, and copies between CPU and GPU under the names of the book."""

from common.np import np, to_cpu, to_gpu
from common.optimizer import clip_grads, clip_grads_value
from common.perplexity.protocols import eval_perplexity, eval_perplexity_exact, evaluation

__all__ = [
    "clip_grads",
    "clip_grads_value",
    "eval_perplexity",
    "eval_perplexity_exact",
    "evaluation",
    "np",
    "to_cpu",
    "to_gpu",
]
