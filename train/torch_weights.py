"""Weights to PyTorch and back, as a state_dict in a safetensors file; PyTorch is not needed.

python -m train.torch_weights export runs/rnnlm-ptb-1 rnnlm.safetensors
python -m train.torch_weights import rnnlm.safetensors --model rnnlm

The module there has encoder = nn.Embedding, rnn = nn.LSTM, nn.GRU or nn.RNN and decoder =
nn.Linear; see common/files/torch_layout.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from common.files.tensors import read_tensors, write_tensors
from common.files.torch_layout import from_torch, to_torch
from train.run.command import run_subcommands
from train.run.import_weights import ImportOptions as CommonImportOptions
from train.run.import_weights import keep_as_run
from train.run.saved_run import open_model


@dataclass(frozen=True)
class ExportOptions:
    """Write the weights of a run as the state_dict of a PyTorch module.

    The module has encoder = nn.Embedding(V, D), rnn = nn.LSTM(D, H, num_layers) (nn.RNN for
    simple_rnnlm) and decoder = nn.Linear(H, V). Load it with
    module.load_state_dict(safetensors.torch.load_file(FILE)). Row k of the encoder is the k-th
    word in order of first appearance in the training text.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    file: tyro.conf.Positional[Path]
    """File to write."""


@dataclass(frozen=True)
class ImportOptions(CommonImportOptions):
    """Make a run of a PyTorch module's state_dict, for train.evaluate and train.generate.

    The module has encoder = nn.Embedding(V, D), rnn = nn.LSTM(D, H, num_layers) (nn.RNN with tanh
    for simple_rnnlm) and decoder = nn.Linear(H, V), all float32. Save it with
    safetensors.torch.save_file(module.state_dict(), FILE), or save_model where decoder.weight is
    encoder.weight. Row k of the encoder is the k-th word in order of first appearance in the
    training text.
    """


def export_weights(options: ExportOptions) -> None:
    """Run the command ``export``."""
    if options.file.resolve().parent == options.run.resolve():
        raise ValueError(f"{options.file}: that is the folder of the run; name another for FILE")
    model, vocabulary = open_model(options.run)
    state = to_torch(model)
    about = {"layout": "PyTorch", "model": type(model).__name__, "vocabulary": vocabulary.hash()}
    write_tensors(options.file, state, about)
    print(f"{len(state)} tensors of {type(model).__name__} written to {options.file}")


def import_weights(options: ImportOptions) -> None:
    """Run the command ``import``."""
    state, about = read_tensors(options.file)
    table = state.get("encoder.weight", state.get("decoder.weight"))  # one, where they are tied
    recurrent = state.get("rnn.weight_hh_l0")
    if table is None or recurrent is None or table.ndim != 2 or recurrent.ndim != 2:
        raise ValueError(
            f"{options.file}: expected the matrices encoder.weight and rnn.weight_hh_l0, among "
            f"others; got {', '.join(sorted(state)) or 'no tensor'}"
        )
    (V, D), H = table.shape, recurrent.shape[1]
    num_values = sum(tensor.size for tensor in state.values())
    keep_as_run(
        options,
        (V, D, H),
        num_values,
        lambda model: from_torch(model, state, options.file),
        str(about.get("vocabulary", "")),
    )


if __name__ == "__main__":
    run_subcommands(
        {
            "export": (export_weights, ExportOptions),
            "import": (import_weights, ImportOptions),
        }
    )
