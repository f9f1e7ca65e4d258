"""Apply a network to images of another size."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from denoiseg_flow.methods.networks.network import Network

_POOL = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_MODE = {2: "bilinear", 3: "trilinear"}


class Resized(Network):
    """A network around another one that reads images of another size.

    Parameters
    ----------
    network
        Maps (batch, inputs, [z,] y, x) to (batch, outputs, [z,] y, x).
    factors
        Sides of a block of pixels, along each spatial axis.
    """

    def __init__(self, network: Network, factors: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.factors = tuple(factors)
        self.bounded = network.bounded

    @property
    def core(self) -> Network:
        """The network that reads the images of another size."""
        return self.network

    def encoder_parts(self) -> list[nn.Module]:
        """Return those of the network."""
        return self.network.encoder_parts()

    def start_at(self, grey: float) -> None:
        """Initialise the network, if it is ``bounded``."""
        self.network.start_at(grey)


class Reduced(Resized):
    """Apply a network to the means of blocks of pixels, and interpolate its output.

    Objects that are too large for the receptive field of a network are of a fitting size there.
    """

    def __init__(self, network: Network, factors: Sequence[int]) -> None:
        super().__init__(network, factors)
        self.stride = self._scaled(network.stride)
        # Interpolation reads the neighbouring block.
        self.halo = self._scaled(reach + 1 for reach in network.halo)

    def _scaled(self, lengths: Iterable[int]) -> tuple[int, ...]:
        return tuple(length * factor for length, factor in zip(lengths, self.factors, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, [z,] y, x) to (batch, outputs, [z,] y, x)."""
        return interpolate(self.network(means_of_blocks(x, self.factors)), self.factors)


class Magnified(Resized):
    """Apply a network to blocks of repeated pixels, and return the means of its output in them.

    Objects that are smaller than those a network was trained on are of a fitting size there. Pixels
    are repeated, not interpolated: the noise of interpolated images is correlated, which networks
    know less well. Around a network in training, its pixels stay those of the image, so a masked
    pixel is hidden in all its copies.
    """

    def __init__(self, network: Network, factors: Sequence[int]) -> None:
        super().__init__(network, factors)
        self.stride = self._covered(network.stride)
        self.halo = self._covered(network.halo)

    def _covered(self, lengths: Iterable[int]) -> tuple[int, ...]:
        return tuple(
            -(-length // factor) for length, factor in zip(lengths, self.factors, strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, [z,] y, x) to (batch, outputs, [z,] y, x)."""
        repeats = [float(each) for each in self.factors]
        output = self.network(functional.interpolate(x, scale_factor=repeats, mode="nearest"))
        return means_of_blocks(output, self.factors)


def means_of_blocks(x: torch.Tensor, factors: tuple[int, ...]) -> torch.Tensor:
    """Return the means of blocks of (batch, channel, [z,] y, x); ``factors`` are their sides."""
    return _POOL[len(factors)](x, factors)


def interpolate(x: torch.Tensor, factors: tuple[int, ...]) -> torch.Tensor:
    """Enlarge (batch, channel, [z,] y, x) by ``factors``, by linear interpolation."""
    scales = [float(each) for each in factors]
    return functional.interpolate(x, scale_factor=scales, mode=_MODE[len(factors)])


def reduced_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return the number of whole blocks along each axis."""
    return tuple(length // factor for length, factor in zip(shape, factors, strict=True))


def reduce_image(image: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the means of blocks of an image, which the network inside :class:`Reduced` reads.

    Parameters
    ----------
    image
        (channel, [z,] y, x), of any real pixel type; remaining pixels at the ends are left out.
    """
    if max(factors) == 1:
        return image
    pairs = list(zip(reduced_shape(image.shape[1:], factors), factors, strict=True))
    whole = image[:, *(slice(count * factor) for count, factor in pairs)]
    blocks = whole.reshape(len(image), *(side for pair in pairs for side in pair))
    return blocks.mean(axis=tuple(range(2, blocks.ndim, 2)), dtype=np.float32)


def magnify_image(image: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return an image (channel, [z,] y, x) as the network inside :class:`Magnified` reads it."""
    for axis, factor in enumerate(factors, start=1):
        image = image.repeat(factor, axis=axis) if factor > 1 else image
    return image


def reduce_labels(labels: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the label ([z,] y, x) at the centre of each block."""
    pairs = zip(reduced_shape(labels.shape, factors), factors, strict=True)
    return labels[*(slice(factor // 2, count * factor, factor) for count, factor in pairs)]
