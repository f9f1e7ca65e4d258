"""Check that a GPU computes the same as the CPU, and that its errors are handled."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from material import NO_CHECKPOINTS, TWO_CHANNELS, VOLUME, Material, tf32
from phase import Phase, Row
from torch import nn

from denoiseg_flow.data.store import open_image
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.jobs import gpu_slots
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.models import tensor_file
from denoiseg_flow.models.model import new_network
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.objective import Objective
from denoiseg_flow.training.patches import Batch, PatchSampler
from denoiseg_flow.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS = 5  # whose gradients are compared
METHODS = (
    "n2v", "n2v2", "structn2v", "n2s", "n2s_dncnn", "n2n", "supervised", "dae", "baseline",
    "denoiseg",
)  # fmt: skip
# Largest relative errors of the loss and of all gradients together (Euclidean norms, median of the
# steps), for numbers that are rounded to 24, 11 and 8 bits. A single unit near zero that is on
# instead of off changes the gradients by up to a hundredth; a term that is wrong, by about 1.
TOLERANCES = {"float32": (1e-4, 1e-3), "tf32": (1e-2, 1e-1), "bf16": (5e-2, 5e-1)}
DENOISED, AGREEMENT = 1e-3, 0.99  # share of the range, and AP of labels against each other
CHILD = Path(__file__).with_name("child.py")


def run(phase: Phase, material: Material) -> None:
    """Check everything, what is most likely to be wrong first."""
    kinds = [(name, material.method(name), PLANES) for name in METHODS]
    joint = material.method("denoiseg")
    kinds += [("two channels", joint, TWO_CHANNELS), ("volume", joint, VOLUME)]
    for name, method, layout in kinds:
        phase.do(f"{name}: gradients", gradients, material, method, layout)
        phase.do(f"{name}: steps", steps, material, method, layout)
    phase.do("found GPUs", found_gpus, material)
    phase.do("operations in no fixed order", orderless, material, needs=5)
    phase.do("predictions", predictions, material, needs=15)
    phase.do("killed and continued", killed, material, needs=30)
    phase.do("lack of memory", lack_of_memory, material, needs=10)
    for count in (2, 4):
        phase.do(f"{count} trainings on one GPU", together, material, count, needs=20)


def small_recipe(material: Material, n_steps: int, layout: Layout) -> Recipe:
    """Return a recipe of a small network that goes through all phases of a training."""
    patch_size, batch_size = (32, 8) if layout.dimensions == 2 else (16, 4)
    return material.short_recipe(
        n_steps, depth=2, filters=8, patch_size=patch_size, batch_size=batch_size,
        validation_patches=8,
    )  # fmt: skip


# Gradients


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Compute in float32, tf32 or bf16."""
    mixed = torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()
    with tf32(name == "tf32"), mixed:
        yield


def gradients(material: Material, method: Method, layout: Layout) -> Row:
    """Compare losses and gradients of some steps with those of the CPU in double precision.

    Batches, masks and weights are the same; the weights of each step are those that the double
    precision came to.
    """
    recipe = small_recipe(material, 20, layout)
    generator = torch.Generator().manual_seed(0)
    bank = material.bank(layout, CPU, method.target)
    shape = layout.patch_shape(recipe.patch_size)
    sampler = PatchSampler(bank, shape, recipe.batch_size, recipe.annotated_patches(method))
    torch.manual_seed(0)
    exact = new_network(method, recipe, layout).double()
    teacher = deepcopy(exact).eval() if method.denoises and method.segments else None
    optimiser = torch.optim.Adam(exact.parameters(), lr=1e-3)
    objective = Objective(method, recipe, CPU, layout)
    errors = {name: ([], []) for name in TOLERANCES}  # of losses and gradients
    for _ in range(STEPS):
        batch = sampler.draw(generator)
        seen = objective.masked_input(batch, generator)
        optimiser.zero_grad()
        wanted = evaluate(method, recipe, layout, exact, teacher, batch, seen)
        for name, both in errors.items():
            copies = [network and deepcopy(network).float() for network in (exact, teacher)]
            copies = [network and network.to(material.device) for network in copies]
            with precision(name, material.device):
                found = evaluate(method, recipe, layout, *copies, batch, seen)
            for value, truth, noted in zip(found, wanted, both, strict=True):
                noted.append(relative(value, truth))
        optimiser.step()
    values, ok = {}, True
    for name, both in errors.items():
        for what, noted, limit in zip(("loss", "gradient"), both, TOLERANCES[name], strict=True):
            values[f"{what}_{name}"] = float(np.median(noted))
            ok &= values[f"{what}_{name}"] <= limit
    return {"ok": ok} | values


def evaluate(
    method: Method,
    recipe: Recipe,
    layout: Layout,
    network: nn.Module,
    teacher: nn.Module | None,
    batch: Batch,
    seen: tuple[torch.Tensor, torch.Tensor | None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and all gradients of a batch of which the network sees what is given."""
    weight = next(network.parameters())
    network.train()

    def moved(values: torch.Tensor | None) -> torch.Tensor | None:
        if values is None:
            return None
        return values.to(weight.device, weight.dtype if values.is_floating_point() else None)

    objective = Objective(method, recipe, weight.device, layout)
    inputs, mask = map(moved, seen)
    objective.masked_input = lambda *_: (inputs, mask)
    as_input = objective._as_input
    objective._as_input = lambda patches, mask=None: moved(as_input(patches, mask))
    network.zero_grad()
    losses = objective(network, Batch(*map(moved, batch)), None, teacher)
    losses[0].backward()
    values = [part.grad for part in network.parameters() if part.grad is not None]
    flat = torch.cat([value.detach().double().cpu().flatten() for value in values])
    return losses[:1].detach().double().cpu(), flat


# Steps


def train_steps(
    material: Material, method: Method, layout: Layout, recipe: Recipe, replayed: bool
) -> Trainer:
    """Train on simulated images to the end; steps are replayed as one CUDA graph, or none is."""
    banks = [material.bank(layout, material.device, method.target) for _ in ("train", "val")]
    trainer = Trainer(method, recipe, *banks, 1, material.device, layout)
    trainer.compute_gradients.enabled &= replayed
    with tempfile.TemporaryDirectory(dir=material.scratch) as folder:
        checkpoints = Checkpoints(Path(folder, "checkpoint.pt"), NO_CHECKPOINTS)
        run = Run("simulated", "n0", method.name, 0, 1)
        trainer.run(TrainingJob(run, method, recipe, checkpoints, material.device), "")
    return trainer


def steps(material: Material, method: Method, layout: Layout) -> Row:
    """Train some steps: weights stay finite, and replayed steps lead where plain ones do."""
    recipe = small_recipe(material, 20, layout)
    trainers = [
        train_steps(material, method, layout, recipe, replayed) for replayed in (False, False, True)
    ]
    weights = [flat_weights(trainer.average) for trainer in trainers]
    again, replayed = (relative(each, weights[0]) for each in weights[1:])
    recorded = trainers[-1].compute_gradients.enabled
    return {
        "ok": all(bool(values.isfinite().all()) for values in weights)
        # Other masks or patches in the replays, or the same ones each time, would be farther off.
        and replayed <= max(20 * again, 1e-2)
        and recorded == (material.device.type == "cuda"),
        "replayed": recorded,
        "difference_of_plain": again,
        "difference_of_replayed": replayed,
    }


def flat_weights(network: nn.Module) -> torch.Tensor:
    """Return all weights in double precision on the CPU."""
    return torch.cat([values.detach().double().cpu().flatten() for values in network.parameters()])


def relative(values: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the difference, relative to what is wanted."""
    return float((values - wanted).norm() / wanted.norm())


def orderless(material: Material) -> Row:
    """Name the operations whose order of summation is not fixed, as PyTorch knows them."""
    found = {}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for name in METHODS:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                recipe = small_recipe(material, 4, PLANES)
                train_steps(material, material.method(name), PLANES, recipe, replayed=False)
            for warning in caught:
                operation = re.match(r"(\S+) does not have a deterministic", str(warning.message))
                if operation:
                    found.setdefault(operation[1], []).append(name)
    finally:
        torch.use_deterministic_algorithms(False)
    return {"operations": {name: sorted(set(methods)) for name, methods in found.items()}}


# Predictions


def predictions(material: Material) -> Row:
    """Compare what one trained model makes of test images on the GPU and on the CPU."""
    method, seed = material.method("denoiseg"), material.draws[0]
    recipe = material.short_recipe(min(300, material.scale.child_steps))
    n_annotated = max(material.scale.n_annotated)
    path = material.scratch / "model.pt"
    save_model(material.fit(method, recipe, seed, n_annotated), path)
    split, noisy = material.split(seed), material.noisy("n20")
    names = list(split.loc[split["subset"] == "test", "image"])[: material.scale.predicted_images]
    folders = {}
    for name, device in [("cpu", CPU), ("float32", material.device), ("tf32", material.device)]:
        folders[name] = material.scratch / "predictions" / name
        with precision(name, device):
            predict_folder(load_model(path, device), noisy, names, folders[name], False)
    values = {}
    for kind in ("float32", "tf32"):
        pairs = [
            [np.asarray(open_image(folders[each] / part / f"{name}.tif")) for each in ("cpu", kind)]
            for part in ("denoised", "labels")
            for name in names
        ]
        denoised, labels = pairs[: len(names)], pairs[len(names) :]
        values[f"denoised_{kind}"] = max(
            float(np.abs(one - other).max() / np.ptp(one)) for one, other in denoised
        )
        # An image without objects has none, in either.
        agreement = [average_precision(one, other) for one, other in labels if one.any()]
        values[f"labels_{kind}"] = float(np.mean(agreement)) if agreement else 1.0
    ok = values["denoised_float32"] <= DENOISED and values["labels_float32"] >= AGREEMENT
    return {"ok": ok, "images": len(names)} | values


# Processes


def start(
    material: Material, name: str, n_steps: int, **options: object
) -> tuple[subprocess.Popen, Path]:
    """Start a training in a process of its own; see ``child.py``. Returns it and its folder."""
    folder = material.scratch / "children" / name
    folder.mkdir(parents=True, exist_ok=True)
    bank = material.scratch / "children" / "bank.pt"
    if not bank.exists():
        held = material.bank(PLANES, CPU)
        tensor_file.save(vars(held), bank)
    given = {
        "folder": folder,
        "bank": bank,
        "device": material.device.type,
        "method": material.settings["methods"]["denoiseg"],
        "recipe": vars(material.short_recipe(n_steps, **material.scale.child)),
        **options,
    }
    order = folder / "order.pt"
    tensor_file.save(
        {key: str(value) if isinstance(value, Path) else value for key, value in given.items()},
        order,
    )
    log = (folder / "log.txt").open("a")
    child = subprocess.Popen([sys.executable, CHILD, order], stdout=log, stderr=log)
    return child, folder


def finish(child: subprocess.Popen, folder: Path) -> dict:
    """Wait for a training and return what it reports."""
    if child.wait():
        raise RuntimeError((folder / "log.txt").read_text()[-2000:])
    return tensor_file.load(folder / "report.pt")


def wait_for(file: Path, child: subprocess.Popen) -> None:
    """Wait until a process has written a file."""
    while not file.exists():
        if child.poll() is not None:
            raise RuntimeError((file.parent / "log.txt").read_text()[-2000:])
        time.sleep(0.01)


def killed(material: Material) -> Row:
    """Kill a training in the midst of an epoch and continue it; compare with undisturbed ones."""
    n_steps = material.scale.child_steps
    whole = [finish(*start(material, f"whole{number}", n_steps)) for number in range(2)]
    child, folder = start(material, "killed", n_steps, pause_at=round(0.45 * n_steps))
    wait_for(folder / "paused", child)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    resumed = finish(*start(material, "killed", n_steps))
    weights = [
        torch.cat([value.double().flatten() for value in report["weights"].values()])
        for report in (*whole, resumed)
    ]
    again, continued = (relative(each, weights[0]) for each in weights[1:])
    return {
        # As far from the undisturbed one as that is from itself, where sums have no fixed order.
        "ok": resumed["first_step"] > 0 and continued <= max(5 * again, 1e-6),
        "continued_from_step": resumed["first_step"],
        "difference_of_undisturbed": again,
        "difference_of_continued": continued,
    }


def together(material: Material, count: int) -> Row:
    """Train several networks at once on one GPU, and one alone; return the steps per second."""
    alone, _ = steps_per_second(material, 1)
    shared, gpus = steps_per_second(material, count)
    return {
        "ok": len(gpus) == 1,
        "alone_steps_per_second": alone,
        "together_steps_per_second": shared,
        "gain": shared / alone,
    }


@cache
def steps_per_second(material: Material, count: int) -> tuple[float, set[str]]:
    """Return how many steps so many trainings at once make, and the GPUs that they saw."""
    n_steps = material.scale.child_steps
    go = material.scratch / "children" / f"go{count}"
    children = [
        start(material, f"{count}_{number}", n_steps, jobs_per_gpu=count, go=go)
        for number in range(count)
    ]
    for child, folder in children:
        wait_for(folder / "ready", child)
    go.touch()
    reports = [finish(*child) for child in children]
    seconds = max(each["ended"] for each in reports) - min(each["began"] for each in reports)
    return count * n_steps / seconds, {each["gpu"] for each in reports}


def lack_of_memory(material: Material) -> Row:
    """Ask for a batch that cannot fit, and then for the one that the error advises."""
    batch = material.scale.huge_batch
    size = {"depth": 4, "filters": 32} if material.device.type == "cuda" else {}

    def attempt(batch_size: int) -> str:
        changes = {"batch_size": batch_size, "epochs": 1, "steps_per_epoch": 5, **size}
        recipe = material.recipe(validation_patches=8, **changes)
        try:
            material.fit(material.method("n2v"), recipe, material.draws[0], 0)
        except InputError as error:
            return str(error)
        return ""

    first = attempt(batch)
    advised = re.search(r"'batch_size' of the recipe to (\d+)", first)
    if not advised:
        return {"ok": False, "message": first or "it fitted"}
    if material.device.type == "cpu":  # whose memory is measured by nobody
        return {"message": first}
    torch.cuda.empty_cache()
    return {"ok": not attempt(int(advised[1])), "message": first, "advised": int(advised[1])}


def found_gpus(material: Material) -> Row:
    """Compare how many GPUs each way finds."""
    listed = len(gpu_slots.visible_gpus())
    known = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"ok": listed == known, "by_files_or_driver": listed, "by_torch": known}
