"""Base class of all networks."""

from torch import nn


class Network(nn.Module):
    """Map (batch, inputs, [z,] y, x) to (batch, channels + maps, ...), see :func:`build_network`.

    Attributes
    ----------
    stride
        Sides of the input must be multiples of it, along each spatial axis.
    halo
        Radius of the receptive field in pixels, along each spatial axis.
    bounded
        Whether denoised values lie between 0 and 1.
    """

    stride: tuple[int, ...]
    halo: tuple[int, ...]
    bounded: bool = False

    @property
    def core(self) -> "Network":
        """The network itself, without a change of the size of images around it."""
        return self

    def encoder_parts(self) -> list[nn.Module]:
        """Return the modules before the first up-sampling; none for networks without encoder."""
        return []

    def start_at(self, grey: float) -> None:
        """Initialise an untrained ``bounded`` network to output about this grey value."""
