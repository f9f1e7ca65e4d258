"""The parts that the loss of a method is summed up from."""

import torch
from torch.nn import functional

from denoiseg_flow.methods.classes import IGNORE

# Background, foreground, border. The thin borders decide whether touching objects come apart.
CLASS_WEIGHTS = (1.0, 1.0, 5.0)


def denoising_loss(
    denoised: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean squared error over the pixels of ``mask``, all tensors of one shape.

    None stands for all pixels.
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
        (batch, [z,] y, x), int64; pixels of class ``IGNORE`` carry no loss.
    normalisation
        ``"all_pixels"`` divides by the number of pixels in the batch, as the reference
        implementation of DenoiSeg does: with 10 of 3,800 images annotated, the loss all but
        vanishes. ``"annotated_pixels"`` divides by the number of annotated pixels, which keeps the
        balance of the two losses at any number of annotated images.
    """
    # Made on the device: copied there from a list, they would stop the host at every step.
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


def consistency_loss(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy between the probabilities of a teacher and of the network.

    Classes weigh alike here: the teacher was trained with ``CLASS_WEIGHTS``, so that its
    probabilities favour the border already. Weighing them once more lets the border class feed
    on itself until nothing else is left.

    Parameters
    ----------
    logits, probabilities
        (batch, 3, [z,] y, x).
    """
    return functional.cross_entropy(logits, probabilities)
