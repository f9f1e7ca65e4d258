"""Models as the start of other networks: read from files, and adapted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from refusals import refusal

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.initial_model import ARCHITECTURE
from denoiseg_flow.methods.networks import NETWORKS, build_network
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.initial_model import adapted_weights, load_initial_model
from denoiseg_flow.models.model_file import save_model

NEW = Method("new", init="a.pt")
VOLUMES = Layout(3, patch_depth=4, z_factors=(2,))


def adapted(model, layout=None, maps=3):
    """A new network of the same kind that starts from a model."""
    layout, own = layout or model.layout, model.method
    torch.manual_seed(1)
    network = build_network(
        own.network, model.recipe.depth, model.recipe.filters, own.mask_channel, layout, maps
    )
    network.load_state_dict(adapted_weights(model, network, layout.channels))
    return network.eval()


def outputs(network, image):
    with torch.no_grad():
        return network(image)


@pytest.fixture
def image():
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", [Layout(), Layout(channels=2), VOLUMES])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_network_keeps_its_weights(make_model, network, layout):
    model = make_model(replace(NEW, network=network, target="blind_spot", alpha=1), layout=layout)
    before, after = (each.state_dict() for each in (model.network, adapted(model)))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("mask_channel", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_several_equal_channels_are_read_like_one(make_model, image, network, mask_channel):
    method = replace(NEW, network=network, mask_channel=mask_channel, target="blind_spot", alpha=1)
    model = make_model(method)
    several = adapted(model, Layout(channels=3))
    mask = [(image > 1).float()] * mask_channel
    single = outputs(model.network, torch.cat([image, *mask], dim=1))
    found = outputs(several, torch.cat([each.expand(-1, 3, -1, -1) for each in (image, *mask)], 1))
    assert torch.allclose(found[:, 3:], single[:, 1:], atol=1e-5)
    for channel in range(3):
        assert torch.allclose(found[:, channel], single[:, 0], atol=1e-5)


def test_one_channel_is_read_like_several_equal_ones(make_model, image):
    model = make_model(layout=Layout(channels=2))
    single = outputs(adapted(model, Layout()), image)
    found = outputs(model.network, image.expand(-1, 2, -1, -1))
    assert torch.allclose(single[:, 1:], found[:, 2:], atol=1e-5)
    assert torch.allclose(single[:, 0], found[:, :2].mean(dim=1), atol=1e-5)


def test_a_missing_distance_starts_from_random_weights(make_model, image):
    model = make_model()
    found = adapted(model, maps=4)
    assert torch.equal(outputs(found, image)[:, :4], outputs(model.network, image))
    torch.manual_seed(1)
    fresh = build_network("unet", 1, 2, maps=4)
    assert torch.equal(found.head.weight[4], fresh.head.weight[4])


def test_a_distance_that_is_not_asked_for_is_left_out(make_model, image):
    model = make_model()
    torch.manual_seed(0)
    model.network = build_network("unet", 1, 2, maps=4).eval()
    found = outputs(adapted(model), image)
    assert torch.equal(found, outputs(model.network, image)[:, :4])


def test_planes_of_volumes_have_the_network_of_planes(make_model, image):
    apart = Layout(3, patch_depth=1, plane_by_plane=True)
    model = make_model()
    stacked = adapted(model, apart)
    expected = outputs(model.network, image)
    assert torch.equal(outputs(stacked, image[:, :, None])[:, :, 0], expected)
    model.network, model.layout = stacked, apart
    assert torch.equal(outputs(adapted(model, Layout()), image), expected)


def test_images_of_reduced_size_have_the_network_of_the_others(make_model, image):
    model = make_model(layout=Layout(downscale=2))
    expected = outputs(model.network.core, image)
    assert torch.equal(outputs(adapted(model, Layout()), image), expected)


# Files


def load(path, recipe, method=NEW):
    return load_initial_model(method, recipe, path)


def test_the_origin_of_a_model_file(tmp_path, make_model):
    model = make_model()
    model.held_out = {"a": make_model()}
    model.origin = {"init": {"file": "older.pt"}}
    save_model(model, tmp_path / "a.pt")
    found, origin = load(tmp_path / "a.pt", model.recipe)
    assert torch.equal(found.network.head.weight, model.network.head.weight)
    assert (found.threshold, found.held_out) == (model.threshold, {})
    assert origin.pop("sha256")
    assert origin == {
        "file": str(tmp_path / "a.pt"), **model.identity, "init": {"file": "older.pt"},
    }  # fmt: skip
    model = make_model(replace(model.method, init="simulated_objects"))
    save_model(model, tmp_path / "a.pt")
    assert load(tmp_path / "a.pt", model.recipe)[1]["init"] == "simulated_objects"


def test_another_network_is_refused(tmp_path, make_model, make_recipe):
    save_model(make_model(), tmp_path / "a.pt")
    message = refusal(load, tmp_path / "a.pt", make_recipe(depth=2))
    assert "a network with depth 1 and 2 filters, but the recipe of new has depth 2" in message


def state_dict(folder, network, **kwargs):
    """Write a package with a state dict."""
    folder.mkdir()
    torch.save(network.state_dict(), folder / "weights.pt")
    known = {"name": "unet", "depth": 1, "filters": 2} | kwargs
    weights = {"source": "weights.pt", "architecture": {**ARCHITECTURE, "kwargs": known}}
    told = {"type": "model", "weights": {"pytorch_state_dict": weights}}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(told))
    return folder


@pytest.mark.parametrize("maps", [3, 4])
def test_a_state_dict_of_our_network(tmp_path, make_recipe, maps, image):
    network = build_network("unet", 1, 2, maps=maps).eval()
    folder = state_dict(tmp_path / "package", network, maps=maps)
    model, origin = load(folder, make_recipe())
    assert set(origin) == {"file", "sha256"}
    assert model.threshold is None
    assert model.n_maps == maps
    expected = outputs(network, image)
    assert np.array_equal(outputs(model.network, image), expected)
    assert torch.equal(outputs(adapted(model, maps=maps), image), expected)


def test_the_state_dict_of_another_network_is_refused(tmp_path, make_recipe):
    for number, network in enumerate((torch.nn.Linear(2, 2), build_network("unet", 1, 4))):
        folder = state_dict(tmp_path / str(number), network)
        message = refusal(load, folder, make_recipe())
        assert "whose state dict is not that of its architecture (" in message
