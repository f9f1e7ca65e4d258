"""Apply a trained model to images of any size, tile by tile and without seams."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.classical import denoise, denoise_planes, hidden_pixel_loss, noise_level
from denoiseg_flow.data.images import (
    centre_crop,
    create_image,
    open_channels,
    open_image,
    read_metadata,
    write_image,
)
from denoiseg_flow.data.memory_maps import release
from denoiseg_flow.data.metadata import SPATIAL
from denoiseg_flow.errors import InputError
from denoiseg_flow.labels import CLASSES
from denoiseg_flow.masking import fill_grid, grid_mask
from denoiseg_flow.models import AnyModel, ClassicalModel, TrainedModel
from denoiseg_flow.networks import as_input, split_output
from denoiseg_flow.tiled_instances import TiledInstances
from denoiseg_flow.tiles import Place, boxes, pieces, within

# Sides of the part of a tile that is kept, in pixels, in planes. Memory grows with their product,
# not with the image; the surrounding halo is computed in vain, so that larger tiles waste less.
TILE = 512
# In volumes a tile with its halo has about so many voxels, in a box as near to a cube as it can be.
TILE_VOXELS = 2**22
PIECE = 2**22  # pixels that are compared together
JUDGED = 1024  # pixels a side of the part that the self-supervised loss is taken of


@dataclass(frozen=True)
class PredictedTile:
    """The result for one box of an image.

    Attributes
    ----------
    place
        A slice for each spatial axis.
    denoised
        ([channel,] [z,] y, x) float32 on the scale of the input.
    j_invariant
        The same, each pixel predicted while it was hidden; None for methods that hide no grid.
    probabilities
        (3, [z,] y, x) float32: background, foreground, border.
    """

    place: Place
    denoised: np.ndarray
    j_invariant: np.ndarray | None
    probabilities: np.ndarray


def tile_shape(shape: Sequence[int], halo: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of the part of a tile that is kept, of an image ([z,] y, x)."""
    if len(shape) == 2:
        return TILE, TILE
    depth = shape[0]
    cube = round(TILE_VOXELS ** (1 / 3))
    computed_depth = min(depth, max(cube, 4 * halo[0]))
    side = max(round(math.sqrt(TILE_VOXELS / computed_depth)), 4 * max(halo[1:]))
    kept_depth = depth if computed_depth == depth else computed_depth - 2 * halo[0]
    return kept_depth, *(max(side - 2 * reach, 1) for reach in halo[1:])


def _reflected(span: slice, size: int) -> np.ndarray:
    """Indices of ``span`` in an axis that is mirrored beyond its end."""
    index = np.arange(span.start, span.stop) % max(2 * size - 2, 1)
    return np.minimum(index, 2 * size - 2 - index) if size > 1 else np.zeros_like(index)


def _apply(model: TrainedModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoised image ([channel,] ...) and the probabilities (3, ...) of such an image.

    Where the recipe asks for test-time augmentation, both are means over the eight orientations of
    the square, turned back.
    """
    symmetries = model.recipe.test_time_augmentation
    denoised, probabilities = [], []
    for mirrored, turns in product((False, True), range(4)) if symmetries else [(False, 0)]:
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        for values, found in zip(_run(model, view), (denoised, probabilities), strict=True):
            turned = torch.rot90(values, -turns, (-2, -1))
            found.append(turned.flip(-1) if mirrored else turned)
    return torch.stack(denoised).mean(dim=0), torch.stack(probabilities).mean(dim=0)


def _run(
    model: TrainedModel, x: torch.Tensor, hidden: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the network makes of an image of which pixels are hidden, as :func:`_apply`."""
    mask = None if hidden is None else hidden[None]
    shown = as_input(x[None], mask, model.method.mask_channel, model.layout.dimensions)
    denoised, logits = split_output(model.network(shown), model.layout.channels)
    return denoised[0], logits[0].softmax(dim=0)


def _apply_j_invariant(
    model: TrainedModel, x: torch.Tensor, places: Sequence[np.ndarray]
) -> torch.Tensor:
    """Return the denoised image of ``x``, one subset of the grid after the other.

    ``places`` tell where in the image each index of ``x`` lies along each spatial axis, so that the
    mirrored copies of a hidden pixel beyond the border are hidden with it.
    """
    method = model.method
    along = [torch.from_numpy(index).to(x.device) for index in places]
    place = torch.stack(torch.meshgrid(*along, indexing="ij"))[None]
    channels = x if model.layout.channels > 1 else x[None]
    denoised = torch.empty_like(x)
    for subset in range(method.grid**2):
        mask = grid_mask(place, method.grid, torch.tensor([subset], device=x.device))
        mask = mask.expand(channels.shape)
        filled = fill_grid(channels, mask, method.masking)
        mask = mask.view(x.shape)
        denoised = torch.where(mask, _run(model, filled.view(x.shape), mask)[0], denoised)
    return denoised


@torch.inference_mode()
def predict_tiles(
    model: TrainedModel, image: np.ndarray, tile: Sequence[int] | None = None
) -> Iterator[PredictedTile]:
    """Predict an image piece by piece, in raster order of the tiles.

    Every tile is computed with a halo as wide as the network's field of view, and starts and ends
    at multiples of its stride, so that the pieces equal the prediction of the whole image, in
    every orientation, up to the rounding of float32.

    Parameters
    ----------
    image
        ([channel,] [z,] y, x), may be memory-mapped: only one tile is read at a time.
    tile
        Sides of the kept part of a tile in pixels; by default those of :func:`tile_shape`.
    """
    network, scale = model.network, model.normalisation
    device = next(network.parameters()).device
    shape = image.shape[-model.layout.dimensions :]
    halo = _halo(model)
    for kept, computed in boxes(shape, tile or tile_shape(shape, halo), halo, network.stride):
        places = [_reflected(*axis) for axis in zip(computed, shape, strict=True)]
        region = _read(image, places)
        release(image)
        x = torch.from_numpy(scale.apply(region)).to(device)
        denoised, probabilities = _apply(model, x)
        inside = (..., *within(kept, computed))
        j_invariant = None
        if model.method.hides_grid:
            j_invariant = scale.undo(_apply_j_invariant(model, x, places)[inside].cpu().numpy())
        yield PredictedTile(
            place=kept,
            denoised=scale.undo(denoised[inside].cpu().numpy()),
            j_invariant=j_invariant,
            probabilities=probabilities[inside].cpu().numpy(),
        )


def _read(image: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Return what lies at the indices along each spatial axis, of all channels."""
    channels = [np.arange(length) for length in image.shape[: -len(places)]]
    return image[np.ix_(*channels, *places)]


def predict_probabilities(model: TrainedModel, image: np.ndarray) -> np.ndarray:
    """Return the class probabilities (3, [z,] y, x) of an image, float32, in memory."""
    shape = image.shape[-model.layout.dimensions :]
    probabilities = np.empty((3, *shape), dtype=np.float32)
    for tile in predict_tiles(model, image):
        probabilities[:, *tile.place] = tile.probabilities
    return probabilities


def check_tile(model: TrainedModel, side: int) -> tuple[int, ...]:
    """Return the sides of the part that is kept of tiles of so many pixels a side.

    Raises
    ------
    InputError
        If such a tile is too small for the field of view of the network.
    """
    halo, stride = _halo(model), model.network.stride
    # Halos and the kept part alike are rounded to what the network divides images by.
    around = [2 * -(-reach // step) * step for reach, step in zip(halo, stride, strict=True)]
    least = max(beside + step for beside, step in zip(around, stride, strict=True))
    if side < least:
        raise InputError(
            f"a tile of {side} pixels a side is smaller than what the network of method "
            f"'{model.method.name}' looks at for one pixel: write 'tile: {least}' or more "
            "(--tile)"
        )
    return tuple(
        (side - beside) // step * step for beside, step in zip(around, stride, strict=True)
    )


def _halo(model: TrainedModel) -> list[int]:
    """Return how far a network looks along each axis; interpolation looks one pixel farther."""
    return [reach + model.method.hides_grid for reach in model.network.halo]


def predict_file(
    model: TrainedModel,
    source: Path,
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
) -> None:
    """Predict one tif file and write what the model yields.

    Writes ``denoised/<name>`` (float32, scale of the input) for models that denoise,
    ``j_invariant/<name>`` (the same, each pixel predicted while it was hidden) for those that hide
    the pixels of a grid, ``labels/<name>`` (uint16 or uint32) and, if asked for,
    ``probabilities/<name>`` (3, [z,] y, x; float32) for models that segment. All of them, or none
    if there is an error. Tiles are ``tile`` pixels a side, or as large as :func:`tile_shape` says.

    Memory is bounded by the tile and the number of objects, not by the image, if that is an
    uncompressed tif. See :class:`~denoiseg_flow.tiled_instances.TiledInstances` for what is kept
    in temporary files meanwhile.
    """
    method = model.method
    kinds = {
        "denoised": method.denoises,
        "j_invariant": method.hides_grid,
        "probabilities": method.segments and save_probabilities,
        "labels": method.segments,
    }
    paths = {kind: folder / kind / source.name for kind, wanted in kinds.items() if wanted}
    try:
        _predict_into(paths, model, source, tile)
    except BaseException:
        for path in paths.values():
            path.unlink(missing_ok=True)
        raise


def _predict_into(
    paths: Mapping[str, Path], model: TrainedModel, source: Path, side: int | None
) -> None:
    image, metadata = open_image(source), read_metadata(source)
    spatial = metadata.only(SPATIAL)
    shape = image.shape[-len(spatial.axes) :]
    forms = {"probabilities": ((3, *shape), spatial.with_channels(CLASSES))}
    arrays = {
        kind: create_image(paths[kind], *forms.get(kind, (image.shape, metadata)))
        for kind in ("denoised", "j_invariant", "probabilities")
        if kind in paths
    }
    instances = None
    if "labels" in paths:
        instances = TiledInstances(shape, model.recipe.instances, model.threshold.value)
    kept = None if side is None else check_tile(model, side)
    for tile in predict_tiles(model, image, kept):
        for kind, array in arrays.items():
            array[..., *tile.place] = getattr(tile, kind)
            release(array)
        if instances is not None:
            instances.add(tile.place, tile.probabilities)
    # Noise of mean zero is what the other targets take for granted; clean images are the truth.
    if "denoised" in arrays and model.recipe.preserve_mean and model.method.target != "clean":
        _preserve_mean(arrays["denoised"], image, model.layout.channels)
    if instances is not None:
        instances.write(paths["labels"], spatial)


def _preserve_mean(denoised: np.ndarray, image: np.ndarray, channels: int) -> None:
    """Shift the denoised image as a whole to the mean of the noisy one; both may be mapped.

    Each channel by itself.
    """
    pairs = zip(image, denoised, strict=True) if channels > 1 else [(image, denoised)]
    for noisy, result in pairs:
        lost = 0.0  # sum over all pixels of what denoising took away
        for place in pieces(noisy.shape, PIECE):
            lost += float((noisy[place] - result[place]).sum(dtype=np.float64))
            release(image)
            release(denoised)
        offset = np.float32(lost / noisy.size)
        for place in pieces(noisy.shape, PIECE):
            result[place] += offset
            release(denoised)


def input_folder(path: Path) -> Path:
    """Return the folder with the images to read: ``path``, or the denoised images of a run."""
    return path / "denoised" if (path / "denoised").is_dir() else path


def predict_folder(
    model: AnyModel,
    images: Path,
    names: Iterable[str],
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
) -> None:
    """Predict the images of the given names, see :func:`predict_file`.

    Parameters
    ----------
    model
        Of any kind; a classical denoiser keeps the whole image in memory.
    images
        See :func:`input_folder`.
    """
    source = input_folder(images)
    for name in names:
        each = model.for_image(name)
        predict_any(each, source / f"{name}.tif", folder, save_probabilities, tile)


def predict_any(
    model: TrainedModel | ClassicalModel,
    source: Path,
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
) -> None:
    """Predict one tif file, see :func:`predict_file`, with a network or without one."""
    if not isinstance(model, ClassicalModel):
        predict_file(model, source, folder, save_probabilities, tile)
        return
    channels, metadata = open_channels(source), read_metadata(source)
    denoised = np.stack([_classical(model, channel)(channel) for channel in channels])
    denoised = denoised if "C" in metadata.axes else denoised[0]
    write_image(folder / "denoised" / source.name, denoised, metadata)


def _classical(model: ClassicalModel, image: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what denoises images as the model denoises this one, ([z,] y, x)."""
    # Once, and not of the copies in which pixels are hidden.
    sigma = noise_level(image) if model.noise_sigma is None else model.noise_sigma
    function = denoise_planes if model.method.planes else denoise
    return partial(function, model.method.classical, parameter=model.parameter, noise_sigma=sigma)


def self_supervised_losses(model: AnyModel, images: Path, names: Iterable[str]) -> pd.DataFrame:
    """Judge how a model denoises without any clean image: by the pixels that it does not see.

    Parameters
    ----------
    model
        That denoises what is noisy.
    images, names
        As for :func:`predict_folder`. Of images larger than 1024 pixels, the centre is judged.

    Returns
    -------
    pandas.DataFrame
        Columns image and loss, see :func:`classical.hidden_pixel_loss`.
    """
    source = input_folder(images)
    rows = []
    for name in names:
        channels = np.asarray(centre_crop(open_channels(source / f"{name}.tif"), JUDGED))
        losses = [
            hidden_pixel_loss(_denoiser(model.for_image(name), channels, number), channel)
            for number, channel in enumerate(channels)
        ]
        rows.append((name, float(np.mean(losses))))
    return pd.DataFrame(rows, columns=["image", "loss"])


def _denoiser(
    model: TrainedModel | ClassicalModel, channels: np.ndarray, number: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what denoises one channel of an image, as the model denoises that image."""
    if isinstance(model, ClassicalModel):
        return _classical(model, channels[number])

    def predict(noisy: np.ndarray) -> np.ndarray:
        image = channels.astype(np.float32)
        image[number] = noisy
        denoised = np.empty(noisy.shape, dtype=np.float32)
        several = len(channels) > 1
        for tile in predict_tiles(model, image if several else image[0]):
            denoised[tile.place] = tile.denoised[number] if several else tile.denoised
        return denoised

    return predict
