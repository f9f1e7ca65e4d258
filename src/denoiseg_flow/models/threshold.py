"""What a model needs to turn its maps into instances."""

from dataclasses import dataclass

from denoiseg_flow.methods.instances import PROMINENCE


@dataclass(frozen=True)
class Threshold:
    """A foreground threshold and the prominence of seeds.

    Attributes
    ----------
    value
        Threshold of the foreground probability.
    average_precision, n_images
        Average precision with them on so many validation images.
    prominence
        See :func:`instances.find_seeds`; not used for ``"components"``.
    """

    value: float
    average_precision: float
    n_images: int
    prominence: float = PROMINENCE
