"""Language models: which layers, in which order, which weights are tied."""

from models.awd_rnnlm import AwdRnnlm
from models.better_rnnlm import BetterRnnlm
from models.rnnlm import Rnnlm
from models.simple_rnnlm import SimpleRnnlm

__all__ = ["AwdRnnlm", "BetterRnnlm", "Rnnlm", "SimpleRnnlm"]
