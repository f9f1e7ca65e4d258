"""Find, read and check images of any source, prepare and split them, and add noise.

In memory an image is always (channel, [z,] y, x), also with a single channel. Masks, labels and
class codes are ([z,] y, x). Files of a single channel have no channel axis: :mod:`store` adds it
when it opens an image, and removes it when it writes one.
"""
