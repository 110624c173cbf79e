"""Language models: which layers, in which order, which weights are tied."""

from models.better_rnnlm import BetterRnnlm
from models.rnnlm import Rnnlm
from models.simple_rnnlm import SimpleRnnlm

__all__ = ["BetterRnnlm", "Rnnlm", "SimpleRnnlm"]
