"""U-Net (Ronneberger et al. 2015) in the form that CSBDeep, Noise2Void and DenoiSeg use."""

import torch
from torch import nn
from torch.nn import functional


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


class MaxBlurPool(nn.Module):
    """Maximum over 2x2 pixels, then a binomial blur of which every second pixel is kept.

    Zhang: Making convolutional networks shift-invariant again. ICML 2019.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, y, x) to (batch, channel, y / 2, x / 2)."""
        peaks = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), kernel_size=2, stride=1)
        weights = x.new_zeros(3, 3) + 1 / 16
        weights[1] *= 2
        weights[:, 1] *= 2
        kernel = weights.expand(x.shape[1], 1, 3, 3)
        return functional.conv2d(peaks, kernel, stride=2, padding=1, groups=x.shape[1])


class UNet(nn.Module):
    """U-Net with max-pooling, nearest up-sampling and concatenating skip connections.

    Parameters
    ----------
    depth
        Number of down-samplings (the DenoiSeg paper: 4).
    filters
        Filters of the first level, doubled at each further one (the DenoiSeg paper: 32).
    inputs
        Channels of the input.
    """

    bounded = False
    top_skip = True
    pool_reach = 0  # pixels beyond its own cell that a pooled pixel looks at

    def __init__(self, depth: int, filters: int, inputs: int = 1) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(widths[level - 1] if level else inputs, widths[level], widths[level])
            for level in range(depth)
        )
        self.bottom = DoubleConv(widths[depth - 1], widths[depth], widths[depth - 1])
        self.decoder = nn.ModuleList(
            DoubleConv(
                (2 if level or self.top_skip else 1) * widths[level],
                widths[level],
                widths[max(level - 1, 0)],
            )
            for level in reversed(range(depth))
        )
        self.pool = self.make_pool()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(filters, 4, kernel_size=1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

        self.stride = 2**depth
        # Two 3x3 convolutions at each level on the way down and up, two at the bottom, the position
        # of a pixel inside its pooling cell, and what pooling sees beyond it.
        self.halo = 2 * (2 * (self.stride - 1) + self.stride) + self.stride - 1
        self.halo += self.pool_reach * (self.stride - 1)

    @staticmethod
    def make_pool() -> nn.Module:
        """Return the layer that halves the resolution."""
        return nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, y, x) to (batch, 4, y, x); y and x are multiples of ``stride``."""
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for level in self.decoder:
            skip = skips.pop()
            joined = [self.upsample(x), skip] if skips or self.top_skip else [self.upsample(x)]
            x = level(torch.cat(joined, dim=1))
        return self.head(x)


class BlurPoolUNet(UNet):
    """The U-Net of N2V2 (Hoeck et al. 2022): blurred pooling, and no skip at the top level.

    Both keep the noise of single pixels from reaching the output, which is what the checkerboard
    patterns of Noise2Void are made of.
    """

    top_skip = False
    pool_reach = 1

    @staticmethod
    def make_pool() -> nn.Module:
        """Return the layer that halves the resolution."""
        return MaxBlurPool()
