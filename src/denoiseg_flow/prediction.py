"""Apply a trained model to images of any size, tile by tile and without seams."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from denoiseg_flow.data.images import create_image, open_image
from denoiseg_flow.data.memory_maps import release
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.models import TrainedModel
from denoiseg_flow.tiled_instances import TiledInstances
from denoiseg_flow.tiles import spans, within

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


def _reflected(span: slice, size: int) -> np.ndarray:
    """Indices of ``span`` in an axis that is mirrored beyond its end."""
    index = np.arange(span.start, span.stop) % max(2 * size - 2, 1)
    return np.minimum(index, 2 * size - 2 - index) if size > 1 else np.zeros_like(index)


def _apply(
    network: nn.Module, x: torch.Tensor, symmetries: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoised image (y, x) and the probabilities (3, y, x) of ``x`` (1, 1, y, x).

    With ``symmetries``, both are means over the eight orientations of the square, turned back.
    """
    denoised, probabilities = [], []
    for mirrored, turns in product((False, True), range(4)) if symmetries else [(False, 0)]:
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        output = network(view.contiguous(memory_format=torch.channels_last))[0]  # (4, y, x)
        output = torch.rot90(output, -turns, (-2, -1))
        output = output.flip(-1) if mirrored else output
        denoised.append(output[0])
        probabilities.append(output[1:].softmax(dim=0))
    return torch.stack(denoised).mean(dim=0), torch.stack(probabilities).mean(dim=0)


@torch.inference_mode()
def predict_tiles(
    model: TrainedModel, image: np.ndarray, tile: int = TILE
) -> Iterator[PredictedTile]:
    """Predict an image piece by piece, in raster order of the tiles.

    Every tile is computed with a halo as wide as the network's field of view, and starts and ends
    at multiples of its stride, so that the pieces equal the prediction of the whole image, in
    every orientation, up to the rounding of float32.

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
    for rows, computed_rows in spans(height, tile, network.halo, network.stride):
        for columns, computed_columns in spans(width, tile, network.halo, network.stride):
            region = image[
                np.ix_(_reflected(computed_rows, height), _reflected(computed_columns, width))
            ]
            release(image)
            x = torch.from_numpy(model.normalisation.apply(region))[None, None].to(device)
            denoised, probabilities = _apply(network, x, model.recipe.test_time_augmentation)
            kept = within(rows, computed_rows), within(columns, computed_columns)
            yield PredictedTile(
                place=(rows, columns),
                denoised=model.normalisation.undo(denoised[kept].cpu().numpy()),
                probabilities=probabilities[:, *kept].cpu().numpy(),
            )


def predict_probabilities(model: TrainedModel, image: np.ndarray) -> np.ndarray:
    """Return the class probabilities (3, y, x) of an image (y, x), float32, in memory."""
    probabilities = np.empty((3, *image.shape), dtype=np.float32)
    for tile in predict_tiles(model, image):
        probabilities[:, *tile.place] = tile.probabilities
    return probabilities


def predict_file(model: TrainedModel, source: Path, folder: Path, save_probabilities: bool) -> None:
    """Predict one tif file and write what the model yields.

    Writes ``denoised/<name>`` (float32, scale of the input) for models that denoise, and
    ``labels/<name>`` (uint16 or uint32) and, if asked for, ``probabilities/<name>`` (3, y, x;
    float32) for models that segment. All of them, or none if there is an error.

    Memory is bounded by the tile and the number of objects, not by the image, if that is an
    uncompressed tif. See :class:`~denoiseg_flow.tiled_instances.TiledInstances` for what is kept
    in temporary files meanwhile.
    """
    method = model.method
    kinds = {
        "denoised": method.denoises,
        "probabilities": method.segments and save_probabilities,
        "labels": method.segments,
    }
    paths = {kind: folder / kind / source.name for kind, wanted in kinds.items() if wanted}
    try:
        _predict_into(paths, model, source)
    except BaseException:
        for path in paths.values():
            path.unlink(missing_ok=True)
        raise


def _predict_into(paths: Mapping[str, Path], model: TrainedModel, source: Path) -> None:
    image, pixel_size = open_image(source), read_pixel_size(source)
    denoised = probabilities = instances = None
    if "denoised" in paths:
        denoised = create_image(paths["denoised"], image.shape, pixel_size)
    if "probabilities" in paths:
        probabilities = create_image(paths["probabilities"], (3, *image.shape), pixel_size)
    if "labels" in paths:
        instances = TiledInstances(image.shape, model.recipe.instances, model.threshold.value)
    for tile in predict_tiles(model, image):
        if denoised is not None:
            denoised[tile.place] = tile.denoised
            release(denoised)
        if probabilities is not None:
            probabilities[:, *tile.place] = tile.probabilities
            release(probabilities)
        if instances is not None:
            instances.add(tile.place, tile.probabilities)
    if denoised is not None and model.recipe.preserve_mean:
        _preserve_mean(denoised, image)
    if instances is not None:
        instances.write(paths["labels"], pixel_size)


def _preserve_mean(denoised: np.ndarray, image: np.ndarray) -> None:
    """Shift the denoised image as a whole to the mean of the noisy one; both may be mapped."""
    strips = [rows for rows, _ in spans(len(image), TILE, 0)]
    lost = 0.0  # sum over all pixels of what denoising took away
    for rows in strips:
        lost += float((image[rows] - denoised[rows]).sum(dtype=np.float64))
        release(image)
        release(denoised)
    offset = np.float32(lost / image.size)
    for rows in strips:
        denoised[rows] += offset
        release(denoised)


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
