"""The networks that a method can name in its ``network`` field."""

from collections.abc import Callable

from torch import nn

from denoiseg_flow.networks.unet import UNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet": UNet}


def build_network(name: str, depth: int, filters: int) -> nn.Module:
    """Return a new network.

    Every network maps (batch, 1, y, x) to (batch, 4, y, x), the channels being the denoised image
    and the logits of background, foreground and border. Methods that only denoise or only segment
    leave the other channels untrained, so that any network can start from the weights of another.
    It tells the ``stride`` that image sides must be a multiple of, and the ``halo``: how many
    pixels away an input pixel can still change an output pixel.
    """
    return NETWORKS[name](depth=depth, filters=filters)
