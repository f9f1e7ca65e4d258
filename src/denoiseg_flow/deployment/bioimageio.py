"""Export a trained model as a BioImage Model Zoo package for other programs."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import ImageFile, open_image_file
from denoiseg_flow.data.files.regions import ALL, Reading, Region, find_regions
from denoiseg_flow.data.painting import overlay
from denoiseg_flow.data.store import middle_plane
from denoiseg_flow.data.validation import check_image, check_opaque
from denoiseg_flow.deployment import model_card
from denoiseg_flow.deployment.torchscript import Axis, axes_of, outputs_of, record_network
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.classes import CLASSES
from denoiseg_flow.methods.initial_model import MODEL
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import (
    AnyModel,
    ClassicalModel,
    ImageModels,
    TrainedModel,
    chain,
)
from denoiseg_flow.models.model_file import existing_model, load_model, save_model
from denoiseg_flow.models.prediction import label_maps

FORMAT = "0.5.14"  # format version; newer versions of bioimageio.spec raise it themselves

# Programs add 1e-6 to the standard deviation before dividing by it, which must be negligible.
SMALLEST_STD = 1e-3

_TITLE = re.compile(r"[A-Za-z0-9_+() -]{5,128}")
_MEANING = {
    "denoised": "the denoised image, on the intensity scale of the input",
    "probabilities": (
        "probabilities of the classes background, foreground (inside of objects) and border"
    ),
    "distance": "relative distance from the background: about 1 in the middle of an object",
}


def export_model(
    file: Path,
    package: Path,
    image: Path,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str | None = None,
    reading: Reading = Reading(),  # noqa: B008, it is immutable
) -> None:
    """Export a model as a package of the BioImage Model Zoo.

    The outputs of the package are first compared with those of the model; the zip file appears only
    when complete.

    Parameters
    ----------
    file
        Model file of a method with one network, or of a chain of such methods.
    package
        The zip file to write.
    image
        A typical image file for the model. Its first image, or the centre of it, becomes the test
        image.
    title
        Name of the package; None: composed of method and dataset.
    authors
        Names of those who trained the model.
    licence
        SPDX identifier, such as ``CC-BY-4.0``.
    reading
        How to read the image file. The model decides whether to read planes or volumes.

    Raises
    ------
    InputError
        If the optional ``bioimageio.spec`` is missing, or the model, the image or one of the texts
        cannot be used.
    """
    try:
        from bioimageio.spec import ValidationContext, save_bioimageio_package
    except ImportError as error:
        raise InputError(
            "exporting models needs the optional bioimageio.spec; install it with "
            "`python -m pip install -c constraints.txt -e '.[export]'`"
        ) from error
    if package.suffix != ".zip":
        raise InputError(f"package {package} must end in .zip; name it {package.stem}.zip")
    _check_texts(title, authors, licence)
    models = _load(file)
    noisy, known = _test_image(image, models, reading)
    name = title or model_card.title(models[-1])
    package.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished_", dir=package.parent) as temporary:
        folder = Path(temporary)
        outputs = record_network(models, noisy, folder / "weights.pt")
        axes = {"axes": f"C{known.spatial_axes}"}
        for key, values in {"noisy": noisy, **outputs}.items():  # (channel, [z,] y, x)
            np.save(folder / f"{key}.npy", values[None])
            path = folder / f"{key}.tif"
            tifffile.imwrite(path, values, photometric="minisblack", metadata=axes)
        Image.fromarray(_cover(models[-1], noisy, outputs)).save(folder / "cover.png")
        save_model(_without_folds(models[-1]), folder / MODEL)
        text = model_card.readme(name, models, known)
        (folder / "README.md").write_text(text, encoding="utf-8")
        description = describe(models, known, name, authors, licence)
        # The older of the two file names of a description, which more programs support.
        with ValidationContext(root=folder, file_name="rdf.yaml"):
            save_bioimageio_package(description, output_path=folder / "package.zip")
        os.replace(folder / "package.zip", package)


def _check_texts(title: str | None, authors: Sequence[str], licence: str | None) -> None:
    from bioimageio.spec.generic.v0_3 import LicenseId

    if title is not None and not _TITLE.fullmatch(title):
        raise InputError(
            f"title '{title}' must have 5 to 128 characters, only letters, digits, spaces and "
            "_+-(); choose another one"
        )
    for author in authors:
        if not author or "/" in author or "\\" in author:
            raise InputError(
                f"author '{author}' must be a name without slashes; give only the name"
            )
    if licence is not None:
        try:
            LicenseId(licence)
        except ValueError as error:
            raise InputError(
                f"licence '{licence}' is not an SPDX identifier; write one such as CC-BY-4.0, "
                "CC0-1.0 or MIT (full list: https://spdx.org/licenses)"
            ) from error


def _load(file: Path) -> list[TrainedModel]:
    """Read the chain of a model; raise InputError if a package cannot contain it."""
    models = chain(load_model(existing_model(file)))
    for model in models:
        reason = _obstacle(model)
        if reason:
            raise InputError(f"cannot export model {file}, because {reason}")
    return [model for model in models if isinstance(model, TrainedModel)]


def _without_folds(model: TrainedModel) -> TrainedModel:
    """Return a chain without the networks that cross-validate it."""
    before = model.input
    if isinstance(before, TrainedModel):
        before = _without_folds(before)
    return replace(model, input=before, held_out={})


def _obstacle(model: AnyModel) -> str | None:
    """Return why a package cannot contain a model, and the fix; None if it can."""
    method = f"method '{model.method.name}'"
    if isinstance(model, ClassicalModel):
        return f"{method} is a classical filter without a network; export one that has a network"
    if isinstance(model, ImageModels):
        return f"{method} trains a network for each image; export a model of another method"
    if not isinstance(model, TrainedModel):
        return f"{method} segments by a threshold, without a network; export one that has a network"
    if model.method.segmenter:
        return f"{method} is a random forest, not a network; export one that has a network"
    smallest = min(std for _, std in model.normalisation.channels())
    if smallest < SMALLEST_STD:
        return (
            f"the standard deviation of its training images is only {smallest:.1e}, too small for "
            "other programs to normalise; multiply the images by "
            f"{10.0 ** math.ceil(-math.log10(smallest)):g} and train again"
        )
    return None


def _test_image(
    path: Path, models: Sequence[TrainedModel], reading: Reading
) -> tuple[np.ndarray, Metadata]:
    """Return the centre (channel, [z,] y, x) of the first image of a file, and its metadata.

    The centre is float32; images that are too small are padded by reflection.
    """
    axes, layout = axes_of(models), models[0].layout
    with open_image_file(path, reading.axes, colour=layout.colour) as file:
        check_opaque(file)
        region = _first_region(file, layout, reading)
        shape = region.shape[-len(axes) :]
        starts = [
            max(0, (length - axis.tested) // 2) for length, axis in zip(shape, axes, strict=True)
        ]
        place = [
            slice(start, min(start + axis.tested, length))
            for start, axis, length in zip(starts, axes, shape, strict=True)
        ]
        channels = [slice(0, length) for length in region.shape[: -len(axes)]]
        centre = region[*channels, *place]
    check_image(centre, str(path), constant=True)
    centre = centre.astype(np.float32).reshape(layout.channels, *centre.shape[-len(axes) :])
    missing = [
        (0, axis.tested - length) for axis, length in zip(axes, centre.shape[1:], strict=True)
    ]
    return np.pad(centre, [(0, 0), *missing], mode="reflect"), region.metadata


def _first_region(file: ImageFile, layout: Layout, reading: Reading) -> Region:
    """Return the first image of a file; raise InputError if it does not match the layout."""
    axes = file.metadata.axes
    if layout.dimensions == 3 and "Z" not in axes:
        raise InputError(
            f"image {file.path} is a plane, but the model is for volumes; give a z-stack, or name "
            "its axes by --axes if the file names them differently"
        )
    if layout.channels > 1 and reading.channel is None:
        reading = replace(reading, channel=ALL)
    region = next(find_regions(file, replace(reading, dimensions=layout.dimensions)))
    count = region.channels
    if count != layout.channels:
        way = "choose one by --channel" if layout.channels == 1 else "leave --channel out"
        raise InputError(
            f"image {file.path} would be read with {count} channel(s), but the model is for "
            f"{layout.channels}; give an image with the same channels, and {way}"
        )
    return region


def _cover(model: TrainedModel, noisy: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Paint the cover (y, x, 3), uint8: the noisy image on the left, the result on the right.

    It shows the first channel, or all colours, and the middle z-slice of a volume.
    """
    n_shown = len(noisy) if model.layout.colour else 1
    before, after = (
        np.stack([middle_plane(channel) for channel in image[:n_shown]], axis=-1).squeeze()
        for image in (noisy, outputs.get("denoised", noisy))
    )
    labels = nothing = np.zeros(before.shape[:2], np.uint8)
    if "probabilities" in outputs and model.threshold is not None:
        maps = np.concatenate(
            [outputs[key] for key in ("probabilities", "distance") if key in outputs]
        )
        labels = middle_plane(label_maps(model, maps))
    picture = overlay(before, nothing)
    right = np.s_[:, before.shape[1] // 2 :]
    picture[right] = overlay(after, labels)[right]
    return picture


def describe(
    models: Sequence[TrainedModel],
    known: Metadata,
    name: str,
    authors: Sequence[str],
    licence: str | None,
) -> dict[str, Any]:
    """Return the description of a package in the format of bioimageio.spec.

    Parameters
    ----------
    models
        A chain of models; the last one yields the result.
    known
        Metadata of the test image, which give pixel size and channel names of the tensors.
    name, authors, licence
        See :func:`export_model`.
    """
    axes, outputs = axes_of(models), outputs_of(models)
    read, written = _space(axes, known)
    names = model_card.channel_names(models[0].layout, known)
    channels = {"noisy": names, "denoised": names, "probabilities": CLASSES}
    channels |= {"distance": ["distance"]}
    if len(names) == 1:
        channels |= {"noisy": ["intensity"], "denoised": ["denoised"]}
    description = {
        "type": "model",
        "format_version": FORMAT,
        "name": name,
        "description": model_card.description(models),
        "authors": [{"name": author} for author in authors],
        "cite": model_card.citations(models),
        "tags": model_card.tags(models),
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "inputs": [
            _tensor("noisy", "the image as recorded", channels["noisy"], read)
            | {"preprocessing": [_normalisation(models[0])]}
        ],
        "outputs": [_tensor(key, _MEANING[key], channels[key], written) for key in outputs],
        "weights": {
            "torchscript": {
                "source": "weights.pt",
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "attachments": [{"source": MODEL}],
        "config": {"denoiseg_flow": model_card.plain_record(models)},
    }
    return description | ({"license": licence} if licence else {})


def _normalisation(model: TrainedModel) -> dict[str, Any]:
    """Describe how a program must normalise an image for the network of a model."""
    channels = model.normalisation.channels()
    means, stds = ([float(value) for value in values] for values in zip(*channels, strict=True))
    kwargs = (
        {"mean": means[0], "std": stds[0]}
        if len(channels) == 1
        else {"axis": "channel", "mean": means, "std": stds}
    )
    return {"id": "fixed_zero_mean_unit_variance", "kwargs": kwargs}


def _space(
    axes: Sequence[Axis], known: Metadata
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Describe the spatial axes of the input and of the outputs."""
    read, written = [], []
    for axis in axes:
        entry: dict[str, Any] = {"type": "space", "id": axis.name}
        if axis.name.upper() in known.pixel_size:
            # Readers multiply lengths by the scale of one tensor, divide by that of the other, and
            # round down. With 24 bits the products are exact, which preserves the lengths.
            scale = float(np.float32(known.pixel_size[axis.name.upper()]))
            entry |= {"unit": "micrometer", "scale": scale}
        size = {"min": axis.smallest, "step": axis.step}
        read.append(entry | {"size": size, "concatenable": True})
        halo = {"halo": axis.halo} if axis.halo else {}  # the format does not allow a halo of 0
        written.append(entry | {"size": {"tensor_id": "noisy", "axis_id": axis.name}} | halo)
    return read, written


def _tensor(
    name: str, meaning: str, channels: Sequence[str], space: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe one tensor with batch, channel and spatial axes."""
    return {
        "id": name,
        "description": meaning,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(channels)},
            *space,
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": f"{name}.npy"},
        "sample_tensor": {"source": f"{name}.tif"},
    }
