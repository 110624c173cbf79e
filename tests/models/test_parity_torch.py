"""A whole training step of both models, two windows long, beside the same in PyTorch."""

import numpy as np
import pytest

from common.base_layer import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.optimizer import SGD, UniqueParameters
from common.util import clip_grads
from models import BetterRnnlm, Rnnlm
from tests.builders import close, generator, ids

torch = pytest.importorskip("torch", reason="parity needs PyTorch; install 'time-layers[bench]'")
torch.set_num_threads(1)  # for arrays this small, threads only wait for each other

TOLERANCE = 1e-5
V, D, N, T = 60, 16, 4, 9
LEARNING_RATE, MAX_GRAD = 10.0, 0.1


def to_torch(weight):
    """A weight (·, 4H) of an LSTM as PyTorch has it: (4H, ·), gates in the order i, f, g, o."""
    return torch.tensor(np.ascontiguousarray(reorder_gates(weight, LSTM_GATES, TORCH_LSTM_GATES).T))


def from_torch(weight):
    return reorder_gates(weight.detach().numpy().T, TORCH_LSTM_GATES, LSTM_GATES)


class InTorch(torch.nn.Module):
    """Embedding, LSTM layers and an output layer with the weights of one of our models."""

    def __init__(self, named, lstms, tied):
        super().__init__()
        self.lstm_names = lstms
        self.embedding = torch.nn.Embedding(V, D)
        self.lstms = torch.nn.ModuleList(torch.nn.LSTM(D, D, batch_first=True) for _ in lstms)
        self.output = torch.nn.Linear(D, V)
        with torch.no_grad():
            self.embedding.weight.copy_(torch.tensor(named["embedding.W"]))
            for name, lstm in zip(lstms, self.lstms, strict=True):
                lstm.weight_ih_l0.copy_(to_torch(named[f"{name}.Wx"]))
                lstm.weight_hh_l0.copy_(to_torch(named[f"{name}.Wh"]))
                lstm.bias_ih_l0.copy_(to_torch(named[f"{name}.b"]))
                lstm.bias_hh_l0.zero_()
            self.output.bias.copy_(torch.tensor(named["affine.b"]))
            if not tied:
                self.output.weight.copy_(torch.tensor(named["affine.W"].T))
        if tied:
            self.output.weight = self.embedding.weight
        for lstm in self.lstms:
            lstm.bias_hh_l0.requires_grad_(False)  # we have one bias, PyTorch adds up two
        self.states = [None] * len(lstms)

    def forward(self, xs):
        hs = self.embedding(xs)
        for k, lstm in enumerate(self.lstms):
            hs, state = lstm(hs, self.states[k])
            self.states[k] = tuple(array.detach() for array in state)  # truncated here
        return self.output(hs)

    def named(self):
        """The weights under our names and in our layout."""
        weights = {"embedding.W": self.embedding.weight.detach().numpy()}
        for name, lstm in zip(self.lstm_names, self.lstms, strict=True):
            weights[f"{name}.Wx"] = from_torch(lstm.weight_ih_l0)
            weights[f"{name}.Wh"] = from_torch(lstm.weight_hh_l0)
            weights[f"{name}.b"] = from_torch(lstm.bias_ih_l0)
        if self.output.weight is not self.embedding.weight:
            weights["affine.W"] = self.output.weight.detach().numpy().T
        weights["affine.b"] = self.output.bias.detach().numpy()
        return weights


MODELS = {
    "Rnnlm": lambda: (Rnnlm(V, D, D, rng=1), ["lstm"], False),
    "BetterRnnlm": lambda: (BetterRnnlm(V, D, D, 0.0, rng=1), ["lstm1", "lstm2"], True),
}


@pytest.mark.parametrize("name", MODELS)
def test_two_windows_of_training_end_at_the_weights_of_pytorch(name):
    model, lstms, tied = MODELS[name]()
    for param in model.params:  # the embedding begins near zero, where errors could hide
        param[...] = 0.3 * generator(3).standard_normal(param.shape)
    twin = InTorch(model.named_params(), lstms, tied)
    trained = [p for p in twin.parameters() if p.requires_grad]
    torch_optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE)
    parameters, optimizer = UniqueParameters(model.params, model.grads), SGD(LEARNING_RATE)
    start = {key: param.copy() for key, param in model.named_params().items()}
    rng = generator(2)
    for _ in range(2):
        xs, ts = ids(rng, V, N, T), ids(rng, V, N, T)

        loss = model.forward(xs, ts)
        model.backward()
        parameters.add_tied()
        norm = clip_grads(parameters.grads, MAX_GRAD)
        optimizer.update(parameters.params, parameters.grads)

        torch_optimizer.zero_grad()
        torch_loss = torch.nn.functional.cross_entropy(
            twin(torch.tensor(xs)).reshape(-1, V), torch.tensor(ts).reshape(-1)
        )
        torch_loss.backward()
        torch_norm = torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD)
        torch_optimizer.step()

        assert float(loss) == pytest.approx(float(torch_loss.detach()), rel=TOLERANCE)
        assert float(norm) == pytest.approx(float(torch_norm), rel=TOLERANCE)
        assert float(norm) > MAX_GRAD  # so that clipping has been compared, too
        theirs = twin.named()
        assert list(theirs) == list(model.named_params())
        for key, param in model.named_params().items():
            close(param, theirs[key], TOLERANCE)
    for key, param in model.named_params().items():
        assert abs(param - start[key]).max() > 1e-3
