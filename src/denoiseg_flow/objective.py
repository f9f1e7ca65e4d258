"""What a method minimises: the loss of one batch."""

import torch
from torch import nn

from denoiseg_flow.losses import consistency_loss, denoising_loss, segmentation_loss
from denoiseg_flow.masking import MASKINGS, stratified_mask
from denoiseg_flow.methods import Method, Recipe


class Objective:
    """The loss of a method on a batch of patches."""

    def __init__(self, method: Method, recipe: Recipe) -> None:
        self.method = method
        self.recipe = recipe

    def __call__(
        self,
        network: nn.Module,
        patches: torch.Tensor,
        classes: torch.Tensor | None,
        generator: torch.Generator,
        teacher: nn.Module | None = None,
    ) -> torch.Tensor:
        """Return the losses of a batch: total, denoising, segmentation, pseudo-labels.

        Parameters
        ----------
        patches, classes
            (batch, y, x), as :meth:`sampling.PatchSampler.draw` returns them.
        teacher
            Network whose segmentation of the patches without annotation is imitated, or None.
        """
        method, recipe = self.method, self.recipe
        inputs, mask = self.hide(patches, generator)
        output = network(as_input(inputs)).float()  # (batch, 4, y, x)
        denoise = segment = pseudo = output.new_zeros(())
        if method.denoises:
            denoise = denoising_loss(output[:, 0], patches, mask)
        if method.segments:
            segment = segmentation_loss(output[:, 1:], classes, recipe.loss_normalisation)
        if teacher is not None:
            unlabelled = slice(recipe.labelled_patches(method), None)
            with torch.no_grad():
                wanted = teacher(as_input(patches[unlabelled])).float()[:, 1:].softmax(dim=1)
            pseudo = consistency_loss(output[unlabelled, 1:], wanted)
        total = method.alpha * denoise + (1 - method.alpha) * (
            segment + recipe.pseudo_labels * pseudo
        )
        return torch.stack([total, denoise, segment, pseudo])

    def hide(
        self, patches: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return patches as the network sees them in training, and the mask of hidden pixels."""
        if self.method.target != "blind_spot":
            return patches, None
        mask = stratified_mask(tuple(patches.shape), self.recipe.masked_fraction, generator)
        return MASKINGS[self.method.masking](patches, mask, generator), mask


def as_input(patches: torch.Tensor) -> torch.Tensor:
    """Return patches (batch, y, x) as the network reads them: (batch, 1, y, x), channels last."""
    return patches[:, None].to(memory_format=torch.channels_last)
