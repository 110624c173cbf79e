"""How far back the gradient reaches: through one matrix, and through a trained RNN, LSTM and GRU.

python -m train.gradient_flow
python -m train.gradient_flow --keep-bias 0    # gates that keep half of the state at first
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy

from common.np import Array, np
from common.optimizer import Adam
from common.plotting import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    Status,
    name_points,
    readable,
    show_or_save,
)
from common.trainer import Record, RnnlmTrainer
from common.util import clip_grads, eval_perplexity_exact
from datasets import load_corpus
from models import Rnnlm
from models.language_model import LanguageModel, set_gate_bias
from train.run.command import run_command
from train.run.folder import RunFolder, require_finite
from train.run.options import check_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIXED_VOCABULARIES = ("ptb", "markov")
MAX_VOCAB = 1000
EXAMPLES = 32  # texts over which the norms are averaged, or fewer where there are fewer

CELLS = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}
COLORS = {"RNN": BLUE, "LSTM": GREEN, "GRU": RED}

Norms = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """Follow a gradient back in time and draw its norm, step by step, on a log scale.

    On the left a gradient of ones is multiplied 20 times by a 3 x 3 matrix, as an RNN without its
    tanh would do: the gradient explodes. By half of the matrix it vanishes. clip_grads after every
    step bounds the first and cannot restore the second. On the right three language models of equal
    size are trained for some seconds; then the gradient of one prediction's loss is followed back
    through the states before it, in parts of its norm one step back. Nothing is learned from steps
    where it has vanished.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "corpus max_vocab",
        "model": "hidden_size keep_bias",
        "training": "epochs time_size lr max_norm",
        "run": "seed out",
    }

    corpus: str = "pydoc"
    """pydoc (English prose that ships with Python), the path of your own UTF-8 text file, or ptb or
    markov, whose vocabularies are fixed."""
    max_vocab: int | None = None
    """Keep this many of the commonest words, by default 1,000; the rest become <unk>."""
    hidden_size: int = 64
    """Width H of the recurrent layers, and D of the word vectors."""
    epochs: int = 3
    """Number of passes over the training text."""
    time_size: int = 35
    """Steps T of a training window, and steps over which the gradient is followed back."""
    lr: float = 0.005
    """Learning rate of Adam."""
    max_norm: float = 5.0
    """Bound for clip_grads: of dh on the left, of all gradients together in training."""
    keep_bias: float = 3.0
    """Initial bias of the gate that keeps the state (f, z): at 3 it keeps 95 %, at 0 half."""
    seed: int = 1
    """Decides the initial weights; the matrix on the left is always the same."""
    out: Path | None = None
    """Folder of the run; runs/gradient_flow-CORPUS-NUMBER if not named."""


def published_matrix() -> numpy.ndarray:
    """The 3 x 3 matrix of the example, from NumPy's legacy stream with seed 3."""
    return numpy.random.RandomState(3).randn(3, 3)


def matrix_norms(
    Wh: numpy.ndarray, steps: int = 20, N: int = 2, max_norm: float | None = None
) -> list[float]:
    """sqrt(sum dh²) / N after each dh = dh Whᵀ, from dh = ones (N, H).

    Args:
        Wh: (H, H).
        steps: how many norms.
        N: rows of dh.
        max_norm: clip dh to this norm after every step; None to let it run.
    """
    W, dh = np.asarray(Wh), np.ones((N, len(Wh)))
    norms = []
    for _ in range(steps):
        dh = dh @ W.T
        if max_norm is not None:
            clip_grads([dh], max_norm)
        norms.append(float(np.sqrt((dh**2).sum())) / N)
    return norms


def set_keep_bias(model: Rnnlm, bias: float) -> None:
    """Set the bias of the gate that keeps the old state, f or z; an RNN has none."""
    layer = model.layers[1]
    for gate in set("fz") & set(layer.gates):
        set_gate_bias(layer, gate, bias)


def gradient_norms(model: LanguageModel, xs: Array, ts: Array, time_size: int) -> Norms:
    """Norm of the gradient of the last prediction's loss by the state k steps before it.

    For each k the model is put into the state it has k steps before the end and run over these k
    steps, all targets but the last ignored. The gradient of the state that the window begins with
    is then the layer's ``dh`` (and ``dc``), with no truncation.

    Args:
        model: embedding, one recurrent layer, and a loss layer with the output layer in it.
        xs: ids (N, length) with length above ``time_size``; the steps before the last
            ``time_size`` bring the model into a state.
        ts: the id that follows each (N, length).
        time_size: the largest k.

    Returns:
        For dh, and dc of an LSTM, the norms at k = 0 .. time_size, each a mean over the N
        examples. At k = 0 dh is what the output layer hands down; dc begins at k = 1.
    """
    N, length = xs.shape
    layer = model.layers[1]
    ts = ts.copy()
    ts[:, :-1] = model.loss_layer.ignore_label
    model.reset_state()
    model.predict(xs[:, : length - time_size])
    states = [model.get_state()]  # states[t]: after t of the last time_size steps
    for t in range(length - time_size, length - 1):
        model.predict(xs[:, t : t + 1])
        states.append(model.get_state())

    def norm(gradient: Array) -> float:  # the loss is a mean over N, so each row is N times it
        return float(N * np.linalg.norm(gradient, axis=1).mean())

    norms: Norms = {f"d{name}": [] for name in layer.state_names}
    for k in range(1, time_size + 1):
        model.set_state(states[time_size - k])
        model.forward(xs[:, -k:], ts[:, -k:])
        if k == 1:
            norms["dh"].append(norm(model.loss_layer.backward()[:, -1]))
        model.backward()
        for name, so_far in norms.items():
            so_far.append(norm(getattr(layer, name)))
    return norms


def kept_per_step(norms: Sequence[float]) -> float:
    """By what the norm is multiplied from one step back to the next, in the geometric mean."""
    return (norms[-1] / norms[0]) ** (1 / (len(norms) - 1)) if norms[0] > 0 else 0.0


def draw(matrix: Norms, trained: dict[str, Norms], max_norm: float) -> None:
    """Draw the norms of the matrix on the left, those of the trained models on the right.

    On the right all begin at 1, one step back: how fast they fall is what matters. An LSTM's
    begin lower than an RNN's, since on its first step the gradient goes through the output gate
    and the tanh of the cell state; after that it stays inside that state.
    """
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
    for panel in (left, right):
        panel.set_yscale("log")
        panel.set_xlabel("steps back in time")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid()
    left.set_title("One matrix, again and again:\nthe gradient explodes, or it vanishes")
    left.set_ylabel("norm of dh / N")
    _draw_matrix(left, matrix, max_norm)
    right.set_title("Trained language models:\nwhat is left of the gradient of a prediction")
    right.set_ylabel("norm, 1 at the first step back")
    _draw_trained(right, trained)


def _draw_matrix(axes: Axes, matrix: Norms, max_norm: float) -> None:
    """The norms with and without clipping; black dots lie on the line where it changes nothing."""
    ends = []
    for name, color in {"Wh": PURPLE, "Wh / 2": ORANGE}.items():
        norms, clipped = matrix[name], matrix[f"{name}, clipped"]
        steps = range(1, len(norms) + 1)
        axes.plot(steps, norms, color=color, linewidth=5)
        axes.plot(steps, clipped, ":", color=BLACK)
        about = f"{name}: × {kept_per_step(norms):.2f} a step"
        if clipped == norms:
            about += ",\nclipped or not"
        else:
            ends.append(
                (steps[-1], clipped[-1], f"{name}, clipped to\nnorm {max_norm:g} (N = 2)", BLACK)
            )
        ends.append((steps[-1], norms[-1], about, color))
    name_points(axes, ends)


def _draw_trained(axes: Axes, trained: dict[str, Norms]) -> None:
    """The norms of each state, in parts of the first step back."""
    ends = []
    for cell, flows in trained.items():
        T = len(flows["dh"]) - 1
        for name, norms in flows.items():
            relative = [norm / (norms[-T] or 1.0) for norm in norms[-T:]]
            line = "-" if name == list(flows)[-1] else "--"  # of an LSTM dc is what lasts
            axes.plot(range(1, T + 1), relative, line, color=COLORS[cell])
            about = f"{cell} {name}" if len(flows) > 1 else cell
            if T > 1:
                about += f": keeps\n{kept_per_step(relative):.0%} a step"
            ends.append((T, relative[-1], about, COLORS[cell]))
    name_points(axes, ends)


def log(run: RunFolder, cell: str, status: Status, record: Record) -> None:
    """One line of log.jsonl, with the name of the cell that is being trained; say how it goes."""
    status.show(record)
    run.log({"cell": cell, **record})


def main(options: Options) -> None:
    """Run the command."""
    check_counts(options, "hidden_size", "epochs", "time_size")
    Wh = published_matrix()
    matrix: Norms = {}
    for name, W in {"Wh": Wh, "Wh / 2": Wh / 2}.items():
        matrix[name] = matrix_norms(W)
        matrix[f"{name}, clipped"] = matrix_norms(W, max_norm=options.max_norm)

    limit = options.max_vocab
    if limit is None and options.corpus not in FIXED_VOCABULARIES:
        limit = MAX_VOCAB
    corpus = load_corpus(options.corpus, max_vocab=limit)
    length = 2 * options.time_size  # the first half takes the model away from the zero state
    N = min(EXAMPLES, len(corpus.valid) // (length + 1))
    if N == 0:
        raise ValueError(
            f"gradient_flow: expected at least {length + 1} validation tokens to follow "
            f"{options.time_size} steps back, {corpus.name} has {len(corpus.valid)}"
        )
    texts = np.asarray(corpus.valid[: N * (length + 1)]).reshape(N, length + 1)
    run = RunFolder.create("gradient_flow", corpus.name, options, corpus)

    radius = abs(numpy.linalg.eigvals(Wh)).max()
    print(
        "A gradient of ones through one matrix, 20 times. The largest |eigenvalue| of Wh is "
        f"{radius:.3f},\nof Wh / 2 {radius / 2:.3f}; clipped: "
        f"clip_grads to {options.max_norm:g} after every step. Norm: sqrt(sum dh²) / N with N = 2."
    )
    print("step  " + "".join(f"{name:>16}" for name in matrix))
    for step in (1, 5, 10, 15, 20):
        print(f"{step:<6}" + "".join(f"{norms[step - 1]:16.3g}" for norms in matrix.values()))

    print(
        f"\nThree language models, H = {options.hidden_size}, on {len(corpus.train):,} tokens of "
        f"{corpus.name}, {options.epochs} epochs each; keep bias {options.keep_bias:g}:\n"
        f"{corpus.about}"
    )
    trained: dict[str, Norms] = {}
    results: dict = {"matrix": matrix, "eigenvalue": float(radius), "examples": N, "models": {}}
    for cell, name in CELLS.items():
        H = options.hidden_size
        model = Rnnlm(corpus.vocab_size, H, H, rng=options.seed, cell=name)
        set_keep_bias(model, options.keep_bias)
        trainer = RnnlmTrainer(
            model, Adam(options.lr), on_record=partial(log, run, cell, Status(options.epochs, 0))
        )
        start = time.perf_counter()
        trainer.fit(
            corpus.train[:-1],
            corpus.train[1:],
            max_epoch=options.epochs,
            time_size=options.time_size,
            max_grad=options.max_norm,
        )
        seconds = time.perf_counter() - start
        valid = eval_perplexity_exact(model, corpus.valid, corpus.first_id)
        require_finite(run.path, {f"validation perplexity of {cell}": valid})
        print(f"{cell:<5} validation perplexity {valid:7.2f} after {seconds:.0f} s", flush=True)
        trained[cell] = gradient_norms(model, texts[:, :-1], texts[:, 1:], options.time_size)
        results["models"][cell] = {"valid": valid, "seconds": seconds, "norms": trained[cell]}

    print(f"\nGradient of one prediction's loss, k steps back (mean norm over {N} examples):")
    columns = {f"{cell} {name}": n for cell, flows in trained.items() for name, n in flows.items()}
    print("k     " + "".join(f"{name:>12}" for name in columns))
    T = options.time_size
    for k in sorted({k for k in (0, 1, 2, 5, 10, 20) if k < T} | {T}):
        row = [
            f"{n[k - T - 1]:12.1e}" if T - k < len(n) else f"{'-':>12}" for n in columns.values()
        ]
        print(f"{k:<6}" + "".join(row))

    run.write_json(run.results_file, results)
    with readable():
        draw(matrix, trained, options.max_norm)
        show_or_save(run.path / "gradient_flow.png")


if __name__ == "__main__":
    run_command(main, Options)
