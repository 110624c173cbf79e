"""The side of Time Layers: the library as its users call it."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from common.optimizer import SGD
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity, eval_perplexity_exact
from models import BetterRnnlm, Rnnlm
from models.ends import embedding_layer, loss_layer, output_layer, tied_output_layer
from models.language_model import LanguageModel, recurrent
from train.benchmark.workloads import Sizes, TokenIds, training_chunk

__all__ = ["Side", "build_model", "make_product"]


class AdaptiveRnnlm(LanguageModel):
    """Rnnlm with an adaptive softmax."""

    def __init__(self, sizes: Sizes, dtype: str) -> None:
        V, D, H, cutoffs = sizes.V, sizes.D, sizes.H, sizes.cutoffs
        rng = numpy.random.default_rng(1)
        embedding = embedding_layer(V, D, 0.01, rng, dtype, cutoffs=cutoffs if sizes.tied else ())
        lstm = recurrent(sizes.cell.lower(), D, H, rng, dtype)
        if sizes.tied:
            output = tied_output_layer(embedding)
        else:
            output = output_layer(H, V, rng, dtype, cutoffs)
        self.compose([embedding, lstm, output], loss_layer(output))


def build_model(sizes: Sizes, dtype: str = "float32") -> LanguageModel:
    """The model of these sizes."""
    if sizes.cutoffs:
        return AdaptiveRnnlm(sizes, dtype)
    cell = sizes.cell.lower()
    if sizes.model == "BetterRnnlm":
        widths = (sizes.V, sizes.D, sizes.H, sizes.dropout)
        return BetterRnnlm(*widths, rng=1, dtype=dtype, cell=cell)
    return Rnnlm(sizes.V, sizes.D, sizes.H, rng=1, dtype=dtype, cell=cell)


class Side:
    """Trains, evaluates and generates with the library's own loops."""

    def __init__(self, sizes: Sizes, ids: TokenIds, threads: int) -> None:
        self.sizes, self.ids = sizes, ids
        self.model = build_model(sizes)
        self.trainer = RnnlmTrainer(self.model, SGD(1.0), on_record=lambda record: None)
        self.chunks_read = 0

    def step(self, count: int) -> None:
        """Train on the next ``count`` windows; the state is carried from window to window."""
        N, T = self.sizes.N, self.sizes.T
        chunk = training_chunk(self.ids.train, self.chunks_read, N * T * count)
        self.chunks_read += 1
        self.trainer.fit(
            chunk[:-1], chunk[1:], max_epoch=1, batch_size=N, time_size=T, max_grad=0.25
        )

    def exact(self, count: int) -> float:
        """Perplexity of the first ``count`` tokens of the test text, batch 1."""
        return eval_perplexity_exact(self.model, self.ids.test[:count], self.ids.first_id)

    def book_protocol(self, count: int) -> float:
        """Perplexity of ``count`` targets, batch 10."""
        return eval_perplexity(self.model, self.ids.test[: count + 1], batch_size=10, time_size=35)

    def generation(self, count: int) -> list[int]:
        """``count`` tokens after the first, one at a time, temperature 1."""
        return self.model.generate(self.ids.first_id, count, rng=1)


def make_product(M: int, K: int, N: int) -> Callable[[], object]:
    """A function that multiplies float32 (M, K) by (K, N) into memory allocated once."""
    rng = numpy.random.default_rng(1)
    a = rng.standard_normal((M, K), dtype="float32")
    b = rng.standard_normal((K, N), dtype="float32")
    out = numpy.empty((M, N), dtype="float32")
    return lambda: numpy.matmul(a, b, out=out)
