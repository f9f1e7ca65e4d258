"""The foreground threshold of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A foreground threshold, with its average precision on ``n_images`` validation images."""

    value: float
    average_precision: float
    n_images: int
