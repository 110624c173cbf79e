"""Models: which layers, in which order, which weights are tied."""

from models.awd_rnnlm import AwdRnnlm
from models.better_rnnlm import BetterRnnlm
from models.rnnlm import Rnnlm
from models.seq2seq import AttentionSeq2seq, PeekySeq2seq, Seq2seq
from models.simple_rnnlm import SimpleRnnlm

__all__ = [
    "AttentionSeq2seq",
    "AwdRnnlm",
    "BetterRnnlm",
    "PeekySeq2seq",
    "Rnnlm",
    "Seq2seq",
    "SimpleRnnlm",
]
