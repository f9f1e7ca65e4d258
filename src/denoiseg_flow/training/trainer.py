"""The training loop of all methods with a network."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from denoiseg_flow.data.store import open_image, open_labels
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.grey_levels import measure, trained_on, warning_of_other_levels
from denoiseg_flow.evaluation.object_precision import IMAGES, fit_precision, judge_objects
from denoiseg_flow.jobs.devices import mixed_precision, out_of_memory_advice
from denoiseg_flow.jobs.seeds import torch_seed
from denoiseg_flow.methods.definition import Method, Recipe, as_dict
from denoiseg_flow.methods.networks import NETWORKS, resized_for
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.models.initial_model import adapted_weights
from denoiseg_flow.models.model import ImageModels, TrainedModel, new_network
from denoiseg_flow.models.prediction import predict_maps_of_files
from denoiseg_flow.models.tensor_file import digest
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.study.costs import training_bytes, work_of
from denoiseg_flow.training import batch_norm
from denoiseg_flow.training.adam import Adam
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.cuda_graphs import Replayed, side_stream
from denoiseg_flow.training.dimming import dim, measure_noise
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.object_size import find_downscale
from denoiseg_flow.training.objective import Objective
from denoiseg_flow.training.patches import Batch, ImageBank, PatchSampler, validation_patches
from denoiseg_flow.training.progress import Progress
from denoiseg_flow.training.rehearsal import Rehearsal, Simulated, make_rehearsal
from denoiseg_flow.training.threshold import FEW, choose_threshold
from denoiseg_flow.training.training_images import (
    TrainingImages,
    check_initial_model,
    check_layout,
    check_subsets,
    find_layout,
    load_bank,
    read_layout,
)

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 32  # minimum number of patches validated at once


def make_schedule(
    recipe: Recipe, optimiser: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate schedule of the recipe."""
    if recipe.schedule == "one_cycle":
        # PyTorch divides by zero if the rise or the fall takes less than one step.
        total = max(recipe.steps, 3)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=recipe.learning_rate,
            total_steps=total,
            pct_start=max(0.2, 2 / total),
        )
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)


class Trainer:
    """A training that can be stopped after any step and resumed with identical results."""

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        bank: ImageBank,
        val_bank: ImageBank,
        seed: int,
        device: torch.device,
        layout: Layout = PLANES,
    ) -> None:
        self.method = method
        self.recipe = recipe
        self.first_pseudo_step = recipe.first_pseudo_step(method)
        self.seed = seed
        self.device = device
        torch.manual_seed(torch_seed(seed, "weights"))
        network = new_network(method, recipe, layout)
        if network.bounded:
            network.start_at(bank.mean_target())
        for layer in batch_norm.batch_norms(network):
            layer.momentum = recipe.batch_norm_momentum
        self.network = network.to(device)
        self.average = copy.deepcopy(self.network).eval()  # the weights to validate and keep
        self._averaged = _tensors(self.average), _tensors(self.network)
        self._counters = _tensors(self.average, False), _tensors(self.network, False)
        self.objective = Objective(method, recipe, device, layout)
        self.optimiser = Adam(self.network.parameters(), lr=recipe.learning_rate, fused=True)
        self.schedule = make_schedule(recipe, self.optimiser)
        patch_shape = layout.patch_shape(recipe.patch_size)
        self.sampler = PatchSampler(
            bank,
            patch_shape,
            recipe.batch_size,
            recipe.annotated_patches(method),
            recipe.simulated_patches(method, bank.n_annotated),
        )
        self._dim: Callable[..., Batch] | None = None
        if count := recipe.dimmed_patches(method, bank.n_annotated):
            share = recipe.dimmed_share(bank.n_annotated)
            self._dim = partial(dim, count=count, share=share, noise=measure_noise(bank))
        self.generator = self._new_generator("training")
        self.compute_gradients = Replayed(
            self._compute_gradients, self.generator, enabled=device.type == "cuda"
        )
        self.validation = validation_patches(
            val_bank, patch_shape, recipe.validation_patches, self._new_generator("val")
        )
        self.keeps_statistics = False  # of batch normalisation
        self.step = 0
        self.loss_sums = torch.zeros(4, device=device)  # of the epoch so far
        self.history: list[dict[str, float]] = []
        self.best_loss = math.inf
        self.best_weights: dict[str, torch.Tensor] = {}

    def _new_generator(self, purpose: str) -> torch.Generator:
        seed = torch_seed(self.seed, purpose)
        return torch.Generator(device=self.device).manual_seed(seed)

    def start_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Start from the weights of another network of the same kind, and freeze its encoder."""
        self.network.core.load_state_dict(weights)
        self.average.core.load_state_dict(weights)
        self.keeps_statistics = self.recipe.first_frozen_step == 0
        if self.recipe.freeze == "encoder":
            for part in self.network.encoder_parts():
                part.requires_grad_(False)

    def run(self, job: TrainingJob, fingerprint: str) -> None:
        """Train to the end, resuming from the latest checkpoint of this training, if any."""
        recipe, checkpoints = self.recipe, job.checkpoints
        self._resume(checkpoints, fingerprint)
        progress = Progress(job.name, recipe, self.step, *job.network, job.events)
        self._set_training_mode()
        with side_stream(self.device), checkpoints.before_the_end():
            while self.step < recipe.steps:
                if self.step == recipe.first_frozen_step and not self.keeps_statistics:
                    self._measure_statistics()
                self._train_step()
                progress.advance()
                if self.step % recipe.steps_per_epoch == 0:
                    self._end_epoch(progress)
                if checkpoints.due():
                    self._check_losses()
                    checkpoints.save(self._state(fingerprint))
        progress.close()
        # The following steps, such as the choice of a threshold, may be interrupted as well.
        checkpoints.save(self._state(fingerprint))
        if self.best_weights:
            self.average.load_state_dict(self.best_weights)

    def _set_training_mode(self) -> None:
        batch_norm.set_training_mode(self.network)
        if self.step >= self.recipe.first_frozen_step:
            batch_norm.freeze(self.network)

    def _measure_statistics(self) -> None:
        """Fix the statistics of batch normalisation, see :mod:`batch_norm`."""
        inputs = (
            self.objective.masked_input(self._draw(), self.generator)[0]
            for _ in range(batch_norm.BATCHES)
        )
        batch_norm.measure(self.network, inputs)
        self._set_training_mode()
        # Copied, not averaged: too few steps may be left to forget the noisy statistics.
        for average, measured in zip(self.average.buffers(), self.network.buffers(), strict=True):
            average.copy_(measured)

    def _draw(self) -> Batch:
        """Return a random batch, with dimmed patches if the recipe says so."""
        batch = self.sampler.draw(self.generator)
        return self._dim(batch, generator=self.generator) if self._dim else batch

    def _train_step(self) -> None:
        """Run one optimiser step; the losses stay on the device."""
        if self.step in (self.recipe.first_frozen_step, self.first_pseudo_step):
            self.compute_gradients.reset()
        self.compute_gradients()
        # Not part of the CUDA graph, because its momentum is a Python number that the schedule
        # changes. Optimiser and averaging are one kernel each.
        self.optimiser.step()
        if self.recipe.schedule == "one_cycle":
            self.schedule.step()
        self._average_weights()
        self.step += 1

    def _compute_gradients(self) -> None:
        """Compute the gradients of a new batch, and add its losses to their sums."""
        self.optimiser.zero_grad(set_to_none=True)
        batch = self._draw()
        teacher = self.average if self.step >= self.first_pseudo_step else None
        with mixed_precision(self.device):
            losses = self.objective(self.network, batch, self.generator, teacher)
        losses[0].backward()
        self.loss_sums += losses.detach()

    @torch.no_grad()
    def _average_weights(self) -> None:
        """Update the moving average of the weights, faster in the first steps."""
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._averaged, 1 - decay)
        if self._counters[0]:
            torch._foreach_copy_(*self._counters)

    def _end_epoch(self, progress: Progress) -> None:
        """Validate, extend the history, and keep the weights if they are the best so far."""
        self._check_losses()
        total, denoise, segment, pseudo = (self.loss_sums / self.recipe.steps_per_epoch).tolist()
        val_loss = self._validate()
        self.history.append(
            {
                "step": self.step,
                "loss": total,
                "loss_denoise": denoise,
                "loss_segment": segment,
                "loss_pseudo": pseudo,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "val_loss": val_loss,
            }
        )
        progress.report(self.history[-1])
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(val_loss)
        if self.recipe.weights == "best" and val_loss < self.best_loss:
            self.best_loss = val_loss
            self.best_weights = {
                key: value.clone() for key, value in self.average.state_dict().items()
            }
        self.loss_sums.zero_()

    def _check_losses(self) -> None:
        total = float(self.loss_sums[0])
        if not math.isfinite(total):
            raise InputError(
                f"the loss is {total} after {self.step} steps; lower 'learning_rate' of the recipe "
                f"(now {self.recipe.learning_rate})"
            )

    @torch.inference_mode()
    def _validate(self) -> float:
        """Return the validation loss, always on the same pixels with the same blind spots."""
        generator = self._new_generator("validation masks")
        count, at_once = len(self.validation.patches), max(VALIDATION_BATCH, self.recipe.batch_size)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in range(0, count, at_once):
            batch = self.validation.part(slice(start, start + at_once))
            with mixed_precision(self.device):
                losses = self.objective(self.average, batch, generator, validating=True)
            total += losses[0].double() * len(batch.patches)
        return float(total) / count

    def _state(self, fingerprint: str) -> dict[str, Any]:
        return {
            "fingerprint": fingerprint,
            "made_by": self._made_by(),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "loss_sums": self.loss_sums,
            "history": self.history,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
        }

    def _made_by(self) -> str:
        recipe = self.recipe
        return (
            f"method '{self.method.name}' with network '{self.method.network}' of depth "
            f"{recipe.depth} and {recipe.filters} filters"
        )

    def _resume(self, checkpoints: Checkpoints, fingerprint: str) -> None:
        state = checkpoints.load(self.device, self._state(fingerprint).keys())
        if state is None:
            return
        if state["made_by"] != self._made_by():
            raise InputError(
                f"checkpoint {checkpoints.path} belongs to {state['made_by']}, not to "
                f"{self._made_by()}; delete it to train from the start"
            )
        if state["fingerprint"] != fingerprint:
            logger.warning(
                "checkpoint %s belongs to another training; starting from the beginning",
                checkpoints.path,
            )
            return
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.loss_sums = state["loss_sums"]
        self.history = state["history"]
        self.best_loss = state["best_loss"]
        self.best_weights = state["best_weights"]
        logger.info("resuming from %s at step %d", checkpoints.path, self.step)


def _tensors(network: torch.nn.Module, floating: bool = True) -> list[torch.Tensor]:
    """Return the weights and statistics of a network, or its integer counters instead."""
    values = (*network.parameters(), *network.buffers())
    return [value for value in values if value.is_floating_point() == floating]


def train(
    job: TrainingJob,
    images: TrainingImages,
    init: TrainedModel | None = None,
    simulated: Simulated | None = None,
) -> tuple[TrainedModel, pd.DataFrame]:
    """Train one model and choose its threshold on the validation images.

    Parameters
    ----------
    init
        Model whose weights initialise the training.
    simulated
        Simulated images, if the recipe rehearses some.

    Returns
    -------
    The model and its history: one row per epoch with step, losses and learning rate.

    Raises
    ------
    InputError
        If images are smaller than a patch, no validation image exists (or, for methods that
        segment, none with an annotated object), the checkpoint belongs to another method or
        network, the loss is not finite, or the device has too little memory.
    """
    method, recipe = job.method, job.network_recipe
    known = _known_threshold(job, init)
    check_subsets(method, images, job.run.dataset, known is not None)
    found = read_layout([*images.train, *images.val])
    if method.rehearsed:
        check_layout(method, found, job.run.dataset)
    layout = find_layout(method, recipe, found, _find_downscale(job, images, init))
    if method.init_file and init:
        check_initial_model(method, init.layout, layout, job.run.dataset)
        same = init.layout.channels == layout.channels
        if known and same and not method.learns_from(job.run.n_annotated):
            return _unchanged(job, init, layout, images.train), pd.DataFrame()

    n_networks = len(images.folds) + 1
    rehearsal = make_rehearsal(simulated, layout)

    def train_without(number: int, fold: Sequence[str]) -> TrainedModel:
        banks = _load_banks(job, images.without(fold), layout, rehearsal)
        start = init and init.for_image(fold[0])
        part = job.for_part("fold", number, (number, n_networks))
        return _train_on(part, banks, layout, start)[0]

    with out_of_memory_advice(job.device):
        held_out = train_folds(images, train_without)
        banks = _load_banks(job, images, layout, rehearsal)
        whole = replace(job, network=(n_networks, n_networks))
        model, history = _train_on(whole, banks, layout, init)
    model.held_out = held_out
    if job.method.segments:
        set_threshold(model, images, known)
    return model, history


def _known_threshold(job: TrainingJob, init: TrainedModel | None) -> Threshold | None:
    """Return the threshold that a network keeps if no annotated object is there to choose one by.

    Networks that start from a method of the same study have none: it needs the same annotation.
    """
    if init is None:
        return None
    method = job.method
    fits = init.recipe.instances == job.network_recipe.instances
    learns = job.run.n_annotated > 0 or not method.denoises
    keeps = method.init in PRETRAINED or (method.init_file and fits and learns)
    return init.threshold if keeps else None


def _unchanged(
    job: TrainingJob, init: TrainedModel, layout: Layout, images: Sequence[Path]
) -> TrainedModel:
    """Return a model that predicts what an initial model predicts; warn if the images differ."""
    logger.info("no annotated image: the model stays '%s', with its threshold", job.method.init)
    for path in images:
        levels = measure([open_image(path)])
        if warning := warning_of_other_levels(path, levels, trained_on(init)):
            logger.warning(warning)
            break
    if layout.dimensions == init.layout.dimensions:
        layout = init.layout
    else:  # planes of volumes, or the reverse
        layout = replace(layout, downscale=init.layout.downscale)
    network = new_network(job.method, job.network_recipe, layout).to(job.device)
    network.core.load_state_dict(adapted_weights(init, network.core, layout.channels))
    how = job.method, job.network_recipe, job.identity, init.normalisation
    known = init.threshold, init.precision
    return TrainedModel(*how, network.eval(), layout, *known, origin=dict(init.origin))


def _find_downscale(job: TrainingJob, images: TrainingImages, init: TrainedModel | None) -> float:
    """Return how many times smaller the images are that the network reads."""
    recipe = job.network_recipe
    if not isinstance(recipe.downscale, str):
        return recipe.downscale
    assert init is not None  # the config is refused otherwise
    if job.method.init in PRETRAINED:
        return find_downscale(init, images.train, recipe.patch_size)
    return init.layout.downscale


def train_folds(
    images: TrainingImages, train_without: Callable[[int, Sequence[str]], TrainedModel]
) -> dict[str, TrainedModel]:
    """Return, for each cross-validated image, the model trained without the images of its fold.

    Parameters
    ----------
    train_without
        Trains a model, given the number of a fold, from 1, and the names of its images.
    """
    held_out: dict[str, TrainedModel] = {}
    for number, fold in enumerate(images.folds, start=1):
        logger.info("cross-validation, fold %d: without %s", number, ", ".join(fold))
        held_out |= dict.fromkeys(fold, train_without(number, fold))
    return held_out


def _load_banks(
    job: TrainingJob, images: TrainingImages, layout: Layout, rehearsal: Rehearsal
) -> tuple[ImageBank, ImageBank]:
    """Load the training images, with simulated ones, and the validation images."""
    recipe, device = job.network_recipe, job.device
    train, val = (images.train, images.train_masks), (images.val, images.val_masks)
    return (
        load_bank(*train, recipe, layout, device, images.target, rehearsal),
        load_bank(*val, recipe, layout, device, images.target),
    )


def set_threshold(
    model: TrainedModel, images: TrainingImages, known: Threshold | None = None
) -> None:
    """Choose the threshold on annotated images, each predicted by a network not trained on it.

    With few or no annotated images, the model gets the ``known`` threshold, if there is one. The
    same images tell the precision of its objects by their confidence. The held-out models of a
    cross-validation get both from the model.
    """
    pairs = zip(images.val, images.val_masks, strict=True)
    annotated = [(image, mask) for image, mask in pairs if mask is not None]
    maps = predict_maps_of_files(model, (image for image, _ in annotated))
    truths = (open_labels(mask) for _, mask in annotated)
    pairs_of = zip(maps, truths, strict=True)
    kept = known if len(annotated) < FEW else None
    if kept:
        logger.info("fewer than %d annotated images: the threshold stays that of the start", FEW)
    threshold = choose_threshold(pairs_of, model.recipe.instances, kept) or known
    assert threshold is not None  # check_subsets found an annotated object
    for each in (model, *model.held_out.values()):
        each.threshold = threshold
    logger.info(
        "threshold %.2f (prominence %.2f) gives average precision %.3f on %d %s images",
        threshold.value,
        threshold.prominence,
        threshold.average_precision,
        threshold.n_images,
        "cross-validated" if model.held_out else "validation",
    )
    # Spread over the images, because similar ones are often side by side.
    judged = annotated[:: -(-len(annotated) // IMAGES) or 1]
    objects = judge_objects(
        model, ((path.stem, open_image(path), open_labels(mask)) for path, mask in judged)
    )
    precision = fit_precision(objects)
    for each in (model, *model.held_out.values()):
        each.precision = precision
    n_correct = int(objects["correct"].sum())
    unknown = "" if precision else ", too few to tell the precision by confidence"
    logger.info("%d of %d objects in them are correct%s", n_correct, len(objects), unknown)


def train_each_image(job: TrainingJob, images: Sequence[Path]) -> tuple[ImageModels, pd.DataFrame]:
    """Train a separate network on each image (Noise2Self's "single shot").

    Parameters and errors are those of :func:`train`. Validation uses pixels of the same image that
    are excluded from the training loss, see :meth:`Objective.masked_input`.

    Returns
    -------
    The models, and the mean of their histories.
    """
    models, histories = {}, []
    recipe = job.network_recipe
    layout = find_layout(job.method, recipe, read_layout(images))
    for number, image in enumerate(images, start=1):
        with out_of_memory_advice(job.device):
            banks = [load_bank([image], [None], recipe, layout, job.device) for _ in range(2)]
            part = job.for_part("image", image.stem, (number, len(images)))
            models[image.stem], history = _train_on(part, banks, layout)
        histories.append(history)
    mean = pd.concat(histories).groupby(level=0).mean().astype({"step": int})
    return ImageModels(job.method, recipe, job.identity, models), mean


def _train_on(
    job: TrainingJob,
    banks: Sequence[ImageBank],
    layout: Layout,
    init: TrainedModel | None = None,
) -> tuple[TrainedModel, pd.DataFrame]:
    """Train one network on the first bank and validate it on the second; normalises both."""
    method, recipe = job.method, job.network_recipe
    bank, val_bank = banks
    bounded = NETWORKS[method.network].bounded
    normalisation = bank.measure_range() if bounded else bank.measure()
    for each in banks:
        each.normalise(normalisation, init.normalisation if init and each.n_simulated else None)
    # The images are reduced already, and magnified only within the network.
    trained_at = replace(layout, downscale=min(layout.downscale, 1))
    trainer = Trainer(method, recipe, bank, val_bank, job.run.seed, job.device, trained_at)
    initial = {} if init is None else adapted_weights(init, trainer.network.core, layout.channels)
    if initial:
        trainer.start_from(initial)
    own = {"classes": bank.classes, "targets": bank.targets}
    contents = {key: values for key, values in own.items() if values is not None}
    contents |= initial
    fingerprint = repr(
        (as_dict(method), as_dict(recipe), job.identity, layout, normalisation, digest(contents))
    )
    patch = math.prod(replace(layout, downscale=1).patch_shape(recipe.patch_size))
    need = partial(training_bytes, work_of(method, recipe, layout.dimensions), patch, recorded=True)
    if method.learns_from(bank.n_annotated):
        with out_of_memory_advice(job.device, recipe.batch_size, need):
            trainer.run(job, fingerprint)
    else:
        logger.info("no annotated image: the weights stay those of '%s'", method.init)
    network = trainer.average if layout == trained_at else resized_for(layout, trainer.average)
    model = TrainedModel(method, recipe, job.identity, normalisation, network, layout)
    return model, pd.DataFrame(trainer.history)
