"""Reject images and masks that cannot be used: NaN, constant images, invalid labels.

Every error names the file and the fix.
"""

import logging
import math
from typing import Literal

import numpy as np
import scipy

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.reader import ImageFile
from denoiseg_flow.data.files.tiles import PIECE, Readable, pieces
from denoiseg_flow.errors import InputError

logger = logging.getLogger(__name__)
BinaryMasks = Literal["warn", "connected_components"]
_INT32 = np.iinfo(np.int32)
_FLOAT32_EXACT = 2**24  # float32 represents integers exactly up to here


def check_image(image: Readable, name: str, constant: bool = False) -> np.dtype:
    """Check an image and return the pixel type in which the workflow stores it.

    Parameters
    ----------
    image
        Any shape and real pixel type; read piece by piece.
    name
        Name of the image in error messages.
    constant
        Whether to accept an image with a single grey value.

    Returns
    -------
    numpy.dtype
        uint8, uint16, uint32 or float32: unsigned integers for images without negative integers.

    Raises
    ------
    InputError
        If the image is empty, constant, not finite, or outside the range of these types.
    """
    if not math.prod(image.shape):
        raise InputError(f"image {name} has no pixels (shape {image.shape}); remove it")
    n_bad = 0
    extremes: list[tuple[float, float]] = []
    for place in pieces(image.shape, PIECE):
        values = image[place]
        if values.dtype.kind == "f":
            n_bad += int((~np.isfinite(values)).sum())
        extremes.append((values.min(), values.max()))
        release(image)
    if n_bad:
        raise InputError(
            f"image {name} has {n_bad} NaN or infinite pixels; replace them by numbers (for "
            "example the background value) or crop the image"
        )
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if low == high and not constant:
        raise InputError(
            f"image {name} is constant (every pixel is {low}); remove it or export it again"
        )
    return _pixel_type(image.dtype, name, low, high)


def _pixel_type(dtype: np.dtype, name: str, low: float, high: float) -> np.dtype:
    kind, size = dtype.kind, dtype.itemsize
    if kind == "b":
        return np.dtype(np.uint8)
    if kind == "u" and size <= 4:
        return dtype.newbyteorder("=")
    if kind in "ui" and low >= 0 and high <= np.iinfo(np.uint32).max:
        return np.dtype(f"u{min(size, 4)}")
    if kind in "ui" and max(-int(low), int(high)) <= _FLOAT32_EXACT:
        return np.dtype(np.float32)
    if kind == "f" and max(abs(low), abs(high)) <= np.finfo(np.float32).max:
        return np.dtype(np.float32)
    raise InputError(
        f"image {name} has {dtype} pixels from {low} to {high}, which float32 cannot represent; "
        "export it as uint8, uint16 or float32"
    )


def check_opaque(file: ImageFile) -> None:
    """Raise InputError if a pixel is transparent: what it shows depends on what lies below."""
    if file.is_transparent():
        raise InputError(
            f"{file.path} has transparent pixels; export it without transparency (alpha channel), "
            "on a background of one colour"
        )


def check_mask(
    labels: np.ndarray,
    name: str,
    binary_masks: BinaryMasks = "warn",
    background_label: int = 0,
    ignore_label: int | None = None,
) -> np.ndarray:
    """Check a mask and return it as int32: 0 background, positive objects, negative ignored.

    Parameters
    ----------
    labels
        Any shape and real pixel type.
    name
        Name of the mask in error messages.
    binary_masks
        What to do with a mask whose only values are 0 and 1, or 0 and 255: ``warn`` if it seems to
        show several objects, or label each of its ``connected_components`` separately.
    background_label
        Value of the background in the mask.
    ignore_label
        Value of pixels that are not annotated, in addition to negative values.

    Raises
    ------
    InputError
        If the mask is empty, has values that are not labels, or annotates no pixel.
    """
    if labels.size == 0:
        raise InputError(f"mask {name} has no pixels (shape {labels.shape}); remove it")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise InputError(f"mask {name} has NaN or infinite pixels; export it as integers")
        if not np.array_equal(labels, np.rint(labels)):
            raise InputError(
                f"mask {name} has fractional values, as left by interpolation; export it as "
                "integers, with nearest-neighbour interpolation"
            )
    elif labels.dtype.kind not in "bui":
        raise InputError(f"mask {name} has {labels.dtype} pixels; export it as uint16")
    low, high = labels.min(), labels.max()
    if low < _INT32.min or high > _INT32.max:
        raise InputError(
            f"mask {name} has labels from {low} to {high}, beyond 32 bits; number its objects from "
            "1 and export it as uint16"
        )
    labels = labels.astype(np.int32)
    background, ignored = labels == background_label, labels == ignore_label
    labels[background], labels[ignored] = 0, -1
    high = labels.max()
    if high < 0:
        raise InputError(
            f"mask {name} annotates no pixel, because all are to be ignored; annotate some, or "
            "remove the file if its image is not annotated"
        )
    if high not in (1, 255) or not np.isin(labels, (0, high)).all():
        return labels
    components, n_components = scipy.ndimage.label(labels, np.ones([3] * labels.ndim))
    if binary_masks == "connected_components":
        return components.astype(np.int32)
    if n_components > 1:
        logger.warning(
            "mask %s seems binary (only 0 and %d, in %d separate regions) and is read as one "
            "object; if it shows several, set 'binary_masks: connected_components' in the "
            "dataset's config",
            name,
            high,
            n_components,
        )
    return labels


def check_pair(
    image: Readable, other: Readable, image_name: str, other_name: str, other_kind: str
) -> None:
    """Raise InputError unless a mask, clean image or second acquisition has its image's shape.

    A mask has no channel axis.
    """
    shape = image.shape[-len(other.shape) :]
    if shape != other.shape:
        one, another = (" x ".join(map(str, each)) for each in (shape, other.shape))
        axes = "depth x height x width" if len(shape) == 3 else "height x width"
        raise InputError(
            f"image {image_name} is {one} pixels, but its {other_kind} {other_name} is {another} "
            f"({axes}); export both at the same size"
        )


def check_repeat(image: Readable, repeat: Readable, image_name: str, repeat_name: str) -> None:
    """Raise InputError if another acquisition of a field, of the same shape, is a copy."""
    for place in pieces(image.shape, PIECE):
        same = np.array_equal(image[place], repeat[place])
        release(image)
        release(repeat)
        if not same:
            return
    raise InputError(
        f"the acquisition {repeat_name} has the same pixels as {image_name}, and so the same "
        "noise; replace it by another acquisition of the field"
    )
