"""The convolutional denoising autoencoder of Gondara (2016)."""

import math

import torch
from torch import nn


class Autoencoder(nn.Module):
    """Five 3x3 convolutions around two max-poolings and two up-samplings, without skips.

    There is nothing but convolutions in it, so that it takes images of any size, not only the
    64x64 pixels of the paper.

    Parameters
    ----------
    depth
        Not used: the paper's network down-samples twice.
    filters
        Filters of all convolutions but the last (the paper: 64).
    inputs
        Channels of the input.
    """

    stride = 4
    # One pixel for each convolution, at its resolution, and the place inside a pooling cell.
    halo = 1 + 2 + 4 + 2 + 1 + 3
    bounded = True

    def __init__(self, depth: int, filters: int, inputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(inputs, filters),
            nn.MaxPool2d(2),
            *_block(filters, filters),
            nn.MaxPool2d(2),
            *_block(filters, filters),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_block(filters, filters),
            nn.Upsample(scale_factor=2, mode="nearest"),
            _convolution(filters, 4),
        )

    @torch.no_grad()
    def start_at(self, grey: float) -> None:
        """Let an untrained network begin with images of about that grey, between 0 and 1.

        It would begin with 0.5, and on the way from there to images that are mostly dark its units
        die: of four trainings on simulated nuclei, all showed a single grey after 300 steps. None
        did that began with the mean grey of its targets.
        """
        grey = min(max(grey, 1e-3), 1 - 1e-3)
        self.layers[-1].bias[0] = math.log(grey / (1 - grey))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, y, x) to (batch, 4, y, x), the denoised image between 0 and 1."""
        image, logits = self.layers(x).split([1, 3], dim=1)
        return torch.cat([image.sigmoid(), logits], dim=1)


def _block(inputs: int, filters: int) -> tuple[nn.Module, nn.Module]:
    return _convolution(inputs, filters), nn.ReLU(inplace=True)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution initialised as Keras does.

    PyTorch's smaller weights let the sigmoid of a network without batch normalisation stay at one
    grey for hundreds of steps.
    """
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
