"""What a method minimises: the loss of one batch."""

import torch
from torch import nn

from denoiseg_flow import masking
from denoiseg_flow.losses import consistency_loss, denoising_loss, segmentation_loss
from denoiseg_flow.methods import Method, Recipe
from denoiseg_flow.networks import as_input
from denoiseg_flow.sampling import Batch


class Objective:
    """The loss of a method on a batch of patches."""

    def __init__(self, method: Method, recipe: Recipe, device: torch.device) -> None:
        self.method = method
        self.recipe = recipe
        self.structure = masking.struct_offsets(method.struct_mask).to(device)

    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        generator: torch.Generator,
        teacher: nn.Module | None = None,
        validating: bool = False,
    ) -> torch.Tensor:
        """Return the losses of a batch: total, denoising, segmentation, pseudo-labels.

        Parameters
        ----------
        teacher
            Network whose segmentation of the patches without annotation is imitated, or None.
        validating
            Whether the pixels that :meth:`hide` sets aside for validation are looked at, instead
            of the others.
        """
        method, recipe = self.method, self.recipe
        inputs, mask = self.hide(batch, generator, validating)
        output = network(inputs).float()  # (batch, 4, y, x)
        denoise = segment = pseudo = output.new_zeros(())
        if method.denoises:
            target = batch.patches if batch.targets is None else batch.targets
            denoise = denoising_loss(output[:, 0], target, mask)
        if method.segments:
            segment = segmentation_loss(output[:, 1:], batch.classes, recipe.loss_normalisation)
        if teacher is not None:
            unlabelled = slice(recipe.labelled_patches(method), None)
            shown = as_input(batch.patches[unlabelled], None, method.mask_channel)
            with torch.no_grad():
                wanted = teacher(shown).float()[:, 1:].softmax(dim=1)
            pseudo = consistency_loss(output[unlabelled, 1:], wanted)
        total = method.alpha * denoise + (1 - method.alpha) * (
            segment + recipe.pseudo_labels * pseudo
        )
        return torch.stack([total, denoise, segment, pseudo])

    def hide(
        self, batch: Batch, generator: torch.Generator, validating: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return patches as the network reads them in training, and the mask of hidden pixels.

        Where a method trains on a single image, one subset of its grid is set aside: the network
        reads these pixels, but its loss on them only serves as validation (Noise2Self's "single
        shot").
        """
        method, patches = self.method, batch.patches
        if method.target != "blind_spot":
            return as_input(patches, None, method.mask_channel), None
        if method.hides_grid:
            mask = masking.grid_mask(
                batch.y, batch.x, method.grid, self._subsets(len(patches), generator, validating)
            )
            hidden = masking.fill_grid(patches, mask, method.masking)
        else:
            hidden, mask = masking.hide(
                patches, method, self.recipe.masked_fraction, self.structure, generator
            )
        return as_input(hidden, mask, method.mask_channel), mask

    def _subsets(self, count: int, generator: torch.Generator, validating: bool) -> torch.Tensor:
        """Draw which subset of the grid is hidden in each patch."""
        n_subsets, device = self.method.grid**2, generator.device
        if not self.method.each_image:
            return torch.randint(n_subsets, (count,), generator=generator, device=device)
        if validating:
            return torch.full((count,), n_subsets - 1, device=device)
        return torch.randint(n_subsets - 1, (count,), generator=generator, device=device)
