"""Freeze the statistics of batch normalisation for the last steps of a training.

In training mode, patches are normalised by the statistics of their batch; in prediction, by running
averages. These averages are noisy after the few hundred small batches of a short training, which
costs several decibels of PSNR. Therefore the statistics are measured over many batches and then
frozen, and the last steps of the training adapt the weights to them ("PreciseBN" and "FrozenBN" in
Wu & Johnson 2021, arXiv:2105.07576).
"""

from collections.abc import Iterable

import torch
from torch import nn

# Batches for the measurement of statistics, which reduces their error to a seventh.
BATCHES = 50


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d | nn.BatchNorm3d]:
    """Return the batch normalisation layers of a network."""
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def set_training_mode(network: nn.Module) -> None:
    """Set the training mode, except for layers whose weights are not trained."""
    network.train()
    for layer in batch_norms(network):
        layer.train(layer.weight.requires_grad)


def freeze(network: nn.Module) -> None:
    """Use the running statistics from now on, also in training mode."""
    for layer in batch_norms(network):
        layer.eval()


@torch.no_grad()
def measure(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics by their mean over batches of inputs of the network.

    Layers whose weights are not trained keep theirs.
    """
    set_training_mode(network)
    layers = [layer for layer in batch_norms(network) if layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
    for batch in batches:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
