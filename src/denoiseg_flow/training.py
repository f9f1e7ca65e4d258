"""The one training loop, for every learned method."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from denoiseg_flow import checkpoints
from denoiseg_flow.data.images import open_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.instances import choose_threshold
from denoiseg_flow.losses import denoising_loss, segmentation_loss
from denoiseg_flow.masking import MASKINGS, stratified_mask
from denoiseg_flow.methods import Method, Recipe, as_dict
from denoiseg_flow.models import TrainedModel
from denoiseg_flow.networks import build_network
from denoiseg_flow.prediction import predict_foreground
from denoiseg_flow.sampling import ImageBank, PatchSampler, validation_patches
from denoiseg_flow.seeds import torch_seed
from denoiseg_flow.training_images import (
    TrainingImages,
    check_validation,
    load_bank,
    measure_normalisation,
)

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
VALIDATION_BATCH = 32


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
    ) -> torch.Tensor:
        """Return (total, denoising, segmentation) loss of patches (batch, y, x)."""
        method, recipe = self.method, self.recipe
        inputs = patches
        if method.target == "blind_spot":
            mask = stratified_mask(tuple(patches.shape), recipe.masked_fraction, generator)
            inputs = MASKINGS[method.masking](patches, mask, generator)
        x = inputs[:, None].to(memory_format=torch.channels_last)  # (batch, 1, y, x)
        output = network(x)  # (batch, 4, y, x)
        denoise = segment = output.new_zeros(())
        if method.denoises:
            denoise = denoising_loss(output[:, 0], patches, mask)
        if method.segments:
            segment = segmentation_loss(output[:, 1:], classes, recipe.loss_normalisation)
        total = method.alpha * denoise + (1 - method.alpha) * segment
        return torch.stack([total, denoise, segment])


def make_schedule(
    recipe: Recipe, optimiser: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate schedule of the recipe."""
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=recipe.learning_rate, total_steps=recipe.steps, pct_start=0.2
        )
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)


class Trainer:
    """A training that can be stopped after any epoch and continued to the same weights."""

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        bank: ImageBank,
        val_bank: ImageBank,
        seed: int,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.seed = seed
        self.device = device
        torch.manual_seed(torch_seed(seed, "weights"))
        network = build_network(method.network, recipe.depth, recipe.filters)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe.batch_norm_momentum
        self.network = network.to(device, memory_format=torch.channels_last)
        self.objective = Objective(method, recipe)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.learning_rate)
        self.schedule = make_schedule(recipe, self.optimiser)
        self.sampler = PatchSampler(
            bank, recipe.patch_size, recipe.batch_size, recipe.batch_share(method)
        )
        self.generator = self._new_generator("training")
        self.validation = validation_patches(
            val_bank, recipe.patch_size, recipe.validation_patches, self._new_generator("val")
        )
        self.history: list[dict[str, float]] = []
        self.best_loss = math.inf
        self.best_weights: dict[str, torch.Tensor] = {}

    def _new_generator(self, purpose: str) -> torch.Generator:
        seed = torch_seed(self.seed, purpose)
        return torch.Generator(device=self.device).manual_seed(seed)

    def run(self, checkpoint: Path, fingerprint: str) -> None:
        """Train to the end, from the checkpoint if there is one of the same fingerprint."""
        if checkpoint.exists():
            self._resume(checkpoint, fingerprint)
        started = saved = time.monotonic()
        first = len(self.history)
        for epoch in range(first, self.recipe.epochs):
            losses = self._train_epoch()
            val_loss = self._validate()
            self._record(epoch, losses, val_loss, time.monotonic() - started, epoch - first + 1)
            if self.recipe.schedule == "reduce_on_plateau":
                self.schedule.step(val_loss)
            if self.recipe.weights == "best" and val_loss < self.best_loss:
                self.best_loss = val_loss
                self.best_weights = {
                    key: value.clone() for key, value in self.network.state_dict().items()
                }
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoints.save_atomically(self._state(fingerprint), checkpoint)
                saved = time.monotonic()
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)
        self.network.eval()

    def _train_epoch(self) -> list[float]:
        """One epoch of optimiser steps; the losses stay on the device until it ends."""
        self.network.train()
        sums = torch.zeros(3, device=self.device)
        for _ in range(self.recipe.steps_per_epoch):
            patches, classes = self.sampler.draw(self.generator)
            losses = self.objective(self.network, patches, classes, self.generator)
            self.optimiser.zero_grad(set_to_none=True)
            losses[0].backward()
            self.optimiser.step()
            if self.recipe.schedule == "one_cycle":
                self.schedule.step()
            sums += losses.detach()
        return (sums / self.recipe.steps_per_epoch).tolist()

    @torch.inference_mode()
    def _validate(self) -> float:
        """Validation loss, on the same pixels and with the same blind spots every time."""
        self.network.eval()
        patches, classes = self.validation
        generator = self._new_generator("validation masks")
        total = 0.0
        for start in range(0, len(patches), VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            annotation = None if classes is None else classes[part]
            losses = self.objective(self.network, patches[part], annotation, generator)
            total += float(losses[0]) * len(patches[part])
        return total / len(patches)

    def _record(
        self, epoch: int, losses: list[float], val_loss: float, seconds: float, n_epochs: int
    ) -> None:
        total, denoise, segment = losses
        step = (epoch + 1) * self.recipe.steps_per_epoch
        if not math.isfinite(total):
            raise InputError(
                f"the loss is {total} after {step} steps; lower 'learning_rate' of the recipe "
                f"(now {self.recipe.learning_rate})"
            )
        self.history.append(
            {
                "step": step,
                "loss": total,
                "loss_denoise": denoise,
                "loss_segment": segment,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "val_loss": val_loss,
            }
        )
        per_epoch = seconds / n_epochs
        logger.info(
            "step %d of %d, loss %.4f, validation %.4f, %.0f patches/s, %.0f s left",
            step,
            self.recipe.steps,
            total,
            val_loss,
            self.recipe.steps_per_epoch * self.recipe.batch_size / per_epoch,
            per_epoch * (self.recipe.epochs - epoch - 1),
        )

    def _state(self, fingerprint: str) -> dict[str, Any]:
        return {
            "fingerprint": fingerprint,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
        }

    def _resume(self, checkpoint: Path, fingerprint: str) -> None:
        try:
            state = checkpoints.load(checkpoint, self.device)
        except ValueError as error:
            logger.warning("%s: training starts from the beginning", error)
            return
        if state.get("fingerprint") != fingerprint:
            logger.warning("checkpoint %s is of another training: starting anew", checkpoint)
            return
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.history = state["history"]
        self.best_loss = state["best_loss"]
        self.best_weights = state["best_weights"]
        logger.info("continuing from %s at step %d", checkpoint, self.history[-1]["step"])


def train(
    method: Method,
    recipe: Recipe,
    identity: dict[str, Any],
    images: TrainingImages,
    checkpoint: Path,
    device: torch.device,
    init: TrainedModel | None = None,
) -> tuple[TrainedModel, pd.DataFrame]:
    """Train one model and choose its threshold on the validation images.

    Parameters
    ----------
    identity
        dataset, noise, method, n_labelled and seed of the run; the seed decides every draw.
    checkpoint
        Where the state of the training is kept while it runs. A training that finds it there
        continues; it is removed by the caller once the model is safely written.
    init
        Model whose weights the training starts from.

    Returns
    -------
    The model, and its history: one row per epoch with step, losses and learning rate.

    Raises
    ------
    InputError
        If images do not fit the recipe, there is no validation image, or none with an annotated
        object for a method that segments, or the loss is not finite.
    """
    check_validation(method, images, identity["dataset"])
    normalisation = measure_normalisation(images.train)
    bank = load_bank(images.train, images.train_masks, normalisation, recipe, device)
    val_bank = load_bank(images.val, images.val_masks, normalisation, recipe, device)
    trainer = Trainer(method, recipe, bank, val_bank, identity["seed"], device)
    if init is not None:
        _check_init(method, recipe, init)
        trainer.network.load_state_dict(init.network.state_dict())
    contents = {} if bank.classes is None else {"classes": bank.classes}
    contents |= {} if init is None else init.network.state_dict()
    fingerprint = repr(
        (as_dict(method), as_dict(recipe), identity, normalisation, checkpoints.digest(contents))
    )
    trainer.run(checkpoint, fingerprint)
    model = TrainedModel(method, recipe, identity, normalisation, trainer.network)
    if method.segments:
        model.threshold = choose_threshold(
            (predict_foreground(model, open_image(image)), open_image(mask))
            for image, mask in zip(images.val, images.val_masks, strict=True)
            if mask
        )
        logger.info(
            "threshold %.2f gives average precision %.3f on %d validation images",
            model.threshold.value,
            model.threshold.average_precision,
            model.threshold.n_images,
        )
    return model, pd.DataFrame(trainer.history)


def _check_init(method: Method, recipe: Recipe, init: TrainedModel) -> None:
    """A warm start needs the same network."""
    wanted = (method.network, recipe.depth, recipe.filters)
    found = (init.method.network, init.recipe.depth, init.recipe.filters)
    if wanted != found:
        raise InputError(
            f"method '{method.name}' starts from '{init.method.name}', but its network "
            f"(name, depth, filters) is {wanted} and not {found}; make them the same"
        )
