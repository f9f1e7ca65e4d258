"""A pixel classifier is trained on a few annotated pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import open_image, open_labels, write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods import pixel_classifier as filters
from denoiseg_flow.methods.classes import encode_classes
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import predict_probabilities
from denoiseg_flow.models.tiled_prediction import check_tile, predict_tiles
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import pixel_training
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.pixel_training import train_classifier
from denoiseg_flow.training.training_images import TrainingImages

METHOD = Method("m", segmenter="pixel_classifier")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(filters, "SCALES", (1.0, 2.0))
    monkeypatch.setattr(filters, "TREES", 10)


@pytest.fixture
def images(tmp_path, make_blobs):
    """Three images for training, of which one is not annotated, and one for validation."""

    def make(masked="ab", folds=(), empty=()):
        for number, name in enumerate("abcd"):
            image, labels = make_blobs(48, seed=number)
            labels[:, :4] = -1  # not annotated
            write_array(tmp_path / f"{name}.tif", image)
            write_array(tmp_path / f"masks/{name}.tif", labels * (name not in empty))
        masks = [tmp_path / f"masks/{name}.tif" if name in masked else None for name in "abc"]
        train = [tmp_path / f"{name}.tif" for name in "abc"]
        val = [tmp_path / "d.tif"]
        val_masks = [tmp_path / "masks/d.tif"]
        if folds:
            val, val_masks = [*val, *train], [*val_masks, *masks]
        return TrainingImages(train, masks, val, val_masks, folds=folds)

    return make


@pytest.fixture
def job(tmp_path, make_recipe):
    def make(seed=1, **changes):
        run = Run("blobs", "n0", "m", 2, seed)
        checkpoints = Checkpoints(tmp_path / "checkpoint.pt", 0)
        method = replace(METHOD, **changes)
        return TrainingJob(run, method, make_recipe(), checkpoints, torch.device("cpu"))

    return make


def test_objects_are_found(job, images, tmp_path):
    model = train_classifier(job(), images())
    assert model.threshold.n_images == 1
    probabilities = predict_probabilities(model, np.asarray(open_image(tmp_path / "d.tif")))
    assert probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)
    (labels,) = label_instances(probabilities, [model.threshold.value], "watershed")
    truth = np.asarray(open_labels(tmp_path / "masks/d.tif"))
    assert average_precision(truth, labels) > 0.8


@pytest.mark.parametrize("layout", [Layout(), Layout(3, z_step=2.0)], ids=["2D", "3D"])
def test_tiles_give_the_probabilities_of_the_whole_image(layout, make_model):
    rng = np.random.default_rng(0)
    network = filters.PixelClassifier(layout).eval()
    n_features = network.forest.n_features
    samples = rng.normal(size=(900, n_features)).astype(np.float32)
    classes = (samples[:, 1] > 0) + (samples[:, -1] > 0.5).astype(np.int8)
    filters.fit_forest(network.forest, samples, classes, np.ones(900), 0)
    model = make_model()
    model.method, model.layout, model.network = METHOD, layout, network
    image = rng.normal(100, 25, (1, *((30,) if layout.dimensions == 3 else ()), 70, 60))
    (whole,) = predict_tiles(model, image.astype(np.float32))
    side = 2 * max(network.halo) + 10
    tiles = list(predict_tiles(model, image.astype(np.float32), check_tile(model, side)))
    assert len(tiles) > 1
    for tile in tiles:
        expected = whole.probabilities[:, *tile.place]
        # A rounded feature may lie on the other side of a threshold.
        assert (np.abs(tile.probabilities - expected) > 1e-4).mean() < 1e-3


def test_a_training_repeats_itself_and_depends_on_the_seed(job, images):
    leaves = [train_classifier(job(seed), images()).network.forest.leaves for seed in (1, 1, 2)]
    assert torch.equal(leaves[0], leaves[1])
    assert not torch.equal(leaves[0], leaves[2])


def test_a_model_is_read_as_it_was_written(job, images, tmp_path):
    model = train_classifier(job(), images())
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    for field in ("method", "recipe", "normalisation", "threshold", "layout"):
        assert getattr(loaded, field) == getattr(model, field)
    image = np.asarray(open_image(tmp_path / "d.tif"))
    before, after = (predict_probabilities(each, image) for each in (model, loaded))
    assert np.array_equal(before, after)


def test_samples_are_of_annotated_pixels_with_their_classes(images, tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_training, "SAMPLES", 50)
    images()
    classifier = filters.PixelClassifier(Layout())
    normalisation = Normalisation((100.0,), (20.0,))
    features, classes, weights = pixel_training._draw_samples(
        classifier, tmp_path / "a.tif", tmp_path / "masks/a.tif", normalisation, seed=0
    )
    image = np.asarray(open_image(tmp_path / "a.tif"))
    codes = encode_classes(torch.from_numpy(np.array(open_labels(tmp_path / "masks/a.tif"))))
    counts = [int((codes == kind).sum()) for kind in range(3)]
    assert np.bincount(classes).tolist() == [min(count, 50) for count in counts]
    assert [weights[classes == kind].sum() for kind in range(3)] == pytest.approx(counts)
    all_features = classifier.features(torch.from_numpy((image - 100) / np.float32(20))[None])[0]
    by_pixel = {
        tuple(each): int(code)
        for each, code in zip(all_features.flatten(1).T.tolist(), codes.flatten(), strict=True)
    }
    assert [by_pixel[tuple(each)] for each in features.tolist()] == classes.tolist()


def test_features_of_samples_do_not_depend_on_tiles(images, tmp_path, monkeypatch):
    images()
    classifier = filters.PixelClassifier(Layout())
    image = open_image(tmp_path / "a.tif")
    at = np.stack([np.arange(48), np.arange(48)[::-1]])
    arguments = classifier, image, at, Normalisation((100.0,), (20.0,))
    whole = pixel_training._features_at(*arguments)
    monkeypatch.setattr(pixel_training, "tile_shape", lambda *_: (11, 13))
    assert pixel_training._features_at(*arguments) == pytest.approx(whole, abs=1e-5)


def test_cross_validated_images_are_predicted_without_their_masks(job, images):
    model = train_classifier(job(), images(masked="abc", folds=[["a"], ["b", "c"]]))
    assert list(model.held_out) == ["a", "b", "c"]
    assert model.held_out["b"] is model.held_out["c"]
    forests = [each.network.forest.leaves for each in (model, *model.held_out.values())]
    assert not torch.equal(forests[0], forests[1])
    assert not torch.equal(forests[1], forests[2])
    assert model.held_out["a"].threshold == model.threshold


def test_without_an_annotated_object_for_the_threshold(job, images):
    with pytest.raises(InputError, match="no validation image of dataset 'blobs' has an annotated"):
        train_classifier(job(), images(empty="d"))


def test_volumes_and_channels(job, tmp_path, make_blobs):
    image, labels = make_blobs(48, seed=0)
    volume = np.stack([np.stack([image + k, image - k]) for k in range(5)], axis=1)  # (C, Z, Y, X)
    known = Metadata("CZYX", {"Z": 2.0, "Y": 0.5, "X": 0.5})
    write_array(tmp_path / "a.tif", volume, known)
    write_array(tmp_path / "m.tif", np.stack([labels] * 5), known.only("ZYX"))
    files = [tmp_path / "a.tif"], [tmp_path / "m.tif"]
    for planes in (False, True):
        model = train_classifier(job(planes=planes), TrainingImages(*files, *files))
        assert (model.layout.z_step, model.layout.plane_by_plane) == (4.0, planes)
        assert model.threshold.average_precision > 0.8
        assert predict_probabilities(model, volume).shape == (3, 5, 48, 48)
