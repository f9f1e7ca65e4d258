"""Cut a large image into tiles that are worked on one at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Protocol

import numpy as np

Place = tuple[slice, ...]
"""A box in an image: a slice for each of its axes."""

PIECE = 2**24  # pixels that are read together


class Readable(Protocol):
    """An array, or what can be read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __getitem__(self, place: Place, /) -> np.ndarray: ...


def spans(size: int, tile: int, halo: int, stride: int = 1) -> Iterator[tuple[slice, slice]]:
    """Cut one axis into tiles, each to be computed with a halo of its neighbourhood.

    Parameters
    ----------
    size
        Length of the axis in pixels.
    tile
        Length of the part of a tile that is kept, rounded up to a multiple of ``stride``.
    halo
        Pixels needed on either side of the kept part, rounded up likewise.
    stride
        Computed spans begin and end at multiples of it, the last one beyond the end of the axis
        if need be.

    Yields
    ------
    The kept and the computed span. The kept ones cover the axis once.
    """
    padded = -(-size // stride) * stride
    halo = -(-halo // stride) * stride
    tile = -(-tile // stride) * stride
    for start in range(0, padded, tile):
        stop = min(start + tile, padded)
        yield (
            slice(start, min(stop, size)),
            slice(max(start - halo, 0), min(stop + halo, padded)),
        )


def equal_spans(size: int, tile: int, halo: int, stride: int = 1) -> list[tuple[slice, slice]]:
    """Cut one axis as :func:`spans` does, but so that all computed spans have one length.

    That is the length of a tile with its halo on either side, or less where as many spans do with
    less. They are moved inwards at the ends of the axis, where they keep more instead.
    """
    padded, halo, tile = (-(-length // stride) * stride for length in (size, halo, tile))
    if padded <= tile + 2 * halo:
        return [(slice(0, size), slice(0, padded))]
    count = -(-(padded - 2 * halo) // tile)
    length = -(-(padded + 2 * halo * (count - 1)) // (count * stride)) * stride
    starts = [min(number * (length - 2 * halo), padded - length) for number in range(count)]
    cuts = [0, *(start + length - halo for start in starts[:-1]), size]
    return [
        (slice(*kept), slice(start, start + length))
        for kept, start in zip(pairwise(cuts), starts, strict=True)
    ]


def boxes(
    shape: Sequence[int],
    tile: Sequence[int],
    halo: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    cut: Callable[[int, int, int, int], Iterable[tuple[slice, slice]]] = spans,
) -> Iterator[tuple[Place, Place]]:
    """Cut an image along all axes, as ``cut`` cuts one; yields kept and computed boxes."""
    none, every = [0] * len(shape), [1] * len(shape)
    axes = zip(shape, tile, halo or none, stride or every, strict=True)
    for along in product(*(list(cut(*axis)) for axis in axes)):
        kept, computed = zip(*along, strict=True)
        yield kept, computed


def pieces(shape: Sequence[int], limit: int) -> Iterator[Place]:
    """Cut an array into boxes of at most ``limit`` values, in the order in which they are stored.

    No box is smaller than one row, the values along the last axis.
    """
    first, rest = shape[0], tuple(shape[1:])
    size = math.prod(rest)
    if rest and size > limit:
        for index in range(first):
            for place in pieces(rest, limit):
                yield slice(index, index + 1), *place
        return
    step = max(limit // max(size, 1), 1) if rest else first
    for start in range(0, first, max(step, 1)):
        yield slice(start, min(start + step, first)), *(slice(0, length) for length in rest)


def within(kept: Place, computed: Place) -> Place:
    """Return where the kept box lies in the computed one."""
    return tuple(
        slice(inner.start - outer.start, inner.stop - outer.start)
        for inner, outer in zip(kept, computed, strict=True)
    )


def box_shape(place: Place) -> tuple[int, ...]:
    """Return the shape of a box."""
    return tuple(along.stop - along.start for along in place)
