"""The networks that a method can name in its ``network`` field."""

import torch

from denoiseg_flow.methods.networks.autoencoder import Autoencoder
from denoiseg_flow.methods.networks.dncnn import DnCNN
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.methods.networks.plane_by_plane import PlaneByPlane
from denoiseg_flow.methods.networks.unet import BlurPoolUNet, UNet

NETWORKS: dict[str, type[Network]] = {
    "unet": UNet,
    "unet_blurpool": BlurPoolUNet,
    "dncnn": DnCNN,
    "autoencoder": Autoencoder,
}


def build_network(
    name: str,
    depth: int,
    filters: int,
    mask_channel: bool = False,
    layout: Layout = PLANES,
) -> Network:
    """Return a new network, its weights channels last in memory.

    Every network maps (batch, c, y, x), or (batch, c, z, y, x) for volumes, to (batch, c + 3, ...)
    of the same size: the c channels denoised, and the logits of background, foreground and border.
    With ``mask_channel``, another c channels are read. Methods that only denoise or only segment
    leave the other channels untrained, so that any network can start from the weights of another.

    Parameters
    ----------
    depth
        Down-samplings, for networks that leave it open.
    filters
        Of the first level.
    layout
        The images that it is for.
    """
    inputs = layout.channels * (2 if mask_channel else 1)
    seen = Layout(channels=layout.channels) if layout.plane_by_plane else layout
    network = NETWORKS[name](depth, filters, inputs, seen)
    # PyTorch does not declare this argument.
    network = network.to(memory_format=memory_format(seen.dimensions))  # type: ignore[call-overload]
    return PlaneByPlane(network) if layout.plane_by_plane else network


def as_input(
    patches: torch.Tensor, masked: torch.Tensor | None, mask_channel: bool
) -> torch.Tensor:
    """Return patches as a network reads them: (batch, channel, [z,] y, x).

    Parameters
    ----------
    patches
        (batch, channel, [z,] y, x).
    masked
        The mask of masked pixels, of the same shape, which becomes further channels where the
        network reads it; None stands for no masked pixel.
    """
    if not mask_channel:
        return patches
    mask = torch.zeros_like(patches) if masked is None else masked.to(patches.dtype)
    return torch.cat([patches, mask], dim=1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return (batch, channel, [z,] y, x) in the format in which convolutions are fastest.

    Recordings do without: TorchScript would fix the device with the format.
    """
    return x.to(memory_format=memory_format(x.dim() - 2))


def memory_format(dimensions: int) -> torch.memory_format:
    """Return the format in which convolutions are fastest: channels last."""
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def split_output(output: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoised images (batch, channel, ...) and the logits (batch, 3, ...)."""
    return output[:, :channels], output[:, channels:]
