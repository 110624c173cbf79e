"""What a training costs in a way that machines share: the operations of its matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy

from common.time_layers import (
    TimeAdaptiveOutputWithLoss,
    TimeEmbedding,
    TimeSampledOutputWithLoss,
)
from models.language_model import LanguageModel
from train.benchmark.time_layers import make_product
from train.benchmark.workloads import matrix_peak
from train.run.folder import RunFolder
from train.run.saved_options import read_options
from train.run.saved_run import options_of

__all__ = ["flops_per_token", "gflops_of_this_machine", "training_flops"]


def flops_per_token(model: LanguageModel) -> int:
    """Floating-point operations that one token costs in the matrix products of a training step.

    Six for each weight of a matrix: a multiplication and an addition in the forward pass, in the
    gradient of the weight and in that of the product's input. The rows of an embedding are looked
    up, biases and gains are added and scaled; none of that is counted. A tied matrix counts where
    it is multiplied; of the output layer the classes that are drawn count, in the mean, where the
    loss samples.
    """
    matrices = [
        param
        for layer in model.layers
        if not isinstance(layer, TimeEmbedding)
        for param in layer.params
        if param.ndim == 2
    ]
    multiplied = sum(matrix.size for matrix in matrices)
    if isinstance(model.loss_layer, TimeSampledOutputWithLoss) and model.loss_layer.sampling:
        inclusion = model.loss_layer.inclusion
        H, V = model.loss_layer.output.params[0].shape
        multiplied -= round(H * (V - inclusion.sum()))
    return 6 * multiplied


def training_flops(path: Path, epochs: int) -> int | None:
    """The operations of all products of a run's training; validation is not counted.

    An epoch reads whole streams: of the tokens that do not fill one more step of all streams,
    nothing is read.

    Args:
        path: folder of the run.
        epochs: how many it was trained.

    Returns:
        None for a run of a version that kept neither its words nor the size of its text, and for
        an adaptive softmax, whose cost depends on which words occur.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where its config or its words are damaged.
    """
    run, config = RunFolder.open(path)
    if "corpus" not in config or not run.vocabulary_file.exists():
        return None
    options = read_options(options_of(config["script"]), config, run.config_file)
    model = options.build(run.read_vocabulary().vocab_size, numpy.random.default_rng(options.seed))
    if isinstance(model.loss_layer, TimeAdaptiveOutputWithLoss):
        return None
    try:
        tokens = int(config["corpus"]["splits"]["train"]["tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.config_file}: it does not say how long its text is") from error
    read = options.batch_size * ((tokens - 1) // options.batch_size)
    flops = 0
    for epoch in range(epochs):
        options.begin_epoch(model, epoch)
        flops += flops_per_token(model) * read
    return flops


def gflops_of_this_machine() -> float:
    """10^9 operations a second in NumPy's fastest float32 product here; takes some seconds."""
    return matrix_peak(make_product) / 1e9
