"""Cut a large image into tiles that are worked on one at a time."""

from collections.abc import Iterator


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


def within(kept: slice, computed: slice) -> slice:
    """Return where the kept span lies in the computed one."""
    return slice(kept.start - computed.start, kept.stop - computed.start)
