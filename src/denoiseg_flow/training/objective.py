"""The training loss of a method on one batch."""

import torch
from torch import nn

from denoiseg_flow.methods import masking
from denoiseg_flow.methods.classes import DISTANCE, IGNORE
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.losses import (
    consistency_loss,
    denoising_loss,
    distance_loss,
    segmentation_loss,
)
from denoiseg_flow.methods.networks import as_input, channels_last, split_output
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.training.patches import Batch

DISTANCE_WEIGHT = 2.0  # of the distance, relative to the class-weighted cross entropy


class Objective:
    """The loss of a method on a batch of patches."""

    def __init__(
        self, method: Method, recipe: Recipe, device: torch.device, layout: Layout = PLANES
    ) -> None:
        self.method = method
        self.recipe = recipe
        self.layout = layout
        self.structure = masking.struct_offsets(method.struct_mask, layout.dimensions).to(device)

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
            Network that predicts pseudo-labels for patches that are not annotated, or None.
        validating
            Whether to use the pixels that :meth:`masked_input` reserves for validation, instead of
            the others.
        """
        method, recipe = self.method, self.recipe
        inputs, mask = self.masked_input(batch, generator, validating)
        denoised, maps = split_output(network(inputs).float(), self.layout.channels)
        logits = maps[:, :DISTANCE]
        denoise = segment = pseudo = logits.new_zeros(())
        if method.denoises:
            target = batch.patches if batch.targets is None else batch.targets
            denoise = denoising_loss(denoised, target, self._denoised(batch, mask))
        if method.segments and batch.classes is not None:
            segment = segmentation_loss(logits, batch.classes, recipe.loss_normalisation)
            if batch.distances is not None:
                known = batch.classes != IGNORE
                away = distance_loss(maps[:, DISTANCE], batch.distances, known)
                segment = segment + DISTANCE_WEIGHT * away
        if teacher is not None:
            unannotated = slice(recipe.annotated_patches(method), None)
            shown = self._as_input(batch.patches[unannotated])
            with torch.no_grad():
                _, imitated = split_output(teacher(shown).float(), self.layout.channels)
            pseudo = consistency_loss(logits[unannotated], imitated[:, :DISTANCE].softmax(dim=1))
            if maps.shape[1] > DISTANCE:
                away = maps[unannotated, DISTANCE] - imitated[:, DISTANCE]
                pseudo = pseudo + DISTANCE_WEIGHT * away.abs().mean()
        total = method.alpha * denoise + (1 - method.alpha) * (
            segment + recipe.pseudo_labels * pseudo
        )
        return torch.stack([total, denoise, segment, pseudo])

    def masked_input(
        self, batch: Batch, generator: torch.Generator, validating: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the patches as input of the network, and the mask of masked pixels.

        If a method trains on a single image, one subset of its grid is reserved for validation: the
        network reads these pixels, but the training loss excludes them (Noise2Self's "single
        shot").
        """
        method, patches = self.method, batch.patches
        if method.target != "blind_spot":
            return self._as_input(patches), None
        # Noise is independent between channels, so pixels are masked independently as well.
        channels = patches.flatten(0, 1)
        if method.masks_grid:
            subsets = self._subsets(len(channels), generator, validating)
            place = batch.place.repeat_interleave(self.layout.channels, dim=0)
            mask = masking.grid_mask(place, method.grid, subsets)
            masked = masking.fill_grid(channels, mask, method.masking)
        else:
            masked, mask = masking.mask_pixels(
                channels, method, self.recipe.masked_fraction, self.structure, generator
            )
        masked, mask = masked.view_as(patches), mask.view_as(patches)
        return self._as_input(masked, mask), mask

    @staticmethod
    def _denoised(batch: Batch, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the mask of pixels that denoising learns from; None: all pixels."""
        if batch.simulated is None:
            return mask
        real = (~batch.simulated).view(-1, *[1] * (batch.patches.dim() - 1))
        return real.expand_as(batch.patches) if mask is None else mask & real

    def _as_input(self, patches: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return channels_last(as_input(patches, mask, self.method.mask_channel))

    def _subsets(self, count: int, generator: torch.Generator, validating: bool) -> torch.Tensor:
        """Draw the subset of the grid to mask in each patch."""
        n_subsets, device = self.method.grid**2, generator.device
        if not self.method.each_image:
            return torch.randint(n_subsets, (count,), generator=generator, device=device)
        if validating:
            return masking.last_subset(self.method.grid, count, device)
        return torch.randint(n_subsets - 1, (count,), generator=generator, device=device)
