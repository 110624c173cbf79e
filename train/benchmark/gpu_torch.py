"""The same training steps in PyTorch on a GPU: cuDNN's LSTM, by itself and as a CUDA graph."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.benchmark.gpu_steps import MAX_GRAD, GpuModel, words

__all__ = ["Graph", "Steps", "TorchEvents", "use_tf32"]

State = list[tuple[Tensor, Tensor]]


def use_tf32(wanted: bool) -> None:
    """Whether products of float32 may round their factors to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


class TorchEvents:
    """``Events`` of PyTorch's current stream."""

    def mark(self) -> Any:
        """An event, recorded."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, begin: Any, end: Any) -> float:
        """By the clock of the device."""
        end.synchronize()
        return begin.elapsed_time(end)


class Network(nn.Module):
    """Rnnlm, BetterRnnlm or AwdRnnlm from PyTorch's own layers, time first.

    AwdRnnlm as its authors wrote it (Merity et al. 2018): one nn.LSTM a layer, whose recurrent
    weight is dropped before each window, and one mask for all steps.
    """

    def __init__(self, model: GpuModel) -> None:
        super().__init__()
        self.model = model
        self.is_awd = model.name == "AwdRnnlm"
        V, D, H, L = model.V, model.D, model.H, model.L
        self.embedding = nn.Embedding(V, D)
        nn.init.normal_(self.embedding.weight, std=0.01)
        if self.is_awd:
            widths = [D] + [H] * (L - 1) + [D]
            self.lstms = nn.ModuleList(nn.LSTM(*pair) for pair in itertools.pairwise(widths))
        else:
            p = model.dropout if model.name == "BetterRnnlm" else 0.0
            self.dropout = nn.Dropout(p)
            self.lstms = nn.ModuleList([nn.LSTM(D, H, L, dropout=p if L > 1 else 0.0)])
        self.output = nn.Linear(D if self.is_awd else H, V)
        if model.name != "Rnnlm":
            self.output.weight = self.embedding.weight

    def first_state(self, device: str) -> State:
        """Zeros: h and c of each LSTM."""
        N = self.model.N
        return [
            tuple(torch.zeros(lstm.num_layers, N, lstm.hidden_size, device=device) for _ in "hc")
            for lstm in self.lstms
        ]

    def forward(self, xs: Tensor, ts: Tensor, state: State) -> tuple[Tensor, State]:
        """Ids (T, N), targets (T N,) -> the loss, the new state."""
        if self.is_awd:
            return self._awd(xs, ts, state)
        hs, last = self.lstms[0](self.dropout(self.embedding(xs)), state[0])
        scores = self.output(self.dropout(hs))
        return F.cross_entropy(scores.flatten(0, 1), ts), [last]

    def _awd(self, xs: Tensor, ts: Tensor, state: State) -> tuple[Tensor, State]:
        W = self.embedding.weight
        of_words = F.dropout(torch.ones(len(W), 1, device=W.device), 0.1)
        hs, lasts = _locked(F.embedding(xs, W * of_words), 0.4), []
        for k, (lstm, first) in enumerate(zip(self.lstms, state, strict=True)):
            hs = hs if k == 0 else _locked(hs, 0.25)
            dropped = {"weight_hh_l0": F.dropout(lstm.weight_hh_l0, 0.5)}
            hs, last = torch.func.functional_call(lstm, dropped, (hs, first))
            lasts.append(last)
        penalty = (hs[1:] - hs[:-1]).square().mean()
        hs = _locked(hs, 0.4)
        penalty = penalty + 2 * hs.square().mean()
        return F.cross_entropy(self.output(hs).flatten(0, 1), ts) + penalty, lasts


def _locked(xs: Tensor, p: float) -> Tensor:
    """Dropout of (T, N, D) with one mask for all steps."""
    return xs * F.dropout(torch.ones_like(xs[0]), p)


class Steps:
    """Trains the network, so many steps at a time; the text is on the device.

    Args:
        model: which, and its sizes.
        device: "cuda".
    """

    def __init__(self, model: GpuModel, device: str = "cuda") -> None:
        torch.manual_seed(1)
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
        self.model = model
        self.network = Network(model).to(device).train()
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=1.0, foreach=device == "cuda")
        self.state = self.network.first_state(device)
        ids = torch.from_numpy(words(model).astype(numpy.int64)).to(device)
        self.xs, self.ts = (part.view(model.N, -1).t().contiguous() for part in (ids[:-1], ids[1:]))
        self.at = 0

    def window(self) -> tuple[Tensor, Tensor]:
        """The next inputs (T, N) and targets (T N,)."""
        rows = slice(self.at, self.at + self.model.T)
        self.at = 0 if rows.stop + self.model.T > len(self.xs) else rows.stop
        return self.xs[rows], self.ts[rows].reshape(-1)

    def step(self, xs: Tensor, ts: Tensor) -> State:
        """Train on one window; the state after it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, state = self.network(xs, ts, self.state)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD, foreach=xs.is_cuda)
        self.optimizer.step()
        return [(h.detach(), c.detach()) for h, c in state]

    def __call__(self, count: int) -> None:
        """Train on the next ``count`` windows."""
        for _ in range(count):
            self.state = self.step(*self.window())


class Graph(Steps):
    """The same step, captured once and replayed: no launch costs the host anything.

    Raises:
        RuntimeError: where PyTorch cannot capture the step.
    """

    def __init__(self, model: GpuModel) -> None:
        super().__init__(model)
        self.inputs = tuple(part.clone() for part in self.window())
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._copy_state(self.step(*self.inputs))
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._copy_state(self.step(*self.inputs))

    def _copy_state(self, state: State) -> None:
        for olds, news in zip(self.state, state, strict=True):
            for old, new in zip(olds, news, strict=True):
                old.copy_(new)

    def __call__(self, count: int) -> None:
        """Replay on the next ``count`` windows."""
        for _ in range(count):
            for static, new in zip(self.inputs, self.window(), strict=True):
                static.copy_(new)
            self.graph.replay()
