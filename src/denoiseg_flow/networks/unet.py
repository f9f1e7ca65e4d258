"""U-Net (Ronneberger et al. 2015) in the form that CSBDeep, Noise2Void and DenoiSeg use."""

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU; initialised as Keras does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.ReLU(inplace=True),
        )
        nn.init.xavier_uniform_(self[0].weight)


class DoubleConv(nn.Sequential):
    """The two convolution blocks of one level."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__(ConvBlock(inputs, middle), ConvBlock(middle, outputs))


class UNet(nn.Module):
    """U-Net with max-pooling, nearest up-sampling and concatenating skip connections.

    Parameters
    ----------
    depth
        Number of down-samplings (the DenoiSeg paper: 4).
    filters
        Filters of the first level, doubled at each further one (the DenoiSeg paper: 32).
    """

    def __init__(self, depth: int, filters: int) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(widths[level - 1] if level else 1, widths[level], widths[level])
            for level in range(depth)
        )
        self.bottom = DoubleConv(widths[depth - 1], widths[depth], widths[depth - 1])
        self.decoder = nn.ModuleList(
            DoubleConv(2 * widths[level], widths[level], widths[max(level - 1, 0)])
            for level in reversed(range(depth))
        )
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(filters, 4, kernel_size=1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

        self.stride = 2**depth
        # Two 3x3 convolutions at each level on the way down and up, two at the bottom, and the
        # position of a pixel inside its pooling cell.
        self.halo = 2 * (2 * (self.stride - 1) + self.stride) + self.stride - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 1, y, x) to (batch, 4, y, x); y and x are multiples of ``stride``."""
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for level in self.decoder:
            x = level(torch.cat([self.upsample(x), skips.pop()], dim=1))
        return self.head(x)
