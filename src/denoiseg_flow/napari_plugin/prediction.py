"""Predict layers of napari."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from denoiseg_flow.api import Prediction, load_model, predict
from denoiseg_flow.data.files.metadata import COLOURS, ORDER
from denoiseg_flow.data.files.units import micrometres
from denoiseg_flow.errors import InputError
from denoiseg_flow.models.model import AnyModel, reads_colour
from denoiseg_flow.napari_plugin.layers import Layer, features

#: What is copied from a layer to those of its results.
PLACEMENT = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
AXES = "TZYX"  # of a layer, as many as it has


class Picture(NamedTuple):
    """One image layer."""

    name: str
    pixels: np.ndarray
    """([t,] [z,] y, x), and three colours last if ``rgb``."""
    rgb: bool
    pixel_size: tuple[float, ...] | None
    """Micrometres along ([z,] y, x); None if unknown."""
    placement: dict[str, Any]


def picture_of(layer: Any) -> Picture:
    """Return the pixels and the place of an image layer of napari.

    Of a multiscale layer, these are the pixels of the highest resolution.

    Raises
    ------
    InputError
        If the layer is partly transparent.
    """
    pixels = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if layer.rgb and pixels.shape[-1] > len(COLOURS):
        alpha = pixels[..., len(COLOURS)]
        if (alpha != alpha.max()).any():
            raise InputError(
                f"layer '{layer.name}' is partly transparent; export the image without an alpha "
                "channel"
            )
        pixels = pixels[..., : len(COLOURS)]
    placement = {key: getattr(layer, key) for key in PLACEMENT}
    return Picture(layer.name, pixels, layer.rgb, _pixel_size(layer), placement)


def predict_each(
    model_file: Path,
    pictures: Sequence[Picture],
    normalise: Literal["training", "image"] = "training",
    rescale: Literal["pixel-size"] | None = None,
) -> Iterator[list[Layer]]:
    """Predict layers one by one, and yield the layers of the results of each.

    A model that reads several channels takes the layers as the channels of one image.

    Parameters
    ----------
    model_file
        A ``model.pt``.
    pictures
        Layers of the same kind.
    normalise, rescale
        See :func:`denoiseg_flow.predict`.

    Raises
    ------
    InputError
        If the model cannot be used for these layers.
    """
    model = load_model(model_file)
    layout = getattr(model, "layout", None)  # classical denoisers have none
    volumes = layout is not None and layout.dimensions == 3
    for group in _groups(model, pictures):
        pixels, axes = _stacked(group)
        size = group[0].pixel_size
        if volumes and len(size or ()) < 3:
            raise InputError(
                f"the scale of layer '{group[0].name}' does not say how far apart its planes and "
                "pixels are, but the model was trained on volumes; set it, in micrometres"
            )
        prediction = predict(
            model,
            pixels,
            axes=axes,
            planes=not volumes and len(axes.strip("CS")) > 2,
            pixel_size=size,
            normalise=normalise,
            rescale=rescale,
        )
        yield _layers(prediction, group, axes)


def _groups(model: AnyModel, pictures: Sequence[Picture]) -> list[Sequence[Picture]]:
    """Return the layers of each image that the model predicts."""
    if not pictures:
        raise InputError("no image layer is selected; select one in the list of layers")
    colour, layout = reads_colour(model), getattr(model, "layout", None)
    other = [each.name for each in pictures if colour not in (None, each.rgb)]
    if other and colour:
        raise InputError(
            f"layer '{other[0]}' is grey, but the model reads colours; select images in colour"
        )
    if other:
        raise InputError(
            f"layer '{other[0]}' is in colour, but the model reads grey images; select one of its "
            "channels ('Split RGB' in the menu of a layer makes them)"
        )
    count = layout.channels if layout and not colour else 1
    if count == 1:
        return [[picture] for picture in pictures]
    if len(pictures) != count or len({each.pixels.shape for each in pictures}) > 1:
        raise InputError(
            f"the model reads {count} channels at once; select {count} image layers of the same "
            "size, one for each channel ('Split Stack' in the menu of a layer makes them)"
        )
    return [pictures]


def _stacked(group: Sequence[Picture]) -> tuple[np.ndarray, str]:
    """Return the pixels of an image and its axes."""
    if len(group) > 1:
        return np.stack([each.pixels for each in group]), f"C{AXES[-group[0].pixels.ndim :]}"
    (picture,) = group
    if picture.rgb:
        return picture.pixels, f"{AXES[-picture.pixels.ndim + 1 :]}S"
    return picture.pixels, AXES[-picture.pixels.ndim :]


def _layers(prediction: Prediction, group: Sequence[Picture], axes: str) -> list[Layer]:
    """Return the denoised image, one layer for each channel, and the labels."""
    made: list[Layer] = []
    placed = group[0].placement
    if prediction.denoised is not None:
        denoised = _in_order(prediction.denoised, axes)
        for part, each in zip(denoised if "C" in axes else [denoised], group, strict=True):
            arguments = {"name": f"{each.name} denoised", "rgb": each.rgb, **placed}
            made.append((part, arguments, "image"))
    if prediction.labels is not None:
        arguments = {"name": f"{group[0].name} labels", **placed}
        made.append((prediction.labels, arguments | features(prediction.objects), "labels"))
    return made


def _in_order(image: np.ndarray, axes: str) -> np.ndarray:
    """Return an image whose axes are in the order TCZYX with its axes in the given order."""
    names = axes.replace("S", "C")
    predicted = sorted(names, key=ORDER.index)
    return image.transpose([predicted.index(axis) for axis in names])


def _pixel_size(layer: Any) -> tuple[float, ...] | None:
    """Return micrometres along ([z,] y, x); None if unknown.

    A scale without a unit is in micrometres, as most programs write it.
    """
    units = [*map(str, layer.units[-3:])]
    steps = [*map(float, layer.scale[-3:])]
    if set(units) == {"pixel"} and set(steps) == {1.0}:
        return None
    sizes = [
        step if unit == "pixel" else micrometres(step, unit)
        for step, unit in zip(steps, units, strict=True)
    ]
    if sizes[0] is None:  # the first of three axes may be the time
        sizes = sizes[-2:]
    known = [size for size in sizes if size is not None]
    return tuple(known) if len(known) == len(sizes) else None
