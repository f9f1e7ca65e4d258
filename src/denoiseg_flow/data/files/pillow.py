"""Image files in memory, opened with Pillow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


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
