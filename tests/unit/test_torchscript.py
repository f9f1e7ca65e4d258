"""A chain of models in TorchScript yields what the models themselves yield."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow import torchscript
from denoiseg_flow.methods import Method
from denoiseg_flow.models import Normalisation, chain
from denoiseg_flow.networks import NETWORKS
from denoiseg_flow.prediction import predict_tiles
from denoiseg_flow.torchscript import Axis, axes_of, outputs_of, record_network

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.5)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Test images of a few hundred pixels."""
    monkeypatch.setattr(torchscript, "TEST_SIDE", 1)


@pytest.fixture
def sequential(make_model):
    """A segmenter that reads what a denoiser with another network and normalisation yields."""
    first = make_model(Method(name="n2v2", target="blind_spot", alpha=1, network="unet_blurpool"))
    last = make_model(Method(name="sequential", input="n2v2", alpha=0), depth=2)
    last.input, last.normalisation = first, Normalisation(90.0, 12.0)
    return chain(last)


def draw(models):
    shape = [axis.tested for axis in axes_of(models)]
    return np.random.default_rng(0).normal(100, 25, shape).astype(np.float32)


def recorded(models, path):
    record_network(models, draw(models), path)
    return torch.jit.load(path)


def run(network, models, image):
    """The outputs (channel, y, x) of a recorded network, by name."""
    x = torch.from_numpy(models[0].normalisation.apply(image))[None, None]
    with torch.no_grad():
        results = network(x)
    results = results if isinstance(results, tuple) else (results,)
    return dict(zip(outputs_of(models), (one[0].numpy() for one in results), strict=True))


def tiled(models, image):
    """The same by the models, tile by tile."""
    for model in models:
        denoised, probabilities = np.empty(image.shape), np.empty((3, *image.shape))
        for tile in predict_tiles(model, image, tile=40):
            denoised[tile.place] = tile.denoised
            probabilities[:, *tile.place] = tile.probabilities
        image = denoised
    return {"denoised": denoised[None], "probabilities": probabilities}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("symmetries", [False, True])
def test_equals_the_tiled_prediction_at_any_size(make_model, tmp_path, network, symmetries):
    model = make_model(replace(JOINT, network=network))
    model.recipe = replace(model.recipe, test_time_augmentation=symmetries)
    (axis, _) = axes_of([model])
    image = np.random.default_rng(1).normal(
        100, 25, (axis.smallest + 5 * axis.step, axis.smallest + 2 * axis.step)
    )
    outputs = run(recorded([model], tmp_path / "weights.pt"), [model], image)
    inside = (slice(None), *[slice(axis.halo, -axis.halo)] * 2)
    assert list(outputs) == ["denoised", "probabilities"]
    for name, expected in tiled([model], image).items():
        assert outputs[name].shape == expected.shape
        np.testing.assert_allclose(outputs[name][inside], expected[inside], atol=1e-3, rtol=1e-5)


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


def test_chain(sequential, tmp_path):
    image = draw(sequential)
    (axis, _) = axes_of(sequential)
    assert (axis.step, axis.halo) == (4, sum(model.network.halo for model in sequential))
    outputs = run(recorded(sequential, tmp_path / "weights.pt"), sequential, image)
    inside = (slice(None), *[slice(axis.halo, -axis.halo)] * 2)
    expected = tiled(sequential, image)["probabilities"][inside]
    np.testing.assert_allclose(outputs["probabilities"][inside], expected, atol=1e-4)
    denoised = tiled(sequential[:1], image)["denoised"][inside]
    np.testing.assert_allclose(outputs["denoised"][inside], denoised, rtol=1e-5)


def test_mask_channel(make_model, tmp_path):
    method = Method(
        name="n2s", target="blind_spot", masking="grid_zero", mask_channel=True, alpha=1
    )
    model = make_model(method)
    image = draw([model])
    outputs = run(recorded([model], tmp_path / "weights.pt"), [model], image)
    (axis, _) = axes_of([model])
    inside = (slice(None), *[slice(axis.halo, -axis.halo)] * 2)
    expected = tiled([model], image)["denoised"]
    np.testing.assert_allclose(outputs["denoised"][inside], expected[inside], rtol=1e-5)


@pytest.mark.parametrize(
    "method, names", [(N2V, ["denoised"]), (BASELINE, ["probabilities"])], ids=["n2v", "baseline"]
)
def test_a_single_output_is_no_tuple(make_model, tmp_path, method, names):
    model = make_model(method)
    assert outputs_of([model]) == names
    network = recorded([model], tmp_path / "weights.pt")
    assert isinstance(network(torch.zeros(1, 1, 16, 16)), torch.Tensor)


@pytest.mark.parametrize("network", NETWORKS)
def test_no_step_is_bound_to_a_device(make_model, tmp_path, network):
    model = make_model(replace(JOINT, network=network, mask_channel=True))
    steps = str(recorded([model], tmp_path / "weights.pt").inlined_graph)
    assert "aten::zeros_like" in steps
    assert ": Device = " not in steps


def test_a_difference_is_noticed(make_model, tmp_path, monkeypatch):
    model = make_model()
    wrong = replace(model, normalisation=Normalisation(100.0, 26.0))
    monkeypatch.setattr(torchscript, "predict_tiles", lambda _, image: predict_tiles(wrong, image))
    with pytest.raises(RuntimeError, match="yields other denoised than the model"):
        record_network([model], draw([model]), tmp_path / "weights.pt")


def test_large_intensities_that_vary_little(make_model, tmp_path):
    model = make_model()
    model.normalisation = Normalisation(60000.0, 1.0)
    noisy = 60000 + draw([model]) / 100
    record_network([model], noisy, tmp_path / "weights.pt")


@pytest.mark.parametrize("step, halo, smallest", [(1, 8, 17), (16, 107, 224), (4, 13, 28)])
def test_lengths(step, halo, smallest):
    axis = Axis("y", step, halo)
    assert axis.smallest == smallest
    assert axis.tested > smallest and axis.tested % step == 0
