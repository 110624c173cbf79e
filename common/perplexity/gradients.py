"""Loss and gradients of a language model as it is measured, with dropout and penalties off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.np import Array, np
from common.optimizer import UniqueParameters
from common.perplexity.protocols import evaluation, require_language_model
from common.time_layers import TimeActivationPenalty, TimeDropout, TimeWeightDrop

__all__ = ["Gradients"]


def _drops(layer: Any) -> bool:
    return getattr(layer, "dropout_ratio", 0) > 0


class Gradients:
    """Loss and gradients of a language model with dropout and penalties off.

    After a forward pass in evaluation, layers that drop something refuse to go back. So they are
    gone round: a dropout or a penalty hands on what it gets and is left out, of a weight drop the
    layer inside is run with the whole weight, and the ratio of an embedding is 0 for the time.

    Args:
        model: composed as ``models.language_model.LanguageModel``.
        who: asks; an error names it.

    Attributes:
        layers: those that the passes go through, below the loss layer.
        parameters: of the model, a tied one once, with their gradients.

    Raises:
        TypeError: for a model that is not composed of layers.
    """

    def __init__(self, model: Any, who: str) -> None:
        require_language_model(model, who)
        self.model = model
        self.parameters = UniqueParameters(model.params, model.grads)
        self.layers: list[Any] = []
        for layer in getattr(model, "layers_below_loss", model.layers):
            if isinstance(layer, TimeWeightDrop):
                layer.use_whole_weights()
                self.layers.append(layer.layer)
            elif not isinstance(layer, TimeDropout | TimeActivationPenalty):
                self.layers.append(layer)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Inside, the text begins and nothing is dropped; afterwards all is as before."""
        ratios = [(layer, layer.dropout_ratio) for layer in self.layers if _drops(layer)]
        loss_layer = self.model.loss_layer
        before = loss_layer.train_flg, loss_layer.sampling
        for layer, _ in ratios:
            layer.dropout_ratio = 0.0
        loss_layer.train_flg, loss_layer.sampling = True, False  # its whole gradient is wanted
        try:
            with evaluation(self.model):
                yield
        finally:
            loss_layer.train_flg, loss_layer.sampling = before
            for layer, ratio in ratios:
                layer.dropout_ratio = ratio

    def forward(self, xs: Array, ts: Array) -> Array:
        """The mean loss of ids ``xs`` (N, T) and their targets, a scalar on the device."""
        hs = self.model.run(self.layers, xs, train_flg=False)
        return self.model.loss_layer.forward(hs, ts)

    def backward(self) -> None:
        """Write the gradients, those of tied weights added up."""
        dhs = self.model.loss_layer.backward()
        for layer in reversed(self.layers):
            dhs = layer.backward(dhs)
        self.parameters.add_tied()

    def of_last_loss(self, xs: Array, ts: Array) -> Array:
        """The gradient of the loss at the last step by every vector that was read.

        Each text has a loss of its own, so that it does not matter what else is in the batch. The
        gradients of the weights are those of the sum of these losses, a tied one without its share
        of the first layer.

        Args:
            xs: ids (N, T), which go on from the state in which the model is.
            ts: the ids that follow the last of them (N,).

        Returns:
            d loss[n] / d x[n, t], (N, T, D), where x[n, t] is what the first layer makes of
            xs[n, t].
        """
        loss_layer = self.model.loss_layer
        hs = self.model.run(self.layers, xs, train_flg=False)
        loss_layer.forward(hs[:, -1:], ts[:, None])  # earlier steps have no share in it
        dhs = np.zeros(hs.shape, dtype=hs.dtype)
        dhs[:, -1:] = loss_layer.backward(float(len(hs)))  # the loss is a mean over the texts
        for layer in reversed(self.layers[1:]):
            dhs = layer.backward(dhs)
        return dhs
