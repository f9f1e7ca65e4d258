"""Pictures inside of a page, as data URIs."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from denoiseg_flow.data.painting import displayed, instance_colours, intensity_window, over
from denoiseg_flow.data.store import centre_crop

CROPPED = 512  # pixels: larger images are cropped to their centre
_THUMBNAIL = 192  # pixels of the longer side


def figure_uri(image: str | Path, scale: float = 1) -> str:
    """Return the text of an SVG, or an .svg or .png file; in an <img>, ids cannot collide.

    Parameters
    ----------
    scale
        Factor of the size of a .png file. If it is not 1, there is some loss.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(image, str) and "<svg" in image:
        return _data_uri("svg+xml", image.encode())
    path = Path(image)
    match path.suffix:
        case ".svg":
            return _data_uri("svg+xml", path.read_bytes())
        case ".png":
            with Image.open(path) as picture:
                if scale == 1:
                    return _encoded(picture, "webp", lossless=True)
                size = (round(scale * picture.width), round(scale * picture.height))
                return _encoded(picture.convert("RGB").resize(size), "webp", quality=80)
    raise ValueError(f"a figure must be SVG text, or an .svg or .png file, not {path}")


def image_uri(pixels: np.ndarray) -> str:
    """Return pixels, uint8 (y, x) or (y, x, 3 or 4), without loss."""
    return _encoded(Image.fromarray(pixels), "webp", lossless=True)


def thumbnail_uri(
    noisy: np.ndarray, denoised: np.ndarray | None = None, labels: np.ndarray | None = None
) -> str:
    """Return the centre of an image in small, with some loss.

    Parameters
    ----------
    noisy, denoised
        (y, x), or (y, x, 3) in colour. The denoised image is shown, if there is one, with the
        intensity window of the noisy one.
    labels
        Instances (y, x), whose outlines are painted over the image.
    """
    window = intensity_window(_centre(noisy))
    picture = displayed(_centre(noisy if denoised is None else denoised), window)
    small = Image.fromarray(np.round(255 * np.nan_to_num(picture)).astype(np.uint8))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    if labels is not None:
        labels = _centre(labels)
        # At the size of the thumbnail, so that lines stay one pixel wide.
        rows, columns = (
            (np.arange(new) + 0.5) * old // new
            for new, old in zip(small.size[::-1], labels.shape, strict=True)
        )
        paint = instance_colours(labels[np.ix_(rows.astype(int), columns.astype(int))])
        paint[paint[..., 3] < 1] = 0
        painted = over(np.asarray(small) / 255, paint)
        small = Image.fromarray(np.round(255 * painted).astype(np.uint8))
    # JPEG with the colours of every pixel: WebP would average those of thin lines with their sides.
    return _encoded(small, "jpeg", quality=75, subsampling=0)


def _centre(picture: np.ndarray) -> np.ndarray:
    return centre_crop(picture, CROPPED, axes=(0, 1))


def _encoded(picture: Image.Image, kind: str, **how: bool | int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **how)
    return _data_uri(kind, buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
