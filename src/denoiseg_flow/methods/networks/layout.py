"""What images a network is built for: planes or volumes, and how many channels."""

from collections.abc import Sequence
from dataclasses import dataclass

# An axis is halved while it has at least so many pixels in a patch, and is sampled less than so
# many times more coarsely than the finest (both as in nnU-Net, Isensee et al. 2021).
SHORTEST_HALVED = 8
COARSEST_HALVED = 2.0


@dataclass(frozen=True)
class Layout:
    """The images that a network is built for.

    Attributes
    ----------
    dimensions
        2 for planes (y, x), 3 for volumes (z, y, x).
    channels
        Of an image.
    patch_depth
        Planes of a training patch; 1 where there is no z axis.
    z_factors
        For each down-sampling, whether it halves the z axis too (2) or leaves it (1). Further
        down-samplings leave it.
    plane_by_plane
        Whether each plane of a volume is looked at by itself.
    """

    dimensions: int = 2
    channels: int = 1
    patch_depth: int = 1
    z_factors: tuple[int, ...] = ()
    plane_by_plane: bool = False

    def __post_init__(self) -> None:
        counts = (self.channels, self.patch_depth)
        known = self.dimensions in (2, 3) and set(self.z_factors) <= {1, 2}
        if not known or not all(isinstance(count, int) and count > 0 for count in counts):
            raise ValueError(f"there are no such images: {self}")

    @property
    def z_stride(self) -> int:
        """What the planes of a patch must be a multiple of."""
        return 2 ** sum(factor == 2 for factor in self.z_factors)

    def factors(self, depth: int) -> list[tuple[int, ...]]:
        """Return by how much each of ``depth`` down-samplings shrinks each spatial axis."""
        if self.dimensions == 2:
            return [(2, 2)] * depth
        along_z = [*self.z_factors, *[1] * depth][:depth]
        return [(factor, 2, 2) for factor in along_z]

    def patch_shape(self, side: int) -> tuple[int, ...]:
        """Return the shape of a training patch, without its channels."""
        return (side, side) if self.dimensions == 2 else (self.patch_depth, side, side)


PLANES = Layout()


def volume_layout(
    depth: int, patch_depth: int, n_planes: int, step: float, channels: int = 1
) -> Layout:
    """Return how volumes are looked at.

    Parameters
    ----------
    depth
        Down-samplings of the network.
    patch_depth
        Wanted planes of a training patch.
    n_planes
        Of the thinnest volume.
    step
        Distance of planes over the width of a pixel.
    """
    wanted, ratio, factors = min(patch_depth, n_planes), step, []
    left = wanted
    for _ in range(depth):
        halved = left >= SHORTEST_HALVED and ratio < COARSEST_HALVED
        factors.append(2 if halved else 1)
        if halved:
            left //= 2
        else:
            ratio /= 2  # rows and columns come closer to the distance of planes
    z_factors = tuple(factors)
    stride = 2 ** z_factors.count(2)
    return Layout(3, channels, wanted // stride * stride, z_factors)


def strides(factors: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the distance of neighbours, in pixels of the image, before and after each pooling."""
    found = [tuple(1 for _ in factors[0])] if factors else []
    for factor in factors:
        found.append(tuple(old * new for old, new in zip(found[-1], factor, strict=True)))
    return found
