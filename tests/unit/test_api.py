"""The Python API: as its page says, and with the results of the command line."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import denoiseg_flow
from denoiseg_flow import api, cli
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.store import write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method, as_dict, recipe_from_dict

GREY = np.random.default_rng(0).normal(100, 25, (40, 52)).astype(np.float32)


def test_the_page_works(root, tmp_path, monkeypatch):
    """All examples of the page, one after the other."""
    monkeypatch.chdir(tmp_path)
    page = (root / "docs/reference/python_api.md").read_text()
    names = {}
    for example in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(example, names)
    assert names["prediction"].denoised.shape == (3, 64, 64)
    assert list(names["history"]["step"]) == [20, 40]


def test_everything_public_is_explained(root):
    page = (root / "docs/reference/python_api.md").read_text()
    for name in denoiseg_flow.__all__:
        assert f"`{name}" in page
        assert getattr(denoiseg_flow, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="has no attribute 'segment'"):
        denoiseg_flow.segment  # noqa: B018


def test_the_defaults_are_those_of_the_config(read_config, schema):
    defaults = schema["$defs"]["recipe"]["properties"]
    defaults = {key: spec["default"] for key, spec in defaults.items() if "default" in spec}
    config = read_config()
    assert recipe_from_dict(defaults | config["recipes"]["fast"]) == denoiseg_flow.FAST
    fields = {key: value for key, value in config["methods"]["denoiseg"].items()}
    del fields["published"]
    assert Method("denoiseg", **fields) == denoiseg_flow.DENOISEG


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_predicts_as_the_command_does(make_model, tmp_path, dtype):
    model, image = make_model(), np.clip(GREY, 0, 255).astype(dtype)
    denoiseg_flow.save_model(model, tmp_path / "model.pt")
    write_array(tmp_path / "images/image.tif", image)
    options = ["--out", f"{tmp_path}/out", "--device", "cpu", "--pixel-size", "0.5", "0.5"]
    assert cli.main(["predict", f"{tmp_path}/model.pt", f"{tmp_path}/images", *options]) == 0
    loaded = denoiseg_flow.load_model(tmp_path / "model.pt", device="cpu")
    found = denoiseg_flow.predict(loaded, image, pixel_size=(0.5, 0.5))
    for kind in ("denoised", "labels"):
        assert np.array_equal(getattr(found, kind), read_image(tmp_path / f"out/{kind}/image.tif"))
    expected = pd.read_csv(tmp_path / "out/objects/image.csv")
    pd.testing.assert_frame_equal(found.objects, expected)


def test_axes_come_in_any_order(make_model):
    model = make_model(Method("n2v", target="blind_spot", alpha=1.0))
    stack = np.stack([GREY, GREY + 5])
    first = denoiseg_flow.predict(model, stack, planes=True)
    second = denoiseg_flow.predict(model, stack.transpose(2, 0, 1), axes="XZY", planes=True)
    assert np.array_equal(first.denoised, second.denoised)
    assert first.labels is None and first.objects is None


@pytest.mark.parametrize(("axes", "size"), [("ZYX", 1), ("TZYX", 2), ("TCYX", 2)])
def test_axes_of_length_one_stay(make_model, axes, size):
    planes = np.stack([GREY + 5 * number for number in range(size)])
    shape = (size,) + (1,) * (len(axes) - 3) + GREY.shape
    found = denoiseg_flow.predict(make_model(), planes.reshape(shape), axes=axes, planes=True)
    assert found.denoised.shape == shape
    assert found.labels.shape == tuple(
        length for axis, length in zip(axes, shape, strict=True) if axis != "C"
    )
    alone = [denoiseg_flow.predict(make_model(), plane).denoised for plane in planes]
    assert np.array_equal(found.denoised.reshape(planes.shape), alone)


@pytest.mark.parametrize(
    ("axes", "shape"), [("YX", (4, 5, 6)), ("YY", (4, 5)), ("ZY", (4, 5)), ("YXQ", (4, 5, 6))]
)
def test_axes_that_do_not_fit_are_refused(make_model, axes, shape):
    with pytest.raises(InputError, match=f"axes '{axes}' do not match an image of shape"):
        denoiseg_flow.predict(make_model(), np.zeros(shape), axes=axes)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Method("n2n", target="second_noisy", alpha=1.0), "train it with the workflow"),
        (Method("sequential", input="n2v"), "n2v"),
    ],
)
def test_methods_that_need_more_are_refused(method, reason):
    with pytest.raises(InputError, match=reason):
        denoiseg_flow.train([GREY] * 3, [None] * 3, method)


def test_each_image_needs_its_mask_or_none():
    with pytest.raises(InputError, match="got 2 images and 1 masks"):
        denoiseg_flow.train([GREY, GREY], [None])


def test_trains_without_masks(make_recipe):
    images = [GREY + number for number in range(4)]
    n2v = Method("n2v", target="blind_spot", alpha=1.0)
    recipe = replace(make_recipe(), epochs=1)
    model, history = denoiseg_flow.train(images, [None] * 4, n2v, recipe, device="cpu")
    again, _ = denoiseg_flow.train(images, [None] * 4, n2v, recipe, device="cpu")
    assert as_dict(model.recipe) == as_dict(recipe) and len(history) == 1
    for value, other in zip(model.network.parameters(), again.network.parameters(), strict=True):
        assert value.equal(other)


def test_arrays_in_colour_make_a_model_for_colours(make_recipe):
    """All three colours are predicted together, whatever the place of their axis."""
    colours = GREY[..., None] * np.array([1, 2, 3])
    images = [colours + number for number in range(4)]
    n2v = Method("n2v", target="blind_spot", alpha=1.0)
    recipe = replace(make_recipe(), epochs=1)
    model, _ = denoiseg_flow.train(images, [None] * 4, n2v, recipe, axes="YXS", device="cpu")
    assert model.layout.colour and model.layout.channels == 3
    found = denoiseg_flow.predict(model, colours, axes="YXS").denoised
    assert found.shape == (3, *GREY.shape)
    again = denoiseg_flow.predict(model, colours.transpose(2, 0, 1), axes="SYX").denoised
    assert np.array_equal(found, again)


def test_segments_by_a_threshold_without_masks(make_blobs):
    images = [make_blobs(48, seed)[0] for seed in range(4)]
    otsu = Method("otsu", segmenter="otsu")
    model, history = denoiseg_flow.train(images, [None] * 4, otsu, device="cpu")
    assert history.empty
    image, truth = make_blobs(48, seed=9)
    found = denoiseg_flow.predict(model, image)
    assert found.denoised is None
    assert found.labels.max() == len(found.objects) == truth.max()


def test_training_starts_from_a_model_file(make_model, make_recipe, make_blobs, tmp_path):
    """Without masks, it is that model; with masks, it goes on learning."""
    model, path = make_model(Method("baseline")), tmp_path / "model.pt"
    denoiseg_flow.save_model(model, path)
    images, masks = zip(*(make_blobs(48, seed=number) for number in range(4)), strict=True)
    method = Method("new", init=str(path))
    same, history = denoiseg_flow.train(images, [None] * 4, method, make_recipe(), device="cpu")
    assert history.empty
    labels = [denoiseg_flow.predict(each, images[0]).labels for each in (model, same)]
    assert np.array_equal(*labels)
    trained, history = denoiseg_flow.train(images, masks, method, make_recipe(), device="cpu")
    assert len(history) == 3
    assert trained.origin["init"]["file"] == str(path)
