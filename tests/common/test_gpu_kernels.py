"""Models in float32 on a GPU, by the CUDA kernels: they learn what they learn on the CPU."""

import numpy
import pytest

from common import config
from common.kernels import device
from common.np import to_cpu
from common.optimizer import SGD
from common.perplexity.protocols import eval_perplexity_exact
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm, Rnnlm

N, T, V = 4, 7, 23

MODELS = {
    "Rnnlm": lambda: Rnnlm(V, 9, 13, rng=1),
    "Rnnlm with GRU": lambda: Rnnlm(V, 9, 13, rng=1, cell="gru"),
    "Rnnlm with RNN": lambda: Rnnlm(V, 9, 13, rng=1, cell="rnn"),
    "BetterRnnlm": lambda: BetterRnnlm(V, 13, 13, 0.4, rng=1),
    "AwdRnnlm": lambda: AwdRnnlm(V, 9, 13, 3, rng=1),
}


def learned(model):
    """Parameters after some windows, and the perplexity of a text that is not a whole window."""
    corpus = numpy.random.default_rng(1).integers(0, V, 3 * N * T + 5, dtype="int32")
    trainer = RnnlmTrainer(model, SGD(1.0), lambda record: None, numpy.random.default_rng(1))
    trainer.fit(corpus[:-1], corpus[1:], 2, N, T, max_grad=0.25, eval_interval=None)
    return [to_cpu(param) for param in model.params], eval_perplexity_exact(model, corpus[:40], 0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("memory", ["enough", "none"])
def test_a_model_learns_there_what_it_learns_here(name, memory, monkeypatch):
    monkeypatch.setattr(config, "GPU", True)
    monkeypatch.setattr(device, "_chosen", {})
    if memory == "none":  # each step of a window is a product and a kernel
        monkeypatch.setattr(device, "_attributes", lambda device_class, number: (4, 0))
    device._window_kernel.cache_clear()
    there, perplexity = learned(MODELS[name]())
    chosen = device.choices()
    cell = {"Rnnlm with GRU": "GRU", "Rnnlm with RNN": "RNN"}.get(name, "LSTM")
    how = "a window in one launch" if memory == "enough" and cell != "RNN" else "a kernel a step"
    for way in ("forward", "backward"):
        assert chosen[f"{cell} {way}"].startswith(how)
    assert all(word.startswith("a ") for word in chosen.values())  # nothing was left to CuPy
    monkeypatch.setattr(config, "GPU", False)
    here, expected = learned(MODELS[name]())
    for on_device, on_cpu in zip(there, here, strict=True):
        numpy.testing.assert_allclose(on_device, on_cpu, rtol=2e-4, atol=2e-5)
    assert perplexity == pytest.approx(expected, rel=1e-4)
