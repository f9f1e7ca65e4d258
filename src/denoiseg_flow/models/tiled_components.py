"""Connected components of masks larger than memory."""

import numpy as np
import scipy

from denoiseg_flow.data.files.memory_maps import release, temporary_map
from denoiseg_flow.data.files.tiles import Place, pieces
from denoiseg_flow.data.neighbours import neighbours

PIECE = 2**22  # pixels processed at once while parts are joined


class TiledComponents:
    """Label a mask added tile by tile, with the result of ``scipy.ndimage.label``.

    Each tile is labelled separately, and its components, here called parts, get unique numbers.
    When all tiles have been added, parts that touch across a seam are joined into one component.
    Memory holds a few numbers per part; the part of each pixel, 4 bytes, is in a temporary file.

    Parameters
    ----------
    shape
        Shape of the whole image, ([z,] y, x).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._parts = temporary_map(shape, np.int32)
        self._n_parts = 0
        self._numbers = np.zeros(1, np.int32)  # number of the component of each part

    def add(self, place: Place, mask: np.ndarray) -> None:
        """Add a tile of the mask.

        Nothing is kept in memory: small arrays that outlive the large ones of a tile would fragment
        the memory, and the process would grow with every tile.

        Parameters
        ----------
        place
            Box in the image. Together, the tiles cover each pixel once.
        mask
            ([z,] y, x), bool.
        """
        parts, count = scipy.ndimage.label(mask)
        parts[mask] += self._n_parts
        self._n_parts += count
        self._parts[place] = parts
        release(self._parts)

    def merge(self) -> int:
        """Join parts that touch across seams and return the number of components."""
        pairs, first = self._scan()
        n_nodes = len(first)
        touching = scipy.sparse.coo_array(
            (np.ones(pairs.shape[1], bool), pairs), shape=(n_nodes, n_nodes)
        )
        n_components, component = scipy.sparse.csgraph.connected_components(
            touching, directed=False
        )
        begin = np.full(n_components, np.iinfo(np.int64).max)
        np.minimum.at(begin, component, first)
        rank = np.empty(n_components, np.int32)
        rank[np.argsort(begin)] = np.arange(n_components)
        self._numbers = rank[component]
        return n_components - 1

    def _scan(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of parts that touch, (2, pair), and the first pixel of each part.

        Pixels are numbered in raster order; part 0, the background, gets -1 and so is first.
        """
        first = np.full(1 + self._n_parts, np.iinfo(np.int64).max)
        first[0] = -1
        pairs = [np.zeros((2, 0), np.int32)]
        for place in pieces(self._shape, PIECE):
            parts = self._parts[place].copy()
            # One more pixel before the piece along every axis, to include neighbours across seams.
            grown = tuple(slice(max(along.start - 1, 0), along.stop) for along in place)
            seen = self._parts[grown]
            pairs += [
                _touching(seen[one], seen[other])
                for one, other in neighbours(seen.ndim, corners=False)
            ]
            release(self._parts)
            inside = np.nonzero(parts)
            corner = [along.start for along in place]
            places = [index + start for index, start in zip(inside, corner, strict=True)]
            pixels = np.ravel_multi_index(places, self._shape)
            np.minimum.at(first, parts[inside], pixels)
        return np.concatenate(pairs, axis=1), first

    def read(self, place: Place) -> np.ndarray:
        """Return the labels, int32, of a box of the image, after :meth:`merge`.

        0 is background; components are numbered in raster order of their first pixels.
        """
        labels = self._numbers[self._parts[place]]
        release(self._parts)
        return labels


def _touching(parts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return all pairs of different parts with neighbouring pixels, (2, pair)."""
    seam = (parts != others) & (parts > 0) & (others > 0)
    return np.unique(np.stack([parts[seam], others[seam]]), axis=1)
