"""Count the operations and memory traffic of a training from the shapes of its convolutions."""

from collections.abc import Callable

import torch
from torch import nn


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

    def multiply_adds(layer: nn.Module, _: torch.Tensor, output: torch.Tensor) -> int:
        _, channels, *kernel = layer.weight.shape  # (out, in / groups, y, x)
        return output.numel() * channels * torch.Size(kernel).numel()

    return 3.0 * 2.0 * sum(_of_convolutions(network, patch_size, multiply_adds))


def training_numbers(network: nn.Module, patch_size: int) -> float:
    """Return how many numbers one patch moves from and to memory in one training step, at least.

    Forwards, a convolution reads its input and writes its output. Backwards, it reads both its
    input and the gradient of its output for the gradient of its weights, and for that of its input
    the latter once more, and writes the result. All else could be computed in passing. Weights are
    few, and left out. Parameters are those of :func:`training_flops`.
    """

    def moved(_: nn.Module, inputs: torch.Tensor, output: torch.Tensor) -> int:
        return 3 * inputs.numel() + 3 * output.numel()

    return float(sum(_of_convolutions(network, patch_size, moved)))


@torch.no_grad()
def _of_convolutions(
    network: nn.Module,
    patch_size: int,
    count: Callable[[nn.Module, torch.Tensor, torch.Tensor], int],
) -> list[int]:
    """Return the count of each convolution, of its layer, input and output for one patch."""
    found = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, inputs, output: found.append(count(layer, inputs[0], output))
        )
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    was_training = network.training
    network.eval()
    network(torch.zeros(1, 1, patch_size, patch_size, device=next(network.parameters()).device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


def parameter_count(network: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
