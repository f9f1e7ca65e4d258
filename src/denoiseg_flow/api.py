"""The Python API: train on arrays, load a model, predict arrays.

Import these names from ``denoiseg_flow`` itself. All functions use the code of the workflow, so
their results equal those of ``snakemake`` and ``denoiseg-flow predict``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd

from denoiseg_flow.data.files.metadata import COLOURS, ORDER, SPATIAL, Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.data.manifest import SPLIT_COLUMNS
from denoiseg_flow.data.prepare import Sample, write_sample
from denoiseg_flow.data.splitting import split
from denoiseg_flow.data.store import write_array
from denoiseg_flow.data.validation import check_mask, check_pair
from denoiseg_flow.deployment.ledger import Entry
from denoiseg_flow.deployment.predict_file import predict_file
from denoiseg_flow.deployment.scaling import Scaling
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.devices import select_device, usable_cores
from denoiseg_flow.methods.consistency import check_method
from denoiseg_flow.methods.definition import NOISY, Method, Recipe
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.models import model_file
from denoiseg_flow.models.model import AnyModel
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import RunData, fit
from denoiseg_flow.training.job import TrainingJob

#: Joint denoising and segmentation, see docs/explanation/methods.md.
DENOISEG = Method("denoiseg", target="blind_spot", alpha=0.5)

#: The recipe ``fast`` of config/config.yaml.
FAST = Recipe(
    depth=2,
    filters=16,
    patch_size=64,
    batch_size=16,
    epochs=16,
    steps_per_epoch=100,
    learning_rate=4e-3,
    schedule="one_cycle",
    weights="last",
    batch_norm_momentum=0.1,
    freeze_batch_norm=0.3,
    ema_decay=0.99,
    masked_fraction=0.0625,
    annotated_share=0.5,
    pseudo_labels=0.3,
    loss_normalisation="annotated_pixels",
    validation_patches=128,
    preserve_mean=True,
    instances="distance",
    test_time_augmentation=False,
)

_NAME = "image"
_NEVER = 1e9  # seconds between two checkpoints, which nobody could resume from


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for one image.

    Attributes
    ----------
    denoised
        float32, on the intensity scale of the image, the axes of the image in the order TCZYX,
        where C may be colours; None for models that only segment. Colours with 8 or 16 bits keep
        their pixel type.
    labels
        uint16 or uint32, 0 for background, axes of the image without channels; None for models
        that only denoise.
    objects
        One row per object, as in ``objects.csv`` of ``denoiseg-flow predict``; None without labels.
    """

    denoised: np.ndarray | None
    labels: np.ndarray | None
    objects: pd.DataFrame | None


def load_model(path: str | Path, device: str = "auto") -> AnyModel:
    """Read a model file (``model.pt``) written by the workflow or by :func:`save_model`.

    Parameters
    ----------
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        If the file does not exist or is not a model.
    """
    path = model_file.existing_model(Path(path))
    return model_file.load_model(path, select_device(device, usable_cores()))


def save_model(model: AnyModel, path: str | Path) -> None:
    """Write a model file for :func:`load_model` and ``denoiseg-flow predict``."""
    model_file.save_model(model, Path(path))


def predict(
    model: AnyModel,
    image: np.ndarray,
    *,
    axes: str | None = None,
    planes: bool = False,
    channel: int | None = None,
    pixel_size: Sequence[float] | None = None,
    tile: int | None = None,
    normalise: Literal["training", "image"] = "training",
    rescale: float | Sequence[float] | Literal["pixel-size"] | None = None,
) -> Prediction:
    """Denoise and segment one image, whatever its size.

    Parameters
    ----------
    image
        Any real pixel type.
    axes
        One letter for each dimension of the image: T, C, Z, Y and X, or S for the colours red,
        green and blue; None: (y, x) or (z, y, x).
    planes
        Whether to predict each z-slice of a stack separately, with a model for 2D images.
    channel
        The channel to predict, from 0; the others are returned unchanged.
    pixel_size
        Micrometres along ([z,] y, x), for sizes in ``objects`` and for ``rescale``.
    tile
        Side in pixels of the tiles predicted one at a time; None: chosen automatically.
    normalise
        ``"image"``: match the mean and standard deviation of the image, in each channel, to those
        of the training images; the denoised image has the grey levels of the image.
    rescale
        Factor by which the image is resampled for the network, or one for each of ([z,] y, x);
        ``"pixel-size"``: from the pixel sizes of the image and of the training images. Results
        have the size of the image.

    Raises
    ------
    InputError
        If the image does not match the model, or an option cannot be used with it.
    """
    scaling = Scaling.of(normalise, rescale)
    scaling.check(model, "the model")
    array, metadata = _canonical(image, axes)
    shape = dict(zip(metadata.axes, array.shape, strict=True))
    # A file has no time point, channel or z-slice if there is only one.
    metadata = metadata.only([axis for axis in shape if shape[axis] > 1 or axis in "YX"])
    array = array.reshape([shape[axis] for axis in metadata.axes])
    size = None if pixel_size is None else tuple(pixel_size)
    named = None if metadata.colour else metadata.axes
    reading = Reading(named, 2 if planes else None, channel, size)
    with TemporaryDirectory() as temporary:
        source, folder = Path(temporary, f"{_NAME}.tif"), Path(temporary, "predicted")
        folder.mkdir()
        write_array(source, array, metadata)
        item = Entry.of(_NAME, source, model="")
        predict_file(model, item, folder, reading, scaling, "tif", tile)
        found = Predictions(folder)
        denoised, labels = (
            read_image(path, colour=None).reshape([shape[axis] for axis in shape if axis in kept])
            if (path := found.file(kind, _NAME)).exists()
            else None
            for kind, kept in (("denoised", ORDER), ("labels", f"T{SPATIAL}"))
        )
        table = folder / "objects" / f"{_NAME}.csv"
        objects = pd.read_csv(table) if table.exists() else None
    return Prediction(denoised, labels, objects)


def train(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    method: Method = DENOISEG,
    recipe: Recipe = FAST,
    *,
    axes: str | None = None,
    val: float = 0.15,
    seed: int = 0,
    device: str = "auto",
) -> tuple[AnyModel, pd.DataFrame]:
    """Train one model on images in memory.

    Parameters
    ----------
    images
        Noisy images with the same axes: (y, x), (z, y, x), or as given by ``axes``.
    masks
        Instance labels ([z,] y, x) of each image, 0 for background and negative for pixels to
        ignore, or None if the image is not annotated.
    axes
        One letter for each dimension of an image: C, Z, Y and X, or S for the colours red, green
        and blue.
    val
        Fraction of the annotated images for validation. Fewer than eight annotated images are
        cross-validated instead, see docs/explanation/methods.md.
    seed
        Decides every random draw.
    device
        See :func:`load_model`.

    Returns
    -------
    The model and its history: one row per epoch with step, losses and learning rate.

    Raises
    ------
    InputError
        If an image or mask cannot be used, the method needs another method, or there are too few
        images.
    """
    if len(images) != len(masks):
        raise InputError(
            f"train got {len(images)} images and {len(masks)} masks; give one mask, or None, for "
            "each image"
        )
    check_method(method, {method.name: method})
    needs_method = method.init and method.init not in PRETRAINED and not method.init_file
    if method.input != NOISY or needs_method or method.target in ("second_noisy", "clean"):
        raise InputError(
            f"method '{method.name}' needs another method or clean images; train it with the "
            "workflow"
        )
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared = PreparedData(folder)
        rows = [
            _write(prepared, f"{number:05}", image, mask, axes)
            for number, (image, mask) in enumerate(zip(images, masks, strict=True))
        ]
        how = {"val": val, "test": 0.0, "seed": seed, "cross_validate_below": 8}
        table = split(pd.DataFrame(rows), how, seed)[list(SPLIT_COLUMNS)]
        job = TrainingJob(
            Run("arrays", "n0", method.name, int(table["rank"].notna().sum()), seed),
            method,
            recipe if method.trained else None,
            Checkpoints(folder / "checkpoint.pt", _NEVER),
            select_device(device, usable_cores()),
        )
        subsets = sorted(set(table["subset"])) if method.each_image else ()
        return fit(job, RunData(table, prepared, folder / "images", own_subsets=subsets))


def _canonical(image: np.ndarray, axes: str | None) -> tuple[np.ndarray, Metadata]:
    """Return an image with its axes in the order of :data:`ORDER`."""
    image = np.asarray(image)
    axes = (axes or SPATIAL[-image.ndim :]).upper()
    colour = "S" in axes and "C" not in axes and image.shape[axes.index("S")] == len(COLOURS)
    axes = axes.replace("S", "C") if colour else axes
    known = len(set(axes)) == len(axes) and set("YX") <= set(axes) <= set(ORDER)
    if len(axes) != image.ndim or not known:
        raise InputError(
            f"axes '{axes}' do not match an image of shape {image.shape}; write one letter of T, "
            "C, Z, Y and X for each dimension, or S for three colours"
        )
    order = sorted(axes, key=ORDER.index)
    metadata = Metadata("".join(order))
    return (
        image.transpose([axes.index(axis) for axis in order]),
        metadata.in_colour() if colour else metadata,
    )


def _write(
    prepared: PreparedData, name: str, image: np.ndarray, mask: np.ndarray | None, axes: str | None
) -> dict[str, Any]:
    """Write an image and its mask to a prepared dataset; return its row of the manifest."""
    array, metadata = _canonical(image, axes)
    if "T" in metadata.axes:
        raise InputError("train takes no time series: give each time point as an image of its own")
    label = f"{int(name)} (from 0)"
    labels = None
    if mask is not None:
        labels = check_mask(np.asarray(mask), label)
        check_pair(array, labels, label, label, "mask")
    sample = Sample(name, array, labels, clean=None, source=name, metadata=metadata)
    return write_sample(sample, prepared.folder, label)
