"""From any source of images to the prepared, split and noisy images that later steps read.

In memory an image is always (channel, [z,] y, x), also with a single channel. Masks, labels and
class codes are ([z,] y, x). Files of a single channel have no channel axis: :mod:`store` adds it
when it opens an image, and takes it off when it writes one.
"""
