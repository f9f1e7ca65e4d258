"""The foreground threshold of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A foreground threshold and what it was chosen on."""

    value: float
    average_precision: float
    n_images: int
