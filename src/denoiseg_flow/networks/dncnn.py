"""DnCNN (Zhang et al. 2017) as Noise2Self uses it: eight layers, and no residual connection."""

import torch
from torch import nn

LAYERS = 8


class DnCNN(nn.Sequential):
    """A chain of 3x3 convolutions at full resolution.

    The image is the output itself, not the input minus the output: what the network learns must
    not depend on the pixel that it predicts.

    Parameters
    ----------
    depth
        Not used: the number of layers is that of Noise2Self's experiments.
    filters
        Filters of every layer (Noise2Self: 64).
    inputs
        Channels of the input.
    """

    stride = 1
    halo = LAYERS
    bounded = False

    def __init__(self, depth: int, filters: int, inputs: int = 1) -> None:
        layers: list[nn.Module] = [_convolution(inputs, filters), nn.ReLU(inplace=True)]
        for _ in range(LAYERS - 2):
            layers += [
                _convolution(filters, filters, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, _convolution(filters, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, y, x) to (batch, 4, y, x)."""
        return super().forward(x)


def _convolution(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=bias)
