"""Image files in memory, opened with Pillow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile


@contextmanager
def open_with_pillow(content: bytes, form: str) -> Iterator[Image.Image]:
    """Open an image in memory, without Pillow's limit of its size.

    The format, such as "PNG", is fixed, because Pillow starts other programs for some formats,
    whatever the name of a file. The content is in memory, because from a file Pillow would allocate
    what the lengths of chunks request, up to 4 GiB. Compare the size of the image with the size of
    its content before reading its pixels.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(content), formats=[form]) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_pgm(image: Image.Image) -> np.ndarray:
    """Return the pixels of an open pgm file as they are stored.

    Pillow scales them to the whole range of 8 or 16 bits if the header states another maximum.
    """
    assert isinstance(image, ImageFile.ImageFile)
    decoder, *_, arguments = image.tile[0]
    pixels = np.asarray(image)
    if image.mode not in ("L", "I"):  # bits or colours
        return pixels
    largest = 255 if image.mode == "L" else 65535
    if decoder in ("ppm", "ppm_plain") and isinstance(arguments, tuple):
        pixels = np.rint(pixels * (arguments[-1] / largest))
    return pixels.astype(np.uint8 if largest == 255 else np.uint16)
