"""Apply a trained model to images of any size, tile by tile and without seams."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from denoiseg_flow.data.images import create_image, open_image, write_image
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.instances import label_foreground
from denoiseg_flow.labels import FOREGROUND
from denoiseg_flow.models import TrainedModel

# Side of the part of a tile that is kept, in pixels. Memory grows with its square, not with the
# image; the surrounding halo is computed in vain, so that larger tiles waste less.
TILE = 512


@dataclass(frozen=True)
class PredictedTile:
    """The result for one rectangle of an image.

    Attributes
    ----------
    place
        Row and column slices in the image.
    denoised
        (y, x) float32 on the scale of the input.
    probabilities
        (3, y, x) float32: background, foreground, border.
    """

    place: tuple[slice, slice]
    denoised: np.ndarray
    probabilities: np.ndarray


def _spans(size: int, tile: int, halo: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Yield (kept, computed) spans of one axis; computed ones start at multiples of stride."""
    padded = -(-size // stride) * stride
    halo = -(-halo // stride) * stride
    tile = -(-tile // stride) * stride
    for start in range(0, padded, tile):
        stop = min(start + tile, padded)
        yield (
            slice(start, min(stop, size)),
            slice(max(start - halo, 0), min(stop + halo, padded)),
        )


def _reflected(span: slice, size: int) -> np.ndarray:
    """Indices of ``span`` in an axis that is mirrored beyond its end."""
    index = np.arange(span.start, span.stop) % max(2 * size - 2, 1)
    return np.minimum(index, 2 * size - 2 - index) if size > 1 else np.zeros_like(index)


@torch.inference_mode()
def predict_tiles(
    model: TrainedModel, image: np.ndarray, tile: int = TILE
) -> Iterator[PredictedTile]:
    """Predict an image piece by piece.

    Every tile is computed with a halo as wide as the network's field of view, and starts at a
    multiple of its stride, so that the pieces equal the prediction of the whole image up to the
    rounding of float32.

    Parameters
    ----------
    image
        (y, x), may be memory-mapped: only one tile is read at a time.
    tile
        Side of the kept part of a tile in pixels.
    """
    network = model.network
    device = next(network.parameters()).device
    height, width = image.shape
    for rows, computed_rows in _spans(height, tile, network.halo, network.stride):
        for columns, computed_columns in _spans(width, tile, network.halo, network.stride):
            region = image[
                np.ix_(_reflected(computed_rows, height), _reflected(computed_columns, width))
            ]
            x = torch.from_numpy(model.normalisation.apply(region))[None, None].to(device)
            x = x.to(memory_format=torch.channels_last)
            kept_rows = slice(rows.start - computed_rows.start, rows.stop - computed_rows.start)
            kept_columns = slice(
                columns.start - computed_columns.start, columns.stop - computed_columns.start
            )
            output = network(x)[0, :, kept_rows, kept_columns]
            yield PredictedTile(
                place=(rows, columns),
                denoised=model.normalisation.undo(output[0].cpu().numpy()),
                probabilities=output[1:].softmax(dim=0).cpu().numpy(),
            )


def predict_foreground(model: TrainedModel, image: np.ndarray) -> np.ndarray:
    """Return the foreground probability (y, x) of an image (y, x), float32."""
    foreground = np.empty(image.shape, dtype=np.float32)
    for tile in predict_tiles(model, image):
        foreground[tile.place] = tile.probabilities[FOREGROUND]
    return foreground


def predict_file(model: TrainedModel, source: Path, folder: Path, save_probabilities: bool) -> None:
    """Predict one tif file and write what the model yields.

    Writes ``denoised/<name>`` (float32, scale of the input) for models that denoise, and
    ``labels/<name>`` (uint16 or uint32) and, if asked for, ``probabilities/<name>`` (3, y, x;
    float32) for models that segment. Memory is bounded by the tile, but for one byte per pixel
    of foreground and the labels themselves.
    """
    image, pixel_size = open_image(source), read_pixel_size(source)
    method = model.method
    denoised = probabilities = foreground = None
    if method.denoises:
        denoised = create_image(folder / "denoised" / source.name, image.shape, pixel_size)
    if method.segments:
        foreground = np.zeros(image.shape, dtype=bool)
        if save_probabilities:
            target = folder / "probabilities" / source.name
            probabilities = create_image(target, (3, *image.shape), pixel_size)
    for tile in predict_tiles(model, image):
        if denoised is not None:
            denoised[tile.place] = tile.denoised
        if probabilities is not None:
            probabilities[:, *tile.place] = tile.probabilities
        if foreground is not None:
            foreground[tile.place] = tile.probabilities[FOREGROUND] > model.threshold.value
    if foreground is not None:
        labels = label_foreground(foreground)
        write_image(folder / "labels" / source.name, labels, True, pixel_size)


def input_folder(path: Path) -> Path:
    """Return the folder with the images to read: ``path``, or the denoised images of a run."""
    return path / "denoised" if (path / "denoised").is_dir() else path


def predict_folder(
    model: TrainedModel,
    images: Path,
    names: Iterable[str],
    folder: Path,
    save_probabilities: bool,
) -> None:
    """Predict the images of the given names, see :func:`predict_file`.

    Parameters
    ----------
    images
        See :func:`input_folder`.
    """
    source = input_folder(images)
    for name in names:
        predict_file(model, source / f"{name}.tif", folder, save_probabilities)
