"""The convolutional denoising autoencoder of Gondara (2016)."""

import math

import torch
from torch import nn

from denoiseg_flow.methods.definition import down_samplings
from denoiseg_flow.methods.networks.layers import CONVOLUTION, MAX_POOL, initialise, upsampling
from denoiseg_flow.methods.networks.layout import Layout, strides
from denoiseg_flow.methods.networks.network import Network


class Autoencoder(Network):
    """Five 3x3 convolutions around two max-poolings and two up-samplings, without skips.

    Fully convolutional, so it accepts images of any size, not only the 64x64 pixels of the paper.

    Parameters
    ----------
    depth
        Not used: the paper's network down-samples twice.
    filters
        Filters of all convolutions except the last (the paper: 64).
    inputs
        Number of input channels.
    layout
        Layout of its images.
    """

    bounded = True

    def __init__(self, depth: int, filters: int, inputs: int, layout: Layout, maps: int) -> None:
        super().__init__()
        dimensions = layout.dimensions
        self.channels = layout.channels
        first, second = factors = layout.factors(down_samplings("autoencoder", depth))
        self.layers = nn.Sequential(
            *_block(inputs, filters, dimensions),
            MAX_POOL[dimensions](first),
            *_block(filters, filters, dimensions),
            MAX_POOL[dimensions](second),
            *_block(filters, filters, dimensions),
            upsampling(second),
            *_block(filters, filters, dimensions),
            upsampling(first),
            _convolution(filters, layout.channels + maps, dimensions),
        )
        _, middle, self.stride = strides(factors)
        # One pixel for each convolution, at its resolution, and the position in a pooling cell.
        self.halo = tuple(
            2 + 2 * half + last + last - 1 for half, last in zip(middle, self.stride, strict=True)
        )

    @torch.no_grad()
    def start_at(self, grey: float) -> None:
        """Initialise an untrained network to output about this grey value, between 0 and 1.

        By default it would start at 0.5. If images are mostly dark, its units then die: all of four
        trainings on simulated nuclei yielded a constant image after 300 steps. None of those that
        started at the mean grey value of their targets did.
        """
        grey = min(max(grey, 1e-3), 1 - 1e-3)
        bias = self.layers[-1].get_parameter("bias")
        bias[: self.channels] = math.log(grey / (1 - grey))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, ...) to (batch, channels + maps, ...); denoised values in (0, 1)."""
        image, logits = self.layers(x).tensor_split([self.channels], dim=1)
        return torch.cat([image.sigmoid(), logits], dim=1)


def _block(inputs: int, filters: int, dimensions: int) -> tuple[nn.Module, nn.Module]:
    return _convolution(inputs, filters, dimensions), nn.ReLU(inplace=True)


def _convolution(inputs: int, outputs: int, dimensions: int) -> nn.Module:
    """Return a convolution initialised like in Keras.

    With PyTorch's smaller weights, the sigmoid of a network without batch normalisation outputs a
    constant for hundreds of steps.
    """
    layer = CONVOLUTION[dimensions](inputs, outputs, kernel_size=3, padding=1)
    initialise(layer)
    return layer
