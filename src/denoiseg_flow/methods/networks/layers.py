"""Layers for planes and for volumes, by the number of spatial axes."""

import torch
from torch import nn
from torch.nn import functional

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def upsampling(factors: tuple[int, ...]) -> nn.Module:
    """Return the layer that repeats each pixel so many times along each axis."""
    return nn.Upsample(scale_factor=tuple(map(float, factors)), mode="nearest")


def convolve(x: torch.Tensor, kernel: torch.Tensor, **options: object) -> torch.Tensor:
    """Convolve (batch, channel, ...) as ``functional.conv2d`` or ``conv3d`` do."""
    function = functional.conv2d if x.dim() == 4 else functional.conv3d
    return function(x, kernel, **options)


def max_pool(x: torch.Tensor, **options: object) -> torch.Tensor:
    """Return maxima of (batch, channel, ...) as ``functional.max_pool2d`` or ``max_pool3d`` do."""
    function = functional.max_pool2d if x.dim() == 4 else functional.max_pool3d
    return function(x, **options)
