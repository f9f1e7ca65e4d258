"""A model and everything needed to use it, in one file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow import __version__, checkpoints
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods import Method
from denoiseg_flow.models import FORMAT, Normalisation, TrainedModel
from denoiseg_flow.prediction import predict_tiles


@pytest.fixture
def model(make_model):
    return make_model()


def predictions(model, image):
    (tile,) = predict_tiles(model, image)
    return tile


def test_round_trip(model, tmp_path):
    path = tmp_path / "model.pt"
    model.save(path)
    loaded = TrainedModel.load(path)
    for field in ("method", "recipe", "identity", "normalisation", "threshold"):
        assert getattr(loaded, field) == getattr(model, field)
    image = np.random.default_rng(0).normal(100, 25, (23, 31)).astype(np.float32)
    before, after = predictions(model, image), predictions(loaded, image)
    assert np.array_equal(before.denoised, after.denoised)
    assert np.array_equal(before.probabilities, after.probabilities)
    assert not loaded.network.training
    content = checkpoints.load(path)
    assert (content["format"], content["software"]) == (FORMAT, f"denoiseg-flow {__version__}")


def test_without_threshold(make_model, tmp_path):
    model = make_model(Method(name="n2v", target="blind_spot", alpha=1))
    assert model.threshold is None
    model.save(tmp_path / "model.pt")
    loaded = TrainedModel.load(tmp_path / "model.pt")
    assert loaded.threshold is None
    assert loaded.method == model.method


def rewrite(path, **changes):
    content = checkpoints.load(path)
    content |= changes
    checkpoints.save_atomically(content, path)


@pytest.mark.parametrize("version", [FORMAT + 1, None])
def test_other_formats_are_refused(model, tmp_path, version):
    path = tmp_path / "model.pt"
    model.save(path)
    rewrite(path, format=version)
    with pytest.raises(InputError) as caught:
        TrainedModel.load(path)
    assert str(caught.value) == (
        f"model {path} has format {version}, but this version of denoiseg-flow reads format "
        f"{FORMAT}; install the version that wrote it"
    )


def test_fields_of_later_methods_are_ignored(model, tmp_path):
    path = tmp_path / "model.pt"
    model.save(path)
    method = checkpoints.load(path)["method"]
    rewrite(path, method=method | {"n_planes": 3})
    assert TrainedModel.load(path).method == model.method


BEFORE = {
    "instances": "components",
    "test_time_augmentation": False,
    "freeze_batch_norm": 0.0,
    "preserve_mean": False,
}


@pytest.mark.parametrize("field", list(BEFORE))
def test_models_of_earlier_versions_do_what_they_did(make_model, make_recipe, tmp_path, field):
    """Recipes had fewer fields then; what the new ones say was not done."""
    path = tmp_path / "model.pt"
    model = make_model()
    new = make_recipe(
        instances="watershed",
        test_time_augmentation=True,
        freeze_batch_norm=0.5,
        preserve_mean=True,
    )
    model.recipe = new
    model.save(path)
    recipe = checkpoints.load(path)["recipe"]
    rewrite(path, recipe={key: recipe[key] for key in recipe if key != field} | {"later": 1})
    assert TrainedModel.load(path).recipe == replace(new, **{field: BEFORE[field]})


FIRST_RECIPE = [
    *("depth", "filters", "patch_size", "batch_size", "epochs", "steps_per_epoch"),
    *("learning_rate", "schedule", "weights", "batch_norm_momentum", "masked_fraction"),
    *("labelled_share", "loss_normalisation", "validation_patches"),
]


def test_model_with_the_recipe_of_the_first_version(make_model, make_recipe, tmp_path):
    path = tmp_path / "model.pt"
    make_model().save(path)
    recipe = checkpoints.load(path)["recipe"]
    rewrite(path, recipe={key: recipe[key] for key in FIRST_RECIPE})
    loaded = TrainedModel.load(path).recipe
    assert (loaded.instances, loaded.test_time_augmentation) == ("components", False)


def test_damaged_model_is_refused_in_a_sentence(model, tmp_path):
    path = tmp_path / "model.pt"
    model.save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError) as caught:
        TrainedModel.load(path)
    assert str(caught.value) == (
        f"{path} is damaged or not a file of tensors; delete it and run the workflow again"
    )


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text"])
def test_tensors_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=r"model\.pt"):
        TrainedModel.load(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_normalisation(dtype):
    image = np.array([[10, 20], [30, 60]], dtype)
    normalisation = Normalisation(mean=30.0, std=20.0)
    normalised = normalisation.apply(image)
    assert normalised.dtype == np.float32
    assert np.array_equal(normalised, [[-1, -0.5], [0, 1.5]])
    assert np.array_equal(normalisation.undo(normalised), image)
    assert normalisation.undo(normalised).dtype == np.float32
