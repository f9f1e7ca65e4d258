"""From a method and files to a model, whatever the method is."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.noise import noisy_copy
from denoiseg_flow.data.store import open_image, write_array
from denoiseg_flow.evaluation.grey_levels import trained_on
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import PLANES
from denoiseg_flow.models.model import ClassicalModel, ImageModels, ThresholdModel
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.tiled_prediction import predict_tiles
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training import fitting
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import LOSSES, RunData, fit
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.trainer import Trainer
from denoiseg_flow.training.training_images import find_target, load_bank

LEARNING = {
    "depth": 1, "filters": 8, "patch_size": 32, "epochs": 3, "steps_per_epoch": 20,
    "learning_rate": 0.03,
}  # fmt: skip
CPU = torch.device("cpu")
LEVEL = {"kind": "gaussian", "sigma": 20, "seed": 0}
SUBSETS = {"train": "abcde", "val": "fg", "test": "hi"}
SINGLE = Method("single", target="blind_spot", masking="grid_interpolate", alpha=1, each_image=True)
N2N = Method("n2n", target="second_noisy", alpha=1)
SUPERVISED = Method("supervised", target="clean", alpha=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_blobs):
    """A prepared dataset of nine images, and its noisy images."""
    folder = tmp_path_factory.mktemp("blobs")
    for number, name in enumerate("".join(SUBSETS.values())):
        labels = make_blobs(48, seed=number)[1]
        clean = (100 + 80 * (labels > 0)).astype(np.float32)
        planes = {
            "prepared/masks": labels,
            "prepared/images": clean,
            "prepared/clean": clean,
            "noisy": noisy_copy(clean, LEVEL, "n20", name),
        }
        for kind, plane in planes.items():
            write_array(folder / kind / f"{name}.tif", plane)
    return folder


@pytest.fixture
def split():
    rows = [(name, subset) for subset, names in SUBSETS.items() for name in names]
    table = pd.DataFrame(rows, columns=["image", "subset"]).assign(annotated=1, clean=1)
    table["source"] = table["image"] + ".tif"
    return table.assign(rank=pd.array([1, 2, 3, 4, 5, *[None] * 4], dtype="Int64"))


@pytest.fixture
def make(folder, split, tmp_path, make_recipe):
    """Fit a method, with checkpoints in the folder of the test while it goes on."""

    def make(method, recipe=None, seconds=60, **changes):
        checkpoints = Checkpoints(tmp_path / "checkpoint.pt", seconds)
        recipe = recipe or make_recipe() if method.trained else None
        run = Run("blobs", "n20", method.name, 0, seed=1)
        data = RunData(split, PreparedData(folder / "prepared"), folder / "noisy", LEVEL)
        job = TrainingJob(run, method, recipe, checkpoints, CPU)
        model, history = fit(job, replace(data, **changes))
        checkpoints.remove()
        return model, history

    return make


def planes(folder, kind, names):
    return [open_image(folder / kind / f"{name}.tif")[0] for name in names]


def denoise(model, image):
    (tile,) = predict_tiles(model, image[None])
    return tile.denoised[0]


# Thresholds


@pytest.mark.parametrize("subsets", [{"train", "val", "test"}, {"test"}])
def test_a_threshold_knows_the_images_of_the_study(make, folder, split, subsets):
    known = split[split["subset"].isin(subsets)]
    method = Method("m", segmenter="otsu")
    model, history = make(method, split=known)
    names = known.loc[known["subset"] == ("train" if "train" in subsets else "test"), "image"]
    deviation = np.std(np.concatenate([each.ravel() for each in planes(folder, "noisy", names)]))
    assert replace(model, origin={}) == ThresholdModel(
        method, model.identity, PLANES, (pytest.approx(deviation, rel=1e-5),)
    )
    assert (model.origin["annotated"], model.origin["images"]) == (0, len(names))
    assert (list(history.columns), len(history)) == (LOSSES, 0)


# Classical denoisers


def calibrated(folder, name, values, names, sigma):
    """What calibration by hand yields."""
    clean = planes(folder, "prepared/clean", names)
    return classical.calibrate(name, values, planes(folder, "noisy", names), sigma, clean)


@pytest.mark.parametrize(
    "fields, value, sigma",
    [
        ({"classical": "raw"}, None, None),
        ({"classical": "median", "parameter": 2}, 2, None),
        ({"classical": "nlm", "parameter": 0.8}, 0.8, None),
        ({"classical": "nlm", "parameter": 0.8, "noise_sigma": "known"}, 0.8, 20.0),
    ],
)
def test_a_parameter_that_is_given_is_kept(make, fields, value, sigma):
    method = Method("m", **fields)
    model, history = make(method)
    assert replace(model, origin={}) == ClassicalModel(method, model.identity, value, sigma)
    assert model.identity["method"] == "m"
    assert (list(history.columns), len(history)) == (LOSSES, 0)


@pytest.mark.parametrize(
    ("fields", "subsets"),
    [
        ({"classical": "nlm", "parameter": 0.8}, ["val"]),
        ({"target": "blind_spot", "alpha": 1}, ["train"]),
        ({"target": "clean", "alpha": 1, "network": "autoencoder"}, ["train"]),
    ],
)
def test_a_model_knows_the_grey_levels_that_it_was_made_for(make, folder, split, fields, subsets):
    model, _ = make(Method("m", **fields))
    names = split.loc[split["subset"].isin(subsets), "image"]
    pixels = np.concatenate([each.ravel() for each in planes(folder, "noisy", names)])
    expected = [[pytest.approx(pixels.mean(), 1e-5), pytest.approx(pixels.std(), rel=1e-5)]]
    assert model.origin["grey_levels"] == expected
    assert [each.std for each in trained_on(model)] == [expected[0][1]]


@pytest.mark.parametrize(
    "fields, sigma",
    [
        ({"classical": "donut_median"}, None),
        ({"classical": "median", "parameter": [1, 3]}, None),
        ({"classical": "tv", "parameter": [0.5, 2]}, None),
        ({"classical": "tv", "parameter": [0.5, 2], "noise_sigma": "known"}, 20.0),
    ],
)
def test_a_parameter_is_chosen_on_the_validation_images(make, folder, caplog, fields, sigma):
    """From the candidates that are given, or else the usual ones; and it is said which."""
    method = Method("m", **fields)
    with caplog.at_level(logging.INFO):
        model, history = make(method)
    values = method.parameter or classical.candidates(method.classical)
    expected = calibrated(folder, method.classical, values, SUBSETS["val"], sigma)
    pd.testing.assert_frame_equal(history, expected)
    assert list(history.columns) == LOSSES
    best = classical.best_value(expected)
    assert (model.parameter, model.noise_sigma) == (best, sigma)
    name = expected["parameter"][0]
    assert caplog.messages == [f"{name} {best:g} has the lowest self-supervised loss"]


def test_few_images_are_enough_for_a_parameter(make, folder, monkeypatch):
    monkeypatch.setattr(fitting, "CALIBRATION_IMAGES", 1)
    _, history = make(Method("m", classical="median", parameter=[1, 2]))
    pd.testing.assert_frame_equal(history, calibrated(folder, "median", [1, 2], "f", None))


def test_the_centre_of_an_image_is_enough(make, folder, monkeypatch):
    monkeypatch.setattr(fitting, "CALIBRATION_SIDE", 20)
    _, history = make(Method("m", classical="median", parameter=[1, 2]))
    noisy, clean = (
        [plane[14:34, 14:34] for plane in planes(folder, kind, SUBSETS["val"])]
        for kind in ("noisy", "prepared/clean")
    )
    expected = classical.calibrate("median", [1, 2], noisy, None, clean)
    pd.testing.assert_frame_equal(history, expected)


def test_without_validation_images_it_is_chosen_on_those_for_testing(make, folder, split):
    split["subset"] = split["subset"].replace("val", "unused")
    _, history = make(Method("m", classical="median", parameter=[1, 2]), split=split)
    expected = calibrated(folder, "median", [1, 2], SUBSETS["test"], None)
    pd.testing.assert_frame_equal(history, expected)


def test_a_parameter_is_chosen_without_clean_images(make, tmp_path):
    method = Method("m", classical="median", parameter=[1, 2, 3])
    model, history = make(method)
    again, blind = make(method, prepared=PreparedData(tmp_path))
    assert again.parameter == model.parameter
    assert history["mse"].notna().all() and blind["mse"].isna().all()
    assert blind.drop(columns="mse").equals(history.drop(columns="mse"))


def test_denoised_images_of_a_run_are_calibrated_on(make, folder, tmp_path):
    images = [2 * image for image in planes(folder, "noisy", SUBSETS["val"])]
    for name, image in zip(SUBSETS["val"], images, strict=True):
        write_array(tmp_path / "denoised" / f"{name}.tif", image)
    method = Method("m", input="n2v", classical="median", parameter=[1, 2])
    _, history = make(method, images=tmp_path)
    expected = classical.calibrate("median", [1, 2], images)
    assert history["loss_plain"].equals(expected["loss_plain"])


# A network for each image


def weights(model):
    return model.network.state_dict()


def same(first, second):
    return all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())


@pytest.mark.parametrize("subsets", [["test"], ["val", "test"]])
def test_each_image_gets_a_network_of_its_own(make, folder, subsets):
    model, history = make(SINGLE, own_subsets=subsets)
    assert isinstance(model, ImageModels)
    names = [name for subset in subsets for name in SUBSETS[subset]]
    assert list(model.models) == names
    for name, image in zip(names, planes(folder, "noisy", names), strict=True):
        assert model.models[name].normalisation.mean == pytest.approx((image.mean(),), rel=1e-5)
        assert model.models[name].identity == model.identity | {"image": name}
    assert not same(*list(model.models.values())[:2])
    assert history["step"].tolist() == [2, 4, 6]
    assert history["step"].dtype == int


def test_its_network_depends_on_the_image_alone(make, split):
    both, mean = make(SINGLE, own_subsets=["test"])
    histories = []
    for name in SUBSETS["test"]:
        alone, history = make(SINGLE, own_subsets=["test"], split=split[split["image"] == name])
        assert list(alone.models) == [name]
        assert same(alone.models[name], both.models[name])
        histories.append(history)
    expected = (histories[0] + histories[1]) / 2
    np.testing.assert_allclose(mean.to_numpy(), expected.to_numpy(), rtol=1e-12)
    assert not histories[0]["loss"].equals(histories[1]["loss"])


class Power(BaseException):
    """It went off."""


def test_interrupted_after_the_first_image(make, monkeypatch, tmp_path):
    """The first is not trained again, the second goes on, and nothing is left behind."""
    whole, history = make(SINGLE, own_subsets=["test"])
    train_step, steps = Trainer._train_step, []

    def until_then(self):
        if len(steps) == 6 + 3:  # the first image takes six
            raise Power
        steps.append(self.step)
        return train_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", until_then)
        with pytest.raises(Power):
            make(SINGLE, own_subsets=["test"], seconds=0)
    assert {path.name for path in tmp_path.glob("*.pt")} == {
        "checkpoint_image_h.pt", "checkpoint_image_i.pt",
    }  # fmt: skip

    def watched(self):
        steps.append(self.step)
        return train_step(self)

    monkeypatch.setattr(Trainer, "_train_step", watched)
    resumed, again = make(SINGLE, own_subsets=["test"])
    assert steps == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert again.equals(history)
    assert all(same(whole.models[name], resumed.models[name]) for name in whole.models)
    assert list(tmp_path.iterdir()) == []


def test_one_image_is_enough_to_learn_from(make, folder, make_recipe, split):
    one = split[split["image"] == "h"]
    model, history = make(SINGLE, make_recipe(**LEARNING), own_subsets=["test"], split=one)
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]
    (noisy,), (clean,) = (planes(folder, kind, "h") for kind in ("noisy", "prepared/clean"))
    error = np.mean((denoise(model.for_image("h"), noisy) - clean) ** 2)
    assert error < 0.6 * np.mean((noisy - clean) ** 2)


# Targets


def test_the_target_of_a_name(folder):
    """Nothing, the clean image, or another draw of the noise, as strong and independent."""
    (noisy,), (clean,) = (planes(folder, kind, "a") for kind in ("noisy", "prepared/clean"))
    found = {
        target: find_target(
            Method("m", target=target), PreparedData(folder / "prepared"), "n20", LEVEL
        )
        for target in ("none", "blind_spot", "clean", "second_noisy")
    }
    assert found["none"] is None and found["blind_spot"] is None
    assert np.array_equal(found["clean"].read("a"), clean[None])
    second = found["second_noisy"].read("a")
    assert np.array_equal(second, found["second_noisy"].read("a"))
    first, other = (noisy - clean).ravel(), (second[0] - clean).ravel()
    assert other.std() == pytest.approx(20, rel=0.05)
    assert abs(np.corrcoef(first, other)[0, 1]) < 4 / 48  # four standard errors


def test_the_target_is_the_second_acquisition_if_there_is_one(tmp_path, make_recipe):
    """With more noise of its own if noise is added; exchanged with images as acquired only."""
    prepared = PreparedData(tmp_path)
    rng = np.random.default_rng(0)
    for name in "ab":
        for kind in ("images", "repeats"):
            pixels = rng.integers(0, 200, (2, 48, 48)).astype(np.uint16)
            write_array(tmp_path / kind / f"{name}.tif", pixels, Metadata("CYX"))
    second = open_image(prepared.repeats("a"))
    target = find_target(N2N, prepared, "n0", {"kind": "none"})
    assert target.exchangeable and np.array_equal(target.read("a"), second)
    noisy = find_target(N2N, prepared, "n20", LEVEL)
    assert noisy.exchangeable
    noise = noisy.read("a") - second
    assert noise.std() == pytest.approx(20, rel=0.05)
    first = noisy_copy(open_image(prepared.image("a")), LEVEL, "n20", "a")
    added = first - open_image(prepared.image("a"))
    assert abs(np.corrcoef(added.ravel(), noise.ravel())[0, 1]) < 4 / np.sqrt(noise.size)
    again = replace(N2N, input="median")
    assert not find_target(again, prepared, "n0", {"kind": "none"}).exchangeable
    bank = load_bank(
        [prepared.image("a")], [None], make_recipe(), replace(PLANES, channels=2), CPU, target
    )
    assert bank.exchangeable and np.array_equal(bank.targets.numpy().ravel(), second.ravel())
    write_array(tmp_path / "repeats/b.tif", np.stack([second, second[::-1]]), Metadata("TCYX"))
    assert [target.count(name) for name in "ab"] == [1, 2] and len(target.read("b")) == 4
    both = [prepared.image(name) for name in "ab"]
    layout = replace(PLANES, channels=2)
    bank = load_bank(both, [None, None], make_recipe(), layout, CPU, target)
    assert bank.n_targets.tolist() == [1, 2]
    expected = np.concatenate([each.reshape(2, -1) for each in (second, second, second[::-1])], 1)
    assert np.array_equal(bank.targets.numpy(), expected)
    added = noisy.read("b").reshape(2, -1) - np.stack([second, second[::-1]]).reshape(2, -1)
    assert abs(np.corrcoef(added)[0, 1]) < 4 / np.sqrt(added.size / 2)
    prepared.repeats("b").unlink()
    assert not find_target(N2N, prepared, "n20", LEVEL).exchangeable


def test_pairs_of_volumes_of_two_channels(tmp_path, make_recipe, split):
    """A network learns the field that both acquisitions show, each channel on its own scale."""
    rng = np.random.default_rng(0)
    field = np.zeros((2, 6, 40, 40), np.float32)
    field[0, 2:5, 10:30, 10:30], field[1, 1:4, 15:25, 5:35] = 100, 1000
    strength = np.float32([20, 200]).reshape(2, 1, 1, 1)
    metadata = Metadata("CZYX", {"Z": 1.0, "Y": 1.0, "X": 1.0}, ("DAPI", "GFP"))
    for name in "abfh":
        for kind in ("images", "repeats"):
            noisy = field + strength * rng.standard_normal(field.shape, np.float32)
            write_array(tmp_path / kind / f"{name}.tif", noisy, metadata)
    recipe = make_recipe(**LEARNING, patch_depth=4)
    job = TrainingJob(
        Run("cells", "n0", "n2n", 0, seed=1), N2N, recipe, Checkpoints(tmp_path / "c.pt", 60), CPU
    )
    known = split[split["image"].isin(list("abfh"))]
    data = RunData(known, PreparedData(tmp_path), tmp_path / "images", {"kind": "none"})
    model, _ = fit(job, data)
    noisy = open_image(tmp_path / "images/h.tif")
    (tile,) = predict_tiles(model, noisy)
    for denoised, acquired, truth in zip(tile.denoised, noisy, field, strict=True):
        assert np.mean((denoised - truth) ** 2) < 0.5 * np.mean((acquired - truth) ** 2)


def test_targets_lie_on_their_images(folder, make_recipe):
    paths = [folder / "noisy" / f"{name}.tif" for name in "ba"]
    target = find_target(SUPERVISED, PreparedData(folder / "prepared"), "n20", None)
    bank = load_bank(paths, [None, None], make_recipe(), PLANES, CPU, target)
    expected = np.concatenate([plane.ravel() for plane in planes(folder, "prepared/clean", "ba")])
    assert np.array_equal(bank.targets[0].numpy(), expected)
    assert load_bank(paths, [None, None], make_recipe(), PLANES, CPU).targets is None


@pytest.mark.parametrize("method", [N2N, SUPERVISED], ids=lambda method: method.name)
def test_learns_from_its_target(make, folder, make_recipe, method):
    """A network that only copied its input would keep all of the noise, of variance 400."""
    model, history = make(method, make_recipe(**LEARNING))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] / 2
    assert (history["loss"] == history["loss_denoise"]).all()
    names = SUBSETS["test"]
    pairs = zip(
        planes(folder, "noisy", names), planes(folder, "prepared/clean", names), strict=True
    )
    for noisy, clean in pairs:
        assert np.mean((noisy - clean) ** 2) == pytest.approx(400, rel=0.1)
        assert np.mean((denoise(model, noisy) - clean) ** 2) < 120
    # What cannot be foreseen of the target remains: noise of the second copy, or nothing.
    unforeseen = 400 / model.normalisation.std[0] ** 2
    left = history["val_loss"].iloc[-1]
    assert left > 0.9 * unforeseen if method is N2N else left < 0.3 * unforeseen


def test_the_clean_images_decide(make, folder, make_recipe, tmp_path):
    """Taught negatives, it yields negatives, of training and validation images alike."""
    for name in SUBSETS["train"] + SUBSETS["val"]:
        (clean,) = planes(folder, "prepared/clean", name)
        write_array(tmp_path / "clean" / f"{name}.tif", 280 - clean)
    model, history = make(SUPERVISED, make_recipe(**LEARNING), prepared=PreparedData(tmp_path))
    (noisy,), (clean,) = (planes(folder, kind, "h") for kind in ("noisy", "prepared/clean"))
    assert np.corrcoef(denoise(model, noisy).ravel(), clean.ravel())[0, 1] < -0.8
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]


def test_the_autoencoder_starts_at_the_mean_of_the_clean_images(make, folder, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self, *_, **__: self.network.eval())
    model, _ = make(Method("dae", target="clean", network="autoencoder", alpha=1))
    mean = np.mean([planes(folder, "prepared/clean", name)[0] for name in SUBSETS["train"]])
    ((low, extent),) = model.normalisation.channels()
    scaled = (mean - low) / extent
    bias = model.network.layers[-1].bias[0].item()
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(scaled, abs=1e-6)


def test_the_autoencoder_stays_within_the_clean_grey_levels(make, folder, make_recipe):
    """It is scaled by their range, 100 to 180, and not by that of the noisy images."""
    method = Method("dae", target="clean", network="autoencoder", alpha=1)
    model, _ = make(method, make_recipe(filters=4, epochs=3, steps_per_epoch=20))
    assert model.normalisation.channels() == [(100, 80)]
    (noisy,) = planes(folder, "noisy", "h")
    denoised = denoise(model, noisy)
    assert noisy.min() < 60 and noisy.max() > 220
    assert denoised.min() >= 100 and denoised.max() <= 180


# Warm starts


def test_starts_from_the_weights_of_a_file(make, tmp_path, monkeypatch):
    init, _ = make(N2N)
    save_model(init, tmp_path / "n2n" / "model.pt")
    monkeypatch.setattr(Trainer, "run", lambda self, *_, **__: self.network.eval())
    n2v = Method("n2v", target="blind_spot", alpha=1, init="n2n")
    warm, _ = make(n2v, init=tmp_path / "n2n" / "model.pt")
    cold, _ = make(n2v)
    assert same(init, warm) and not same(init, cold)
