"""The networks that a method can name in its ``network`` field."""

import torch
from torch import nn

from denoiseg_flow.networks.autoencoder import Autoencoder
from denoiseg_flow.networks.dncnn import DnCNN
from denoiseg_flow.networks.unet import BlurPoolUNet, UNet

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "unet_blurpool": BlurPoolUNet,
    "dncnn": DnCNN,
    "autoencoder": Autoencoder,
}


def build_network(name: str, depth: int, filters: int, mask_channel: bool = False) -> nn.Module:
    """Return a new network.

    Every network maps (batch, 1, y, x), or (batch, 2, y, x) with ``mask_channel``, to
    (batch, 4, y, x), the channels being the denoised image and the logits of background,
    foreground and border. Methods that only denoise or only segment leave the other channels
    untrained, so that any network can start from the weights of another.
    It tells the ``stride`` that image sides must be a multiple of, the ``halo``: how many pixels
    away an input pixel can still change an output pixel, and whether its denoised image is
    ``bounded`` to the range from 0 to 1.
    """
    return NETWORKS[name](depth=depth, filters=filters, inputs=2 if mask_channel else 1)


def as_input(
    patches: torch.Tensor, hidden: torch.Tensor | None, mask_channel: bool
) -> torch.Tensor:
    """Return patches (batch, y, x) as a network reads them: (batch, 1 or 2, y, x), channels last.

    ``hidden``, of the same shape, is the mask of hidden pixels, the second channel where there is
    one; None stands for no hidden pixel.
    """
    channels = [patches]
    if mask_channel:
        channels.append(torch.zeros_like(patches) if hidden is None else hidden.to(patches.dtype))
    return torch.stack(channels, dim=1).to(memory_format=torch.channels_last)
