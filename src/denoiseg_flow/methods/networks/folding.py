"""Networks for prediction only: batch normalisation becomes part of the convolutions before it."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from denoiseg_flow.methods.networks.layers import BATCH_NORM, CONVOLUTION

_CONVOLUTIONS, _BATCH_NORMS = tuple(CONVOLUTION.values()), tuple(BATCH_NORM.values())


class _OneDNN(_ConvNd):
    """A convolution that is computed by oneDNN on a CPU, whatever its size.

    PyTorch itself takes other code for 1x1 convolutions on one thread, and for a single image of
    few values. In volumes that can be the first layer of a network, ten times slower, and what it
    yields is not channels last, which costs the layers behind it as much again.
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
    """Return a copy for prediction that does not normalise: its convolutions have taken that over.

    Normalising by fixed statistics is a factor and an offset for each channel, which weights and
    bias of the convolution before can hold. The copy has the same modules, with an identity in the
    place of each batch normalisation that follows a convolution, and predicts the same up to the
    rounding of float32.

    Parameters
    ----------
    network
        In any mode; it stays as it is.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for layers in folded.modules():
        if isinstance(layers, nn.Sequential):
            for number, (layer, norm) in enumerate(pairwise(layers)):
                if isinstance(layer, _CONVOLUTIONS) and isinstance(norm, _BATCH_NORMS):
                    # In double precision, so that weights are rounded once.
                    layers[number] = fuse_conv_bn_eval(layer.double(), norm.double()).float()
                    layers[number + 1] = nn.Identity().eval()
    for layer in folded.modules():
        if isinstance(layer, _CONVOLUTIONS):
            layer.__class__ = _Conv2d if isinstance(layer, nn.Conv2d) else _Conv3d
    return folded
