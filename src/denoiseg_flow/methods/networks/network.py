"""What every network of a method is."""

from torch import nn


class Network(nn.Module):
    """Maps (batch, inputs, [z,] y, x) to (batch, channels + 3, ...), see :func:`build_network`.

    Attributes
    ----------
    stride
        Along each spatial axis: sides of the input must be multiples of it.
    halo
        Along each spatial axis: how many pixels away an input pixel can change an output pixel.
    bounded
        Whether the denoised image lies between 0 and 1.
    """

    stride: tuple[int, ...]
    halo: tuple[int, ...]
    bounded: bool = False

    def start_at(self, grey: float) -> None:
        """Let an untrained network that is ``bounded`` begin with images of about that grey."""
