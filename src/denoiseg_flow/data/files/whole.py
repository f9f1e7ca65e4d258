"""A source of pixels that are read from their file as a whole."""

from collections.abc import Sequence

import numpy as np


class WholeSource:
    """Pixels of a format without metadata; see :class:`~denoiseg_flow.data.files.reader.Source`.

    Parameters
    ----------
    pixels
        All pixels of the file.
    axes
        A letter for each of their axes.
    palette, rgb
        Whether they are indices of colours, or colours.
    """

    def __init__(
        self, pixels: np.ndarray, axes: str, palette: bool = False, rgb: bool = False
    ) -> None:
        self._pixels = pixels
        self.shape, self.dtype, self.axes = pixels.shape, pixels.dtype, axes
        self.palette, self.rgb = palette, rgb
        self.pixel_size: dict[str, float] = {}
        self.channels: tuple[str, ...] = ()
        self.channel_colours: tuple[str, ...] = ()
        self.time_step: float | None = None

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Return a copy of the pixels in a slice of each dimension."""
        return self._pixels[tuple(slices)].copy()

    def close(self) -> None:
        """Do nothing: the file is closed already."""
