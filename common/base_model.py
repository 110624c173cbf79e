"""A model is a stack of layers and a loss; everything here follows from those two."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy

from common.layer import Layer
from common.np import Array, memory_address, np, to_cpu
from common.tensor_file import read_tensors, write_tensors
from common.workspace import share_workspace

__all__ = ["BaseModel", "np"]


class BaseModel:
    """Runs ``layers`` in order and ``loss_layer`` on top; saves and loads the weights.

    A subclass sets ``layers``, ``loss_layer``, ``params`` and ``grads``, usually by calling
    :meth:`compose`.
    """

    layers: list[Any]
    loss_layer: Any
    params: list[Array]
    grads: list[Array]

    def compose(self, layers: list[Any], loss_layer: Any) -> None:
        """Take the layers, let them share a workspace, collect their parameters, a tied one once.

        Raises:
            ValueError: where a tied parameter has gradients that do not share their memory.
        """
        self.layers, self.loss_layer = layers, loss_layer
        share_workspace([*layers, loss_layer])
        self.params, self.grads = [], []
        gradient_at: dict[int, int] = {}
        for layer in layers:
            for param, grad in zip(layer.params, layer.grads, strict=True):
                if memory_address(param) not in gradient_at:
                    gradient_at[memory_address(param)] = memory_address(grad)
                    self.params.append(param)
                    self.grads.append(grad)
                elif gradient_at[memory_address(param)] != memory_address(grad):
                    raise ValueError(
                        f"{type(self).__name__}: a parameter of {type(layer).__name__} is tied to "
                        "an earlier one, but its gradient is an array of its own"
                    )

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """Scores of the last layer; dropout is on only while ``train_flg``."""
        return self.run(self.layers, xs, train_flg)

    @staticmethod
    def run(layers: list[Any], xs: Array, train_flg: bool) -> Array:
        """Forward through ``layers`` in order; dropout is on only while ``train_flg``."""
        for layer in layers:
            if hasattr(layer, "train_flg"):
                layer.train_flg = train_flg
            xs = layer.forward(xs)
        return xs

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Array:
        """The loss, a scalar, for inputs ``xs`` and targets ``ts``."""
        return self.loss_layer.forward(self.predict(xs, train_flg), ts)

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return the gradient of the input (None for token ids)."""
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout

    def _recurrent_layers(self) -> list[Any]:
        return [layer for layer in self.layers if hasattr(layer, "reset_state")]

    def reset_state(self) -> None:
        """Let every recurrent layer begin from zeros."""
        for layer in self._recurrent_layers():
            layer.reset_state()

    def get_state(self) -> list[tuple[Array, ...] | None]:
        """Copies of the state of every recurrent layer, in order."""
        return [layer.get_state() for layer in self._recurrent_layers()]

    def set_state(self, state: list[tuple[Array, ...] | None]) -> None:
        """Go on from what ``get_state`` returned."""
        for layer, kept in zip(self._recurrent_layers(), state, strict=True):
            if kept is None:
                layer.reset_state()
            else:
                layer.set_state(*kept)

    def generators(self) -> list[numpy.random.Generator]:
        """Every random generator in the layers, each once: what dropout masks are drawn from."""
        found: list[numpy.random.Generator] = []

        def look(part: Any) -> None:
            if isinstance(part, numpy.random.Generator):
                if not any(part is rng for rng in found):
                    found.append(part)
            elif isinstance(part, list | tuple):
                for each in part:
                    look(each)
            elif isinstance(part, Layer):
                for each in vars(part).values():
                    look(each)

        look([*self.layers, self.loss_layer])
        return found

    def named_params(self) -> dict[str, Array]:
        """``{"embedding.W": array, "lstm1.Wx": array, ...}``, a tied weight under its first name.

        A layer's name is its class without ``Time``, numbered where there are several; a wrapper
        such as ``TimeWeightDrop`` goes by the name of the ``layer`` in it.
        """
        classes = [type(getattr(layer, "layer", layer)) for layer in self.layers]
        kinds = [re.sub("^time", "", kind.__name__.lower()) for kind in classes]
        named: dict[str, Array] = {}
        seen: set[int] = set()
        for k, layer in enumerate(self.layers):
            number = str(kinds[: k + 1].count(kinds[k])) if kinds.count(kinds[k]) > 1 else ""
            names = getattr(layer, "param_names", None) or map(str, range(len(layer.params)))
            for name, param in zip(names, layer.params, strict=True):
                if memory_address(param) not in seen:
                    seen.add(memory_address(param))
                    named[f"{kinds[k]}{number}.{name}"] = param
        return named

    def _weights_file(self, file_name: str | os.PathLike | None) -> str | os.PathLike:
        return f"{type(self).__name__}.safetensors" if file_name is None else file_name

    def save_params(self, file_name: str | os.PathLike | None = None) -> None:
        """Write the weights as named float32 tensors; default ``ClassName.safetensors``.

        Raises:
            OSError: where the file cannot be written; an older one is then still whole.
            ValueError: for a weight that is not finite in float32; an older file stays.
        """
        tensors = {
            name: to_cpu(param).astype(numpy.float32, order="C")
            for name, param in self.named_params().items()
        }
        for name, tensor in tensors.items():
            if not numpy.isfinite(tensor).all():
                raise ValueError(f"{type(self).__name__}: {name} is not finite, it is not saved")
        write_tensors(self._weights_file(file_name), tensors, {"model": type(self).__name__})

    def load_params(self, file_name: str | os.PathLike | None = None) -> None:
        """Copy the weights of a file into the layers' own arrays.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: for a damaged file, or one of another model; lists every difference.
        """
        path = self._weights_file(file_name)
        tensors, _ = read_tensors(path)
        self.fill_params(tensors, path)

    def fill_params(self, tensors: Mapping[str, Array], source: str | os.PathLike) -> None:
        """Copy weights by name into the layers' own arrays.

        Every name, shape and dtype is checked before the first array changes.

        Args:
            tensors: float32 arrays under the names of ``named_params``.
            source: the file that an error names.

        Raises:
            ValueError: where the weights are those of another model; lists every difference.
        """
        params = self.named_params()
        wrong = [f"{name} is missing" for name in params if name not in tensors]
        wrong += [f"{name} is not known" for name in tensors if name not in params]
        for name in params.keys() & tensors.keys():
            want, tensor = params[name].shape, to_cpu(tensors[name])
            if tensor.shape != want or tensor.dtype != numpy.float32:
                wrong.append(f"{name}: expected {want} float32, got {tensor.shape} {tensor.dtype}")
            elif not numpy.isfinite(tensor).all():
                wrong.append(f"{name} holds values that are not finite")
        if wrong:
            raise ValueError(
                f"{source} does not fit {type(self).__name__}:\n  " + "\n  ".join(sorted(wrong))
            )
        for name, param in params.items():
            param[...] = np.asarray(tensors[name])
