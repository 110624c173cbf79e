"""The side of PyTorch. Every setting that may make it faster is tried before it is measured."""

from __future__ import annotations

import math
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.benchmark.workloads import Sizes, TokenIds, training_chunk

__all__ = ["Network", "Settings", "Side", "make_product"]

State = Any  # h, or (h, c) for an LSTM; None before the first window
MANY_WORDS = 20_000  # from here on the gradient of an embedding costs more than what is in it


@dataclass(frozen=True)
class Settings:
    """Settings that do not change the result; the defaults are PyTorch's own."""

    threads: int
    """Threads inside an operation."""
    time_major: bool = True
    """Windows (T, N) instead of (N, T)."""
    onednn: bool = True
    """nn.LSTM by oneDNN, all steps in one call, instead of PyTorch's own loop over the steps."""
    sgd: str = "single"
    """Implementation of optim.SGD: "single" (one parameter at a time), "fused" or "foreach"."""
    clip_foreach: bool = False
    """clip_grad_norm_ over lists of gradients instead of one at a time."""
    sparse: bool = False
    """The gradient of nn.Embedding as rows; optim.SGD takes it, clip_grad_norm_ does not."""
    window: int = 500
    """Steps per forward pass in the exact protocol."""
    cells: bool = False
    """Generate with nn.LSTMCell or nn.GRUCell instead of windows of one step."""


class TiedEmbedding(nn.Module):
    """The vectors of words by the weights of an adaptive softmax (Baevski and Auli 2019)."""

    def __init__(self, output: nn.AdaptiveLogSoftmaxWithLoss) -> None:
        super().__init__()
        self.output = output

    def forward(self, xs: Tensor) -> Tensor:
        """Ids of any shape (...) -> (..., D)."""
        ids = xs.flatten()
        rows, vectors = [], []
        for k, (begin, end) in enumerate(pairwise([0, *self.output.cutoffs])):
            rows.append(((ids >= begin) & (ids < end)).nonzero().flatten())
            words = ids[rows[k]] - begin
            if k == 0:
                vectors.append(F.embedding(words, self.output.head.weight))
            else:
                projection, table = self.output.tail[k - 1]
                vectors.append(F.embedding(words, table.weight) @ projection.weight)
        parts = torch.cat(vectors)
        return torch.empty_like(parts).index_copy(0, torch.cat(rows), parts).view(*xs.shape, -1)


class Network(nn.Module):
    """The model of these sizes, built from PyTorch's own layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        V, D, H, L, p = sizes.V, sizes.D, sizes.H, sizes.L, sizes.dropout
        recurrent, cell = (nn.LSTM, nn.LSTMCell) if sizes.cell == "LSTM" else (nn.GRU, nn.GRUCell)
        if sizes.cutoffs:
            self.output = nn.AdaptiveLogSoftmaxWithLoss(H, V, list(sizes.cutoffs), head_bias=True)
        else:
            self.output = nn.Linear(H, V)
        if sizes.tied:
            self.embedding = TiedEmbedding(self.output)
        else:
            self.embedding = nn.Embedding(V, D)
            nn.init.normal_(self.embedding.weight, std=0.01)
        self.dropout = nn.Dropout(p)
        self.rnn = recurrent(D, H, L, dropout=p if L > 1 else 0.0)
        if sizes.model == "BetterRnnlm":
            self.output.weight = self.embedding.weight
        self.cells = [cell(D if k == 0 else H, H) for k in range(L)]  # a plain list: no submodules
        for k, layer in enumerate(self.cells):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(layer, name, getattr(self.rnn, f"{name}_l{k}"))

    def forward(self, xs: Tensor, state: State) -> tuple[Tensor, State]:
        """Ids (T, N), or (N, T) if batch_first -> scores (T N, V) in that order, state."""
        hs, state = self.hidden(xs, state)
        return self.output(hs), state

    def hidden(self, xs: Tensor, state: State) -> tuple[Tensor, State]:
        """The same ids -> what the output layer reads (T N, H), state."""
        hs, state = self.rnn(self.dropout(self.embedding(xs)), state)
        return self.dropout(hs).flatten(0, 1), state

    def one_step(self, x: Tensor, states: Sequence[State]) -> tuple[Tensor, list[State]]:
        """Ids (N,) -> scores (N, V), states of the cells."""
        h = self.embedding(x)
        new_states = []
        for cell, state in zip(self.cells, states, strict=True):
            new_states.append(cell(h, state))
            h = new_states[-1][0] if isinstance(new_states[-1], tuple) else new_states[-1]
        return self.output(h), new_states


class Side:
    """Trains, evaluates and generates as PyTorch's own examples do."""

    def __init__(self, sizes: Sizes, ids: TokenIds, threads: int) -> None:
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
        """Switch to these settings."""
        self.settings = settings
        torch.set_num_threads(settings.threads)
        torch.backends.mkldnn.set_flags(settings.onednn)
        self.network.rnn.batch_first = not settings.time_major
        self.network.embedding.sparse = settings.sparse
        sgd = "single" if settings.sparse else settings.sgd
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=1.0, fused=sgd == "fused", foreach=sgd == "foreach"
        )

    def tune(self, kind: str, count: int, tries: int) -> dict[str, Any]:
        """Try the settings that matter for ``kind``, one after the other, and keep what is faster.

        Args:
            kind: the name of the method that does the work.
            count: steps or tokens in one try.
            tries: tries of each setting; the fastest counts.

        Returns:
            The settings chosen.
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
        if self.sizes.cell == "LSTM":  # oneDNN is not an option for a GRU
            choices["onednn"] = both
        if self.sizes.V >= MANY_WORDS and not self.sizes.tied:
            choices["sparse"] = both
        if kind == "step":
            layout = {"time_major": both}
            return choices | layout | {"sgd": ("single", "fused", "foreach"), "clip_foreach": both}
        if kind == "generation":
            return choices | {"cells": both}
        return choices | ({"window": (500, 100)} if kind == "exact" else {"time_major": both})

    def _seconds(self, kind: str, count: int, tries: int) -> float:
        work = getattr(self, kind)
        work(count)
        return min(timeit.repeat(lambda: work(count), repeat=tries, number=1))

    def loss(self, xs: Tensor, ts: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Mean loss of ids and targets, both (N, T), and the new state."""
        if self.settings.time_major:
            xs, ts = xs.t(), ts.t()
        hs, state = self.network.hidden(xs, state)
        if self.sizes.cutoffs:
            return self.network.output(hs, ts.flatten()).loss, state
        return F.cross_entropy(self.network.output(hs), ts.flatten()), state

    def step(self, count: int) -> float:
        """Train on the next ``count`` windows; the state is carried from window to window."""
        N, T = self.sizes.N, self.sizes.T
        chunk = torch.from_numpy(
            training_chunk(self.train_ids, self.chunks_read, N * T * count)
        ).long()
        self.chunks_read += 1
        xs, ts = chunk[:-1].view(N, T * count), chunk[1:].view(N, T * count)
        self.network.train()
        state = None
        total = torch.zeros(())
        for x, t in zip(xs.split(T, dim=1), ts.split(T, dim=1), strict=True):
            self.optimizer.zero_grad(set_to_none=True)
            loss, state = self.loss(x, t, state)
            loss.backward()
            self._clip(0.25)
            self.optimizer.step()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            total += loss.detach()
        return total.item() / count

    def _clip(self, max_norm: float) -> None:
        """Scale all gradients so that their global norm is at most ``max_norm``."""
        if not self.settings.sparse:
            foreach = self.settings.clip_foreach
            nn.utils.clip_grad_norm_(self.parameters, max_norm, foreach=foreach)
            return
        table = self.network.embedding.weight
        table.grad = table.grad.coalesce()
        read = [p for p in self.parameters if p.grad is not None]  # a cluster may be no target
        grads = [p.grad.values() if p is table else p.grad for p in read]
        norm = torch.stack([torch.linalg.vector_norm(grad) for grad in grads]).norm()
        rate = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(rate)

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
        for x, t in zip(xs.split(time_size, dim=1), ts.split(time_size, dim=1), strict=True):
            loss, state = self.loss(x, t, state)
            total += loss.item() * t.numel()
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
    """A function that multiplies float32 (M, K) by (K, N) into memory allocated once."""
    a, b, out = torch.randn(M, K), torch.randn(K, N), torch.empty(M, N)
    return lambda: torch.mm(a, b, out=out)
