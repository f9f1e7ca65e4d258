"""DnCNN (Zhang et al. 2017) as used by Noise2Self: eight layers, no residual connection."""

import torch
from torch import nn

from denoiseg_flow.methods.networks.layers import BATCH_NORM, CONVOLUTION
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.networks.network import Network

LAYERS = 8


class DnCNN(Network, nn.Sequential):
    """A chain of 3x3 convolutions at full resolution.

    The denoised image is the output itself, not the input minus the output, because the prediction
    of a pixel must not depend on this pixel.

    Parameters
    ----------
    depth
        Not used: the number of layers is that of the Noise2Self experiments.
    filters
        Filters of every layer (Noise2Self: 64).
    inputs
        Number of input channels.
    layout
        Layout of its images.
    """

    def __init__(self, depth: int, filters: int, inputs: int, layout: Layout, maps: int) -> None:
        dimensions = layout.dimensions

        def convolution(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
            return CONVOLUTION[dimensions](inputs, outputs, kernel_size=3, padding=1, bias=bias)

        layers: list[nn.Module] = [convolution(inputs, filters), nn.ReLU(inplace=True)]
        for _ in range(LAYERS - 2):
            layers += [
                convolution(filters, filters, bias=False),
                BATCH_NORM[dimensions](filters),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, convolution(filters, layout.channels + maps))
        self.stride = (1,) * dimensions
        self.halo = (LAYERS,) * dimensions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, ...) to (batch, channels + maps, ...)."""
        return super().forward(x)
