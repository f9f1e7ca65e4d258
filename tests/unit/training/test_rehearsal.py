"""Training from a network that was pretrained on simulated images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow.data.store import write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.checksums import digest
from denoiseg_flow.methods.classes import IGNORE
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.losses import denoising_loss
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.pretrained import PRETRAINED, Pretrained
from denoiseg_flow.models import weights
from denoiseg_flow.models.model import TrainedModel, new_network
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import rehearsal
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.objective import DISTANCE_WEIGHT, Objective
from denoiseg_flow.training.patches import Batch, ImageBank, PatchSampler
from denoiseg_flow.training.rehearsal import simulate_rehearsal
from denoiseg_flow.training.trainer import train
from denoiseg_flow.training.training_images import TrainingImages, check_layout

CPU = torch.device("cpu")
SIMULATED = Normalisation((30.0,), (50.0,))
PRETRAINED_BASELINE = Method(name="pretrained", init="simulated_objects")
JOINT = replace(PRETRAINED_BASELINE, name="joint", target="blind_spot", alpha=0.5)


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(depth=1, filters=2, patch_size=16, rehearsal=0.5)


@pytest.fixture
def init(recipe):
    torch.manual_seed(0)
    network = new_network(PRETRAINED_BASELINE, recipe)
    model = TrainedModel(PRETRAINED_BASELINE, recipe, {}, SIMULATED, network.eval())
    model.threshold = Threshold(0.35, 0.8, 40)
    return model


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(rehearsal, "N_IMAGES", 6)
    monkeypatch.setattr(rehearsal, "SMALLEST_SIDE", 32)


@pytest.fixture
def images(tmp_path, make_blobs):
    """Four training images, two of them annotated, and two for validation."""
    files = {"image": [], "mask": []}
    for number in range(6):
        for kind, plane in zip(files, make_blobs(32, seed=number, sigma=20.0), strict=True):
            files[kind].append(tmp_path / kind / f"{number}.tif")
            write_array(files[kind][-1], plane)
    masks = [*files["mask"][:2], None, None]
    return TrainingImages(files["image"][:4], masks, files["image"][4:], files["mask"][4:])


@pytest.fixture
def run(tmp_path, recipe, init):
    def run(method, images, **changes):
        checkpoints = Checkpoints(tmp_path / "checkpoint.pt", 60)
        job = TrainingJob(
            Run("blobs", "n20", method.name, 2, 1), method, replace(recipe, **changes),
            checkpoints, CPU,
        )  # fmt: skip
        trained, history = train(job, images, init)
        checkpoints.remove()
        return trained, history

    return run


def without_masks(images, validated=True):
    own = images.val_masks if validated else [None] * 2
    return replace(images, train_masks=[None] * 4, val_masks=own)


def same_weights(one, other):
    others = other.network.state_dict()
    return all(torch.equal(value, others[key]) for key, value in one.network.state_dict().items())


# Simulated images


def test_rehearsal_shows_the_structures_of_the_pretraining():
    asked = Pretrained("x.pt", "", ("rods", "blobs"))
    first, again, other = (simulate_rehearsal(asked, 48, seed) for seed in (1, 1, 2))
    assert len(first.images) == len(first.classes) == 6
    for image, classes in zip(first.images, first.classes, strict=True):
        assert image.shape == (1, 48, 48)
        assert classes.shape == (48, 48)
        assert (classes > 0).any()
    assert all(map(np.array_equal, first.images, again.images))
    assert not any(map(np.array_equal, first.images, other.images))


# Batches


@pytest.fixture
def bank():
    """Two real images (values 0 to 2), one annotated, and one simulated (values 100)."""
    images = [np.full((1, 20, 20), value, np.float32) for value in (0, 2, 100)]
    codes = [[torch.zeros(20, 20, dtype=torch.int8)], None, [torch.ones(20, 20, dtype=torch.int8)]]
    return ImageBank.load(images, codes, [(20, 20)] * 3, CPU, n_simulated=1)


def test_simulated_patches_follow_those_of_annotated_images(bank):
    batch = PatchSampler(bank, (8, 8), 10, 6, 2).draw(torch.Generator().manual_seed(0))
    values = batch.patches[:, 0, 0, 0]
    assert values[:4].tolist() == [0] * 4
    assert values[4:6].tolist() == [100] * 2
    assert set(values[6:].tolist()) <= {0.0, 2.0}
    assert batch.simulated.tolist() == [False] * 4 + [True] * 2 + [False] * 4


def test_simulated_images_are_normalised_by_their_own_values(bank):
    assert bank.n_annotated == 1
    real = bank.measure()
    assert (real.mean, real.std) == ((1.0,), (1.0,))
    bank.normalise(real, Normalisation((60.0,), (20.0,)))
    assert bank.pixels.unique().tolist() == [-1, 1, 2]


@pytest.mark.parametrize(("method", "n_annotated", "expected"), [
    (PRETRAINED_BASELINE, 3, 6),
    (PRETRAINED_BASELINE, 0, 12),
    (JOINT, 3, 3),
    (JOINT, 0, 6),
    (replace(JOINT, init="n2v"), 3, 0),
    (replace(JOINT, init=None), 3, 0),
])  # fmt: skip
def test_number_of_simulated_patches(make_recipe, method, n_annotated, expected):
    recipe = make_recipe(batch_size=12, annotated_share=0.5, rehearsal=0.5)
    assert recipe.simulated_patches(method, n_annotated) == expected


def test_denoising_does_not_learn_from_simulated_images(bank, make_recipe):
    batch = PatchSampler(bank, (8, 8), 10, 6, 2).draw(torch.Generator().manual_seed(0))
    outputs = torch.zeros(10, 4, 8, 8)
    found = Objective(replace(JOINT, target="clean"), make_recipe(), CPU)(
        lambda x: outputs, batch, torch.Generator()
    )
    real = batch.patches[~batch.simulated]
    assert found[1] == pytest.approx(denoising_loss(torch.zeros_like(real), real, None).item())


# Training


def test_without_annotated_images_a_segmentation_network_stays_as_it_is(run, images, init):
    trained, history = run(PRETRAINED_BASELINE, without_masks(images))
    assert same_weights(trained, init)
    assert history.empty
    assert trained.normalisation != SIMULATED
    assert trained.threshold.n_images == 2


def test_without_any_mask_the_threshold_is_that_of_the_pretraining(run, images, init):
    trained, _ = run(PRETRAINED_BASELINE, without_masks(images, validated=False))
    assert trained.threshold == init.threshold


def test_a_joint_network_trains_without_annotated_images(run, images, init):
    trained, history = run(JOINT, without_masks(images), pseudo_labels=0.3)
    assert not same_weights(trained, init)
    assert (history[["loss_segment", "loss_denoise", "loss_pseudo"]] > 0).all(axis=None)


def test_the_distance_is_learned_like_the_classes(run, images, make_recipe):
    for method in (PRETRAINED_BASELINE, JOINT):
        without, _ = run(method, images)
        assert without.n_maps == 3
    recipe = make_recipe(instances="distance", rehearsal=0.5)
    classes = torch.zeros(2, 8, 8, dtype=torch.int64)
    classes[1] = IGNORE
    truth = torch.full((2, 8, 8), 0.25)
    batch = Batch(torch.zeros(2, 1, 8, 8), classes, None, torch.zeros(2, 2, 8, 8), None, truth)
    objective = Objective(PRETRAINED_BASELINE, recipe, CPU)
    outputs = torch.zeros(2, 5, 8, 8)
    right = outputs.clone()
    right[0, 4], right[1, 4] = 0.25, 99  # where nobody annotated, any distance is right
    losses = [
        objective(lambda x, of=of: of, batch, torch.Generator())[2] for of in (outputs, right)
    ]
    assert losses[0] - losses[1] == pytest.approx(DISTANCE_WEIGHT * 0.25)


@pytest.mark.parametrize("method", [PRETRAINED_BASELINE, JOINT])
def test_annotated_images_and_simulated_ones_are_learned_from(run, images, init, method):
    trained, history = run(method, images)
    assert not same_weights(trained, init)
    assert len(history) == 3
    without, _ = run(method, images, rehearsal=0.0)
    assert not same_weights(trained, without)


def test_images_of_several_channels_are_refused():
    check_layout(JOINT, PLANES, "cells")
    with pytest.raises(InputError, match=r"'init: simulated_objects'.*'cells' has 2 channels"):
        check_layout(JOINT, Layout(channels=2), "cells")


# The files in the package


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_weights_in_the_package(name):
    model = load_pretrained(name)
    source = PRETRAINED[name]
    assert (model.recipe.depth, model.recipe.filters) == (source.depth, source.filters)
    assert model.method.network == source.network
    assert model.threshold.average_precision > 0.5
    assert (weights.FOLDER / source.file).stat().st_size < 8e6


def test_damaged_weights_are_refused(tmp_path, init, monkeypatch):
    path = tmp_path / "objects.pt"
    save_model(init, path)
    known = {"simulated_objects": PRETRAINED["simulated_objects"]._replace(sha256=digest(path))}
    monkeypatch.setattr(weights, "PRETRAINED", known)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert same_weights(load_pretrained("simulated_objects"), init)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InputError, match=r"objects.pt is missing or damaged; install"):
            load_pretrained("simulated_objects")
        path.unlink(missing_ok=True)
