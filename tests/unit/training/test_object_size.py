"""The size at which a pretrained network finds the objects of images."""

import numpy as np
import pytest
import scipy

from denoiseg_flow.data.store import write_array
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.training.object_size import LARGEST, find_downscale, radius_of


@pytest.fixture(scope="module")
def pretrained():
    return load_pretrained("simulated_objects")


@pytest.fixture
def draw(tmp_path):
    """Write images of soft disks of one radius."""

    def draw(radius, side=480, count=2):
        paths = []
        y, x = np.mgrid[:side, :side]
        for number in range(count):
            rng = np.random.default_rng(number)
            image = 20 + 3 * rng.standard_normal((side, side))
            step = 3 * radius
            for centre in np.mgrid[step / 2 : side : step, step / 2 : side : step].reshape(2, -1).T:
                away = np.hypot(y - centre[0], x - centre[1])
                image += 60 * scipy.special.expit((radius - away) / 0.8)
            paths.append(tmp_path / f"{radius}_{number}.tif")
            write_array(paths[-1], image.astype(np.float32))
        return paths

    return draw


@pytest.mark.parametrize("radius, expected", [(9, (1, 1)), (24, (2, 2)), (40, (3, 4))])
def test_larger_objects_are_looked_at_in_smaller_images(pretrained, draw, radius, expected):
    low, high = expected
    assert low <= find_downscale(pretrained, draw(radius), patch_size=64) <= high


def test_reduced_images_are_no_smaller_than_a_patch(pretrained, draw):
    assert find_downscale(pretrained, draw(40, side=200), patch_size=96) == 2
    assert find_downscale(pretrained, draw(40, side=180), patch_size=96) == 1


def test_images_without_objects_stay_as_they_are(pretrained, tmp_path):
    noise = np.random.default_rng(0).standard_normal((160, 160)).astype(np.float32)
    write_array(tmp_path / "x.tif", noise)
    assert find_downscale(pretrained, [tmp_path / "x.tif"], patch_size=32) == 1


def test_the_radius_is_that_of_the_object_with_the_median_pixel():
    labels = np.zeros((40, 40), int)
    labels[:20, :20] = 1  # 400 of 424 pixels
    for number in range(6):
        labels[30:32, 6 * number : 6 * number + 2] = 2 + number
    assert radius_of(labels) == pytest.approx(np.sqrt(400 / np.pi))
    assert radius_of(np.zeros((4, 4), int)) == 0
    assert radius_of(labels) < LARGEST
