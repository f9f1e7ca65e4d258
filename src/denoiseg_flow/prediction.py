"""Apply a trained model to images of any size, tile by tile and without seams."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.classical import denoise, hidden_pixel_loss, noise_level
from denoiseg_flow.data.images import centre_crop, create_image, open_image, write_image
from denoiseg_flow.data.memory_maps import release
from denoiseg_flow.data.planes import read_pixel_size
from denoiseg_flow.masking import fill_grid, grid_mask
from denoiseg_flow.models import AnyModel, ClassicalModel, TrainedModel
from denoiseg_flow.networks import as_input
from denoiseg_flow.tiled_instances import TiledInstances
from denoiseg_flow.tiles import spans, within

# Side of the part of a tile that is kept, in pixels. Memory grows with its square, not with the
# image; the surrounding halo is computed in vain, so that larger tiles waste less.
TILE = 512
JUDGED = 1024  # pixels a side of the part that the self-supervised loss is taken of


@dataclass(frozen=True)
class PredictedTile:
    """The result for one rectangle of an image.

    Attributes
    ----------
    place
        Row and column slices in the image.
    denoised
        (y, x) float32 on the scale of the input.
    j_invariant
        The same, each pixel predicted while it was hidden; None for methods that hide no grid.
    probabilities
        (3, y, x) float32: background, foreground, border.
    """

    place: tuple[slice, slice]
    denoised: np.ndarray
    j_invariant: np.ndarray | None
    probabilities: np.ndarray


def _reflected(span: slice, size: int) -> np.ndarray:
    """Indices of ``span`` in an axis that is mirrored beyond its end."""
    index = np.arange(span.start, span.stop) % max(2 * size - 2, 1)
    return np.minimum(index, 2 * size - 2 - index) if size > 1 else np.zeros_like(index)


def _apply(model: TrainedModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoised image (y, x) and the probabilities (3, y, x) of ``x`` (y, x).

    Where the recipe asks for test-time augmentation, both are means over the eight orientations of
    the square, turned back.
    """
    symmetries = model.recipe.test_time_augmentation
    denoised, probabilities = [], []
    for mirrored, turns in product((False, True), range(4)) if symmetries else [(False, 0)]:
        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        output = model.network(as_input(view[None], None, model.method.mask_channel))[0]
        output = torch.rot90(output, -turns, (-2, -1))  # (4, y, x)
        output = output.flip(-1) if mirrored else output
        denoised.append(output[0])
        probabilities.append(output[1:].softmax(dim=0))
    return torch.stack(denoised).mean(dim=0), torch.stack(probabilities).mean(dim=0)


def _apply_j_invariant(
    model: TrainedModel, x: torch.Tensor, rows: np.ndarray, columns: np.ndarray
) -> torch.Tensor:
    """Return the denoised image (y, x) of ``x`` (y, x), one subset of the grid after the other.

    ``rows`` and ``columns`` tell where in the image each pixel of ``x`` lies, so that the mirrored
    copies of a hidden pixel beyond the border are hidden with it.
    """
    method = model.method
    y = torch.from_numpy(rows).to(x.device)[:, None].expand(x.shape)[None]
    x_place = torch.from_numpy(columns).to(x.device).expand(x.shape)[None]
    denoised = torch.empty_like(x)
    for subset in range(method.grid**2):
        mask = grid_mask(y, x_place, method.grid, torch.tensor([subset], device=x.device))
        hidden = as_input(fill_grid(x[None], mask, method.masking), mask, method.mask_channel)
        denoised = torch.where(mask[0], model.network(hidden)[0, 0], denoised)
    return denoised


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
    network, scale = model.network, model.normalisation
    device = next(network.parameters()).device
    height, width = image.shape
    halo = network.halo + model.method.hides_grid  # interpolation looks one pixel farther
    for rows, computed_rows in spans(height, tile, halo, network.stride):
        for columns, computed_columns in spans(width, tile, halo, network.stride):
            places = _reflected(computed_rows, height), _reflected(computed_columns, width)
            region = image[np.ix_(*places)]
            release(image)
            x = torch.from_numpy(scale.apply(region)).to(device)  # (y, x)
            denoised, probabilities = _apply(model, x)
            j_invariant = None
            kept = within(rows, computed_rows), within(columns, computed_columns)
            if model.method.hides_grid:
                j_invariant = scale.undo(_apply_j_invariant(model, x, *places)[kept].cpu().numpy())
            yield PredictedTile(
                place=(rows, columns),
                denoised=scale.undo(denoised[kept].cpu().numpy()),
                j_invariant=j_invariant,
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

    Writes ``denoised/<name>`` (float32, scale of the input) for models that denoise,
    ``j_invariant/<name>`` (the same, each pixel predicted while it was hidden) for those that hide
    the pixels of a grid, ``labels/<name>`` (uint16 or uint32) and, if asked for,
    ``probabilities/<name>`` (3, y, x; float32) for models that segment. All of them, or none if
    there is an error.

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
        _predict_into(paths, model, source)
    except BaseException:
        for path in paths.values():
            path.unlink(missing_ok=True)
        raise


def _predict_into(paths: Mapping[str, Path], model: TrainedModel, source: Path) -> None:
    image, pixel_size = open_image(source), read_pixel_size(source)
    shapes = {"probabilities": (3, *image.shape)}
    arrays = {
        kind: create_image(paths[kind], shapes.get(kind, image.shape), pixel_size)
        for kind in ("denoised", "j_invariant", "probabilities")
        if kind in paths
    }
    instances = None
    if "labels" in paths:
        instances = TiledInstances(image.shape, model.recipe.instances, model.threshold.value)
    for tile in predict_tiles(model, image):
        for kind, array in arrays.items():
            array[..., *tile.place] = getattr(tile, kind)
            release(array)
        if instances is not None:
            instances.add(tile.place, tile.probabilities)
    # Noise of mean zero is what the other targets take for granted; clean images are the truth.
    if "denoised" in arrays and model.recipe.preserve_mean and model.method.target != "clean":
        _preserve_mean(arrays["denoised"], image)
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
    model: AnyModel,
    images: Path,
    names: Iterable[str],
    folder: Path,
    save_probabilities: bool,
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
        predict_any(model.for_image(name), source / f"{name}.tif", folder, save_probabilities)


def predict_any(
    model: TrainedModel | ClassicalModel, source: Path, folder: Path, save_probabilities: bool
) -> None:
    """Predict one tif file, see :func:`predict_file`, with a network or without one."""
    if not isinstance(model, ClassicalModel):
        predict_file(model, source, folder, save_probabilities)
        return
    denoised = denoise(
        model.method.classical, open_image(source), model.parameter, model.noise_sigma
    )
    write_image(folder / "denoised" / source.name, denoised, pixel_size=read_pixel_size(source))


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
        image = centre_crop(open_image(source / f"{name}.tif"), JUDGED)
        function = _denoiser(model.for_image(name), image)
        rows.append((name, hidden_pixel_loss(function, image)))
    return pd.DataFrame(rows, columns=["image", "loss"])


def _denoiser(
    model: TrainedModel | ClassicalModel, image: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what denoises an image in memory, as the model denoises ``image``."""
    if isinstance(model, ClassicalModel):
        # Once, and not of the copies in which pixels are hidden.
        sigma = noise_level(image) if model.noise_sigma is None else model.noise_sigma
        return partial(
            denoise, model.method.classical, parameter=model.parameter, noise_sigma=sigma
        )

    def predict(noisy: np.ndarray) -> np.ndarray:
        denoised = np.empty(noisy.shape, dtype=np.float32)
        for tile in predict_tiles(model, noisy):
            denoised[tile.place] = tile.denoised
        return denoised

    return predict
