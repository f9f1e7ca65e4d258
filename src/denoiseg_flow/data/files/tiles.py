"""Divide large images into tiles that are processed one at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Protocol

import numpy as np

Place = tuple[slice, ...]
"""A box in an image: one slice for each axis."""

PIECE = 2**24  # pixels read at once


class Readable(Protocol):
    """An array, or an object that can be indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __getitem__(self, place: Place, /) -> np.ndarray: ...


def spans(size: int, tile: int, halo: int, stride: int = 1) -> Iterator[tuple[slice, slice]]:
    """Divide one axis into tiles that are computed with a halo.

    Parameters
    ----------
    size
        Length of the axis in pixels.
    tile
        Length of the part of a tile that is kept, rounded up to a multiple of ``stride``.
    halo
        Pixels computed on either side of the kept part, also rounded up.
    stride
        Computed spans begin and end at its multiples; the last may end beyond the axis.

    Yields
    ------
    The kept and the computed span. The kept spans cover the axis exactly once.
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
    """Divide one axis like :func:`spans`, but into computed spans of equal length.

    This length is that of a tile with both halos, or less if the same number of spans can be
    shorter. Spans at the ends of the axis have no outer halo and keep more pixels instead.
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
    """Divide an image along all axes, each with ``cut``; yield kept and computed boxes."""
    none, every = [0] * len(shape), [1] * len(shape)
    axes = zip(shape, tile, halo or none, stride or every, strict=True)
    for along in product(*(list(cut(*axis)) for axis in axes)):
        kept, computed = zip(*along, strict=True)
        yield kept, computed


def pieces(shape: Sequence[int], limit: int) -> Iterator[Place]:
    """Divide an array into boxes of at most ``limit`` values, in storage order.

    No box is smaller than one row (the values along the last axis).
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
    """Return the place of the kept box in the computed one."""
    return tuple(
        slice(inner.start - outer.start, inner.stop - outer.start)
        for inner, outer in zip(kept, computed, strict=True)
    )


def box_shape(place: Place) -> tuple[int, ...]:
    """Return the shape of a box."""
    return tuple(along.stop - along.start for along in place)
