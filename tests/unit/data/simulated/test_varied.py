"""Simulated images with the variety of real ones."""

import numpy as np
import pytest
import scipy

from denoiseg_flow.data.simulated import membranes, objects, scenes, simulator
from denoiseg_flow.data.simulated.outlines import stretched, wavy, window
from denoiseg_flow.errors import InputError

N_IMAGES = 40


@pytest.fixture(scope="module")
def varied():
    """Forty varied images of nuclei."""
    return list(simulator.simulate(n_images=N_IMAGES, size=128, seed=3, varied=True))


def radii(labels):
    return np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)


def test_sizes_differ_as_documented(varied):
    medians = [np.median(radii(item.mask)) for item in varied if item.mask.max()]
    low, high = objects.RADIUS["nuclei"]
    # Log-uniform over a factor of 8: the middle half spans a factor of 8 ** 0.5.
    first, third = np.quantile(medians, [0.25, 0.75])
    assert third / first == pytest.approx((high / low) ** 0.5, rel=0.4)
    assert 0.4 * low < min(medians) < 2 * low
    assert 0.5 * high < max(medians) < 1.8 * high


def test_grey_levels_and_noise_differ_as_documented(varied):
    spread = np.array([item.image.std() for item in varied])
    low, high = scenes.GREY_LEVELS
    assert low < spread.min() < 2 * low
    assert high / 2 < spread.max() < high
    noise = np.array([(item.image - item.clean).std() for item in varied]) / spread
    assert noise.min() < 0.1
    assert noise.max() > 0.8


def test_noise_has_no_bias(varied):
    unclipped = [item for item in varied if item.image.min() < 0]
    assert unclipped
    for item in unclipped:
        difference = item.image - item.clean
        assert abs(difference.mean()) < 0.1 * difference.std()


@pytest.mark.parametrize("structure", objects.STRUCTURES)
@pytest.mark.parametrize("depth", [None, 6])
def test_every_label_is_one_piece_that_can_be_seen(structure, depth):
    options = {"n_images": 6, "size": 64, "structure": structure, "varied": True}
    volume = {} if depth is None else {"depth": depth, "z_step": 2.0}
    for item in simulator.simulate(seed=1, **options, **volume):
        assert item.mask.shape == item.image.shape == item.clean.shape
        assert item.image.dtype == item.clean.dtype == np.float32
        assert np.isfinite(item.image).all()
        assert set(np.unique(item.mask)) == set(range(item.mask.max() + 1))
        for label in range(1, item.mask.max() + 1):
            assert scipy.ndimage.label(item.mask == label)[1] == 1
            assert (item.mask == label).sum() >= objects.SMALLEST


def test_objects_are_bright_and_cells_between_membranes_dark():
    for structure, sign in (("nuclei", 1), ("blobs", 1), ("rods", 1), ("membranes", -1)):
        differences = []
        for item in simulator.simulate(8, 96, structure=structure, seed=2, varied=True):
            inside = item.mask > 0
            if inside.any() and not inside.all():
                contrast = item.clean[inside].mean() - item.clean[~inside].mean()
                differences.append(sign * contrast)
        assert np.mean(np.array(differences) > 0) > 0.8


@pytest.mark.parametrize("shape", [(96, 96), (12, 64, 64)])
def test_tissue_ends_within_the_image(shape):
    spacing = (2.0, 1.0, 1.0)[-len(shape) :]
    covered = []
    for extent in (0.0, 0.5, 1.0):
        tissue = membranes.Tissue(8.0, 6, 1.0, 0.5, 1.0, 0.2, 0.2, extent)
        light, labels = membranes.draw(shape, spacing, tissue, np.random.default_rng(1))
        covered.append((labels > 0).mean())
        far = scipy.ndimage.distance_transform_edt(labels == 0, spacing) > 12
        assert light[far].max(initial=0) < 1e-3
    assert covered[0] == 0
    assert covered[1] == pytest.approx(covered[2] / 2, rel=0.25)


def test_an_image_depends_on_its_number_only():
    options = {"size": 48, "seed": 4, "varied": True}
    several, alone = (list(simulator.simulate(n_images=n, **options))[2] for n in (5, 3))
    assert np.array_equal(several.image, alone.image)
    other = list(simulator.simulate(n_images=3, **options | {"seed": 5}))[2]
    assert not np.array_equal(other.image, alone.image)


def test_filaments_have_no_masks():
    (item,) = simulator.simulate(1, 64, structure="filaments", varied=True)
    assert item.mask is None
    assert item.image.dtype == np.float32


@pytest.mark.parametrize("structure", ["blobs", "rods"])
def test_refuses_structures_that_are_always_varied(structure):
    with pytest.raises(InputError, match=f"'{structure}'.*write 'varied: true'"):
        next(simulator.simulate(structure=structure))


@pytest.mark.parametrize("n_axes", [2, 3])
def test_an_outline_without_waves_is_a_ball(n_axes):
    part = window((21,) * n_axes, np.ones(n_axes), np.full(n_axes, 10.0), 10.0)
    coordinates = np.broadcast_arrays(*part.offsets)
    outline = wavy(coordinates, 5.0, 0.0, np.random.default_rng(0))
    assert outline == pytest.approx(sum(np.square(each) for each in coordinates) / 25)


def test_stretching_keeps_the_area():
    (_, (y, x)) = window((201, 201), np.ones(2), np.full(2, 100.0), 100.0)
    for flattening in (0.3, 0.7, 1.0):
        along, across = stretched(y, x, flattening, tilt=0.7)
        assert (along**2 + across**2 < 40**2).sum() == pytest.approx(np.pi * 40**2, rel=0.01)


def test_half_of_the_images_have_integers(varied):
    whole = np.array([(item.image == np.round(item.image)).all() for item in varied])
    assert 0.25 < whole.mean() < 0.75  # 0.5, with a standard error of 0.08


def test_few_photons(monkeypatch):
    """Counts have the variance of a Poisson distribution: mean by photons per brightness."""
    monkeypatch.setattr(scenes, "FEW_PHOTONS", 1)
    monkeypatch.setattr(scenes, "PHOTONS", (10.0, 10.0))
    light = np.full((200, 200), 2.0)
    image = scenes._exposed(light, np.random.default_rng(0))
    assert image.mean() == pytest.approx(2, rel=0.01)
    assert image.var() == pytest.approx(2 / 10, rel=0.03)
    assert np.allclose(image * 10, np.round(image * 10))


def test_cytoplasm_lies_around_objects():
    light = np.zeros((120, 120))
    light[50:70, 50:70] = 1
    cells = scenes._cytoplasm(light, np.full(2, 10.0), np.random.default_rng(1))
    assert cells.min() == 0
    assert cells[40:80, 40:80].mean() > 20 * cells[:15].mean()
