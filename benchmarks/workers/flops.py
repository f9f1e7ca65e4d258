"""Floating point operations of a training, counted from the shapes of its convolutions."""

import torch
from torch import nn


@torch.no_grad()
def training_flops(network: nn.Module, patch_size: int) -> float:
    """Return the floating point operations that one patch costs in one training step.

    A multiply-add is two operations; the backward pass costs twice the forward pass, once for the
    gradient of the weights and once for that of the inputs. Only convolutions are counted.

    Parameters
    ----------
    network
        Takes (batch, 1, y, x).
    patch_size
        Side of the patch in pixels.
    """
    multiply_adds = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal multiply_adds
        _, channels, *kernel = layer.weight.shape  # (out, in / groups, y, x)
        multiply_adds += output.numel() * channels * torch.Size(kernel).numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    was_training = network.training
    network.eval()
    network(torch.zeros(1, 1, patch_size, patch_size, device=next(network.parameters()).device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return 3.0 * 2.0 * multiply_adds


def parameter_count(network: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
