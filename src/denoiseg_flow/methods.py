"""What a method is: a composition of a few named parts, and the recipe it is trained by.

Nothing here needs torch, so that the workflow can plan its jobs without loading it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Snakemake watches the scripts, not the package behind them: raise this number when the result of
# a training or prediction may change, and finished runs are repeated.
REVISION = 1

NOISY = "noisy"  # the value of `input` that means: the noisy images themselves


@dataclass(frozen=True)
class Method:
    """One entry of the config section ``methods``.

    Attributes
    ----------
    name
        Key of the entry.
    input
        ``"noisy"``, or the name of the method whose denoised images this one reads.
    target
        What the denoising half is trained towards: ``"blind_spot"`` (the noisy image itself, at
        hidden pixels) or ``"none"``.
    masking
        How hidden pixels are replaced.
    network
        Name of the network.
    alpha
        Weight of the denoising loss, 1 - alpha that of the segmentation loss.
    init
        Name of the method whose weights training starts from, or None.
    """

    name: str
    input: str = NOISY
    target: str = "none"
    masking: str = "uniform"
    network: str = "unet"
    alpha: float = 0.0
    init: str | None = None

    @property
    def denoises(self) -> bool:
        """Whether the method yields denoised images."""
        return self.alpha > 0

    @property
    def segments(self) -> bool:
        """Whether the method yields instance labels, and so depends on the annotated images."""
        return self.alpha < 1


@dataclass(frozen=True)
class Recipe:
    """One entry of the config section ``recipes``: network size and training schedule.

    Attributes
    ----------
    depth, filters
        Size of the network.
    patch_size, batch_size
        Side of a training patch in pixels, and patches per step.
    epochs, steps_per_epoch
        Length of the training; after each epoch the validation loss is computed.
    learning_rate, schedule
        Adam's learning rate (the peak, for ``"one_cycle"``), and how it changes: ``"one_cycle"``
        or ``"reduce_on_plateau"`` (halved after 10 epochs without a better validation loss).
    weights
        Which weights are kept: ``"last"`` or ``"best"`` (lowest validation loss).
    batch_norm_momentum
        Weight of each batch in the running statistics of batch normalisation. The papers' 0.01
        (0.99 in Keras) takes hundreds of steps to forget the initial values.
    masked_fraction
        Share of pixels that a blind-spot target hides.
    labelled_share
        Share of each joint batch that is drawn from annotated images; None draws from all images
        alike. Methods that only segment draw all patches from annotated images, unless None.
    loss_normalisation
        ``"labelled_pixels"`` or ``"all_pixels"``, see :func:`losses.segmentation_loss`.
    validation_patches
        How many patches the validation loss is computed on, at most.
    """

    depth: int
    filters: int
    patch_size: int
    batch_size: int
    epochs: int
    steps_per_epoch: int
    learning_rate: float
    schedule: str
    weights: str
    batch_norm_momentum: float
    masked_fraction: float
    labelled_share: float | None
    loss_normalisation: str
    validation_patches: int

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole training."""
        return self.epochs * self.steps_per_epoch

    def batch_share(self, method: Method) -> float | None:
        """Share of a batch that ``method`` draws from annotated images only."""
        if self.labelled_share is None or not method.segments:
            return None
        return self.labelled_share if method.denoises else 1.0


def as_dict(part: Method | Recipe) -> dict[str, Any]:
    """Return the fields as plain values, for Snakemake's params and for model files."""
    return asdict(part)


def method_from_dict(values: Mapping[str, Any]) -> Method:
    """Return the method that :func:`as_dict` described, ignoring fields of later versions."""
    known = {field.name for field in fields(Method)}
    return Method(**{key: value for key, value in values.items() if key in known})
