"""Predict images at another magnification: resample, predict, and resample the results back.

The whole image is resampled before it is divided into tiles, and each value depends only on its
position in the image. Results therefore have no seams, whatever the tiles and the factors.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy

from denoiseg_flow.data.files.memory_maps import release, temporary_map
from denoiseg_flow.data.files.tiles import Place, boxes
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.tiled_instances import TILES
from denoiseg_flow.models.tiled_prediction import PredictedTile, predict_images, predict_tiles


def predict_rescaled(
    model: TrainedModel,
    images: Iterable[np.ndarray],
    tile: Sequence[int] | None = None,
    factors: Sequence[float] | None = None,
) -> Iterator[tuple[int, PredictedTile]]:
    """Predict images that the network reads at another size.

    Memory is bounded by a tile. Temporary files hold the resampled image and its results, 4 bytes
    per pixel and channel or map.

    Parameters
    ----------
    images, tile
        See :func:`~denoiseg_flow.models.tiled_prediction.predict_images`; a tile is one of the
        resampled image.
    factors
        Size of what the network reads, relative to the image, along each spatial axis; None: the
        image itself.

    Yields
    ------
    The number of the image, from 0, and the result for one box of it, at the size of the image.
    """
    if factors is None:
        yield from predict_images(model, images, tile)
        return
    for number, image in enumerate(images):
        for found in _predict_one(model, image, tile, rescaled_shape(image.shape[1:], factors)):
            yield number, found


def rescaled_shape(shape: Sequence[int], factors: Sequence[float]) -> tuple[int, ...]:
    """Return the shape ([z,] y, x) of a resampled image, at least one pixel along each axis."""
    return tuple(
        max(1, round(length * factor)) for length, factor in zip(shape, factors, strict=True)
    )


def _predict_one(
    model: TrainedModel, image: np.ndarray, tile: Sequence[int] | None, other: tuple[int, ...]
) -> Iterator[PredictedTile]:
    """Predict an image (channel, [z,] y, x), resampled to the shape ``other`` without channels."""
    shape = image.shape[1:]
    if other == shape:
        yield from predict_tiles(model, image, tile)
        return
    read = temporary_map((len(image), *other), np.float32)
    for place, _ in boxes(other, TILES[len(shape)]):
        read[:, *place] = resample(image, other, place)
        release(image)
        release(read)
    results: dict[str, np.memmap] = {}
    for found in predict_tiles(model, read, tile):
        for kind in ("denoised", "j_invariant", "maps"):
            values = getattr(found, kind)
            if values is not None:
                if kind not in results:
                    results[kind] = temporary_map((len(values), *other), np.float32)
                results[kind][:, *found.place] = values
                release(results[kind])
    for place, _ in boxes(shape, TILES[len(shape)]):
        back = {kind: resample(values, shape, place) for kind, values in results.items()}
        for values in results.values():
            release(values)
        yield PredictedTile(place, back["denoised"], back.get("j_invariant"), back["maps"])


def resample(image: np.ndarray, shape: Sequence[int], place: Place) -> np.ndarray:
    """Return a box of an image that is resampled to another shape by linear interpolation.

    Axes that become shorter are smoothed against aliasing: the triangle of the interpolation is
    then as many times wider.

    Parameters
    ----------
    image
        (channel, [z,] y, x), may be memory-mapped; only what the box needs is read.
    shape
        Shape of the whole resampled image, without channels.
    place
        The box of the resampled image, one slice for each spatial axis.

    Returns
    -------
    numpy.ndarray
        (channel, ...), float32.
    """
    axes = zip(image.shape[1:], shape, place, strict=True)
    along = [_weights(old, new, kept) for old, new, kept in axes]
    values = image[:, *(read for read, _ in along)].astype(np.float32)
    for axis, (_, weights) in enumerate(along, start=1):
        first = np.moveaxis(values, axis, 0)
        found = weights @ first.reshape(len(first), -1)
        values = np.moveaxis(found.reshape(-1, *first.shape[1:]), 0, axis)
    return values


def _weights(old: int, new: int, kept: slice) -> tuple[slice, scipy.sparse.csr_array]:
    """Return the pixels that the kept ones of a resampled axis depend on, and their weights.

    Parameters
    ----------
    old, new
        Length of the axis before and after; both ends stay in place.

    Returns
    -------
    The span of the pixels, and the weights (kept, pixel), float32.
    """
    step = old / new
    reach = max(step, 1.0)
    centres = (np.arange(kept.start, kept.stop) + 0.5) * step - 0.5
    pixels = np.floor(centres - reach).astype(int)[:, None] + np.arange(int(2 * reach) + 3)
    weights = np.maximum(1 - np.abs(pixels - centres[:, None]) / reach, 0)
    weights[(pixels < 0) | (pixels >= old)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rows, columns = np.nonzero(weights)
    read = slice(pixels[rows, columns].min(), pixels[rows, columns].max() + 1)
    found = scipy.sparse.csr_array(
        (weights[rows, columns].astype(np.float32), (rows, pixels[rows, columns] - read.start)),
        shape=(len(centres), read.stop - read.start),
    )
    return read, found
