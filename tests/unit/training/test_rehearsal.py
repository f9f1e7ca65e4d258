"""Training from a network that was pretrained on simulated images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from denoiseg_flow.data.store import open_image, write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.checksums import digest
from denoiseg_flow.methods.classes import IGNORE, encode_classes, relative_distance
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.losses import denoising_loss
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.methods.networks.resized import reduce_image
from denoiseg_flow.methods.pretrained import PRETRAINED, Pretrained
from denoiseg_flow.models import weights
from denoiseg_flow.models.model import TrainedModel, new_network
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import predict_maps
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import fitting, rehearsal, trainer
from denoiseg_flow.training.batch_norm import batch_norms
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.objective import DISTANCE_WEIGHT, Objective
from denoiseg_flow.training.patches import Batch, ImageBank, PatchSampler
from denoiseg_flow.training.rehearsal import (
    NO_REHEARSAL,
    Simulated,
    make_rehearsal,
    read_rehearsal,
    simulate_rehearsal,
    write_rehearsal,
)
from denoiseg_flow.training.trainer import train
from denoiseg_flow.training.training_images import TrainingImages, check_layout

CPU = torch.device("cpu")
SIMULATED = Normalisation((30.0,), (50.0,))
ASKED = Pretrained("x.pt", "", ("rods", "blobs"))
PRETRAINED_BASELINE = Method(name="pretrained", init="simulated_objects")
JOINT = replace(PRETRAINED_BASELINE, name="joint", target="blind_spot", alpha=0.5)
CONTINUED = Method(name="continued", init="mine/model.pt", rehearse="simulated_objects")


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
    monkeypatch.setattr(rehearsal, "N_IMAGES", {2: 6, 3: 4})
    monkeypatch.setattr(rehearsal, "SMALLEST", {2: (32, 32), 3: (8, 32, 32)})


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
    def run(method, images, start=init, **changes):
        checkpoints = Checkpoints(tmp_path / "checkpoint.pt", 60)
        job = TrainingJob(
            Run("blobs", "n20", method.name, 2, 1), method, replace(recipe, **changes),
            checkpoints, CPU,
        )  # fmt: skip
        n_annotated = sum(mask is not None for mask in images.train_masks)
        side = max(32, job.recipe.patch_size)
        needed = job.recipe.rehearses(method, n_annotated)
        simulated = simulate_rehearsal(ASKED, (side, side)) if needed else None
        trained, history = train(job, images, start, simulated)
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


def test_rehearsal_shows_the_structures_of_the_pretraining(tmp_path):
    simulated = simulate_rehearsal(ASKED, (48, 48))
    images, labels, _ = simulated
    assert images.shape == labels.shape == (6, 48, 48)
    assert len(np.unique(images, axis=0)) == 6
    assert (labels > 0).any(axis=(1, 2)).all()
    assert np.array_equal(images, simulate_rehearsal(ASKED, (48, 48)).images)
    write_rehearsal(tmp_path / "x.npz", simulated)
    found = make_rehearsal(read_rehearsal(tmp_path / "x.npz"), PLANES)
    assert_allclose(np.stack(found.images), images[:, None], rtol=1e-3)
    assert_allclose(np.stack(found.distances) > 0, labels > 0)
    for classes, mask in zip(found.classes, labels, strict=True):
        assert torch.equal(classes, encode_classes(torch.from_numpy(mask)))


def test_networks_that_magnify_rehearse_objects_of_half_the_size():
    simulated = simulate_rehearsal(ASKED, (32, 32))
    found = make_rehearsal(simulated, Layout(downscale=0.5))
    assert_allclose(found.images[0], reduce_image(simulated.images[:1], (2, 2)))
    masks = simulated.labels[:, 1::2, 1::2].copy()
    for distances, classes, mask in zip(found.distances, found.classes, masks, strict=True):
        assert_allclose(distances, relative_distance(mask))
        assert torch.equal(classes, encode_classes(torch.from_numpy(mask)))
    assert make_rehearsal(None, PLANES) is NO_REHEARSAL


def test_volumes_to_rehearse():
    asked = Pretrained("x.pt", "", ("nuclei",), z_steps=(1.0, 3.0))
    images, labels, z_steps = simulated = simulate_rehearsal(asked, (4, 48, 48))
    magnified = make_rehearsal(simulated, Layout(3, downscale=0.5))
    assert magnified.images[0].shape == (1, 8, 24, 24)
    closer = relative_distance(labels[0, :, 1::2, 1::2], (z_steps[0] / 2, 1, 1))
    assert_allclose(magnified.distances[0], closer)
    assert images.shape == labels.shape == (4, 8, 48, 48)
    assert set(z_steps) == {1.0, 3.0}
    found = make_rehearsal(simulated, Layout(3))
    for distances, mask, z_step in zip(found.distances, labels, z_steps, strict=True):
        assert_allclose(distances, relative_distance(mask, (z_step, 1, 1)))


def test_fitting_reads_the_file_or_simulates(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(PRETRAINED, "simulated_objects", ASKED)
    path = tmp_path / "x.npz"
    write_rehearsal(path, Simulated(*(each[:2] for each in simulate_rehearsal(ASKED, (32, 32)))))
    run = Run("blobs", "n20", "pretrained", 2, 1)
    checkpoints = Checkpoints(tmp_path / "checkpoint.pt", 60)
    for method in (CONTINUED, PRETRAINED_BASELINE):
        job = TrainingJob(run, method, recipe, checkpoints, CPU)
        counts = [len(fitting.find_rehearsal(job, file).images) for file in (path, None)]
        assert counts == [2, 6]
    without = replace(job, run=replace(run, n_annotated=0))
    assert fitting.find_rehearsal(without, path) is None


def test_a_damaged_file_of_simulated_images_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    write_rehearsal(path, simulate_rehearsal(ASKED, (32, 32)))
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(InputError, match=r"x.npz is damaged \(wrong checksum\): delete it and run"):
        read_rehearsal(path)


@pytest.mark.parametrize(("method", "n_annotated", "expected"), [
    (PRETRAINED_BASELINE, 3, True),
    (PRETRAINED_BASELINE, 0, False),
    (JOINT, 0, True),
    (replace(JOINT, init=None), 3, False),
    (CONTINUED, 3, True),
    (CONTINUED, 0, False),
])  # fmt: skip
def test_which_trainings_rehearse(recipe, method, n_annotated, expected):
    assert recipe.rehearses(method, n_annotated) is expected
    assert not replace(recipe, rehearsal=0.0).rehearses(method, 3)


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


def test_large_objects_are_learned_from_smaller_images(run, images, init, tmp_path):
    trained, _ = run(PRETRAINED_BASELINE, images, downscale=2)
    plain, _ = run(PRETRAINED_BASELINE, images)
    assert (trained.layout.downscale, plain.layout.downscale) == (2, 1)
    assert not torch.equal(*(each.network.core.head.weight for each in (trained, init)))
    blocks = [reduce_image(open_image(path), (2, 2)) for path in images.train]
    assert trained.normalisation.std[0] == pytest.approx(np.std(blocks), rel=1e-4)
    assert trained.normalisation.std[0] < plain.normalisation.std[0]  # noise averages out
    save_model(trained, tmp_path / "model.pt")
    (maps,) = predict_maps(load_model(tmp_path / "model.pt"), [open_image(images.val[0])])
    assert maps.shape == (3, 32, 32)
    # Another training starts from the network inside, and looks at images of the same size.
    following = replace(PRETRAINED_BASELINE, name="following", init="pretrained")
    again, _ = run(following, images, start=trained, downscale="auto")
    assert again.layout.downscale == 2
    with pytest.raises(InputError, match="shape 10x10 at 1/3 of its size, smaller than the"):
        run(PRETRAINED_BASELINE, images, downscale=3)


@pytest.mark.parametrize("method", [PRETRAINED_BASELINE, JOINT])
def test_small_objects_are_learned_in_a_magnified_image(run, images, init, method, tmp_path):
    trained, _ = run(method, images, downscale=0.5)
    plain, _ = run(method, images)
    assert (trained.layout.downscale, plain.layout.downscale) == (0.5, 1)
    assert not torch.equal(*(each.network.core.head.weight for each in (trained, init)))
    assert trained.normalisation == plain.normalisation  # repeated pixels have the same levels
    save_model(trained, tmp_path / "model.pt")
    (maps,) = predict_maps(load_model(tmp_path / "model.pt"), [open_image(images.val[0])])
    assert maps.shape == (3, 32, 32)
    # A training patch of 16 pixels is 8 pixels of the image.
    run(method, images, downscale=0.5, patch_size=64)
    with pytest.raises(InputError, match=r"smaller than the training patch; .* to 64 or less"):
        run(method, images, downscale=0.5, patch_size=80)


def test_how_much_smaller_depends_on_the_objects(run, images, monkeypatch):
    asked = []
    monkeypatch.setattr(trainer, "find_downscale", lambda *args: asked.append(args) or 2)
    trained, _ = run(PRETRAINED_BASELINE, images, downscale="auto")
    ((model, files, patch_size),) = asked
    assert (trained.layout.downscale, model.threshold.value) == (2, 0.35)
    assert (files, patch_size) == (images.train, 16)


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


@pytest.mark.parametrize("method", [PRETRAINED_BASELINE, JOINT, CONTINUED])
def test_annotated_images_and_simulated_ones_are_learned_from(run, images, init, method):
    trained, history = run(method, images)
    assert not same_weights(trained, init)
    assert len(history) == 3
    without, _ = run(method, images, rehearsal=0.0)
    assert not same_weights(trained, without)


def test_the_statistics_of_the_pretraining_can_be_kept(run, images, init):
    trained, _ = run(PRETRAINED_BASELINE, images, freeze_batch_norm=1.0)
    assert not same_weights(trained, init)
    statistics = [
        [
            (layer.running_mean.tolist(), layer.running_var.tolist())
            for layer in batch_norms(network)
        ]
        for network in (trained.network, init.network)
    ]
    assert statistics[0] == statistics[1]


def test_other_images_than_planes_of_one_channel_are_refused():
    check_layout(JOINT, PLANES, "stacks")
    for layout, found in (
        (Layout(3), "3D images of one channel"),
        (Layout(channels=2), "2D images of 2 channels"),
    ):
        with pytest.raises(InputError, match=f"'init: simulated_objects'.*'stacks' has {found}"):
            check_layout(JOINT, layout, "stacks")
        with pytest.raises(InputError, match=r"'rehearse: simulated_objects'.*leave 'rehearse'"):
            check_layout(CONTINUED, layout, "stacks")


# The files in the package


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_weights_in_the_package(name):
    model = load_pretrained(name)
    source = PRETRAINED[name]
    assert (model.recipe.depth, model.recipe.filters) == (source.depth, source.filters)
    assert model.method.network == source.network
    assert model.threshold.average_precision > 0.4
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
