"""What the reader of an archive format yields, and what a config needs to know of the format."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class ArchiveImage(NamedTuple):
    """One image of an archive."""

    name: str
    """Name in the results, without an ending."""
    image: np.ndarray
    """Shape (y, x)."""
    mask: np.ndarray | None
    """Instance labels of shape (y, x), as stored: integer or float; None if not annotated."""
    clean: np.ndarray | None
    """The image without noise, of shape (y, x); ``image`` itself if it has none."""
    subset: str
    """train, val or test; empty if the archive does not say."""
    origin: str
    """File and place inside it, for messages."""


class ArchiveFormat(NamedTuple):
    """A format that a dataset with ``source: remote`` can have.

    Planning happens before the download, so that it relies on ``annotated`` and ``clean``.
    """

    read: Callable[[Path], Iterator[ArchiveImage]]
    """Reads the folder of an unpacked archive; raises InputError if it cannot."""
    annotated: bool
    """Whether images have masks."""
    clean: bool
    """Whether all images have clean ones."""
