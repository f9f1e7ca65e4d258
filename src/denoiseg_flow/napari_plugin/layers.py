"""Files of a study as layers of napari: with names, pixel size and units."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike

from denoiseg_flow.data.files.metadata import Metadata, default_colours
from denoiseg_flow.data.store import open_image, open_labels, read_metadata

#: Pixels, arguments and type of a layer.
Layer = tuple[Any, dict[str, Any], str]

SOURCE = "denoiseg_flow_file"  # key of the metadata of a layer: the file that it shows


def image_layers(
    path: Path, name: str, like: Metadata | None = None, colour_type: DTypeLike | None = None
) -> list[Layer]:
    """Return the layers of an image: one for each channel, or one for all colours.

    Parameters
    ----------
    path
        Image file; a tif that this package wrote is not read but mapped.
    like
        Metadata of a result of the image; its pixel size replaces that of the file.
    colour_type
        Integer type to which the colours of a picture are rounded: those of a denoised image are
        float32, which napari shows from 0 to 1.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    metadata = read_metadata(path)
    pixels = open_image(path)
    if like is not None:
        metadata = replace(metadata, pixel_size=like.pixel_size)
    placed = placement(metadata)
    if "C" not in metadata.axes:
        return [_layer(pixels[0], name, path, placed)]
    channels = np.moveaxis(pixels, metadata.axes.index("C"), 0)
    if metadata.colour:
        colours = np.moveaxis(channels, 0, -1)
        if colour_type is not None and colours.dtype.kind == "f":
            highest = np.iinfo(colour_type).max
            colours = np.clip(np.rint(colours), 0, highest).astype(colour_type)
        return [_layer(colours, name, path, placed | {"rgb": True})]
    count = len(channels)
    names = metadata.channels or tuple(map(str, range(count)))
    hexadecimal = metadata.channel_colours or default_colours(count)
    return [
        _layer(
            channel,
            f"{name} {label}",
            path,
            placed | {"colormap": f"#{colour}", "blending": "additive"},
        )
        for channel, label, colour in zip(channels, names, hexadecimal, strict=True)
    ]


def labels_layer(path: Path, name: str, objects: pd.DataFrame | None = None) -> Layer:
    """Return the layer of a mask or of predicted labels.

    Parameters
    ----------
    objects
        A table of its objects, see :func:`features`.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    arguments = placement(read_metadata(path)) | features(objects)
    return _layer(open_labels(path), name, path, arguments, "labels")


def placement(metadata: Metadata) -> dict[str, Any]:
    """Return scale, units and names of the axes of an image, channels left out."""
    sizes = {"T": metadata.time_step} if metadata.time_step else {}
    sizes |= metadata.pixel_size
    axes = metadata.axes.replace("C", "")
    units = ["second" if axis == "T" else "micrometer" for axis in axes]
    return {
        "scale": [float(sizes.get(axis, 1)) for axis in axes],
        "units": [
            unit if axis in sizes else "pixel" for axis, unit in zip(axes, units, strict=True)
        ],
        "axis_labels": [*axes.lower()],
    }


def features(objects: pd.DataFrame | None) -> dict[str, Any]:
    """Return the argument by which napari shows the row of the object under the pointer.

    Parameters
    ----------
    objects
        One row for each object, whose number is in the column label.
    """
    if objects is None:
        return {}
    return {"features": objects.rename(columns={"label": "index"})}


def _layer(
    pixels: np.ndarray, name: str, path: Path, arguments: dict[str, Any], kind: str = "image"
) -> Layer:
    source = {"metadata": {SOURCE: str(path.absolute())}}
    return pixels, {"name": name, **source, **arguments}, kind
