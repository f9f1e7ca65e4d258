"""Interface of readers of archive formats, such as that of DenoiSeg."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class ArchiveImage(NamedTuple):
    """One image of an archive."""

    name: str
    """Name in the results, without ending."""
    image: np.ndarray
    """Shape (y, x)."""
    mask: np.ndarray | None
    """Instance labels of shape (y, x), as stored: integer or float; None if not annotated."""
    clean: np.ndarray | None
    """The clean image, of shape (y, x); ``image`` itself if it has no noise."""
    subset: str
    """train, val or test; empty if the archive has no fixed split."""
    origin: str
    """File, array and index, for messages."""


class ArchiveFormat(NamedTuple):
    """A format for datasets with ``source: remote``.

    The workflow is planned before the download, so it relies on ``annotated`` and ``clean``.
    """

    read: Callable[[Path], Iterator[ArchiveImage]]
    """Yields the images in the folder of an unpacked archive; raises InputError on failure."""
    annotated: bool
    """Whether images have masks."""
    clean: bool
    """Whether all images have clean images."""
