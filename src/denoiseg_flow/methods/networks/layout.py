"""Layout of the images of a network: 2D or 3D, number of channels, down-sampling along z."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# An axis is down-sampled while a patch has at least so many pixels along it, and while its pixels
# are less than so many times larger than the smallest (both like nnU-Net, Isensee et al. 2021).
SHORTEST_HALVED = 8
COARSEST_HALVED = 2.0

MAGNIFIED = 0.5  # the `downscale` of networks that read images twice as large


@dataclass(frozen=True)
class Layout:
    """Layout of the images that a network is built for.

    Attributes
    ----------
    dimensions
        2 for planes (y, x), 3 for volumes (z, y, x).
    channels
        Number of channels of an image.
    patch_depth
        Number of z-slices of a training patch; 1 in 2D.
    z_factors
        Factor along z of each down-sampling: 2, or 1 to keep the z axis. Down-samplings beyond the
        end of the list keep it.
    plane_by_plane
        Whether each z-slice of a volume is processed separately.
    z_step
        Distance of z-slices in widths of a pixel.
    downscale
        The network reads images that are this many times smaller, see :attr:`reduction`; 0.5:
        twice as large.
    colour
        Whether the channels are the red, green and blue of colour images.
    """

    dimensions: int = 2
    channels: int = 1
    patch_depth: int = 1
    z_factors: tuple[int, ...] = ()
    plane_by_plane: bool = False
    z_step: float = 1.0
    downscale: float = 1
    colour: bool = False

    def __post_init__(self) -> None:
        size = 1 if self.downscale == MAGNIFIED else self.downscale
        counts = (self.channels, self.patch_depth, size)
        known = self.dimensions in (2, 3) and set(self.z_factors) <= {1, 2}
        known &= isinstance(self.z_step, int | float) and 0 < self.z_step < math.inf
        if not known or not all(isinstance(count, int) and count > 0 for count in counts):
            raise ValueError(f"invalid layout of images: {self}")

    @property
    def z_stride(self) -> int:
        """Number of which the z-slices of a patch must be a multiple."""
        return 2 ** sum(factor == 2 for factor in self.z_factors)

    @property
    def reduction(self) -> tuple[int, ...]:
        """Factors by which images are smaller for the network, along each spatial axis.

        Z-slices are merged only as far as their distance stays at most that of rows and columns.
        """
        factor = max(1, int(self.downscale))
        if self.dimensions == 2:
            return (factor, factor)
        along_z = 1 if self.plane_by_plane else max(1, int(factor / self.z_step))
        return (along_z, factor, factor)

    @property
    def magnification(self) -> tuple[int, ...]:
        """Factors by which images are larger for the network, along each spatial axis; z: 1."""
        factor = max(1, round(1 / self.downscale))
        return (factor, factor) if self.dimensions == 2 else (1, factor, factor)

    @property
    def copies(self) -> int:
        """Number of pixels that the network reads in place of each pixel of a magnified image."""
        return math.prod(self.magnification)

    @property
    def size_read(self) -> str:
        """Size of the images that the network reads, as the end of a sentence; empty: their own."""
        if self.downscale == 1:
            return ""
        if self.downscale == MAGNIFIED:
            return "at twice their size"
        return f"at 1/{self.downscale} of their size"

    def factors(self, depth: int) -> list[tuple[int, ...]]:
        """Return the factors of ``depth`` down-samplings along each spatial axis."""
        if self.dimensions == 2:
            return [(2, 2)] * depth
        along_z = [*self.z_factors, *[1] * depth][:depth]
        return [(factor, 2, 2) for factor in along_z]

    def patch_shape(self, side: int) -> tuple[int, ...]:
        """Return the shape of a training patch, without its channels.

        Parameters
        ----------
        side
            Pixels of a patch along y and x, as the network reads it.
        """
        side //= self.magnification[-1]
        return (side, side) if self.dimensions == 2 else (self.patch_depth, side, side)


PLANES = Layout()


def volume_layout(
    depth: int, patch_depth: int, n_planes: int, step: float, channels: int = 1
) -> Layout:
    """Return the layout for volumes, with down-sampling along z where it is useful.

    Parameters
    ----------
    depth
        Number of down-samplings of the network.
    patch_depth
        Maximum number of z-slices of a training patch.
    n_planes
        Number of z-slices of the thinnest volume.
    step
        Distance of z-slices in widths of a pixel.
    """
    wanted, ratio, factors = min(patch_depth, n_planes), step, []
    left = wanted
    for _ in range(depth):
        halved = left >= SHORTEST_HALVED and ratio < COARSEST_HALVED
        factors.append(2 if halved else 1)
        if halved:
            left //= 2
        else:
            ratio /= 2  # down-sampling of y and x only reduces the anisotropy
    z_factors = tuple(factors)
    stride = 2 ** z_factors.count(2)
    return Layout(3, channels, wanted // stride * stride, z_factors, z_step=step)


def strides(factors: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the pixel spacing, in pixels of the image, before and after each down-sampling."""
    found = [tuple(1 for _ in factors[0])] if factors else []
    for factor in factors:
        found.append(tuple(old * new for old, new in zip(found[-1], factor, strict=True)))
    return found
