"""A model and everything needed to use it, in one file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from refusals import refusal
from torch import nn

from denoiseg_flow import __version__
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks import NETWORKS, Magnified, PlaneByPlane, Reduced
from denoiseg_flow.methods.networks.layout import PLANES, Layout
from denoiseg_flow.models import model as model_module
from denoiseg_flow.models import model_file, tensor_file
from denoiseg_flow.models.model import (
    ClassicalModel,
    ImageModels,
    ThresholdModel,
    new_network,
    summary,
)
from denoiseg_flow.models.model_file import FORMAT, SINCE, describe_model, load_model, save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.tiled_prediction import predict_tiles


@pytest.fixture
def model(make_model):
    return make_model()


def predictions(model, image):
    (tile,) = predict_tiles(model, image)
    return tile


def test_round_trip(model, tmp_path):
    path = tmp_path / "model.pt"
    save_model(model, path)
    loaded = load_model(path)
    for field in ("method", "recipe", "identity", "normalisation", "threshold"):
        assert getattr(loaded, field) == getattr(model, field)
    image = np.random.default_rng(0).normal(100, 25, (1, 23, 31)).astype(np.float32)
    before, after = predictions(model, image), predictions(loaded, image)
    assert np.array_equal(before.denoised, after.denoised)
    assert np.array_equal(before.probabilities, after.probabilities)
    assert not loaded.network.training
    content = tensor_file.load(path)
    assert (content["format"], content["software"]) == (FORMAT, f"denoiseg-flow {__version__}")


@pytest.mark.parametrize("mask_channel", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_round_trip_of_every_network(make_model, tmp_path, network, mask_channel):
    method = Method(
        "m", target="blind_spot", masking="grid_zero", network=network, mask_channel=mask_channel,
        alpha=1,
    )  # fmt: skip
    model = make_model(method)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert type(loaded.network) is NETWORKS[network]
    image = np.random.default_rng(0).normal(100, 25, (1, 9, 14)).astype(np.float32)
    before, after = predictions(model, image), predictions(loaded, image)
    assert np.array_equal(before.j_invariant, after.j_invariant)


LAYOUTS = {
    "channels": Layout(channels=3),
    "volumes": Layout(3, patch_depth=4, z_factors=(2, 1)),
    "volumes_of_channels": Layout(3, channels=2, patch_depth=5, z_factors=(1,)),
    "plane_by_plane": Layout(3, channels=2, patch_depth=5, plane_by_plane=True),
    "reduced": Layout(downscale=3),
    "magnified": Layout(downscale=0.5),
}
WRAPPERS = {"plane_by_plane": PlaneByPlane, "reduced": Reduced, "magnified": Magnified}


@pytest.fixture
def make_model_of(make_model):
    """Make a model for another layout, with statistics and normalisations of its channels."""

    def make(method, layout):
        model = make_model(method)
        recipe = replace(model.recipe, depth=2)
        torch.manual_seed(1)
        network = new_network(method, recipe, layout)
        channels = layout.channels * (1 + method.mask_channel)
        network.train()(torch.randn(4, channels, *layout.patch_shape(int(16 * layout.downscale))))
        values = [(100.0 + n, 25.0 - n) for n in range(layout.channels)]
        scale = Normalisation.of_channels(values)
        return replace(
            model, recipe=recipe, network=network.eval(), layout=layout, normalisation=scale
        )

    return make


def image_of(layout):
    shape = (layout.channels, *layout.patch_shape(13))
    return np.random.default_rng(0).normal(100, 25, shape).astype(np.float32)


@pytest.mark.parametrize(
    "network, kind",
    [
        *(("unet", kind) for kind in LAYOUTS),
        *((network, "volumes_of_channels") for network in NETWORKS if network != "unet"),
    ],
)
def test_round_trip_of_every_layout(make_model_of, tmp_path, network, kind):
    """Every layout with one network, and every network with the fullest layout."""
    layout = LAYOUTS[kind]
    method = Method(
        "m", target="blind_spot", masking="grid_zero", network=network, mask_channel=True, alpha=0.5
    )
    model = make_model_of(method, layout)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.layout == layout
    assert loaded.normalisation == model.normalisation
    assert type(loaded.network) is WRAPPERS.get(kind, NETWORKS[network])
    image = image_of(layout)
    before, after = predictions(model, image), predictions(loaded, image)
    assert before.denoised.shape == image.shape
    assert np.array_equal(before.denoised, after.denoised)
    assert np.array_equal(before.j_invariant, after.j_invariant)
    assert np.array_equal(before.probabilities, after.probabilities)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_all_parts_of_a_model_keep_their_layout(make_model_of, tmp_path, layout):
    """The models of single images, and those trained without some images."""
    method = replace(SINGLE, network="dncnn")
    model = make_model_of(method, layout)
    single = ImageModels(method, model.recipe, model.identity, {"a": model})
    save_model(single, tmp_path / "single.pt")
    assert load_model(tmp_path / "single.pt").for_image("a").layout == layout
    joint = make_model_of(Method("joint", target="clean", alpha=0.5), layout)
    joint.held_out = {"a": make_model_of(joint.method, layout)}
    save_model(joint, tmp_path / "joint.pt")
    assert load_model(tmp_path / "joint.pt").for_image("a").layout == layout


def test_models_without_a_layout_are_for_planes(model, tmp_path):
    """As before there were others."""
    path = tmp_path / "model.pt"
    save_model(model, path)
    content = tensor_file.load(path)
    del content["layout"]
    tensor_file.save(content, path)
    assert load_model(path).layout == PLANES


SINGLE = Method("single", target="blind_spot", masking="grid_interpolate", alpha=1, each_image=True)


@pytest.fixture
def singles(make_model):
    """Two networks of one method, for two images."""
    models = {name: make_model(SINGLE) for name in ("a.1", "b")}
    models["b"].normalisation = Normalisation((7.0,), (3.0,))
    with torch.no_grad():
        models["b"].network.head.weight.mul_(2)
    first = models["a.1"]
    return ImageModels(SINGLE, first.recipe, first.identity, models)


def test_round_trip_of_models_of_single_images(singles, tmp_path):
    save_model(singles, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    for field in ("method", "recipe", "identity"):
        assert getattr(loaded, field) == getattr(singles, field)
    assert list(loaded.models) == ["a.1", "b"]
    image = np.random.default_rng(0).normal(100, 25, (1, 9, 14)).astype(np.float32)
    found = []
    for name, model in loaded.models.items():
        before, after = predictions(singles.models[name], image), predictions(model, image)
        assert np.array_equal(before.denoised, after.denoised)
        assert not model.network.training
        found.append(after.denoised)
    assert not np.array_equal(*found)


def test_each_image_has_its_own_model(singles):
    assert singles.for_image("b") is singles.models["b"]
    with pytest.raises(InputError) as caught:
        singles.for_image("c")
    assert str(caught.value) == (
        "method 'single' trains a network for each image, but has none for 'c'; train again with "
        "that image"
    )


def test_other_models_are_for_all_images(model):
    assert model.for_image("a") is model
    classical = ClassicalModel(Method("m", classical="median"), {}, 2, None)
    assert classical.for_image("a") is classical


@pytest.mark.parametrize(
    "fields, value, sigma",
    [
        ({"classical": "raw"}, None, None),
        ({"classical": "median", "parameter": [1, 2]}, 2.0, None),
        ({"classical": "nlm", "parameter": 0.8, "noise_sigma": "known"}, 0.8, 20.0),
    ],
)
def test_round_trip_of_a_classical_denoiser(tmp_path, fields, value, sigma):
    model = ClassicalModel(Method("m", **fields), {"method": "m", "seed": 1}, value, sigma)
    save_model(model, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt") == model


def test_round_trip_of_a_threshold(tmp_path):
    method = Method("m", segmenter="otsu", input="before")
    before = ClassicalModel(Method("before", classical="median"), {"seed": 1}, 2, None)
    layout = Layout(3, channels=2, patch_depth=5, z_step=2.5)
    model = ThresholdModel(method, {"method": "m"}, layout, (3.0, 0.5), before)
    save_model(model, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt") == model
    assert summary(model) == "Denoises and segments volumes with 2 channels."
    assert model.for_image("a") is model
    assert describe_model(tmp_path / "model.pt")["scales"] == [3.0, 0.5]


@pytest.mark.parametrize(
    "change", [{"scales": (1.0,)}, {"scales": (1.0, 0.0)}, {"layout": {"z_step": 0.0}}]
)
def test_values_that_no_threshold_has(tmp_path, change):
    path = tmp_path / "model.pt"
    model = ThresholdModel(Method("m", segmenter="otsu"), {}, Layout(channels=2), (1.0, 2.0))
    save_model(model, path)
    tensor_file.save(tensor_file.load(path) | change, path)
    assert "was not written by denoiseg-flow" in refusal(load_model, path)


def test_without_threshold(make_model, tmp_path):
    model = make_model(Method(name="n2v", target="blind_spot", alpha=1))
    assert model.threshold is None
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.threshold is None
    assert loaded.method == model.method


@pytest.mark.parametrize("kind", ["network", "classical"])
def test_round_trip_with_the_model_whose_images_it_reads(make_model, tmp_path, kind):
    model = make_model(Method("sequential", input="before"))
    median = ClassicalModel(Method("before", classical="median"), {"seed": 1}, 2, None)
    before = Method("before", target="blind_spot", alpha=1, input="median")
    model.input = median if kind == "classical" else make_model(before)
    if kind == "network":
        model.input.input = median
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.method == model.method
    if kind == "classical":
        assert loaded.input == median
        return
    assert loaded.input.input == median
    image = np.random.default_rng(0).normal(100, 25, (1, 9, 14)).astype(np.float32)
    pair = (predictions(each.input, image).denoised for each in (model, loaded))
    assert np.array_equal(*pair)


def test_round_trip_with_models_that_were_trained_without_some_images(make_model, tmp_path):
    model, first, second = make_model(), make_model(), make_model()
    for number, other in enumerate((first, second), start=2):
        other.normalisation = Normalisation((7.0,), (number,))
        with torch.no_grad():
            other.network.head.weight.mul_(number)
    model.held_out = {"a": first, "b": second, "c": first}
    model.precision = PrecisionCurve([0.2, 0.8], [0.3, 0.9], [0.1, 0.7], [0.5, 1.0], 40, 3)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert describe_model(tmp_path / "model.pt")["precision"]["n_objects"] == 40
    assert sorted(loaded.held_out) == ["a", "b", "c"]
    assert loaded.for_image("a") is loaded.for_image("c") is loaded.held_out["a"]
    assert loaded.for_image("d") is loaded
    image = np.random.default_rng(0).normal(100, 25, (1, 9, 14)).astype(np.float32)
    for name in "abcd":
        before, after = (predictions(each.for_image(name), image) for each in (model, loaded))
        assert np.array_equal(before.probabilities, after.probabilities)
        assert loaded.for_image(name).threshold == model.threshold
        assert loaded.for_image(name).precision == model.precision


def rewrite(path, **changes):
    content = tensor_file.load(path)
    content |= changes
    tensor_file.save(content, path)


@pytest.mark.parametrize("version", [FORMAT + 1, None])
def test_other_formats_are_refused(model, tmp_path, version):
    path = tmp_path / "model.pt"
    save_model(model, path)
    rewrite(path, format=version)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"model {path} has format {version}, but this version of denoiseg-flow reads format "
        f"{FORMAT}; install the version that wrote it (denoiseg-flow {__version__})"
    )


def test_the_header_tells_all_but_the_weights(make_model, tmp_path):
    """What it is, how it was trained, on what, with which threshold, and what reads it."""
    model = make_model(layout=Layout(3, 2, 4, (1,)))
    model.normalisation = Normalisation((1.0, 2.0), (3.0, 4.0))
    model.input = ClassicalModel(Method("median", classical="median"), {"seed": 1}, 2.0, None)
    model.origin = {"images": 12, "annotated": 4, "axes": "CZYX"}
    save_model(model, tmp_path / "model.pt")
    told = describe_model(tmp_path / "model.pt")
    assert list(told)[:4] == ["format", "software", "readable_by", "summary"]
    assert told["summary"] == "Denoises and segments volumes with 2 channels."
    assert told["readable_by"] == f"denoiseg-flow {SINCE} or newer"
    assert told["threshold"]["value"] == model.threshold.value
    assert (told["origin"], told["identity"]) == (model.origin, model.identity)
    assert told["input"]["method"]["classical"] == "median"
    assert told["normalisation"] == {"mean": [1.0, 2.0], "std": [3.0, 4.0]}
    count = sum(values.numel() for values in model.network.state_dict().values())
    assert told["weights"] == f"{count} numbers"
    assert yaml.safe_load(yaml.safe_dump(told)) == told
    loaded = load_model(tmp_path / "model.pt")
    assert (loaded.layout, loaded.normalisation) == (model.layout, model.normalisation)
    assert loaded.origin == model.origin


def test_summaries(singles, model, make_model):
    assert summary(singles) == "Denoises the 2 images it was trained on."
    assert summary(model) == "Denoises and segments planes."
    assert summary(make_model(Method("baseline"))) == "Segments planes."
    planes = make_model(layout=Layout(3, patch_depth=1, plane_by_plane=True))
    assert summary(planes) == "Denoises and segments volumes plane by plane."
    small = make_model(Method("baseline"), layout=Layout(downscale=2))
    assert summary(small) == "Segments planes at 1/2 of their size."
    classical = ClassicalModel(Method("tv", classical="tv"), {}, 1.0, None)
    assert summary(classical) == "Denoises planes and volumes."


def test_model_of_format_3():
    """Its recipe and run call annotated images "labelled"; it predicts what it did then."""
    folder = Path(__file__).parent
    model = load_model(folder / "model_format3.pt")
    assert describe_model(folder / "model_format3.pt")["format"] == 3
    with np.load(folder / "model_format3.npz") as kept:
        tile = predictions(model, kept["image"][None])
        assert np.abs(tile.denoised - kept["denoised"]).max() < 1e-3
        assert np.abs(tile.probabilities - kept["probabilities"]).max() < 1e-4
    assert (model.threshold.value, model.input.method.name) == (0.35, "median")
    assert set(model.held_out) == {"a"}
    assert model.recipe.loss_normalisation == "annotated_pixels"
    assert model.recipe.annotated_share == 0.5
    assert model.identity["n_annotated"] == model.input.identity["n_annotated"] == 4


def test_names_that_users_chose_stay_in_format_3(tmp_path):
    path = tmp_path / "model.pt"
    content = tensor_file.load(Path(__file__).parent / "model_format3.pt")
    content["identity"]["dataset"] = "labelled_cells"
    tensor_file.save(content, path)
    assert load_model(path).identity["dataset"] == "labelled_cells"


def test_fields_of_later_versions_are_ignored(model, tmp_path):
    path = tmp_path / "model.pt"
    save_model(model, path)
    content = tensor_file.load(path)
    rewrite(path, **{part: content[part] | {"later": 1} for part in ("method", "recipe")})
    loaded = load_model(path)
    assert (loaded.method, loaded.recipe) == (model.method, model.recipe)


def test_damaged_model_is_refused_in_a_sentence(model, tmp_path):
    path = tmp_path / "model.pt"
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path} is damaged or not a file of tensors; delete it and run the workflow again"
    )


def test_a_full_gpu_does_not_speak_against_the_model(model, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    save_model(model, tmp_path / "model.pt")
    monkeypatch.setattr(model_file, "_rebuild", fail)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text"])
def test_tensors_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=r"model\.pt"):
        load_model(path)


@pytest.mark.parametrize("values", [[(30.0, 20.0)], [(30.0, 20.0), (7.0, 3.0), (100.0, 0.5)]])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_channel_is_normalised_by_itself(values, dimensions):
    normalisation = Normalisation.of_channels(values)
    assert normalisation.channels() == values
    mean, std = normalisation.scale(dimensions)
    assert mean.dtype == std.dtype == torch.float32
    assert mean.shape == std.shape == (len(values), *[1] * dimensions)
    assert list(zip(mean.flatten().tolist(), std.flatten().tolist(), strict=True)) == values


def test_files_hold_a_number_for_a_single_channel():
    one, two = (Normalisation.of_channels([(30.0, 20.0), (7.0, 3.0)][:n]) for n in (1, 2))
    assert one.plain() == {"mean": 30.0, "std": 20.0}
    assert two.plain() == {"mean": (30.0, 7.0), "std": (20.0, 3.0)}
    for each in (one, two):
        assert Normalisation.from_plain(**each.plain()) == each
    assert Normalisation.from_plain([30.0, 7.0], [20.0, 3.0]) == two


def test_absurd_sizes_take_no_memory(model, tmp_path, monkeypatch):
    """The sizes in the file are compared with its weights before any network is built."""
    path = tmp_path / "model.pt"
    save_model(model, path)
    content = tensor_file.load(path)
    whole = model_module.build_network

    def build(*arguments):
        assert torch.zeros(1).device.type == "meta" or arguments[1:3] == (1, 2)
        return whole(*arguments)

    monkeypatch.setattr(model_module, "build_network", build)
    for recipe in (
        {"depth": 100},
        {"depth": 10**9},
        {"filters": 10**9},
        {"depth": -1},
        {"filters": 0},
    ):
        tensor_file.save(content | {"recipe": content["recipe"] | recipe}, path)
        with pytest.raises(InputError, match="was not written by denoiseg-flow"):
            load_model(path)
    for layout in (
        {"channels": 10**9},
        {"dimensions": 4},
        {"z_factors": [10**9]},
        {"patch_depth": 0},
    ):
        tensor_file.save(content | {"layout": content["layout"] | layout}, path)
        with pytest.raises(InputError, match="was not written by denoiseg-flow"):
            load_model(path)
    tensor_file.save(content, path)
    load_model(path)


GROUPS = ("confidence", "precision", "lower", "upper")  # of a curve of precision


@pytest.mark.parametrize(
    "change",
    [
        {"method": None},
        {"method": {}},
        {"recipe": []},
        {"method": {"name": "m", "alpha": "much"}},
        {"method": {"name": "m", "network": None}},
        {"weights": {}},
        {"normalisation": {"mean": "much", "std": 1}},
        {"normalisation": {"mean": float("nan"), "std": 1}},
        {"threshold": 3},
        {"precision": 3},
        {"precision": {"confidence": [0.1]}},
        {"precision": {key: [0.1, "x"] for key in GROUPS} | {"n_objects": 20, "n_images": 1}},
        {"input": "n2v"},
        {"held_out": [{}]},
    ],
)
def test_values_that_no_model_has(model, tmp_path, change):
    path = tmp_path / "model.pt"
    save_model(model, path)
    tensor_file.save(tensor_file.load(path) | change, path)
    message = refusal(load_model, path)
    assert str(path) in message and "was not written by denoiseg-flow" in message
    describe_model(path)


@pytest.mark.parametrize("change", [{"parameter": "3"}, {"noise_sigma": float("inf")}])
def test_values_that_no_classical_denoiser_has(tmp_path, change):
    path = tmp_path / "model.pt"
    save_model(ClassicalModel(Method("median", classical="median"), {}, 3.0, None), path)
    tensor_file.save(tensor_file.load(path) | change, path)
    assert "was not written by denoiseg-flow" in refusal(load_model, path)


# The network to predict with


def test_folded_network_is_made_once_and_anew_after_a_change(model, make_model):
    network, image = model.network, torch.randn(1, 1, 8, 8)
    first = model.predictor
    assert first is model.predictor and first is not network
    weights = network.state_dict()
    changes = {
        "in place": lambda: network.head.weight.mul_(2),
        "running statistics": lambda: network.train()(image),
        "loaded": lambda: network.load_state_dict(make_model(filters=2).network.state_dict()),
        "another layer": lambda: setattr(network, "head", nn.Conv2d(2, 4, 1)),
        "another network": lambda: setattr(model, "network", make_model(depth=2).network),
    }
    with torch.no_grad():
        for change in changes.values():
            change()
            changed = model.predictor
            assert changed is not first and changed is model.predictor
            expected = model.network.eval()(image)
            torch.testing.assert_close(changed(image), expected, rtol=1e-4, atol=1e-5)
            first = changed
    assert weights.keys() == network.state_dict().keys()


def test_only_the_network_itself_is_stored(model, tmp_path):
    save_model(model, tmp_path / "before.pt")
    predictions(model, np.zeros((1, 8, 8), np.float32))
    save_model(model, tmp_path / "after.pt")
    stored = [tensor_file.load(tmp_path / name)["weights"] for name in ("before.pt", "after.pt")]
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(stored[0][key], stored[1][key]) for key in stored[0])
    assert replace(model).predictor is not model.predictor
