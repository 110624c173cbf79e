"""Weights in the layout of PyTorch: names, transposes, order of gates, two biases.

A language model is written as a module that has

    encoder = nn.Embedding(V, D)
    rnn     = nn.LSTM(D, H, num_layers=L), or nn.GRU, or nn.RNN
    decoder = nn.Linear(H, V)

the names of PyTorch's example ``word_language_model``. The file itself is read and written without
PyTorch.

    here                     there
    embedding.W    (V, D)    encoder.weight      (V, D)
    lstm1.Wx       (D, kH)   rnn.weight_ih_l0    (kH, D)   gates f, g, i, o  <->  i, f, g, o
    lstm1.Wh       (H, kH)   rnn.weight_hh_l0    (kH, H)   GRU: r, z, n in both
    lstm1.b        (kH,)     rnn.bias_ih_l0 + rnn.bias_hh_l0, each (kH,)
    affine.W       (H, V)    decoder.weight      (V, H)    the encoder's, where the two are tied
    affine.b       (V,)      decoder.bias        (V,)

A bias goes out as ``bias_ih`` beside a ``bias_hh`` of zeros, and what comes in is added up. Only
the GRU's candidate keeps the two apart (it resets between them): its second one needs a layer with
a bias of (4H,).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from common.base_layer import (
    GRU_GATES,
    LSTM_GATES,
    TORCH_LSTM_GATES,
    Layer,
    reorder_gates,
)
from common.files.model_state import differences
from common.np import Array, memory_address, np
from common.time_layers import (
    TimeAffine,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
    TimeWeightDrop,
)

__all__ = ["from_torch", "to_torch"]

GATES: dict[type, tuple[str, str]] = {  # here, in PyTorch
    TimeRNN: ("h", "h"),
    TimeLSTM: (LSTM_GATES, TORCH_LSTM_GATES),
    TimeGRU: (GRU_GATES, GRU_GATES),
}


def _kind(layer: Layer) -> type:
    """Type of a layer, under the drop of its weights, which is nothing that weights tell."""
    return type(layer.layer if isinstance(layer, TimeWeightDrop) else layer)


def _layers_in_torch(model: Any) -> tuple[Layer, list[Layer], Layer]:
    """Embedding, recurrent layers and output layer of a model that PyTorch can hold.

    Raises:
        ValueError: for other layers, or recurrent ones of several kinds or widths.
    """
    layers = [layer for layer in model.layers if layer.params]
    embedding, middle, output = layers[0], layers[1:-1], layers[-1]
    kinds = {(_kind(layer), len(layer.params[1])) for layer in middle if _kind(layer) in GATES}
    if (
        not isinstance(embedding, TimeEmbedding)
        or not isinstance(output, TimeAffine)
        or len(kinds) != 1
        or any(_kind(layer) not in GATES for layer in middle)
    ):
        raise ValueError(
            f"{type(model).__name__}: expected an embedding, layers of one kind (RNN, LSTM, GRU) "
            f"and one width, and an output layer; got {', '.join(type(l).__name__ for l in layers)}"
        )
    return embedding, middle, output


def to_torch(model: Any) -> dict[str, Array]:
    """The weights of ``model`` as a ``state_dict``; a tied weight stands there twice.

    Raises:
        ValueError: where PyTorch has no such module.
    """
    embedding, middle, output = _layers_in_torch(model)
    state = {"encoder.weight": embedding.params[0]}
    for k, layer in enumerate(middle):
        orders = GATES[_kind(layer)]
        Wx, Wh, b = layer.params
        width = Wx.shape[1]
        bias_hh = np.zeros(width, dtype=b.dtype)
        if len(b) > width:  # the GRU's candidate has a recurrent bias of its own
            bias_hh[-len(Wh) :] = b[width:]
        state[f"rnn.weight_ih_l{k}"] = reorder_gates(Wx, *orders).T
        state[f"rnn.weight_hh_l{k}"] = reorder_gates(Wh, *orders).T
        state[f"rnn.bias_ih_l{k}"] = reorder_gates(b[:width], *orders)
        state[f"rnn.bias_hh_l{k}"] = bias_hh
    state["decoder.weight"], state["decoder.bias"] = output.params[0].T, output.params[1]
    return {name: tensor.astype("float32", order="C") for name, tensor in state.items()}


def from_torch(
    model: Any, state: Mapping[str, Array], source: str | os.PathLike
) -> dict[str, Array]:
    """A ``state_dict`` under the names and in the layout of ``model``, for its ``fill_params``.

    Args:
        model: says what is expected; it is not changed.
        state: float32 tensors by PyTorch's names. Where the model ties ``decoder.weight`` to
            ``encoder.weight``, one of the two may be left out.
        source: the file that an error names.

    Raises:
        ValueError: where names, shapes or dtypes are not those of ``model`` (lists every
            difference), tied weights differ, or the GRU has no place for a recurrent bias.
    """
    embedding, middle, output = _layers_in_torch(model)
    is_tied = memory_address(embedding.params[0]) == memory_address(output.params[0])
    state = {name: np.asarray(tensor) for name, tensor in state.items()}
    tied = [state[name] for name in ("encoder.weight", "decoder.weight") if name in state]
    if is_tied and len(tied) == 1:
        state["encoder.weight"] = state["decoder.weight"] = tied[0]
    if wrong := differences(to_torch(model), state):
        listed, who = "\n  ".join(wrong), type(model).__name__
        raise ValueError(f"{source} is not the state_dict of {who} in PyTorch:\n  {listed}")
    if is_tied and not (state["decoder.weight"] == state["encoder.weight"]).all():
        raise ValueError(
            f"{source}: decoder.weight is not encoder.weight, "
            f"to which {type(model).__name__} ties it"
        )
    arrays = {memory_address(output.params[0]): state["decoder.weight"].T}
    arrays[memory_address(embedding.params[0])] = state["encoder.weight"]
    arrays[memory_address(output.params[1])] = state["decoder.bias"]
    for k, layer in enumerate(middle):
        Wx, Wh, b = layer.params
        to_here = GATES[_kind(layer)][::-1]
        weight_ih, weight_hh, bias_ih, bias_hh = (
            state[f"rnn.{name}_l{k}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        arrays[memory_address(Wx)] = reorder_gates(weight_ih.T, *to_here)
        arrays[memory_address(Wh)] = reorder_gates(weight_hh.T, *to_here)
        if _kind(layer) is TimeGRU:
            who = f"{source}: rnn.bias_hh_l{k}"
            arrays[memory_address(b)] = _gru_bias(bias_ih, bias_hh, len(b), who)
        else:
            arrays[memory_address(b)] = reorder_gates(bias_ih + bias_hh, *to_here)
    return {name: arrays[memory_address(param)] for name, param in model.named_params().items()}


def _gru_bias(bias_ih: Array, bias_hh: Array, size: int, who: str) -> Array:
    """The biases r, z added up, n, and the recurrent one of n where ``size`` is 4H."""
    H = len(bias_hh) // 3
    recurrent = bias_hh[2 * H :]
    b = np.concatenate([bias_ih[: 2 * H] + bias_hh[: 2 * H], bias_ih[2 * H :], recurrent])
    if size == 3 * H and recurrent.any():
        raise ValueError(
            f"{who}: expected zeros for the candidate n, which has no recurrent bias in a GRU "
            f"with a bias of (3H,) = ({size},); a TimeGRU with a bias of (4H,) has a place for it"
        )
    return b[:size]
