"""The networks that a method can use (its field ``network``)."""

import torch

from denoiseg_flow.methods.networks.autoencoder import Autoencoder
from denoiseg_flow.methods.networks.dncnn import DnCNN
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.networks.network import Network
from denoiseg_flow.methods.networks.plane_by_plane import PlaneByPlane
from denoiseg_flow.methods.networks.resized import Magnified, Reduced
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
    maps: int = 3,
) -> Network:
    """Return a new network with weights in channels-last format.

    Networks map (batch, c, y, x), or (batch, c, z, y, x) for volumes, to (batch, c + maps, ...) of
    the same size: the c denoised channels, the logits of background, foreground and border, and,
    with four maps, the relative distance from the background (:func:`classes.relative_distance`).
    With ``mask_channel`` they read c additional channels.
    Methods that only denoise or only segment leave the other output channels untrained; networks of
    all methods can thus exchange weights.

    Parameters
    ----------
    depth
        Number of down-samplings, for networks without a fixed number.
    filters
        Filters of the first level.
    layout
        Layout of its images.
    maps
        Number of output channels for segmentation, 3 or 4.
    """
    inputs = layout.channels * (2 if mask_channel else 1)
    seen = Layout(channels=layout.channels) if layout.plane_by_plane else layout
    network = NETWORKS[name](depth, filters, inputs, seen, maps)
    # PyTorch does not declare this argument.
    network = network.to(memory_format=memory_format(seen.dimensions))  # type: ignore[call-overload]
    network = PlaneByPlane(network) if layout.plane_by_plane else network
    return resized_for(layout, network)


def resized_for(layout: Layout, network: Network) -> Network:
    """Return a network as it reads images of a layout, which it may see at another size."""
    if layout.downscale > 1:
        return Reduced(network, layout.reduction)
    return Magnified(network, layout.magnification) if layout.downscale < 1 else network


def as_input(
    patches: torch.Tensor, masked: torch.Tensor | None, mask_channel: bool
) -> torch.Tensor:
    """Return patches as input of a network: (batch, channel, [z,] y, x).

    Parameters
    ----------
    patches
        (batch, channel, [z,] y, x).
    masked
        Mask of the masked pixels, of the same shape, which is appended as additional channels with
        ``mask_channel``; None: no pixel is masked.
    """
    if not mask_channel:
        return patches
    mask = torch.zeros_like(patches) if masked is None else masked.to(patches.dtype)
    return torch.cat([patches, mask], dim=1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return (batch, channel, [z,] y, x) in the memory format with the fastest convolutions.

    Not used in TorchScript recordings, because these would fix the device with the format.
    """
    return x.to(memory_format=memory_format(x.dim() - 2))


def memory_format(dimensions: int) -> torch.memory_format:
    """Return the memory format with the fastest convolutions: channels last."""
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def split_output(output: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split an output into denoised images (batch, channel, ...) and the maps of segmentation.

    These are (batch, 3, ...), the logits of the classes, or (batch, 4, ...) with the distance.
    """
    return output[:, :channels], output[:, channels:]
