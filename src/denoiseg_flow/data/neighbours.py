"""Pairs of neighbouring pixels in an image."""

from itertools import product

_ALL, _BUT_FIRST, _BUT_LAST = slice(None), slice(1, None), slice(-1)
_ALONG = {0: (_ALL, _ALL), 1: (_BUT_FIRST, _BUT_LAST), -1: (_BUT_LAST, _BUT_FIRST)}


def neighbours(dimensions: int, corners: bool) -> list[tuple[tuple[slice, ...], ...]]:
    """Return pairs of slices that align pixels with their neighbours, each pair of pixels once.

    Parameters
    ----------
    dimensions
        Number of axes of the image.
    corners
        Whether to return the diagonal neighbours instead of the direct ones.
    """
    steps = [step for step in product((0, 1, -1), repeat=dimensions) if step > (0,) * dimensions]
    chosen = [step for step in steps if (sum(map(abs, step)) > 1) == corners]
    return [tuple(zip(*(_ALONG[along] for along in step), strict=True)) for step in chosen]
