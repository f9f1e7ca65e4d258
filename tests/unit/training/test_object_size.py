"""The size at which a pretrained network finds the objects of images."""

import numpy as np
import pytest
import scipy

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.training import object_size
from denoiseg_flow.training.object_size import find_downscale


@pytest.fixture(scope="module")
def pretrained():
    return load_pretrained("simulated_objects")


@pytest.fixture
def draw(tmp_path):
    """Write simulated nuclei, several times as large as the simulator draws them."""

    def draw(factor, count=3, sigma=0.0):
        paths, random = [], np.random.default_rng(0)
        for item in simulate(n_images=count, size=96, seed=3):
            paths.append(tmp_path / f"{item.name}.tif")
            larger = scipy.ndimage.zoom(item.image.astype(np.float32), factor, order=1)
            noise = random.normal(0, sigma, larger.shape).astype(np.float32)
            write_array(paths[-1], larger + noise)
        return paths

    return draw


@pytest.mark.parametrize("enlarged, sigma, expected", [(1, 10, {1}), (5, 0, {3, 4, 6})])
def test_larger_objects_are_segmented_in_smaller_images(
    pretrained, draw, enlarged, sigma, expected
):
    assert find_downscale(pretrained, draw(enlarged, sigma=sigma), patch_size=48) in expected


def test_reduced_images_are_no_smaller_than_a_patch(pretrained, draw):
    assert find_downscale(pretrained, draw(5), patch_size=200) == 2
    assert find_downscale(pretrained, draw(5), patch_size=300) == 1


def test_images_without_objects_stay_as_they_are(pretrained, tmp_path):
    noise = np.random.default_rng(0).standard_normal((160, 160)).astype(np.float32)
    write_array(tmp_path / "x.tif", noise)
    assert find_downscale(pretrained, [tmp_path / "x.tif"], patch_size=32) == 1


def test_small_objects_are_segmented_in_larger_images(pretrained, draw):
    assert find_downscale(pretrained, draw(1 / 3, count=12), patch_size=16) == 0.5


@pytest.mark.parametrize(
    "values, expected",
    [
        ((0.80, 0.81, 0.79, 0.70, 0.82), 1),
        ((0.80, 0.81, 0.79, 0.70, 0.84), 0.5),  # predictions take longer: it has to gain more
        ((0.70, 0.78, 0.79, 0.80, 0.75, 0.70), 2),
        ((0.30, 0.40, 0.50, 0.45, 0.40, 0.55), 1),  # nothing to rely on
        ((0.50, 0.60, 0.70, 0.75, 0.82, 0.85), 8),
        ((0.50, 0.65, 0.63, 0.62), 2),  # beyond the best size, smaller ones are not looked at
    ],
)
def test_another_size_has_to_gain_confidence(pretrained, draw, monkeypatch, values, expected):
    given = iter(values)
    monkeypatch.setattr(object_size, "_mean_confidence", lambda *_: next(given))
    assert find_downscale(pretrained, draw(2), patch_size=16) == expected
    assert not list(given)
