"""Write a trained model as a package of the BioImage Model Zoo, for use in other programs."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from denoiseg_flow import model_card
from denoiseg_flow.data.images import read_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.figures.panels import overlay
from denoiseg_flow.instances import label_instances
from denoiseg_flow.models import AnyModel, ClassicalModel, TrainedModel, chain, load_model
from denoiseg_flow.torchscript import Axis, axes_of, outputs_of, record_network

FORMAT = "0.5.14"  # of the description; newer versions of bioimageio.spec raise it themselves

# Programs add 1e-6 to the standard deviation before they divide by it, which must not show.
SMALLEST_STD = 1e-3

_TITLE = re.compile(r"[A-Za-z0-9_+() -]{5,128}")
_CHANNELS = {"denoised": ["denoised"], "probabilities": ["background", "foreground", "border"]}
_MEANING = {
    "denoised": "the image without noise, on the intensity scale of the input",
    "probabilities": "of the classes background, foreground (inside of objects) and border",
}


def export_model(
    file: Path,
    package: Path,
    image: Path,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str | None = None,
) -> None:
    """Write the model of a file as a package of the BioImage Model Zoo.

    The package is compared with the model first, and takes its place when it is complete.

    Parameters
    ----------
    file
        A model of a method with one network, or a chain of such.
    package
        The zip file to write.
    image
        A grey image like those that the model is for: its centre becomes the test image.
    title
        Name of the package; None: from method and data set.
    authors
        Names of those who trained the model.
    licence
        SPDX identifier, such as ``CC-BY-4.0``.

    Raises
    ------
    InputError
        If the optional ``bioimageio.spec`` is missing, or the model, the image, or one of the
        texts cannot be used.
    """
    try:
        from bioimageio.spec import ValidationContext, save_bioimageio_package
    except ImportError as error:
        raise InputError(
            "writing packages needs the optional bioimageio.spec: install it with "
            "`python -m pip install -c constraints.txt -e '.[export]'`"
        ) from error
    if package.suffix != ".zip":
        raise InputError(f"package {package} must end in .zip: call it {package.stem}.zip")
    _check_texts(title, authors, licence)
    models = _load(file)
    noisy = _test_image(read_image(image), axes_of(models))
    name = title or model_card.title(models[-1])
    package.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished_", dir=package.parent) as temporary:
        folder = Path(temporary)
        outputs = record_network(models, noisy, folder / "weights.pt")
        for key, values in {"noisy": noisy[None], **outputs}.items():  # (channel, y, x)
            np.save(folder / f"{key}.npy", values[None])
            tifffile.imwrite(folder / f"{key}.tif", values, photometric="minisblack")
        Image.fromarray(_cover(models[-1], noisy, outputs)).save(folder / "cover.png")
        (folder / "README.md").write_text(model_card.readme(name, models), encoding="utf-8")
        description = describe(models, name, authors, licence)
        # The older of the two names of a description, which more programs look for.
        with ValidationContext(root=folder, file_name="rdf.yaml"):
            save_bioimageio_package(description, output_path=folder / "package.zip")
        os.replace(folder / "package.zip", package)


def _check_texts(title: str | None, authors: Sequence[str], licence: str | None) -> None:
    from bioimageio.spec.generic.v0_3 import LicenseId

    if title is not None and not _TITLE.fullmatch(title):
        raise InputError(
            f"title '{title}' must have 5 to 128 characters, of which only letters, digits, "
            "spaces and _+-() are allowed: choose another one"
        )
    for author in authors:
        if not author or "/" in author or "\\" in author:
            raise InputError(
                f"author '{author}' must be a name without slashes: give only the name"
            )
    if licence is not None:
        try:
            LicenseId(licence)
        except ValueError as error:
            raise InputError(
                f"licence '{licence}' is no SPDX identifier: write one such as CC-BY-4.0, "
                "CC0-1.0 or MIT (all of them: https://spdx.org/licenses)"
            ) from error


def _load(file: Path) -> list[TrainedModel]:
    """Read the chain of a model that a package can hold."""
    if not file.is_file():
        raise InputError(f"model {file} does not exist or is not a file: correct its path")
    models = chain(load_model(file))
    for model in models:
        reason = _obstacle(model)
        if reason:
            raise InputError(f"model {file} cannot be exported, because {reason}")
    return models


def _obstacle(model: AnyModel) -> str | None:
    """Why a package cannot hold a model, and the way out; None: it can."""
    method = f"method '{model.method.name}'"
    if isinstance(model, ClassicalModel):
        return f"{method} is a classical filter without a network; export one that has a network"
    if model.method.each_image:
        return f"{method} trains a network for each image; export a model of another method"
    if model.normalisation.std < SMALLEST_STD:
        return (
            f"the intensities of its images vary by {model.normalisation.std:.1e} only, which "
            "other programs cannot normalise; multiply the images by 1000 and train again"
        )
    return None


def _test_image(image: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Return the centre of an image, float32, mirrored beyond its borders where it is too small."""
    starts = [
        max(0, (length - axis.tested) // 2) for length, axis in zip(image.shape, axes, strict=True)
    ]
    ends = [start + axis.tested for start, axis in zip(starts, axes, strict=True)]
    centre = image[tuple(map(slice, starts, ends))].astype(np.float32)
    missing = [(0, axis.tested - length) for length, axis in zip(centre.shape, axes, strict=True)]
    return np.pad(centre, missing, mode="reflect")


def _cover(model: TrainedModel, noisy: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Paint a picture (y, x, 3), uint8: on the left the noisy image, on the right the result."""
    labels = nothing = np.zeros(noisy.shape, np.uint8)
    if "probabilities" in outputs:
        thresholds = [model.threshold.value]
        (labels,) = label_instances(outputs["probabilities"], thresholds, model.recipe.instances)
    picture = overlay(noisy, nothing)
    right = np.s_[:, noisy.shape[1] // 2 :]
    picture[right] = overlay(outputs.get("denoised", noisy[None])[0], labels)[right]
    return picture


def describe(
    models: Sequence[TrainedModel], name: str, authors: Sequence[str], licence: str | None
) -> dict[str, Any]:
    """Return the description of a package, as bioimageio.spec checks it.

    Parameters
    ----------
    models
        A chain; the last one yields the result.
    name, authors, licence
        See :func:`export_model`.
    """
    axes, scale = axes_of(models), models[0].normalisation
    normalise = {
        "id": "fixed_zero_mean_unit_variance",
        "kwargs": {"mean": float(scale.mean), "std": float(scale.std)},
    }
    sizes = {axis.name: {"min": axis.smallest, "step": axis.step} for axis in axes}
    halos = {
        axis.name: {"size": {"tensor_id": "noisy", "axis_id": axis.name}, "halo": axis.halo}
        for axis in axes
    }
    space = {key: {"size": size, "concatenable": True} for key, size in sizes.items()}
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
            _tensor("noisy", "the image as it was recorded", ["intensity"], space)
            | {"preprocessing": [normalise]}
        ],
        "outputs": [
            _tensor(key, _MEANING[key], _CHANNELS[key], halos) for key in outputs_of(models)
        ],
        "weights": {
            "torchscript": {
                "source": "weights.pt",
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {"denoiseg_flow": model_card.plain_record(models)},
    }
    return description | ({"license": licence} if licence else {})


def _tensor(
    name: str, meaning: str, channels: Sequence[str], space: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe one tensor with axes batch, channel and those of space."""
    return {
        "id": name,
        "description": meaning,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(channels)},
            *({"type": "space", "id": axis, **told} for axis, told in space.items()),
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": f"{name}.npy"},
        "sample_tensor": {"source": f"{name}.tif"},
    }
