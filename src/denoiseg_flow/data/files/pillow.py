"""Image files in memory, opened with Pillow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


@contextmanager
def open_with_pillow(content: bytes, form: str) -> Iterator[Image.Image]:
    """Open an image of any size, of a format such as "PNG"; Pillow has a limit, lifted here.

    Pillow would start other programs for other formats, whatever the name of the file. From a
    file, it would reserve what the lengths of chunks ask for, up to 4 GiB. Compare the size of the
    image with that of its content before its pixels are asked for.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(content), formats=[form]) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit
