"""Layers for 2D and 3D, by the number of spatial axes."""

import torch
from torch import nn
from torch.nn import functional

Convolution = nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d

CONVOLUTION: dict[int, type[Convolution]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
MAX_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def initialise(layer: Convolution) -> None:
    """Give a convolution the first weights that Keras gives it (Glorot & Bengio 2010)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def upsampling(factors: tuple[int, ...]) -> nn.Module:
    """Return a layer that repeats each pixel along each axis by its factor."""
    return nn.Upsample(scale_factor=tuple(map(float, factors)), mode="nearest")


def convolve(
    x: torch.Tensor,
    kernel: torch.Tensor,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    groups: int = 1,
) -> torch.Tensor:
    """Convolve (batch, channel, ...) with ``functional.conv2d`` or ``conv3d``."""
    function = functional.conv2d if x.dim() == 4 else functional.conv3d
    return function(x, kernel, stride=stride, padding=padding, groups=groups)


def max_pool(x: torch.Tensor, sides: tuple[int, ...], stride: int) -> torch.Tensor:
    """Max-pool (batch, channel, ...) with ``functional.max_pool2d`` or ``max_pool3d``."""
    function = functional.max_pool2d if x.dim() == 4 else functional.max_pool3d
    return function(x, sides, stride=stride)
