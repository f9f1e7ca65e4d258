"""The grey levels of images, and whether new ones are on the scale of those of a training."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.models.model import AnyModel, TrainedModel

PIECE = 2**22  # pixels that are measured together

# So many times the standard deviation of all training images, an image may be brighter or darker
# than these, or have more contrast.
FARTHEST = 10
# So many times may its mean and its standard deviation both be smaller: a lone empty image has
# little contrast, but a background like the others; a share of 1/255 is that of fractions of 1.
LEAST = 30


class GreyLevels:
    """Mean and standard deviation of pixels of which one part comes after the other."""

    def __init__(self, count: int = 0, mean: float = 0.0, std: float = 0.0) -> None:
        self.count = count
        self.mean = mean
        self._squares = count * std**2  # of the differences from the mean

    @property
    def std(self) -> float:
        """Their standard deviation."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def add(self, image: np.ndarray) -> None:
        """Take in an image of any shape, which may be mapped."""
        for place in pieces(image.shape, PIECE):
            values = image[place].astype(np.float64)
            mean, n = float(values.mean()), values.size
            self._squares += float(np.square(values - mean).sum())
            # Chan, Golub and LeVeque 1983: no small difference of large sums.
            total, difference = self.count + n, mean - self.mean
            self._squares += difference**2 * self.count * n / total
            self.mean += difference * n / total
            self.count = total
            release(image)

    def far_from(self, trained: "GreyLevels") -> bool:
        """Whether they can hardly be those of images like the ones of a training."""
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
    """Return the grey levels of each channel of the images that a model was trained or chosen on.

    Nothing if it does not know.
    """
    found = model.origin.get("grey_levels")
    if found is None and isinstance(model, TrainedModel):  # by an older version of the package
        # Those of bounded networks are normalised by their range.
        found = [] if model.network.bounded else model.normalisation.channels()
    return [GreyLevels(1, float(mean), float(std)) for mean, std in found or []]


def warning_of_other_levels(
    path: Path, levels: Sequence[GreyLevels], trained: Sequence[GreyLevels]
) -> str | None:
    """Say so where the grey levels of an image are far from those of the training images."""
    for number, (found, known) in enumerate(zip(levels, trained, strict=False)):
        if found.far_from(known):
            channel = f" in channel {number}" if len(levels) > 1 else ""
            return (
                f"{path} has grey levels of mean {found.mean:.3g} and standard deviation "
                f"{found.std:.3g}{channel}, the images that the model was trained on of mean "
                f"{known.mean:.3g} and standard deviation {known.std:.3g}: do not trust the "
                "results; give the image on the scale of those, or train on such images"
            )
    return None
