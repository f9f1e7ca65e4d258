"""U-Net (Ronneberger et al. 2015) as used by CSBDeep, Noise2Void and DenoiSeg."""

import torch
from torch import nn
from torch.nn import functional

from denoiseg_flow.methods.networks.layers import (
    BATCH_NORM,
    CONVOLUTION,
    MAX_POOL,
    convolve,
    initialise,
    max_pool,
    upsampling,
)
from denoiseg_flow.methods.networks.layout import Layout, strides
from denoiseg_flow.methods.networks.network import Network


class ConvBlock(nn.Sequential):
    """3x3(x3) convolution, batch normalisation, ReLU; initialised like in Keras."""

    def __init__(self, inputs: int, outputs: int, dimensions: int = 2) -> None:
        convolution = CONVOLUTION[dimensions](inputs, outputs, kernel_size=3, padding=1, bias=False)
        super().__init__(
            convolution,
            BATCH_NORM[dimensions](outputs, eps=1e-3),
            nn.ReLU(inplace=True),
        )
        initialise(convolution)


class DoubleConv(nn.Sequential):
    """The two convolution blocks of one level."""

    def __init__(self, inputs: int, middle: int, outputs: int, dimensions: int = 2) -> None:
        super().__init__(
            ConvBlock(inputs, middle, dimensions), ConvBlock(middle, outputs, dimensions)
        )


class MaxBlurPool(nn.Module):
    """Max-pooling over two neighbours without stride, then binomial blur with stride 2.

    Zhang: Making convolutional networks shift-invariant again. ICML 2019.

    Parameters
    ----------
    factors
        Along each spatial axis: 2, or 1 to keep the axis.
    """

    def __init__(self, factors: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, ...) to the same axes, divided by their factors."""
        # functional.pad starts with the last axis.
        after = [side for factor in reversed(self.factors) for side in (0, factor - 1)]
        peaks = max_pool(functional.pad(x, after), self.factors, stride=1)
        kernel = x.new_ones(x.shape[1], 1, *(2 * factor - 1 for factor in self.factors))
        for axis, factor in enumerate(self.factors, start=2):
            if factor == 2:
                kernel /= 4
                kernel.narrow(axis, 1, 1).mul_(2)
        padding = tuple(factor - 1 for factor in self.factors)
        return convolve(peaks, kernel, stride=self.factors, padding=padding, groups=x.shape[1])


class UNet(Network):
    """U-Net with max-pooling, nearest up-sampling and concatenating skip connections.

    Parameters
    ----------
    depth
        Number of down-samplings (the DenoiSeg paper: 4).
    filters
        Filters of the first level, doubled at each further level (the DenoiSeg paper: 32).
    inputs
        Number of input channels.
    layout
        Layout of its images.
    maps
        Number of output channels for segmentation, see :func:`build_network`.
    """

    top_skip = True
    pool_reach = 0  # pixels beyond its own cell that a pooled pixel depends on

    def __init__(self, depth: int, filters: int, inputs: int, layout: Layout, maps: int) -> None:
        super().__init__()
        dimensions, factors = layout.dimensions, layout.factors(depth)
        widths = [filters * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(
                widths[level - 1] if level else inputs, widths[level], widths[level], dimensions
            )
            for level in range(depth)
        )
        self.bottom = DoubleConv(widths[depth - 1], widths[depth], widths[depth - 1], dimensions)
        self.decoder = nn.ModuleList(
            DoubleConv(
                (2 if level or self.top_skip else 1) * widths[level],
                widths[level],
                widths[max(level - 1, 0)],
                dimensions,
            )
            for level in reversed(range(depth))
        )
        self.pools = nn.ModuleList(self.make_pool(factor) for factor in factors)
        self.upsamplings = nn.ModuleList(upsampling(factor) for factor in reversed(factors))
        self.head = CONVOLUTION[dimensions](filters, layout.channels + maps, kernel_size=1)
        initialise(self.head)

        *above, self.stride = strides(factors)
        # Two 3x3 convolutions at each level of encoder and decoder, two at the bottom, the position
        # of a pixel in its pooling cell, and the reach of pooling beyond the cell.
        self.halo = tuple(
            4 * sum(steps) + 2 * last + (1 + self.pool_reach) * (last - 1)
            for steps, last in zip(zip(*above, strict=True), self.stride, strict=True)
        )

    def encoder_parts(self) -> list[nn.Module]:
        """Return the levels of the encoder, and the bottom."""
        return [self.encoder, self.bottom]

    @staticmethod
    def make_pool(factors: tuple[int, ...]) -> nn.Module:
        """Return the down-sampling layer."""
        return MAX_POOL[len(factors)](factors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, ...) to (batch, channels + maps, ...); sides multiples of stride."""
        skips = []
        for number, (level, pool) in enumerate(zip(self.encoder, self.pools, strict=True)):
            x = level(x)
            if number or self.top_skip:
                skips.append(x)
            x = pool(x)
        x = self.bottom(x)
        for level, upsample in zip(self.decoder, self.upsamplings, strict=True):
            # Not assigned to a name, so its memory is free before the level allocates its own.
            x = level(torch.cat([upsample(x), skips.pop()], dim=1) if skips else upsample(x))
        return self.head(x)


class BlurPoolUNet(UNet):
    """The U-Net of N2V2 (Hoeck et al. 2022): blurred pooling, no skip connection at the top level.

    Both prevent the noise of single pixels from reaching the output, which causes the checkerboard
    artefacts of Noise2Void.
    """

    top_skip = False
    pool_reach = 1

    @staticmethod
    def make_pool(factors: tuple[int, ...]) -> nn.Module:
        """Return the down-sampling layer."""
        return MaxBlurPool(factors)
