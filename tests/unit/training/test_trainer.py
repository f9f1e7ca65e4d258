"""The training loop: it learns, repeats itself exactly, and survives being killed."""

import json
import logging
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import open_image, open_labels, write_array, write_labels
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods import masking
from denoiseg_flow.methods.classes import BORDER, FOREGROUND
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.methods.instances import label_foreground
from denoiseg_flow.methods.masking import stratified_places
from denoiseg_flow.methods.networks.layout import PLANES
from denoiseg_flow.models import prediction, tensor_file
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import predict_probabilities
from denoiseg_flow.models.rescaled_prediction import predict_rescaled
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.tiled_prediction import predict_tiles
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import batch_norm, objective, patches, trainer
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.threshold import FEW
from denoiseg_flow.training.trainer import Trainer, set_threshold, train
from denoiseg_flow.training.training_images import Target, TrainingImages, load_bank

CPU = torch.device("cpu")
N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
COLUMNS = [
    "step",
    "loss",
    "loss_denoise",
    "loss_segment",
    "loss_pseudo",
    "learning_rate",
    "val_loss",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_blobs):
    """Five training images, three of them annotated, and two for validation."""
    folder = tmp_path_factory.mktemp("blobs")
    paths = {"image": [], "mask": []}
    for number in range(7):
        image, labels = make_blobs(48, seed=number, sigma=20.0)
        for kind, plane in (("image", image), ("mask", labels)):
            paths[kind].append(folder / kind / f"{number}.tif")
            write_array(paths[kind][-1], plane)
    return TrainingImages(
        train=paths["image"][:5],
        train_masks=[*paths["mask"][:3], None, None],
        val=paths["image"][5:],
        val_masks=paths["mask"][5:],
    )


def without_masks(files):
    return replace(files, train_masks=[None] * 5, val_masks=[None] * 2)


def run_of(method, seed=1):
    return Run("blobs", "n20", method.name, 3, seed)


@pytest.fixture
def run(files, tmp_path, monkeypatch):
    """Train, with checkpoints in the folder of the test while it goes on, as the workflow does."""
    monkeypatch.setattr(batch_norm, "BATCHES", 5)

    def run(method, recipe, images=files, seed=1, init=None, file="checkpoint.pt", seconds=60):
        checkpoints = Checkpoints(tmp_path / file, seconds)
        job = TrainingJob(run_of(method, seed), method, recipe, checkpoints, CPU)
        trained = train(job, images, init)
        checkpoints.remove()
        return trained

    return run


@pytest.fixture(scope="module")
def uninterrupted(files, cross, make_recipe, joint, tmp_path_factory):
    """Train with nothing in the way, to compare with; nobody may change what is returned."""

    @cache
    def uninterrupted(epochs=3, images="files"):
        checkpoints = Checkpoints(tmp_path_factory.mktemp("whole") / "checkpoint.pt", 60)
        job = TrainingJob(run_of(joint), joint, make_recipe(epochs=epochs), checkpoints, CPU)
        return train(job, {"files": files, "cross": cross}[images], None)

    return uninterrupted


def same(first, second):
    """Whether two trainings ended in the same weights, history and threshold, to the last bit."""
    (model, history), (other, other_history) = first, second
    weights, others = model.network.state_dict(), other.network.state_dict()
    assert list(weights) == list(others)
    equal = all(torch.equal(weights[key], others[key]) for key in weights)
    return equal and history.equals(other_history) and model.threshold == other.threshold


# Learning


@pytest.mark.parametrize("method", [BASELINE, Method(name="d", target="blind_spot", alpha=0.5)])
def test_learns_to_segment_unseen_images(run, make_recipe, make_blobs, method):
    recipe = make_recipe(
        depth=2, filters=4, patch_size=32, epochs=4, steps_per_epoch=25, learning_rate=0.02
    )
    model, history = run(method, recipe)
    assert history["loss_segment"].iloc[-1] < history["loss_segment"].iloc[0] / 2
    assert model.threshold.average_precision > 0.7
    assert model.threshold.n_images == 2
    image, labels = make_blobs(64, seed=99, sigma=20.0)
    found = label_foreground(predict_probabilities(model, image[None])[1] > model.threshold.value)
    assert average_precision(labels, found) > 0.7


def test_learns_to_denoise_without_clean_images(run, make_recipe, make_blobs, files):
    recipe = make_recipe(
        depth=2, filters=4, patch_size=32, epochs=4, steps_per_epoch=30, learning_rate=0.02
    )
    model, history = run(N2V, recipe, without_masks(files))
    assert model.threshold is None
    assert (history["loss_segment"] == 0).all()
    assert (history["loss"] == history["loss_denoise"]).all()
    noisy, labels = make_blobs(64, seed=99, sigma=20.0)
    clean = 100 + 80.0 * (labels > 0)
    (tile,) = predict_tiles(model, noisy[None])
    assert np.mean((noisy - clean) ** 2) == pytest.approx(400, rel=0.1)
    assert np.mean((tile.denoised[0] - clean) ** 2) < 200


# What the loop records


@pytest.mark.parametrize("schedule", ["one_cycle", "reduce_on_plateau"])
def test_history(run, make_recipe, joint, schedule):
    recipe = make_recipe(epochs=5, steps_per_epoch=3, schedule=schedule)
    _, history = run(joint, recipe)
    assert list(history.columns) == COLUMNS
    assert history["step"].tolist() == [3, 6, 9, 12, 15]
    total = 0.5 * history["loss_denoise"] + 0.5 * history["loss_segment"]
    assert history["loss"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-5)
    assert np.isfinite(history).all(axis=None)
    rates = history["learning_rate"].tolist()
    if schedule == "one_cycle":
        # The peak is reached within the first epoch, then the rate falls to almost nothing.
        assert rates[0] == pytest.approx(recipe.learning_rate, rel=0.05)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] < 0.02 * recipe.learning_rate
    else:
        assert rates == [recipe.learning_rate] * 5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_very_short_cycles(run, make_recipe, steps):
    _, history = run(BASELINE, make_recipe(epochs=steps, steps_per_epoch=1))
    assert history["step"].tolist() == list(range(1, steps + 1))


def test_alpha_weighs_the_losses(run, make_recipe):
    history = run(Method(name="d", target="blind_spot", alpha=0.2), make_recipe())[1]
    total = 0.2 * history["loss_denoise"] + 0.8 * history["loss_segment"]
    assert history["loss"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-5)


def test_batch_norm_follows_the_recipe(run, make_recipe):
    """Every training step counts in its statistics, no validation does."""
    recipe = make_recipe(batch_norm_momentum=0.37)
    model, _ = run(BASELINE, recipe)
    norms = [m for m in model.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and {m.momentum for m in norms} == {0.37}
    assert {int(m.num_batches_tracked) for m in norms} == {recipe.steps}
    assert not model.network.training


def test_batches_are_drawn_as_the_recipe_says(run, make_recipe, joint, files, monkeypatch):
    drawn = []

    class Spy(trainer.PatchSampler):
        def __init__(self, bank, patch_size, batch_size, n_annotated, n_simulated):
            super().__init__(bank, patch_size, batch_size, n_annotated, n_simulated)
            assert n_simulated == 0
            drawn.append((patch_size, batch_size, n_annotated, bank.annotated.tolist()))

    monkeypatch.setattr(trainer, "PatchSampler", Spy)
    recipe = make_recipe(patch_size=24, batch_size=6, annotated_share=0.4)
    for method, images in ((joint, files), (BASELINE, files), (N2V, without_masks(files))):
        run(method, recipe, images)
    known = [True, True, True, False, False]
    side = (24, 24)
    assert drawn == [(side, 6, 2, known), (side, 6, 6, known), (side, 6, 0, [False] * 5)]


class HostWaits(TorchDispatchMode):
    """Counts what would stop the host of a GPU: reading numbers there, or copying some to it."""

    KINDS = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        # A boolean index has as many entries as only the GPU knows.
        by_mask = name.startswith(("index.", "index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name.startswith(self.KINDS):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_waits_are_seen():
    tensor = torch.rand(3)
    for wait in (
        lambda: float(tensor[0]),
        lambda: tensor.nonzero(),
        lambda: tensor[tensor > 0.5],
        lambda: tensor.new_tensor([1.0, 2.0]),
    ):
        with HostWaits() as waits:
            wait()
        assert waits.found


JOINT = Method(name="d", target="blind_spot", alpha=0.5)
N2S = replace(N2V, masking="grid_interpolate", mask_channel=True)


@pytest.mark.parametrize(
    "method, normalisation",
    [
        *[(JOINT, "all_pixels"), (JOINT, "annotated_pixels"), (BASELINE, "annotated_pixels")],
        *[(replace(N2V, masking=name), "all_pixels") for name in masking.REPLACEMENTS],
        (replace(N2V, struct_mask=[[1, 1, 1]], network="unet_blurpool"), "all_pixels"),
        *[(N2S, "all_pixels"), (replace(N2S, masking="grid_zero"), "all_pixels")],
        (Method("supervised", target="clean", alpha=1), "all_pixels"),
        (Method("n2n", target="second_noisy", alpha=1), "all_pixels"),
    ],
)
def test_no_step_waits_for_a_gpu(run, make_recipe, files, monkeypatch, method, normalisation):
    """Frozen statistics and pseudo-labels included; between epochs there may be waiting."""
    step, found = Trainer._train_step, []

    def watched(trainer):
        if trainer.step == 0:
            return step(trainer)  # the optimiser makes its state
        with HostWaits() as waits:
            seconds = step(trainer)
        found.append(waits.found)
        return seconds

    monkeypatch.setattr(Trainer, "_train_step", watched)
    recipe = make_recipe(
        steps_per_epoch=6,
        epochs=1,
        freeze_batch_norm=0.3,
        pseudo_labels=0.5,
        loss_normalisation=normalisation,
    )
    images = files if method.segments else without_masks(files)
    if method.target in ("clean", "second_noisy"):
        target = Target(lambda name: np.ones((1, 48, 48)), method.target == "second_noisy")
        images = replace(images, target=target)
    run(method, recipe, images)
    assert found == [[]] * 5


def test_validation_sees_the_same_blind_spots_every_time(run, make_recipe, monkeypatch):
    """Without training in between, it gives the same number."""
    seen = []

    def spy(shape, fraction, generator):
        seen.append(stratified_places(shape, fraction, generator))
        return seen[-1]

    monkeypatch.setattr(masking, "stratified_places", spy)

    def stand_still(self):
        self.step += 1
        return 0.0

    monkeypatch.setattr(Trainer, "_train_step", stand_still)
    _, history = run(N2V, make_recipe(epochs=3))
    assert len(seen) == 3
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    assert history["val_loss"].nunique() == 1


# Reproducible


@pytest.mark.parametrize(
    "method", [N2V, BASELINE, Method(name="d", target="blind_spot", alpha=0.5)]
)
def test_same_seed_same_bits(run, make_recipe, method):
    first, again, other = (run(method, make_recipe(), seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_initial_weights_follow_the_seed(run, make_recipe, joint, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self, *_, **__: self.network.eval())
    first, again, other = (
        run(joint, make_recipe(), seed=seed)[0].network.head.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_does_not_matter(run, make_recipe, joint, uninterrupted):
    first = uninterrupted()
    torch.manual_seed(5)
    torch.rand(17)
    assert same(first, run(joint, make_recipe()))


# Interruptible


class Power(BaseException):
    """It went off."""


def script(monkeypatch, losses):
    """Make validation losses known beforehand."""
    validate = Trainer._validate

    def scripted(self):
        validate(self)
        return losses[len(self.history)]

    monkeypatch.setattr(Trainer, "_validate", scripted)


def interrupted(run, monkeypatch, method, recipe, after, **options):
    """Train with a checkpoint after every step; the power goes off in the step after ``after``."""
    train_step = Trainer._train_step

    def until_then(self):
        if self.step == after:
            raise Power
        return train_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", until_then)
        with pytest.raises(Power):
            run(method, recipe, seconds=0, **options)


# Best in the third epoch, then no progress, so that the rate is halved after epoch 13.
LOSSES = [0.9, 0.8, 0.3, *(0.5 + 0.01 * epoch for epoch in range(3, 16))]


@pytest.mark.parametrize(
    "weights, schedule, epochs, after",
    [
        *(("last", "one_cycle", 6, 3), ("best", "one_cycle", 6, 9)),
        *(("best", "reduce_on_plateau", 16, 14), ("last", "reduce_on_plateau", 16, 29)),
    ],
)
def test_resumed_training_ends_in_the_same_bits(
    run, make_recipe, joint, monkeypatch, caplog, weights, schedule, epochs, after
):
    """In the midst of an epoch, at its end, and with the statistics of batch norm frozen."""
    recipe = make_recipe(
        epochs=epochs,
        steps_per_epoch=2,
        weights=weights,
        schedule=schedule,
        freeze_batch_norm=0.3,
        pseudo_labels=1.0,
    )
    script(monkeypatch, LOSSES)
    whole = run(joint, recipe, file="whole.pt")
    interrupted(run, monkeypatch, joint, recipe, after)
    with caplog.at_level(logging.INFO):
        resumed = run(joint, recipe)
    assert f"checkpoint.pt at step {after}" in caplog.text
    assert same(whole, resumed)
    if schedule == "reduce_on_plateau":
        assert whole[1]["learning_rate"][14:].tolist() == [recipe.learning_rate / 2] * 2


def test_best_weights_are_those_of_the_best_epoch(run, make_recipe, joint, monkeypatch, tmp_path):
    recipe = make_recipe(epochs=6, steps_per_epoch=1, weights="best")
    script(monkeypatch, LOSSES)
    kept = run(joint, recipe)[0].network.state_dict()
    interrupted(run, monkeypatch, joint, recipe, after=3, file="third.pt")
    third = tensor_file.load(tmp_path / "third.pt")["average"]
    last = run(joint, replace(recipe, weights="last"), file="last.pt")[0].network.state_dict()
    assert all(torch.equal(kept[key], third[key]) for key in kept)
    assert not torch.equal(kept["head.weight"], last["head.weight"])


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from denoiseg_flow.training import checkpoints, trainer, training_images
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.job import TrainingJob

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
path = Path(given["checkpoint"])
replace, written = os.replace, []

def killed_while_writing(source, target):
    if target == path:
        written.append(target)
        if len(written) == given["write"]:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

def train_step(self):
    if self.step == given["step"]:
        os.kill(os.getpid(), given["signal"])
    return step(self)

step, trainer.Trainer._train_step = trainer.Trainer._train_step, train_step
checkpoints.os.replace = killed_while_writing
paths = {name: [p and Path(p) for p in given["images"][name]] for name in given["images"]}
job = TrainingJob(
    Run(**given["run"]), Method(**given["method"]), Recipe(**given["recipe"]),
    checkpoints.Checkpoints(path, given["seconds"]), torch.device("cpu"),
)
trainer.train(job, training_images.TrainingImages(**paths))
"""


@pytest.fixture
def killed(joint, files, tmp_path):
    """Start a training in another process, let it be killed there, and return its exit status."""

    def killed(recipe, seconds=0, step=None, write=None, signal=signal.SIGKILL):
        names = ("train", "train_masks", "val", "val_masks")
        given = {
            "method": as_dict(joint),
            "recipe": as_dict(recipe),
            "run": run_of(joint).as_dict(),
            "checkpoint": str(tmp_path / "checkpoint.pt"),
            "images": {name: [p and str(p) for p in getattr(files, name)] for name in names},
            "seconds": seconds,
            "step": step,
            "write": write,
            "signal": signal,
        }
        command = [sys.executable, "-c", KILLED, json.dumps(given)]
        return subprocess.run(command, timeout=120, stderr=subprocess.DEVNULL).returncode

    return killed


def test_training_survives_sigkill(run, make_recipe, joint, caplog, killed):
    """While a checkpoint is being written: the previous one serves."""
    recipe = make_recipe(epochs=6, weights="best", freeze_batch_norm=0.5)
    assert killed(recipe, write=4) == -signal.SIGKILL
    with caplog.at_level(logging.INFO):
        resumed = run(joint, recipe)
    assert "at step 3" in caplog.text
    assert same(run(joint, recipe, file="other.pt"), resumed)


def ctrl_c(run, monkeypatch, method, recipe):
    """Train with no checkpoint due for an hour; Ctrl-C is pressed in the sixth step."""
    train_step = Trainer._train_step

    def pressed(self):
        if self.step == 5:
            signal.raise_signal(signal.SIGINT)
        return train_step(self)

    # Shells let background jobs ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_step", pressed)
        run(method, recipe, seconds=3600)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_state_is_saved_before_the_end(
    run, make_recipe, joint, monkeypatch, caplog, killed, uninterrupted, number
):
    """As when the time of a cluster job is up; the next checkpoint is not due for an hour."""
    recipe = make_recipe(epochs=6)
    if number == signal.SIGINT:
        ctrl_c(run, monkeypatch, joint, recipe)
    else:
        assert killed(recipe, seconds=3600, step=5, signal=number) == -number
    with caplog.at_level(logging.INFO):
        resumed = run(joint, recipe)
    assert "at step 6" in caplog.text
    assert same(uninterrupted(epochs=6), resumed)


def test_signals_mean_the_same_after_a_training(run, make_recipe, joint):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(joint, make_recipe(epochs=1))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("damaged, resumed_at", [(1, "at step 2"), (2, None)])
def test_damaged_checkpoints_are_named_and_ignored(
    run, make_recipe, joint, monkeypatch, tmp_path, caplog, uninterrupted, damaged, resumed_at
):
    """The previous one serves, or else the training starts from the beginning."""
    interrupted(run, monkeypatch, joint, make_recipe(), after=3)
    files = [tmp_path / "checkpoint.pt", tmp_path / "checkpoint.pt.previous"][:damaged]
    for path in files:
        content = bytearray(path.read_bytes())
        for place in range(len(content) // 2, len(content) // 2 + 200):  # more than any padding
            content[place] ^= 1
        path.write_bytes(content)
    with caplog.at_level(logging.INFO):
        found = run(joint, make_recipe())
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"{p} is damaged or not a file of tensors; ignoring it" for p in files]
    assert (resumed_at or "resuming from") in caplog.text or resumed_at is None
    assert ("resuming from" in caplog.text) == (resumed_at is not None)
    assert same(found, uninterrupted())


def test_checkpoint_of_another_version_is_named_and_ignored(
    run, make_recipe, joint, tmp_path, caplog, uninterrupted
):
    path = tmp_path / "checkpoint.pt"
    tensor_file.save({"step": 3, "weights": {}}, path)
    found = run(joint, make_recipe())
    assert f"{path} was written by another version of the workflow; ignoring it" in caplog.text
    assert same(found, uninterrupted())


@pytest.mark.parametrize("change", ["seed", "recipe", "images"])
def test_checkpoint_of_another_training_is_left_aside(
    run, make_recipe, joint, monkeypatch, tmp_path, caplog, files, uninterrupted, change
):
    fewer = replace(files, train=files.train[:3], train_masks=files.train_masks[:3])
    others = {"seed": {"seed": 2}, "images": {"images": fewer}}
    recipe = make_recipe(learning_rate=0.003) if change == "recipe" else make_recipe()
    interrupted(run, monkeypatch, joint, recipe, after=3, **others.get(change, {}))
    found = run(joint, make_recipe())
    assert f"checkpoint {tmp_path / 'checkpoint.pt'} belongs to another training" in caplog.text
    assert same(found, uninterrupted())


def test_checkpoint_of_another_method_or_network_is_refused(
    run, make_recipe, joint, monkeypatch, tmp_path
):
    interrupted(run, monkeypatch, joint, make_recipe(), after=3)
    path = tmp_path / "checkpoint.pt"
    before = path.read_bytes()
    own = "method 'denoiseg' with network 'unet' of depth 1 and 2 filters"
    for method, recipe, other in (
        (BASELINE, make_recipe(), "method 'baseline' with network 'unet' of depth 1 and 2 filters"),
        (
            joint,
            make_recipe(depth=2),
            "method 'denoiseg' with network 'unet' of depth 2 and 2 filters",
        ),
    ):
        assert refusal(run, method, recipe) == (
            f"checkpoint {path} belongs to {own}, not to {other}; delete it to train from the start"
        )
    assert path.read_bytes() == before


def test_checkpoints_are_rare(run, make_recipe, monkeypatch):
    """Short trainings write one, at their end: what follows may be interrupted too."""
    saved = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, state: saved.append(state["step"]))
    recipe = make_recipe()
    run(BASELINE, recipe)
    assert saved == [recipe.steps]


def test_a_finished_training_is_not_repeated(run, make_recipe, joint, monkeypatch):
    """The power goes off while the threshold is chosen."""
    whole = run(joint, make_recipe(weights="best"), file="whole.pt")

    def fail(*_):
        raise Power

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "choose_threshold", fail)
        with pytest.raises(Power):
            run(joint, make_recipe(weights="best"))
    monkeypatch.setattr(Trainer, "_train_step", lambda self: pytest.fail("trained in vain"))
    assert same(whole, run(joint, make_recipe(weights="best")))


# Averaged weights and pseudo-labels


def test_average_follows_the_network(run, make_recipe, monkeypatch):
    """Step by step, with the decay of the recipe, or faster in the first steps."""
    seen = []
    train_step = Trainer._train_step

    def watched(self):
        seconds = train_step(self)
        weights = (self.network.head.weight, self.average.head.weight)
        seen.append([weight.detach().clone() for weight in weights])
        return seconds

    monkeypatch.setattr(Trainer, "_train_step", watched)
    model, _ = run(BASELINE, make_recipe(epochs=10, ema_decay=0.3))
    expected = seen[0][1]
    for step, (weight, average) in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
        assert average.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert torch.equal(model.network.head.weight, seen[-1][1])
    assert not torch.equal(*seen[-1])


def test_without_averaging_the_last_weights_are_kept(run, make_recipe, monkeypatch):
    trainers = []
    monkeypatch.setattr(
        Trainer, "start_from", lambda self, weights: trainers.append(self), raising=True
    )
    model, _ = run(BASELINE, make_recipe(ema_decay=0.0), init=run(BASELINE, make_recipe())[0])
    network = trainers[0].network.state_dict()
    assert all(
        torch.equal(network[key], value) for key, value in model.network.state_dict().items()
    )


def test_pseudo_labels_begin_when_the_teacher_has_learned(run, make_recipe, joint, monkeypatch):
    taught = []
    call = objective.Objective.__call__

    def spy(self, network, batch, generator, teacher=None, validating=False):
        if network.training:
            taught.append((teacher is not None, teacher is not network))
        return call(self, network, batch, generator, teacher, validating)

    monkeypatch.setattr(objective.Objective, "__call__", spy)
    recipe = make_recipe(epochs=5, steps_per_epoch=2, pseudo_labels=2.0)
    _, history = run(joint, recipe)
    assert taught == [(False, True)] * 3 + [(True, True)] * 7
    assert (history["loss_pseudo"] > 0).tolist() == [False, True, True, True, True]
    total = 0.5 * history["loss_denoise"] + 0.5 * history["loss_segment"] + history["loss_pseudo"]
    assert history["loss"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-5)


@pytest.mark.parametrize(
    "method, share", [(N2V, 0.5), (BASELINE, 0.5), (Method("d", target="blind_spot", alpha=0.5), 1)]
)
def test_no_pseudo_labels_without_patches_to_label(run, make_recipe, files, method, share):
    images = files if method.segments else without_masks(files)
    _, history = run(method, make_recipe(pseudo_labels=1.0, annotated_share=share), images)
    assert (history["loss_pseudo"] == 0).all()
    assert np.isfinite(history["loss"]).all()


# Batch normalisation


def test_statistics_are_frozen_for_the_last_steps(run, make_recipe, monkeypatch):
    """They are measured once, then stay what they are while the weights go on."""
    seen = []
    train_step = Trainer._train_step

    def watched(self):
        seconds = train_step(self)
        layer = batch_norm.batch_norms(self.network)[0]
        seen.append((layer.running_mean.clone(), layer.training, layer.weight.detach().clone()))
        return seconds

    monkeypatch.setattr(Trainer, "_train_step", watched)
    model, _ = run(
        BASELINE, make_recipe(epochs=4, steps_per_epoch=2, freeze_batch_norm=0.4, ema_decay=0.0)
    )
    assert [training for _, training, _ in seen] == [True] * 5 + [False] * 3
    means = [mean for mean, _, _ in seen]
    assert not torch.equal(means[3], means[4])
    assert torch.equal(means[5], means[7])
    assert not torch.equal(means[4], means[5])
    assert not torch.equal(seen[5][2], seen[7][2])
    kept = batch_norm.batch_norms(model.network)[0].running_mean
    assert torch.equal(kept, means[7])


def test_frozen_statistics_are_those_of_the_training_images(run, make_recipe, monkeypatch):
    """A first layer that copies its input has the mean and variance of all pixels: 0 and 1."""
    monkeypatch.setattr(batch_norm, "BATCHES", 100)
    recipe = make_recipe(epochs=1, steps_per_epoch=2, freeze_batch_norm=0.5, batch_size=16)
    build = trainer.new_network

    def copying(*arguments):
        network = build(*arguments)
        weight = network.encoder[0][0][0].weight
        weight.requires_grad_(False).zero_()
        weight[:, :, 1, 1] = 1
        return network

    monkeypatch.setattr(trainer, "new_network", copying)
    model, _ = run(BASELINE, replace(recipe, annotated_share=None))
    layer = batch_norm.batch_norms(model.network)[0]
    assert layer.running_mean.numpy() == pytest.approx(0, abs=0.05)
    assert layer.running_var.numpy() == pytest.approx(1, rel=0.05)


# Mistakes


def refusal(run, *arguments, **options):
    with pytest.raises(InputError) as caught:
        run(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("subset", ["train", "val"])
def test_image_smaller_than_a_patch(run, make_recipe, files, tmp_path, subset):
    small = tmp_path / "small.tif"
    write_array(small, np.ones((15, 40), np.float32))
    images = replace(without_masks(files), **{subset: [small, *getattr(files, subset)[1:]]})
    assert refusal(run, N2V, make_recipe(), images) == (
        f"image {small} has shape 15x40, smaller than the training patch; set 'patch_size' of the "
        "recipe (now 16) to 15 or less"
    )


def test_loss_that_is_not_finite(run, make_recipe, tmp_path):
    text = refusal(run, BASELINE, make_recipe(learning_rate=1e30, epochs=9, steps_per_epoch=1))
    assert text.startswith("the loss is nan after ") or text.startswith("the loss is inf after ")
    assert text.endswith("steps; lower 'learning_rate' of the recipe (now 1e+30)")


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    run, make_recipe, joint, monkeypatch, tmp_path
):
    train_step = Trainer._train_step

    def diverging(self):
        seconds = train_step(self)
        if self.step == 4:
            self.loss_sums += float("nan")
        return seconds

    monkeypatch.setattr(Trainer, "_train_step", diverging)
    assert refusal(run, joint, make_recipe(), seconds=0).startswith("the loss is nan after 4 steps")
    assert tensor_file.load(tmp_path / "checkpoint.pt")["step"] == 3


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_names_the_batch_size_to_try(run, make_recipe, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(Trainer, "_train_step", fail)
    assert refusal(run, BASELINE, make_recipe(batch_size=6)) == (
        "cpu has too little free memory for batches of 6 patches; set 'batch_size' of the recipe "
        "to 3, or run fewer jobs at once"
    )


def test_more_patches_than_any_memory_holds(run, make_recipe):
    """PyTorch's CPU allocator says so in its own way."""
    text = refusal(run, BASELINE, make_recipe(batch_size=2**42))
    assert "set 'batch_size' of the recipe to 2199023255552" in text


def test_other_errors_are_not_blamed_on_memory(run, make_recipe, monkeypatch):
    def fail(self):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Trainer, "_train_step", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(BASELINE, make_recipe())


def no_masks(files, tmp_path):
    return replace(files, val_masks=[None, None])


def no_objects(files, tmp_path):
    write_array(tmp_path / "empty.tif", np.zeros((48, 48), np.int32))
    return replace(files, val_masks=[tmp_path / "empty.tif", None])


def only_ignored(files, tmp_path):
    write_array(tmp_path / "ignored.tif", np.full((48, 48), -1, np.int32))
    return replace(files, val_masks=[tmp_path / "ignored.tif", None])


@pytest.mark.parametrize("change", [no_masks, no_objects, only_ignored])
def test_no_object_to_choose_a_threshold_by(
    run, make_recipe, joint, files, tmp_path, monkeypatch, change
):
    """It is said before the training, not after it."""
    monkeypatch.setattr(Trainer, "run", lambda *_, **__: pytest.fail("trained in vain"))
    for method in (joint, BASELINE):
        assert refusal(run, method, make_recipe(), change(files, tmp_path)) == (
            "no validation image of dataset 'blobs' has an annotated object to choose the "
            "threshold by; annotate more images or raise 'split: val'"
        )


@pytest.mark.parametrize("method", [N2V, BASELINE])
def test_no_validation_images(run, make_recipe, files, method):
    images = replace(files, val=[], val_masks=[])
    text = refusal(run, method, make_recipe(), images)
    assert "validation" in text and "'split: val'" in text


def test_no_training_images(run, make_recipe, files):
    text = refusal(run, N2V, make_recipe(), replace(files, train=[], train_masks=[]))
    assert text.startswith("dataset 'blobs' has no training images; lower 'val' and 'test'")


# Cross-validation


@pytest.fixture(scope="module")
def cross(files):
    """Three annotated images in three parts, and two without masks."""
    return replace(
        files,
        val=[*files.val, *files.train[:3]],
        val_masks=[None, None, *files.train_masks[:3]],
        folds=[["0"], ["1"], ["2"]],
    )


def test_no_network_sees_the_image_that_it_is_judged_by(
    run, make_recipe, joint, cross, monkeypatch
):
    seen = []

    def load(images, masks, *others):
        seen.append(
            {image.stem: mask is not None for image, mask in zip(images, masks, strict=True)}
        )
        return load_bank(images, masks, *others)

    judged = []

    def predict(model, images, *others):
        for number, tile in predict_rescaled(model, images, *others):
            judged.append(model)
            yield number, tile

    monkeypatch.setattr(trainer, "load_bank", load)
    monkeypatch.setattr(prediction, "predict_rescaled", predict)
    model, _ = run(joint, make_recipe(), cross)
    trained = seen[::2]
    annotated = {"0": True, "1": True, "2": True, "3": False, "4": False}
    assert trained == [
        *({name: has for name, has in annotated.items() if name != out} for out in "012"),
        annotated,
    ]
    assert all(out not in validated for out, validated in zip("012", seen[1::2], strict=False))
    assert list(model.held_out) == ["0", "1", "2"]
    assert len({id(each) for each in model.held_out.values()}) == 3
    # For the threshold first, then for the precision of objects.
    assert judged == [*model.held_out.values()] * 2
    assert model.threshold.n_images == 3
    assert all(each.threshold == model.threshold for each in model.held_out.values())


def test_the_last_network_is_that_of_a_training_without_cross_validation(
    run, make_recipe, joint, cross, uninterrupted
):
    crossed, history = uninterrupted(images="cross")
    plain, expected = run(joint, make_recipe(), replace(cross, folds=[]))
    assert history.equals(expected)
    weights, others = crossed.network.state_dict(), plain.network.state_dict()
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    other = crossed.held_out["0"].network.state_dict()
    assert not all(torch.equal(weights[key], other[key]) for key in weights)


def test_networks_of_a_cross_validation_are_counted_and_have_events_of_their_own(
    make_recipe, joint, cross, monkeypatch, tmp_path
):
    shown = []

    def note(name, recipe, done, network, networks, events):
        shown.append((network, networks, events.relative_to(tmp_path).as_posix()))
        return Mock()

    monkeypatch.setattr(trainer, "Progress", note)
    job = TrainingJob(
        *(run_of(joint), joint, make_recipe(epochs=1)),
        *(Checkpoints(tmp_path / "checkpoint.pt", 60), CPU),
        events=tmp_path / "events",
    )
    train(job, cross)
    n = len(cross.folds) + 1
    folds = [(fold, n, f"events/fold_{fold}") for fold in range(1, n)]
    assert n > 2 and shown == [*folds, (n, n, "events")]


def test_interrupted_cross_validation_goes_on(
    run, make_recipe, joint, cross, monkeypatch, uninterrupted
):
    whole = uninterrupted(images="cross")
    started = []

    class Interrupted(Trainer):
        def run(self, job, fingerprint):
            started.append(job.name)
            if len(started) == 3:
                raise KeyboardInterrupt
            super().run(job, fingerprint)

    monkeypatch.setattr(trainer, "Trainer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(joint, make_recipe(), cross)
    steps = []
    train_step = Trainer._train_step
    monkeypatch.setattr(trainer, "Trainer", Trainer)
    monkeypatch.setattr(
        Trainer, "_train_step", lambda self: steps.append(self.step) or train_step(self)
    )
    resumed = run(joint, make_recipe(), cross)
    assert len(steps) == 2 * make_recipe().steps, "two of four trainings were done already"
    assert same(resumed, whole)


def test_methods_that_only_denoise_are_judged_on_other_images_as_well(split, tmp_path):
    split.loc[split["rank"].notna(), "subset"] = "cross"
    found = TrainingImages.of_split(split, tmp_path, PreparedData(tmp_path), 0, segments=False)
    assert found.folds == [["d"], ["g"], ["a"]]
    assert [path.stem for path in found.train] == ["a", "b", "d", "g"]


def test_files_of_a_cross_validated_split(split, tmp_path):
    split.loc[split["rank"].notna(), "subset"] = "cross"
    found = TrainingImages.of_split(split, tmp_path, PreparedData(tmp_path), 2, segments=True)
    assert [path.stem for path in found.train] == ["a", "b", "d", "g"]
    assert [mask and mask.stem for mask in found.train_masks] == [None, None, "d", "g"]
    assert [path.stem for path in found.val] == ["a", "c", "d", "f", "g"]
    assert [mask and mask.stem for mask in found.val_masks] == [None, "c", "d", None, "g"]
    assert found.folds == [["d"], ["g"], ["a"]]


# Warm start


def test_warm_start_copies_the_weights(run, make_recipe, joint, files, monkeypatch):
    init, _ = run(N2V, make_recipe(), without_masks(files))
    monkeypatch.setattr(Trainer, "run", lambda self, *_, **__: self.network.eval())
    warm, _ = run(replace(joint, init="n2v"), make_recipe(), init=init)
    cold, _ = run(joint, make_recipe())
    expected, found = init.network.state_dict(), warm.network.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not torch.equal(cold.network.head.weight, found["head.weight"])


def test_parts_of_a_cross_validation_start_from_weights_without_their_images(
    run, make_recipe, joint, cross, monkeypatch
):
    init, _ = run(N2V, make_recipe(), cross)
    assert list(init.held_out) == ["0", "1", "2"] and init.threshold is None
    monkeypatch.setattr(Trainer, "run", lambda self, *_, **__: self.network.eval())
    warm, _ = run(replace(joint, init="n2v"), make_recipe(), cross, init=init)
    for name in ("0", "1", "2", "3"):
        expected, found = (each.for_image(name).network.state_dict() for each in (init, warm))
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_warm_start_leaves_the_other_model_alone(run, make_recipe, joint, files):
    init, _ = run(N2V, make_recipe(), without_masks(files))
    before = {key: value.clone() for key, value in init.network.state_dict().items()}
    run(replace(joint, init="n2v"), make_recipe(), init=init)
    assert all(torch.equal(before[key], value) for key, value in init.network.state_dict().items())


# What goes in


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_are_normalised_over_all_their_pixels(tmp_path, make_recipe, monkeypatch, dtype):
    """In the bank as in prediction, also where the pixels are measured in several parts."""
    monkeypatch.setattr(patches, "CHUNK", 100)
    rng = np.random.default_rng(0)
    planes = [rng.uniform(0, 255, shape).astype(dtype) for shape in ((20, 30), (18, 17), (40, 18))]
    planes[0] += 3
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for path, plane in zip(paths, planes, strict=True):
        tifffile.imwrite(path, plane)
    bank = load_bank(paths, [None] * 3, make_recipe(), PLANES, CPU)
    found = bank.measure()
    pixels = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    assert found.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert found.std == pytest.approx((pixels.std(),), rel=1e-9)
    bank.normalise(found)
    mean, std = (values.numpy() for values in found.scale(0))
    assert np.array_equal(bank.pixels[0].numpy(), (pixels.astype(np.float32) - mean) / std)


def test_constant_images_do_not_divide_by_zero(tmp_path, make_recipe):
    tifffile.imwrite(tmp_path / "a.tif", np.full((16, 16), 7, np.uint8))
    bank = load_bank([tmp_path / "a.tif"], [None], make_recipe(), PLANES, CPU)
    bank.normalise(bank.measure())
    assert not bank.pixels.any()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_masks_come_as_read_only_maps(make_recipe, tmp_path, dtype):
    labels = np.zeros((48, 48), dtype)
    labels[20, 20] = 300
    write_array(tmp_path / "mask.tif", labels)
    write_array(tmp_path / "image.tif", np.ones((48, 48), np.float32))
    bank = load_bank([tmp_path / "image.tif"], [tmp_path / "mask.tif"], make_recipe(), PLANES, CPU)
    classes = bank.classes.reshape(48, 48)
    assert int((classes == FOREGROUND).sum()) == 1
    assert int((classes == BORDER).sum()) == 4
    assert np.array_equal(open_labels(tmp_path / "mask.tif"), labels)


@pytest.fixture
def split():
    return pd.DataFrame(
        {
            "image": ["a", "b", "c", "d", "e", "f", "g"],
            "subset": ["train", "train", "val", "train", "test", "val", "train"],
            "annotated": [1, 0, 1, 1, 1, 0, 1],
            "rank": pd.array([3, None, None, 1, None, None, 2], dtype="Int64"),
            "source": [f"{name}.tif" for name in "abcdefg"],
        }
    )


@pytest.mark.parametrize("n_annotated, revealed", [(1, "d"), (2, "dg"), (3, "adg")])
def test_only_revealed_masks_are_read(split, tmp_path, n_annotated, revealed):
    images, masks = tmp_path / "noisy", tmp_path / "masks"
    found = TrainingImages.of_split(
        split, images, PreparedData(tmp_path), n_annotated, segments=True
    )
    assert found.train == [images / f"{name}.tif" for name in "abdg"]
    assert found.train_masks == [
        masks / f"{name}.tif" if name in revealed else None for name in "abdg"
    ]
    assert found.val == [images / "c.tif", images / "f.tif"]
    assert found.val_masks == [masks / "c.tif", None]


def test_denoisers_read_no_masks(split, tmp_path):
    found = TrainingImages.of_split(split, tmp_path, PreparedData(tmp_path), 0, segments=False)
    assert set(found.train_masks) == set(found.val_masks) == {None}


def test_denoised_images_of_a_run_are_the_input(split, tmp_path):
    (tmp_path / "run" / "denoised").mkdir(parents=True)
    found = TrainingImages.of_split(
        split, tmp_path / "run", PreparedData(tmp_path), 1, segments=True
    )
    assert {path.parent for path in (*found.train, *found.val)} == {tmp_path / "run" / "denoised"}


def annotated_nuclei(folder, count):
    """Return the pretrained network for some simulated images, and their files and masks."""
    images, masks = [], []
    for each in simulate(n_images=count, size=96, seed=2):
        images.append(folder / f"{each.name}.tif")
        masks.append(folder / f"masks/{each.name}.tif")
        write_array(images[-1], each.image.astype(np.float32))
        write_labels(masks[-1], each.mask)
    levels = [open_image(path) for path in images]
    own = Normalisation((float(np.mean(levels)),), (float(np.std(levels)),))
    return replace(load_pretrained("simulated_objects"), normalisation=own), images, masks


def test_few_images_do_not_change_a_threshold(tmp_path, caplog):
    """Their best one fails on others; its precision on them is measured all the same."""
    caplog.set_level("INFO")
    model, images, masks = annotated_nuclei(tmp_path, FEW)
    known = Threshold(0.9, 0.1, 50, 0.6)
    set_threshold(model, SimpleNamespace(val=images[1:], val_masks=masks[1:]), known)
    kept = model.threshold
    assert (kept.value, kept.prominence, kept.n_images) == (0.9, 0.6, FEW - 1)
    assert 0 < kept.average_precision < 0.9
    assert "the threshold stays" in caplog.text
    set_threshold(model, SimpleNamespace(val=images[1:], val_masks=masks[1:]))
    assert model.threshold != kept and model.threshold.average_precision > kept.average_precision
    set_threshold(model, SimpleNamespace(val=images, val_masks=masks), known)
    assert model.threshold.n_images == FEW
    assert (model.threshold.value, model.threshold.prominence) != (0.9, 0.6)
    set_threshold(model, SimpleNamespace(val=images, val_masks=[None] * FEW), known)
    assert model.threshold == known


def test_the_precision_of_objects_is_measured_where_the_threshold_is_chosen(tmp_path, caplog):
    caplog.set_level("INFO")
    model, images, masks = annotated_nuclei(tmp_path, 3)
    set_threshold(model, SimpleNamespace(val=images, val_masks=masks))
    assert model.precision.n_images == 3 and model.precision.n_objects > 20
    assert min(model.precision.precision) > 0.7
    assert f"of {model.precision.n_objects} objects in them are correct" in caplog.text
    set_threshold(model, SimpleNamespace(val=images[:1], val_masks=masks[:1]))
    assert model.precision is None, "fewer than 20 objects"
