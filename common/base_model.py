"""A model is a stack of layers and a loss; everything here follows from those two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.base_layer import Layer
from common.files import model_state
from common.kernels import share_workspace
from common.masks import Masks
from common.np import Array, Scalar, lay_side_by_side, memory_address, np, same_elements
from common.row_gradient import RowGradient

__all__ = ["BaseModel", "np"]


class BaseModel:
    """Runs ``layers`` in order and ``loss_layer`` on top; saves and loads the weights.

    A subclass sets ``layers``, ``loss_layer``, ``params`` and ``grads``, usually by calling
    :meth:`compose`. Copies and pickles keep tied weights tied, and leave out what ``backward``
    would need of the last ``forward``.

    Attributes:
        sums_loss: whether ``forward`` adds the loss up over the targets, in place of their mean.
    """

    layers: list[Any] = []
    loss_layer: Any = None
    params: list[Array]
    grads: list[Array]
    sums_loss: bool = False
    _goes_back = True  # whether the layers hold a pass of training that ended with a loss
    _trains = True  # whether the last pass was one of training

    def compose(self, layers: list[Any], loss_layer: Any) -> None:
        """Take the layers, let them share a workspace, collect their parameters, a tied one once.

        What drops is numbered in this order and has one seed, that of the first: a layer more that
        drops changes the masks of those behind it, a layer that does not changes none.

        Raises:
            ValueError: where a tied parameter has gradients that do not share their memory.
        """
        self.layers, self.loss_layer = layers, loss_layer
        share_workspace([*layers, loss_layer])
        for number, masks in enumerate(all_masks := self.masks()):
            masks.seed, masks.layer = all_masks[0].seed, number
        self.params, self.grads, gradient_at = [], [], {}
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
        lay_side_by_side(self._replace, self.params, self.grads)

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """Scores of the last layer; dropout is on only while ``train_flg``."""
        return self.run(self.layers, xs, train_flg)

    def run(self, layers: list[Any], xs: Array, train_flg: bool) -> Array:
        """Forward through ``layers`` in order; dropout is on only while ``train_flg``.

        ``backward`` is refused until :meth:`loss_of` has made a loss of what a training returned.
        """
        self._goes_back, self._trains = False, train_flg
        for layer in layers:
            layer.train_flg = train_flg
            xs = layer.forward(xs)
        return xs

    def loss_of(self, ys: Array, ts: Array) -> Scalar:
        """The loss, a scalar, of what :meth:`run` returned, for targets ``ts``."""
        loss = self.loss_layer.forward(ys, ts)
        self._goes_back = self._trains
        return loss

    def loss_gradient(self, dout: float = 1) -> Any:
        """The gradient of what :meth:`loss_of` was given.

        Raises:
            RuntimeError: where ``run``, ``predict`` or an evaluation has replaced what the layers
                kept for it.
        """
        if not self._goes_back:
            raise RuntimeError(
                f"{type(self).__name__}.backward: predict or an evaluation has run since forward; "
                "call forward again first"
            )
        return self.loss_layer.backward(dout)

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a scalar, for inputs ``xs`` and targets ``ts``."""
        return self.loss_of(self.predict(xs, train_flg), ts)

    def backward(self, dout: float = 1) -> Any:
        """Write every gradient; return the gradient of the input (None for token ids).

        Raises:
            RuntimeError: where ``predict`` or an evaluation has run since ``forward``.
        """
        dout = self.loss_gradient(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout

    def _recurrent_layers(self) -> list[Any]:
        return [
            layer
            for layer in self.layers
            if (layer.state_names if isinstance(layer, Layer) else hasattr(layer, "reset_state"))
        ]

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

    def masks(self) -> list[Masks]:
        """The masks of all layers that drop, and of layers inside them, in order, each once."""
        found = (masks for layer in self._sublayers() for masks in vars(layer).values())
        return list({id(masks): masks for masks in found if isinstance(masks, Masks)}.values())

    def _sublayers(self) -> Iterator[Layer]:
        """Every layer and every layer inside one, a shared one as often as it occurs."""
        for layer in [*self.layers, self.loss_layer]:
            if isinstance(layer, Layer):
                yield from layer.sublayers()

    def named_params(self) -> dict[str, Array]:
        """``{"embedding.W": array, "lstm1.Wx": array, ...}``, a tied weight under its first name.

        A layer's name is its ``kind``, numbered where there are several of one kind.
        """
        return model_state.named_params(self)

    def replace_gradients(self, arrays: Sequence[Array]) -> None:
        """Let the layers write their gradients into ``arrays``, one for each of ``grads``.

        Raises:
            ValueError: for another number of them, or another shape.
        """
        if [array.shape for array in arrays] != [grad.shape for grad in self.grads]:
            raise ValueError(
                f"{type(self).__name__}.replace_gradients: expected an array for each gradient, of "
                "its shape"
            )
        self._replace(self.grads, arrays)

    def _replace(self, before: Sequence[Array], arrays: Sequence[Array]) -> None:
        """Put each of ``arrays`` where the one of ``before`` stands, in this model and its layers.

        Both are parameters, or both gradients.
        """
        before = list(before)
        for places, at in self._array_places():
            for old, new in zip(before, arrays, strict=True):
                if same_elements(places[at], old):
                    places[at] = new
                    break
                if not isinstance(old, RowGradient) and same_elements(places[at], old.T):
                    places[at] = new.T
                    break

    def __repr__(self) -> str:
        """A table: each parameter with its shape and size, what it is tied to, and the sum."""
        rows: list[tuple[str, str, str]] = []
        first: dict[int, str] = {}
        for name, param in model_state.all_params(self):
            known = first.setdefault(memory_address(param), name)
            tie = "" if known == name else f"tied to {known}"
            rows.append((name, str(param.shape), tie or f"{param.size:,}"))
        rows.append(("", "", f"{sum(param.size for param in self.params):,} parameters"))
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        return "\n".join([type(self).__name__, *lines])

    def save_params(self, file_name: str | os.PathLike | None = None) -> None:
        """Write the weights as named float32 tensors; default ``ClassName.safetensors``.

        A file whose name ends in ".pkl" becomes what the name says, a pickled list of float32
        arrays that the book's ``load_params`` reads too: without names, checksum and vocabulary.

        Raises:
            OSError: where the file cannot be written; an older one is then still whole.
            ValueError: for a weight that is not finite in float32; an older file stays.
        """
        model_state.save_weights(self, file_name)

    def load_params(self, file_name: str | os.PathLike | None = None) -> None:
        """Copy the weights of a file into the layers' own arrays.

        A pickled list, the book's too, is read as data: nothing in it is run.

        Args:
            file_name: None for ``ClassName.safetensors`` or, where there is none,
                ``ClassName.pkl``. In place of a ".pkl" that is not there the ".safetensors" beside
                it is read, with a warning; there is one too where that is only newer.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: for a damaged file, or one of another model; lists every difference.
        """
        model_state.load_weights(self, file_name)

    def fill_params(self, tensors: Mapping[str, Array], source: str | os.PathLike) -> None:
        """Copy weights by name into the layers' own arrays.

        Args:
            tensors: float32 arrays under the names of ``named_params``.
            source: the file that an error names.

        Raises:
            ValueError: where the weights are those of another model; lists every difference.
        """
        model_state.fill_weights(self, tensors, source)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made of: everything, and which arrays share their memory."""
        owners: list[tuple[int, Array]] = []
        ties = []
        for k, (arrays, at) in enumerate(self._array_places()):
            array = arrays[at]
            if isinstance(array, RowGradient):
                continue  # an object that two places hold stays one
            for owner, known in owners:
                if same_elements(array, known) or same_elements(array.T, known):
                    ties.append((k, owner, not same_elements(array, known)))
                    break
            else:
                owners.append((k, array))
        return {**vars(self), "_ties": ties}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ties = state.pop("_ties")
        vars(self).update(state)
        places = list(self._array_places())
        for k, owner, transposed in ties:
            (arrays, at), (kept, place) = places[k], places[owner]
            tied = kept[place].T if transposed else kept[place]
            if not same_elements(arrays[at], tied):
                arrays[at] = tied
        lay_side_by_side(self._replace, self.params, self.grads)

    def _array_places(self) -> Iterator[tuple[list[Array], int]]:
        """Every place in a list where a parameter or a gradient stands, of any layer held here."""
        owners: list[Any] = [self]
        for value in vars(self).values():
            for part in value if isinstance(value, list | tuple) else (value,):
                owners += part.sublayers() if isinstance(part, Layer) else (part,)
        for arrays in (getattr(o, name, None) for o in owners for name in ("params", "grads")):
            if isinstance(arrays, list):
                yield from ((arrays, at) for at in range(len(arrays)))
