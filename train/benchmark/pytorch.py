"""PyTorch's side, with every setting that may make it faster tried before it is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from common.batches import windows
from torch import Tensor, nn
from torch.nn import functional as F

from train.benchmark.ids import Ids, training_chunk
from train.benchmark.works import Sizes

__all__ = ["Network", "Settings", "Side", "make_product"]

State = Any  # h, or (h, c) for an LSTM; None before the first window


@dataclass(frozen=True)
class Settings:
    """What a user can choose without changing the result; the defaults are PyTorch's own."""

    threads: int
    """Of the pool that works inside an operation."""
    time_major: bool = True
    """Windows (T, N), not (N, T)."""
    onednn: bool = True
    """nn.LSTM by oneDNN, all steps in one call, not by PyTorch's own loop over the steps."""
    sgd: str = "single"
    """Which of its three ways optim.SGD updates: one parameter at a time, fused, or foreach."""
    clip_foreach: bool = False
    """clip_grad_norm_ over lists of gradients, not one at a time."""
    window: int = 500
    """Steps at once where the exact protocol is read."""
    cells: bool = False
    """Generate with nn.LSTMCell or nn.GRUCell in place of windows of one step."""


class Network(nn.Module):
    """The model of these sizes in PyTorch's own layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        V, D, H, L, p = sizes.V, sizes.D, sizes.H, sizes.L, sizes.dropout
        recurrent, cell = (nn.LSTM, nn.LSTMCell) if sizes.cell == "LSTM" else (nn.GRU, nn.GRUCell)
        self.embedding = nn.Embedding(V, D)
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.dropout = nn.Dropout(p)
        self.rnn = recurrent(D, H, L, dropout=p if L > 1 else 0.0)
        self.output = nn.Linear(H, V)
        if sizes.model == "BetterRnnlm":
            self.output.weight = self.embedding.weight
        self.cells = [cell(D if k == 0 else H, H) for k in range(L)]  # a list: not saved twice
        for k, layer in enumerate(self.cells):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(layer, name, getattr(self.rnn, f"{name}_l{k}"))

    def forward(self, xs: Tensor, state: State) -> tuple[Tensor, State]:
        """Ids (T, N), or (N, T) if batch_first, -> scores (T N, V) in that order, the state."""
        hs, state = self.rnn(self.dropout(self.embedding(xs)), state)
        return self.output(self.dropout(hs)).flatten(0, 1), state

    def one_step(self, x: Tensor, states: Sequence[State]) -> tuple[Tensor, list[State]]:
        """Ids (N,) -> scores (N, V), the states of the cells."""
        h = self.embedding(x)
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            after.append(cell(h, state))
            h = after[-1][0] if isinstance(after[-1], tuple) else after[-1]
        return self.output(h), after


class Side:
    """Trains, evaluates and generates as PyTorch's own examples do."""

    def __init__(self, sizes: Sizes, ids: Ids, threads: int) -> None:
        torch.manual_seed(1)
        self.sizes = sizes
        self.max_threads = threads
        self.train_ids = ids.train
        self.test_ids = torch.from_numpy(ids.test).long()
        self.first_id = ids.first_id
        self.network = Network(sizes)
        self.parameters = list(self.network.parameters())
        self.chunks_read = 0
        self.apply(Settings(threads))

    def apply(self, settings: Settings) -> None:
        """Use these settings from now on."""
        self.settings = settings
        torch.set_num_threads(settings.threads)
        torch.backends.mkldnn.set_flags(settings.onednn)
        self.network.rnn.batch_first = not settings.time_major
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=1.0,
            fused=settings.sgd == "fused",
            foreach=settings.sgd == "foreach",
        )

    def tune(self, kind: str, count: int, tries: int) -> dict[str, Any]:
        """Try the settings that matter for ``kind``, one after the other; keep what is faster.

        Args:
            kind: the name of the method that does the work.
            count: steps or tokens in one try.
            tries: how often each is tried; the fastest counts.

        Returns:
            The choices made.
        """
        choices = self._choices(kind)
        best = self._seconds(kind, count, tries)
        for name, values in choices.items():
            for value in values:
                kept = self.settings
                if value == getattr(kept, name):
                    continue
                self.apply(replace(kept, **{name: value}))
                seconds = self._seconds(kind, count, tries)
                if seconds < best:
                    best = seconds
                else:
                    self.apply(kept)
        return {name: getattr(self.settings, name) for name in choices}

    def _choices(self, kind: str) -> dict[str, Sequence[Any]]:
        both = (True, False)
        threads = sorted({max(1, self.max_threads >> k) for k in range(8)}, reverse=True)
        choices: dict[str, Sequence[Any]] = {"threads": threads}
        if self.sizes.cell == "LSTM":  # there is no other way for a GRU
            choices["onednn"] = both
        if kind == "step":
            layout = {"time_major": both}
            return choices | layout | {"sgd": ("single", "fused", "foreach"), "clip_foreach": both}
        if kind == "generation":
            return choices | {"cells": both}
        return choices | ({"window": (500, 100)} if kind == "exact" else {"time_major": both})

    def _seconds(self, kind: str, count: int, tries: int) -> float:
        work = getattr(self, kind)
        work(count)
        seconds = []
        for _ in range(tries):
            start = time.perf_counter()
            work(count)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def loss(self, xs: Tensor, ts: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Mean loss of ids and targets, both (N, T), and the state after them."""
        if self.settings.time_major:
            xs, ts = xs.t(), ts.t()
        scores, state = self.network(xs, state)
        return F.cross_entropy(scores, ts.flatten()), state

    def step(self, count: int) -> float:
        """Train on the next ``count`` windows, the state carried from each to the next."""
        N, T = self.sizes.N, self.sizes.T
        chunk = torch.from_numpy(
            training_chunk(self.train_ids, self.chunks_read, N * T * count)
        ).long()
        self.chunks_read += 1
        xs, ts = chunk[:-1].view(N, T * count), chunk[1:].view(N, T * count)
        self.network.train()
        state = None
        total = torch.zeros(())
        for window in windows(T * count, T):
            self.optimizer.zero_grad(set_to_none=True)
            loss, state = self.loss(xs[:, window], ts[:, window], state)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 0.25, foreach=self.settings.clip_foreach)
            self.optimizer.step()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            total += loss.detach()
        return total.item() / count

    def exact(self, count: int) -> float:
        """Perplexity of the first ``count`` tokens of the test text, batch 1."""
        ts = self.test_ids[None, :count]
        xs = torch.cat([torch.tensor([[self.first_id]]), ts[:, :-1]], dim=1)
        return self._perplexity(xs, ts, self.settings.window)

    def book_protocol(self, count: int) -> float:
        """Perplexity of ``count`` targets, batch 10."""
        text = self.test_ids[: count + 1]
        return self._perplexity(text[:-1].view(10, -1), text[1:].view(10, -1), 35)

    @torch.inference_mode()
    def _perplexity(self, xs: Tensor, ts: Tensor, time_size: int) -> float:
        self.network.eval()
        state = None
        total = 0.0
        for window in windows(ts.shape[1], time_size):
            loss, state = self.loss(xs[:, window], ts[:, window], state)
            total += loss.item() * ts[:, window].numel()
        return math.exp(total / ts.numel())

    @torch.inference_mode()
    def generation(self, count: int) -> list[int]:
        """``count`` tokens after the first, one at a time, temperature 1."""
        self.network.eval()
        x = torch.tensor([self.first_id])
        chosen = [x]
        state: State = [None] * self.sizes.L if self.settings.cells else None
        for _ in range(count):
            if self.settings.cells:
                scores, state = self.network.one_step(x, state)
            else:
                scores, state = self.network(x[None], state)
            temperature = 1.0
            p = torch.softmax(scores / temperature, dim=1)
            x = torch.multinomial(p, 1).flatten()
            chosen.append(x)
        return torch.cat(chosen).tolist()


def make_product(M: int, K: int, N: int) -> Callable[[], object]:
    """A float32 product of these sizes, into memory that is there already."""
    a, b, out = torch.randn(M, K), torch.randn(K, N), torch.empty(M, N)
    return lambda: torch.mm(a, b, out=out)
