"""Trainings that start from a model file or a package."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refusal

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import open_image, write_array
from denoiseg_flow.evaluation.grey_levels import trained_on
from denoiseg_flow.methods.definition import WITH_ENCODER, Method
from denoiseg_flow.methods.networks import NETWORKS, build_network
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.tiled_prediction import predict_tiles
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import batch_norm
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import RunData, fit
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.trainer import Trainer

CPU = torch.device("cpu")
BASELINE = Method("baseline")
ORIGIN = {"images": 9, "grey_levels": [[120.0, 40.0]]}


@pytest.fixture
def new(tmp_path):
    return Method("new", init=str(tmp_path / "a.pt"))


@pytest.fixture
def joint(new):
    return replace(new, target="blind_spot", alpha=0.5)


@pytest.fixture
def initial(tmp_path, make_model):
    """Write a model; return it."""

    def write(**how):
        model = make_model(**({"method": BASELINE} | how))
        model.origin = dict(ORIGIN)
        save_model(model, tmp_path / "a.pt")
        return model

    return write


@pytest.fixture
def folder(tmp_path, make_blobs):
    """A prepared dataset of six images."""
    for number, name in enumerate("abcdef"):
        image, labels = make_blobs(48, seed=number, sigma=20.0)
        write_array(tmp_path / f"images/{name}.tif", image)
        write_array(tmp_path / f"masks/{name}.tif", labels)
    return tmp_path


def with_axes(folder, axes, change):
    """Change the images of a dataset to ones with these axes."""
    for path in (folder / "images").iterdir():
        image = change(open_image(path)[0])
        write_array(path, image, Metadata(axes, {axis: 1.0 for axis in axes if axis != "C"}))


@pytest.fixture
def make(folder, make_recipe, monkeypatch):
    monkeypatch.setattr(batch_norm, "BATCHES", 5)

    def make(method, n_annotated=2, annotated=6, seconds=60, **changes):
        table = pd.DataFrame({"image": list("abcdef"), "subset": ["train"] * 4 + ["val"] * 2})
        shown = [number < annotated for number in (0, 1, 4, 5, 2, 3)]
        table = table.assign(annotated=np.array(shown, int), source=table["image"] + ".tif")
        table["rank"] = pd.array([1, 2, 3, 4, None, None], dtype="Int64")
        checkpoints = Checkpoints(folder / "checkpoint.pt", seconds)
        run = Run("blobs", "n20", method.name, n_annotated, seed=1)
        job = TrainingJob(run, method, make_recipe(**changes), checkpoints, CPU)
        trained = fit(job, RunData(table, PreparedData(folder), folder / "images"))
        checkpoints.remove()
        return trained

    return make


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return [torch.equal(value, kept) for value, kept in pairs]


def predictions(model, image):
    (tile,) = predict_tiles(model, image)
    return tile


def test_training_starts_from_the_weights_of_the_file(make, initial, new, monkeypatch):
    model, starts = initial(), []
    start_from = Trainer.start_from

    def note(self, weights):
        start_from(self, weights)
        starts.append(same_weights(self.network, model.network))

    monkeypatch.setattr(Trainer, "start_from", note)
    trained, history = make(new)
    assert starts and all(starts[0])
    assert not any(same_weights(trained.network.head, model.network.head))
    assert len(history) == 3
    assert trained.normalisation != model.normalisation
    assert trained.threshold.n_images == 2
    known = trained.origin["init"]
    assert (known["file"], known["dataset"], known["method"]) == (new.init, "nuclei", "baseline")
    assert (trained.origin["images"], trained.origin["annotated"]) == (4, 2)


def test_another_file_starts_another_training(make, initial, new, folder):
    model = initial()
    first, _ = make(new)
    torch.manual_seed(5)
    model.network = build_network("unet", 1, 2).eval()
    save_model(model, folder / "a.pt")
    second, _ = make(new)
    assert first.origin["init"]["sha256"] != second.origin["init"]["sha256"]
    assert not all(same_weights(first.network, second.network))


@pytest.mark.parametrize("annotated", [6, 0])
def test_without_annotated_images_it_is_the_model_itself(make, initial, new, folder, annotated):
    """Whether validation images are annotated or not."""
    model = initial()
    trained, history = make(new, n_annotated=0, annotated=annotated)
    assert history.empty
    image = open_image(folder / "images/a.tif")
    before, after = (predictions(each, image) for each in (model, trained))
    assert np.array_equal(before.probabilities, after.probabilities)
    assert trained.threshold == model.threshold
    assert {key: trained.origin[key] for key in ORIGIN} == ORIGIN
    save_model(trained, folder / "new.pt")
    assert trained_on(load_model(folder / "new.pt"))[0].mean == 120


def test_the_model_itself_reads_images_of_its_own_size(make, initial, new, folder):
    model = initial(layout=Layout(downscale=2))
    trained, _ = make(new, n_annotated=0)
    assert trained.layout == model.layout
    image = open_image(folder / "images/a.tif")
    before, after = (predictions(each, image) for each in (model, trained))
    assert np.array_equal(before.probabilities, after.probabilities)
    fitted, _ = make(new, downscale="auto")
    assert fitted.layout == model.layout
    assert make(new)[0].layout.downscale == 1


def test_the_model_itself_for_each_plane_of_volumes(make, initial, new, folder):
    model = initial()
    expected = predictions(model, open_image(folder / "images/a.tif")).probabilities
    with_axes(folder, "ZYX", lambda image: np.stack([image, image[::-1]]))
    trained, _ = make(replace(new, planes=True), n_annotated=0, annotated=0)
    assert trained.layout.plane_by_plane
    found = predictions(trained, open_image(folder / "images/a.tif")).probabilities
    assert np.allclose(found[:, 0], expected, atol=1e-5)


def test_it_warns_of_images_with_other_grey_levels(make, initial, new, folder, caplog):
    initial()
    with caplog.at_level(logging.WARNING):
        make(new, n_annotated=0)
        assert not caplog.records
        for path in (folder / "images").iterdir():
            write_array(path, open_image(path)[0] * 100)
        make(new, n_annotated=0)
    assert [record.message.split(" of ")[0] for record in caplog.records] == ["grey levels"]


def test_a_model_with_another_way_to_segment_needs_annotated_images(make, initial, new):
    initial()
    assert "no validation image of dataset 'blobs' has an annotated object" in refusal(
        make, new, n_annotated=0, annotated=0, instances="watershed"
    )


def test_joint_methods_need_annotated_images(make, initial, joint):
    initial()
    assert "no validation image of dataset 'blobs' has an annotated object" in refusal(
        make, joint, n_annotated=0, annotated=0
    )


def test_without_annotated_validation_images_the_threshold_is_kept(make, initial, new):
    model = initial()
    trained, _ = make(new, annotated=2)
    assert trained.threshold == model.threshold
    assert not all(same_weights(trained.network, model.network))


@pytest.mark.parametrize("n_annotated", [0, 2])
def test_a_model_of_one_channel_for_several(make, initial, new, folder, n_annotated):
    model = initial()
    with_axes(folder, "CYX", lambda image: np.stack([image, image[::-1]]))
    trained, history = make(new, n_annotated=n_annotated)
    assert (trained.layout.channels, len(history)) == (2, 3 if n_annotated else 0)
    assert len(trained.normalisation.mean) == 2
    own, other = model.network.state_dict(), trained.network.state_dict()
    first = "encoder.0.0.0.weight"
    assert torch.equal(other[first][:, :1], own[first] / 2) == (n_annotated == 0)
    image = open_image(folder / "images/a.tif")
    assert predictions(trained, image).probabilities.shape == (3, 48, 48)


def test_a_model_without_distance(make, initial, new):
    initial()
    trained, _ = make(new, instances="distance")
    assert trained.n_maps == trained.network.head.weight.shape[0] - 1 == 4


def test_images_of_other_dimensions_or_channels_are_refused(make, initial, new, folder):
    initial(layout=Layout(3, patch_depth=4, z_factors=(2,)))
    assert "a network for 3D images, but dataset 'blobs' is 2D" in refusal(make, new)
    initial(layout=Layout(channels=3))
    with_axes(folder, "CYX", lambda image: np.stack([image, image]))
    assert "a network for 3 channels, but dataset 'blobs' has 2" in refusal(make, new)


# Frozen layers


def test_which_networks_have_an_encoder():
    for layout in (Layout(), Layout(3, patch_depth=1, plane_by_plane=True)):
        found = [
            name for name in NETWORKS if build_network(name, 1, 2, layout=layout).encoder_parts()
        ]
        assert found == list(WITH_ENCODER)


def encoder(model):
    parts = model.network.encoder_parts()
    return [value for part in parts for value in part.state_dict().values()]


@pytest.mark.parametrize("freeze_batch_norm", [0, 0.5, 1])
@pytest.mark.parametrize("pseudo_labels", [0, 0.3])
def test_a_frozen_encoder_stays_as_it_is(make, initial, joint, freeze_batch_norm, pseudo_labels):
    model = initial(depth=2)
    how = {"depth": 2, "freeze_batch_norm": freeze_batch_norm, "pseudo_labels": pseudo_labels}
    trained, _ = make(joint, freeze="encoder", **how)
    pairs = list(zip(encoder(model), encoder(trained), strict=True))
    assert len(pairs) == 3 * 2 * 6
    assert all(torch.equal(before, after) for before, after in pairs)
    decoder = zip(
        model.network.decoder.parameters(), trained.network.decoder.parameters(), strict=True
    )
    assert not any(torch.equal(before, after) for before, after in decoder)
    free, _ = make(joint, **how)
    assert not any(map(torch.equal, encoder(model)[::6], encoder(free)[::6]))


def test_a_network_that_starts_at_random_is_trained_as_a_whole(make):
    frozen, free = (make(BASELINE, freeze=how)[0] for how in ("encoder", None))
    assert all(same_weights(frozen.network, free.network))


def test_a_resumed_training_keeps_its_frozen_encoder(make, initial, joint, monkeypatch, caplog):
    initial()
    whole, _ = make(joint, freeze="encoder")
    train_step = Trainer._train_step

    def stop_at_4(self):
        if self.step == 4:
            raise KeyboardInterrupt
        train_step(self)

    monkeypatch.setattr(Trainer, "_train_step", stop_at_4)
    with pytest.raises(KeyboardInterrupt):
        make(joint, freeze="encoder", seconds=0)
    monkeypatch.setattr(Trainer, "_train_step", train_step)
    with caplog.at_level(logging.INFO):
        resumed, _ = make(joint, freeze="encoder")
    assert "checkpoint.pt at step 4" in caplog.text
    assert all(same_weights(whole.network, resumed.network))
