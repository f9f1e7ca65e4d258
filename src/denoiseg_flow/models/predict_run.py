"""Predict the images of a run, of any size, and write the results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.metadata import SPATIAL, Metadata
from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.data.layout import image_file, input_folder
from denoiseg_flow.data.store import (
    centre_crop,
    create_image,
    open_image,
    read_metadata,
    write_image,
)
from denoiseg_flow.methods.classes import CLASSES
from denoiseg_flow.methods.classical import denoise, denoise_planes, masked_pixel_loss, noise_level
from denoiseg_flow.methods.masking import grid_mask, last_subset
from denoiseg_flow.models.model import AnyModel, ClassicalModel, ThresholdModel, TrainedModel
from denoiseg_flow.models.prediction import by_model
from denoiseg_flow.models.rescaled_prediction import predict_rescaled
from denoiseg_flow.models.tiled_instances import TiledInstances
from denoiseg_flow.models.tiled_prediction import (
    PredictedTile,
    check_tile,
    predict_tiles,
)
from denoiseg_flow.models.tiled_threshold import segment_file

PIECE = 2**22  # pixels processed at once
JUDGED = 1024  # pixels a side of the crop for the self-supervised loss


def predict_file(
    model: TrainedModel,
    source: Path,
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
    factors: Sequence[float] | None = None,
) -> None:
    """Predict one tif file and write the results, see :func:`predict_files`."""
    predict_files(model, [source], folder, save_probabilities, tile, factors)


def predict_files(
    model: TrainedModel,
    sources: Iterable[Path],
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
    factors: Sequence[float] | None = None,
) -> None:
    """Predict tif files one after the other and write the results.

    Writes ``denoised/<name>`` (float32, scale of the input) for models that denoise,
    ``j_invariant/<name>`` (the same, each pixel predicted while it is masked) for models that mask
    a grid, and for models that segment ``labels/<name>`` (uint16 or uint32) and, on request,
    ``probabilities/<name>`` (3, [z,] y, x; float32). After an error, no result of the image is
    left. Tiles are ``tile`` pixels a side, by default as returned by
    :func:`~denoiseg_flow.models.tiled_prediction.tile_shape`. The network reads images resampled by
    ``factors``, see :func:`~denoiseg_flow.models.rescaled_prediction.predict_rescaled`; results
    have the size of the image.

    Memory is bounded by the tiles computed at once and the number of objects, not by the image, if
    this is an uncompressed tif. For temporary files, see :class:`tiled_instances.TiledInstances`.
    """
    method = model.method
    kinds = {
        "denoised": method.denoises,
        "j_invariant": method.masks_grid,
        "probabilities": method.segments and save_probabilities,
        "labels": method.segments,
    }
    opened: deque[tuple[Path, np.ndarray, Metadata]] = deque()

    def images() -> Iterator[np.ndarray]:
        for source in sources:
            image = open_image(source)
            opened.append((source, image, read_metadata(source)))
            yield image

    kept = None if tile is None else check_tile(model, tile)
    results = predict_rescaled(model, images(), kept, factors)
    for _, of_image in groupby(results, key=itemgetter(0)):
        source, image, metadata = opened.popleft()
        paths = {kind: folder / kind / source.name for kind, wanted in kinds.items() if wanted}
        try:
            _write(paths, model, image, metadata, map(itemgetter(1), of_image))
        except BaseException:
            for path in paths.values():
                path.unlink(missing_ok=True)
            raise


def _write(
    paths: Mapping[str, Path],
    model: TrainedModel,
    image: np.ndarray,
    metadata: Metadata,
    tiles: Iterable[PredictedTile],
) -> None:
    spatial = metadata.only(SPATIAL)
    shape = image.shape[1:]
    forms = {"probabilities": ((3, *shape), spatial.with_channels(CLASSES))}
    arrays = {
        kind: create_image(paths[kind], *forms.get(kind, (image.shape, metadata)))
        for kind in ("denoised", "j_invariant", "probabilities")
        if kind in paths
    }
    instances = None
    if "labels" in paths:
        assert model.threshold is not None
        chosen = model.threshold
        instances = TiledInstances(shape, model.recipe.instances, chosen.value, chosen.prominence)
    for tile in tiles:
        for kind, array in arrays.items():
            array[:, *tile.place] = getattr(tile, kind)
            release(array)
        if instances is not None:
            instances.add(tile.place, tile.maps)
    # All targets except clean images assume noise with mean zero.
    if "denoised" in arrays and model.recipe.preserve_mean and model.method.target != "clean":
        _preserve_mean(arrays["denoised"], image)
    if instances is not None:
        instances.write(paths["labels"], spatial)


def _preserve_mean(denoised: np.ndarray, image: np.ndarray) -> None:
    """Shift each channel of the denoised image to the mean of the noisy one, in place.

    Both may be memory-mapped.
    """
    for noisy, result in zip(image, denoised, strict=True):
        lost = 0.0  # sum over all pixels of noisy minus denoised
        for place in pieces(noisy.shape, PIECE):
            lost += float((noisy[place] - result[place]).sum(dtype=np.float64))
            release(image)
            release(denoised)
        offset = np.float32(lost / noisy.size)
        for place in pieces(noisy.shape, PIECE):
            result[place] += offset
            release(denoised)


def predict_folder(
    model: AnyModel,
    images: Path,
    names: Iterable[str],
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
) -> None:
    """Predict the images with the given names, see :func:`predict_file`.

    Parameters
    ----------
    model
        A model of any kind; a classical denoiser needs the whole image in memory.
    images
        See :func:`input_folder`.
    """
    source = input_folder(images)
    for each, files in by_model(model, (image_file(source, name) for name in names)):
        if isinstance(each, TrainedModel):
            predict_files(each, files, folder, save_probabilities, tile)
        else:
            for file in files:
                predict_any(each, file, folder, save_probabilities, tile)


def predict_any(
    model: TrainedModel | ClassicalModel | ThresholdModel,
    source: Path,
    folder: Path,
    save_probabilities: bool,
    tile: int | None = None,
    factors: Sequence[float] | None = None,
) -> None:
    """Predict one tif file with any model for single images, see :func:`predict_file`.

    Classical denoisers and thresholds read the image at its own size, whatever the ``factors``.
    """
    if isinstance(model, ClassicalModel):
        _denoise_file(model, source, folder)
    elif isinstance(model, ThresholdModel):
        segment_file(model, source, folder, tile)
    else:
        predict_file(model, source, folder, save_probabilities, tile, factors)


def _denoise_file(model: ClassicalModel, source: Path, folder: Path) -> None:
    denoised = np.stack([_classical(model, channel)(channel) for channel in open_image(source)])
    write_image(folder / "denoised" / source.name, denoised, read_metadata(source))


def _classical(model: ClassicalModel, image: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function by which the model denoises this image, ([z,] y, x)."""
    # Estimated once, not for each copy with masked pixels.
    sigma = noise_level(image) if model.noise_sigma is None else model.noise_sigma
    function = denoise_planes if model.method.planes else denoise
    assert model.method.classical is not None
    return partial(function, model.method.classical, parameter=model.parameter, noise_sigma=sigma)


def self_supervised_losses(model: AnyModel, images: Path, names: Iterable[str]) -> pd.DataFrame:
    """Return the self-supervised loss of a model for each image, which needs no clean image.

    Parameters
    ----------
    model
        A model that denoises noisy images.
    images, names
        See :func:`predict_folder`. For images larger than 1024 pixels, the loss is that of the
        centre.

    Returns
    -------
    pandas.DataFrame
        Columns image and loss, see :func:`classical.masked_pixel_loss`. For a network trained on
        the image alone, it is the loss of the pixels reserved for validation.
    """
    source = input_folder(images)
    rows = []
    for name in names:
        of_image = model.for_image(name)
        assert not isinstance(of_image, ThresholdModel)
        whole = open_image(image_file(source, name))
        channels = np.asarray(centre_crop(whole, JUDGED))
        masked = None
        if model.method.each_image:
            place = torch.from_numpy(np.indices(whole.shape[1:], np.int32))[None]
            aside = grid_mask(place, model.method.grid, last_subset(model.method.grid, 1))
            masked = [centre_crop(aside[0].numpy(), JUDGED)]
        losses = [
            masked_pixel_loss(_denoiser(of_image, channels, number), channel, masked=masked)
            for number, channel in enumerate(channels)
        ]
        rows.append((name, float(np.mean(losses))))
    return pd.DataFrame(rows, columns=["image", "loss"])


def _denoiser(
    model: TrainedModel | ClassicalModel, channels: np.ndarray, number: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function by which the model denoises one channel of an image."""
    if isinstance(model, ClassicalModel):
        return _classical(model, channels[number])

    def predict(noisy: np.ndarray) -> np.ndarray:
        image = channels.astype(np.float32)
        image[number] = noisy
        denoised = np.empty(noisy.shape, dtype=np.float32)
        for tile in predict_tiles(model, image):
            denoised[tile.place] = tile.denoised[number]
        return denoised

    return predict
