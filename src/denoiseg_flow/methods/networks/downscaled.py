"""Apply a network to images of reduced size."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.nn import functional

from denoiseg_flow.methods.networks.network import Network

_POOL = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_MODE = {2: "bilinear", 3: "trilinear"}


class Downscaled(Network):
    """Apply a network to the means of blocks of pixels, and interpolate its output.

    Objects that are too large for the receptive field of a network are of a fitting size there.

    Parameters
    ----------
    network
        Maps (batch, inputs, [z,] y, x) to (batch, outputs, [z,] y, x).
    factors
        Sides of a block, along each spatial axis.
    """

    def __init__(self, network: Network, factors: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.factors = tuple(factors)
        self.stride = self._scaled(network.stride)
        # Interpolation reads the neighbouring block.
        self.halo = self._scaled(reach + 1 for reach in network.halo)
        self.bounded = network.bounded

    def _scaled(self, lengths: Iterable[int]) -> tuple[int, ...]:
        return tuple(length * factor for length, factor in zip(lengths, self.factors, strict=True))

    @property
    def core(self) -> Network:
        """The network that reads the reduced images."""
        return self.network

    def start_at(self, grey: float) -> None:
        """Initialise the network, if it is ``bounded``."""
        self.network.start_at(grey)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, [z,] y, x) to (batch, outputs, [z,] y, x)."""
        axes = len(self.factors)
        output = self.network(_POOL[axes](x, self.factors))
        return functional.interpolate(
            output, scale_factor=[float(each) for each in self.factors], mode=_MODE[axes]
        )


def reduced_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return the number of whole blocks along each axis."""
    return tuple(length // factor for length, factor in zip(shape, factors, strict=True))


def reduce_image(image: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the means of blocks of an image, which the network inside :class:`Downscaled` reads.

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


def reduce_labels(labels: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Return the label ([z,] y, x) at the centre of each block."""
    pairs = zip(reduced_shape(labels.shape, factors), factors, strict=True)
    return labels[*(slice(factor // 2, count * factor, factor) for count, factor in pairs)]
