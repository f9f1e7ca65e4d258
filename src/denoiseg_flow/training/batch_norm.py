"""Statistics of batch normalisation: each batch's own while weights move, fixed ones at the end.

In training mode a patch is normalised by the statistics of the batch that it happens to be in, in
prediction by running averages: two different networks. Over the few hundred small batches of a
short training these averages are noisy, which costs denoising decibels. So the statistics are
measured over many batches, then kept, and the last steps of a training adapt the weights to them
("PreciseBN" and "FrozenBN" in Wu & Johnson 2021, arXiv:2105.07576).
"""

from collections.abc import Iterable

import torch
from torch import nn

# Batches that the statistics are measured over: their error falls to a seventh of one batch's.
BATCHES = 50


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d | nn.BatchNorm3d]:
    """Return the batch normalisation layers of a network."""
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def freeze(network: nn.Module) -> None:
    """Normalise by the kept statistics from now on, in training mode too."""
    for layer in batch_norms(network):
        layer.eval()


@torch.no_grad()
def measure(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the kept statistics by their mean over batches of inputs of the network."""
    layers = batch_norms(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
    network.train()
    for batch in batches:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
