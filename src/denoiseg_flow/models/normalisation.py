"""Mean and standard deviation of the training images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training images, in units of the input.

    Numbers; where there are several channels, one for each of them.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray([self.mean, self.std], float)
        if not np.isfinite(values).all():
            raise ValueError(f"mean {self.mean} and standard deviation {self.std}")

    @classmethod
    def of_channels(cls, values: Sequence[tuple[float, float]]) -> "Normalisation":
        """Return the normalisation of channels with these means and standard deviations."""
        mean, std = zip(*values, strict=True)
        return cls(mean[0], std[0]) if len(values) == 1 else cls(mean, std)

    def channels(self) -> list[tuple[float, float]]:
        """Return mean and standard deviation of each channel."""
        return list(zip(np.atleast_1d(self.mean), np.atleast_1d(self.std), strict=True))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return an image ([channel,] ...) as float32 with about zero mean and unit variance."""
        mean, std = self._along(image)
        return (image.astype(np.float32) - mean) / std

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Return an image of the network on the scale of the input."""
        mean, std = self._along(image)
        return image * std + mean

    def _along(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 values that are broadcast over all but the channel axis."""
        found = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        mean, std = (
            values.reshape(-1, *[1] * (image.ndim - 1)) if values.ndim else values
            for values in found
        )
        return mean, std
