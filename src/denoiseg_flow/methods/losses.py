"""The terms of the loss of a method."""

import torch
from torch.nn import functional

from denoiseg_flow.methods.classes import IGNORE

# Background, foreground, border. Thin borders decide whether touching objects are separated.
CLASS_WEIGHTS = (1.0, 1.0, 5.0)


def denoising_loss(
    denoised: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean squared error over the pixels in ``mask``, or over all pixels if it is None.

    All tensors have the same shape.
    """
    if mask is None:
        return (denoised - target).square().mean()
    return ((denoised - target).square() * mask).sum() / mask.sum().clamp(min=1)


def segmentation_loss(
    logits: torch.Tensor, classes: torch.Tensor, normalisation: str
) -> torch.Tensor:
    """Return the class-weighted cross entropy of the annotated pixels.

    Parameters
    ----------
    logits
        (batch, 3, [z,] y, x).
    classes
        (batch, [z,] y, x), int64; pixels of class ``IGNORE`` do not contribute.
    normalisation
        ``"all_pixels"`` divides by the number of pixels in the batch, like the reference
        implementation of DenoiSeg; with 10 of 3,800 images annotated, the loss is almost zero.
        ``"annotated_pixels"`` divides by the number of annotated pixels, which balances the two
        losses for any number of annotated images.
    """
    # Created on the device: copying a list would synchronise host and GPU at every step.
    weights = torch.cat([logits.new_full((1,), weight) for weight in CLASS_WEIGHTS])
    total = functional.cross_entropy(
        logits,
        classes,
        weight=weights,
        ignore_index=IGNORE,
        reduction="sum",
    )
    if normalisation == "all_pixels":
        return total / classes.numel()
    return total / (classes != IGNORE).sum().clamp(min=1)


def distance_loss(
    distance: torch.Tensor, target: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """Return the mean absolute error of the relative distance over annotated pixels.

    Parameters
    ----------
    distance, target, known
        (batch, [z,] y, x); ``known`` is bool.
    """
    return ((distance - target).abs() * known).sum() / known.sum().clamp(min=1)


def consistency_loss(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy between the probabilities of the teacher and of the network.

    Classes have equal weights, because the teacher was trained with ``CLASS_WEIGHTS`` and already
    favours the border. With these weights again, the border class would grow until nothing else is
    left.

    Parameters
    ----------
    logits, probabilities
        (batch, 3, [z,] y, x).
    """
    return functional.cross_entropy(logits, probabilities)
