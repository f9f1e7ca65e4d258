"""A chain of models in TorchScript yields what the models themselves yield."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow.deployment import torchscript
from denoiseg_flow.deployment.torchscript import Axis, axes_of, outputs_of, record_network
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks import NETWORKS
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import chain
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.tiled_prediction import predict_tiles

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.5)
LAYOUTS = {
    "planes": Layout(),
    "volumes": Layout(3, patch_depth=4, z_factors=(1, 2)),
    "channels": Layout(channels=2),
    "both": Layout(3, channels=2, patch_depth=4, z_factors=(2,)),
    "plane by plane": Layout(3, patch_depth=4, plane_by_plane=True),
    "reduced": Layout(downscale=3),
    "magnified": Layout(downscale=0.5),
}
# Every layout with one network, and every network with the simplest and with the fullest layout.
NETWORKS_OF_LAYOUTS = [
    *(("unet", kind) for kind in LAYOUTS),
    *((network, kind) for network in NETWORKS if network != "unet" for kind in ("planes", "both")),
]
DIFFERENT = ["planes", "both", "plane by plane"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Test images that are hardly larger than the networks need."""
    monkeypatch.setattr(torchscript, "TEST_SIDES", {2: (1, 1), 3: (1, 1, 1)})


@pytest.fixture
def model_of(make_model):
    """Make a model for images of a layout, each channel with a scale of its own."""

    def make(kind, method=JOINT, depth=1):
        model = make_model(method, depth=depth, layout=LAYOUTS[kind])
        if model.layout.channels > 1:
            model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
        return model

    return make


@pytest.fixture
def sequential(model_of):
    """Make a segmenter that reads what a denoiser with another network and scale yields."""

    def make(kind):
        n2v2 = Method(name="n2v2", target="blind_spot", alpha=1, network="unet_blurpool")
        last = model_of(kind, Method(name="sequential", input="n2v2", alpha=0), depth=2)
        last.input, scale = model_of(kind, n2v2), last.normalisation
        last.normalisation = Normalisation.of_channels(
            [(0.9 * mean, 0.5 * std) for mean, std in scale.channels()]
        )
        return chain(last)

    return make


def draw(models, longer=0):
    """An image (channel, [z,] y, x), as long as the test image or so many steps longer."""
    sides = [axis.tested + axis.step * longer for axis in axes_of(models)]
    values = np.random.default_rng(0).normal(size=(models[0].layout.channels, *sides))
    scales = models[0].normalisation.channels()
    channels = [std * one + mean for (mean, std), one in zip(scales, values, strict=True)]
    return np.float32(channels)


def recorded(models, path):
    """Record a network, of which no step may be bound to a device."""
    record_network(models, draw(models), path)
    network = torch.jit.load(path)
    steps = str(network.inlined_graph)
    assert ": Device = " not in steps
    assert "value=<Tensor>" not in steps
    return network


def run(network, models, image):
    """The outputs (channel, [z,] y, x) of a recorded network, by name."""
    mean, std = models[0].normalisation.scale(models[0].layout.dimensions)
    with torch.no_grad():
        results = network((torch.from_numpy(image)[None] - mean) / std)
    results = results if isinstance(results, tuple) else (results,)
    return dict(zip(outputs_of(models), (one[0].numpy() for one in results), strict=True))


def tiled(models, image):
    """The same by the models, tile by tile."""
    for model in models:
        denoised = np.empty(image.shape)
        probabilities = np.empty((3, *image.shape[1:]))
        tile = [40] * model.layout.dimensions
        for one in predict_tiles(model, image, tile=tile):
            denoised[:, *one.place] = one.denoised
            probabilities[:, *one.place] = one.probabilities
        image = denoised
    return {"denoised": denoised, "probabilities": probabilities}


def inside(models):
    """Where the borders of an image do not show."""
    return (slice(None), *(slice(axis.halo, -axis.halo or None) for axis in axes_of(models)))


@pytest.mark.parametrize(
    "network, kind, changes",
    [
        *((*pair, {}) for pair in NETWORKS_OF_LAYOUTS),
        *(("unet", kind, {"test_time_augmentation": True}) for kind in DIFFERENT),
        *(("unet", kind, {"multiscale": True}) for kind in DIFFERENT),
    ],
)
def test_equals_the_tiled_prediction_at_any_size(model_of, tmp_path, network, changes, kind):
    model = model_of(kind, replace(JOINT, network=network))
    model.recipe = replace(model.recipe, **changes)
    network = recorded([model], tmp_path / "weights.pt")
    image = draw([model], longer=3)[..., : -axes_of([model])[-1].step]  # no square
    outputs = run(network, [model], image)
    assert list(outputs) == ["denoised", "probabilities"]
    place = inside([model])
    for name, expected in tiled([model], image).items():
        assert outputs[name].shape == expected.shape
        np.testing.assert_allclose(outputs[name][place], expected[place], atol=1e-3, rtol=1e-5)


def test_every_image_of_a_batch(make_model, tmp_path):
    model = make_model()
    network = recorded([model], tmp_path / "weights.pt")
    x = torch.randn(3, 1, 24, 16)
    with torch.no_grad():
        whole = network(x)
        single = network(x[1:2])
    for together, alone in zip(whole, single, strict=True):
        assert len(together) == 3
        torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("kind", DIFFERENT)
def test_chain(sequential, tmp_path, kind):
    models = sequential(kind)
    image, place = draw(models), inside(models)
    outputs = run(recorded(models, tmp_path / "weights.pt"), models, image)
    expected = tiled(models, image)["probabilities"]
    np.testing.assert_allclose(outputs["probabilities"][place], expected[place], atol=1e-4)
    denoised = tiled(models[:1], image)["denoised"]
    np.testing.assert_allclose(outputs["denoised"][place], denoised[place], rtol=1e-5)


def test_axes_of_a_chain(sequential):
    models = sequential("volumes")
    steps, halos = zip(*((axis.step, axis.halo) for axis in axes_of(models)), strict=True)
    assert [axis.name for axis in axes_of(models)] == ["z", "y", "x"]
    assert steps == (2, 4, 4)
    assert halos == tuple(map(sum, zip(*(model.network.halo for model in models), strict=True)))


@pytest.mark.parametrize("kind", DIFFERENT)
def test_mask_channel(model_of, tmp_path, kind):
    method = Method(
        name="n2s", target="blind_spot", masking="grid_zero", mask_channel=True, alpha=1
    )
    model = model_of(kind, method)
    image, place = draw([model]), inside([model])
    network = recorded([model], tmp_path / "weights.pt")
    assert "aten::zeros_like" in str(network.inlined_graph)
    outputs = run(network, [model], image)
    expected = tiled([model], image)["denoised"]
    np.testing.assert_allclose(outputs["denoised"][place], expected[place], rtol=1e-5)


@pytest.mark.parametrize(
    "method, names", [(N2V, ["denoised"]), (BASELINE, ["probabilities"])], ids=["n2v", "baseline"]
)
def test_a_single_output_is_no_tuple(make_model, tmp_path, method, names):
    model = make_model(method)
    assert outputs_of([model]) == names
    network = recorded([model], tmp_path / "weights.pt")
    assert isinstance(network(torch.zeros(1, 1, 16, 16)), torch.Tensor)


def test_a_difference_is_noticed(make_model, tmp_path, monkeypatch):
    model = make_model()
    wrong = replace(model, normalisation=Normalisation((100.0,), (26.0,)))
    monkeypatch.setattr(torchscript, "predict_tiles", lambda _, image: predict_tiles(wrong, image))
    with pytest.raises(RuntimeError, match="differ in their denoised output"):
        record_network([model], draw([model]), tmp_path / "weights.pt")


def test_large_intensities_that_vary_little(make_model, tmp_path):
    model = make_model()
    model.normalisation = Normalisation((60000.0,), (1.0,))
    noisy = 60000 + draw([model]) / 100
    record_network([model], noisy, tmp_path / "weights.pt")


@pytest.mark.parametrize("step, halo, smallest", [(1, 8, 17), (16, 107, 224), (4, 13, 28)])
def test_lengths(step, halo, smallest):
    axis = Axis("y", step, halo)
    assert axis.smallest == smallest
    assert axis.tested > smallest and axis.tested % step == 0
    assert replace(axis, side=1000).tested >= 1000


def test_test_volumes_are_thin(model_of, monkeypatch):
    monkeypatch.undo()
    z, y, x = axes_of([model_of("volumes")])
    assert z.tested == z.smallest + z.step == 2 * z.halo + 2
    assert y.tested == x.tested == 64
