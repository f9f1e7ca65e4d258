"""Normalisation by mean and standard deviation of the training images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel of the training images, in units of the input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray([self.mean, self.std], float)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"mean {self.mean} and standard deviation {self.std}")

    @classmethod
    def of_channels(cls, values: Sequence[tuple[float, float]]) -> "Normalisation":
        """Create a normalisation from the mean and standard deviation of each channel."""
        return cls(*zip(*values, strict=True))

    @classmethod
    def from_plain(
        cls, mean: float | Sequence[float], std: float | Sequence[float]
    ) -> "Normalisation":
        """Create a normalisation from the values of :meth:`plain`."""
        return cls(
            *(tuple(each) if isinstance(each, Sequence) else (each,) for each in (mean, std))
        )

    def plain(self) -> dict[str, float | tuple[float, ...]]:
        """Return mean and standard deviation as stored in files: numbers for a single channel."""
        values = {"mean": self.mean, "std": self.std}
        return {key: each if len(each) > 1 else each[0] for key, each in values.items()}

    def channels(self) -> list[tuple[float, float]]:
        """Return mean and standard deviation of each channel."""
        return list(zip(self.mean, self.std, strict=True))

    def scale(self, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and standard deviations, float32, each (channel, [1,] 1, 1).

        An image is normalised as ``(image - mean) / std``.
        """
        values = torch.tensor([self.mean, self.std], dtype=torch.float32)
        mean, std = values.reshape(2, -1, *[1] * dimensions)
        return mean, std
