"""Fold batch normalisation into the preceding convolutions, for faster prediction."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from denoiseg_flow.methods.networks.layers import BATCH_NORM, CONVOLUTION

_CONVOLUTIONS, _BATCH_NORMS = tuple(CONVOLUTION.values()), tuple(BATCH_NORM.values())


class _OneDNN(_ConvNd):
    """A convolution that always uses oneDNN on a CPU.

    PyTorch uses other code for 1x1 convolutions on one thread and for a single small image. In 3D
    this can make the first layer of a network ten times slower, and its output is not channels
    last, which slows down the following layers as much again.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return super().forward(x)
        assert not isinstance(self.padding, str)
        how = self.padding, self.stride, self.dilation, self.groups
        return torch.mkldnn_convolution(x, self.weight, self.bias, *how)


class _Conv2d(_OneDNN, nn.Conv2d):
    pass


class _Conv3d(_OneDNN, nn.Conv3d):
    pass


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy for prediction with batch normalisation folded into the convolutions.

    Normalisation by fixed statistics is a factor and an offset for each channel, which the weights
    and bias of the preceding convolution can absorb. The copy has the same modules, with an
    identity for each batch normalisation after a convolution, and predicts the same values up to
    rounding in float32.

    Parameters
    ----------
    network
        In any mode; it is not changed.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for layers in folded.modules():
        if isinstance(layers, nn.Sequential):
            for number, (layer, norm) in enumerate(pairwise(layers)):
                if isinstance(layer, _CONVOLUTIONS) and isinstance(norm, _BATCH_NORMS):
                    # In double precision, to round the weights only once.
                    layers[number] = fuse_conv_bn_eval(layer.double(), norm.double()).float()
                    layers[number + 1] = nn.Identity().eval()
    for layer in folded.modules():
        if isinstance(layer, _CONVOLUTIONS):
            layer.__class__ = _Conv2d if isinstance(layer, nn.Conv2d) else _Conv3d
    return folded
