"""Grey levels of images, and whether those of new images match the training images."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.models.model import AnyModel, TrainedModel

PIECE = 2**22  # pixels to measure at once

# How far the mean of an image may deviate from that of the training images, and how large its
# standard deviation may be, in standard deviations of the training images.
FARTHEST = 10
# Factor by which mean and standard deviation may both be smaller. (An empty image has little
# contrast but the usual background; intensities scaled from 0..255 to 0..1 are 255 times smaller.)
LEAST = 30


class GreyLevels:
    """Running mean and standard deviation of pixels."""

    def __init__(self, count: int = 0, mean: float = 0.0, std: float = 0.0) -> None:
        self.count = count
        self.mean = mean
        self._squares = count * std**2  # of the differences from the mean

    @property
    def std(self) -> float:
        """Standard deviation of the pixels so far."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def add(self, image: np.ndarray) -> None:
        """Add the pixels of an image of any shape, which may be memory-mapped."""
        for place in pieces(image.shape, PIECE):
            values = image[place].astype(np.float64)
            mean, n = float(values.mean()), values.size
            self._squares += float(np.square(values - mean).sum())
            # Chan, Golub and LeVeque 1983: avoids the small difference of large sums.
            total, difference = self.count + n, mean - self.mean
            self._squares += difference**2 * self.count * n / total
            self.mean += difference * n / total
            self.count = total
            release(image)

    def far_from(self, trained: "GreyLevels") -> bool:
        """Return whether these grey levels are implausible for images like the training images."""
        return (
            abs(self.mean - trained.mean) > FARTHEST * trained.std
            or self.std > FARTHEST * trained.std
            or (LEAST * self.std < trained.std and LEAST * abs(self.mean) < abs(trained.mean))
        )


def measure(images: Iterable[np.ndarray]) -> list[GreyLevels]:
    """Return the grey levels of each channel of images (channel, [z,] y, x)."""
    levels: list[GreyLevels] = []
    for image in images:
        levels = levels or [GreyLevels() for _ in image]
        for channel, each in zip(image, levels, strict=True):
            each.add(channel)
    return levels


def trained_on(model: AnyModel) -> list[GreyLevels]:
    """Return the grey levels of each channel of a model's training (or calibration) images.

    The list is empty if the model does not contain them.
    """
    found = model.origin.get("grey_levels")
    if found is None and isinstance(model, TrainedModel):  # by an older version of the package
        # Those of bounded networks are normalised by their range.
        found = [] if model.network.bounded else model.normalisation.channels()
    return [GreyLevels(1, float(mean), float(std)) for mean, std in found or []]


def warning_of_other_levels(
    path: Path,
    levels: Sequence[GreyLevels],
    trained: Sequence[GreyLevels],
    fix: str = "bring the image to the same scale",
) -> str | None:
    """Return a warning if an image's grey levels are far from those of the training images."""
    for number, (found, known) in enumerate(zip(levels, trained, strict=False)):
        if found.far_from(known):
            channel = f" of channel {number}" if len(levels) > 1 else ""
            return (
                f"grey levels{channel} of {path} (mean {found.mean:.3g}, standard deviation "
                f"{found.std:.3g}) are far from those of the training images (mean "
                f"{known.mean:.3g}, standard deviation {known.std:.3g}): do not trust the results; "
                f"{fix}, or train on such images"
            )
    return None
