"""Simulated volumes are reproducible, and their nuclei are as high, and as blurred, as they say."""

import re

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.simulated import nuclei, simulator
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.errors import InputError

OPTIONS = {"size": 64, "depth": 14, "z_step": 2.5, "n_nuclei": (20, 30), "seed": 4}
THREE = list(simulator.simulate(n_images=3, **OPTIONS))


def same(one, other):
    arrays = zip(one[1:4], other[1:4], strict=True)
    return all(np.array_equal(a, b) for a, b in arrays)


def pairs_along(labels, axis):
    """Pairs of labels without a gap between them along an axis."""
    one = np.moveaxis(labels, axis, 0)[:-1]
    other = np.moveaxis(labels, axis, 0)[1:]
    touching = (one > 0) & (other > 0) & (one != other)
    return set(zip(one[touching].tolist(), other[touching].tolist(), strict=True))


def test_types_and_shapes():
    for item in THREE:
        assert (item.image.dtype, item.mask.dtype) == (np.uint8, np.int32)
        assert item.clean.dtype == np.float32
        assert item.image.shape == item.mask.shape == item.clean.shape == (14, 64, 64)
        assert item.annotated


def test_a_volume_depends_on_seed_number_and_geometry_only():
    again = list(simulator.simulate(n_images=2, annotated=0, **OPTIONS))[1]
    assert same(again, THREE[1])
    changes = ({"seed": 5}, {"depth": 15}, {"z_step": 2.0})
    others = [list(simulator.simulate(n_images=2, **OPTIONS | change))[1] for change in changes]
    assert not any(same(other, THREE[1]) for other in [*others, THREE[0]])


def test_depth_of_none_means_images_of_one_plane():
    (plane,) = simulator.simulate(n_images=1, size=32)
    assert plane.image.shape == (32, 32)
    assert same(plane, next(simulator.simulate(size=32, depth=None, z_step=1)))


@given(
    size=st.integers(16, 48),
    depth=st.integers(2, 12),
    z_step=st.floats(*simulator.Z_STEPS),
    n_nuclei=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
def test_nuclei_are_numbered_and_of_one_piece(size, depth, z_step, n_nuclei, seed):
    (item,) = simulator.simulate(1, size, (n_nuclei, n_nuclei), None, seed, "nuclei", depth, z_step)
    assert item.image.shape == item.mask.shape == (depth, size, size)
    assert item.image.min() < item.image.max()
    assert np.isfinite(item.clean).all() and item.clean.min() >= simulator.CAMERA_OFFSET
    assert item.mask.max() <= n_nuclei
    for label in range(1, item.mask.max() + 1):
        nucleus = item.mask == label
        assert ndimage.label(nucleus)[1] == 1  # connected by faces
        assert nucleus.sum() >= nuclei.SMALLEST


def test_some_nuclei_touch_side_by_side_and_some_on_top_of_each_other():
    n_beside = n_above = 0
    for item in THREE:
        pairs = set.union(*(pairs_along(item.mask, axis) for axis in range(3)))
        centres = ndimage.center_of_mass(item.mask > 0, item.mask, range(1, item.mask.max() + 1))
        for one, other in {tuple(sorted(pair)) for pair in pairs}:
            z, y, x = np.subtract(centres[one - 1], centres[other - 1])
            above = abs(z) * OPTIONS["z_step"] > np.hypot(y, x)
            n_above, n_beside = n_above + above, n_beside + (not above)
    assert n_beside >= 5 and n_above >= 5


@pytest.mark.parametrize("z_step", [1.0, 3.0])
def test_five_planes_are_enough_for_nuclei(z_step):
    for item in simulator.simulate(n_images=3, size=64, depth=5, z_step=z_step):
        assert item.image.shape == (5, 64, 64)
        assert item.mask.max() >= 3
        assert all(plane.any() for plane in item.mask)


@pytest.mark.parametrize("z_step", [0.5, 1.0, 2.0, 4.0])
def test_a_nucleus_spans_fewer_planes_than_pixels(z_step):
    """By the step, if nuclei are as high as they are wide."""
    ratios = []
    for seed in range(8):
        shape = (round(64 / z_step), 64, 64)
        _, labels = nuclei.draw(shape, (z_step, 1, 1), 8, np.random.default_rng(seed))
        for label, (z, y, x) in enumerate(ndimage.find_objects(labels), start=1):
            inner = all(s.start > 0 and s.stop < n for s, n in zip((z, y, x), shape, strict=True))
            if inner:
                area = (labels == label).any(axis=0).sum()  # seen from above
                # A body spans as many planes as its height holds, give or take one.
                ratios.append((z.stop - z.start) * z_step / np.sqrt(4 * area / np.pi))
    assert len(ratios) >= 10
    assert np.mean(ratios) == pytest.approx(1, abs=0.12)


def blurred_profile(profile, lateral, z_step):
    """What the optics make of the light per plane: the point spread function, and the haze."""
    planes = np.arange(len(profile))
    axial = simulator.PSF_ELONGATION * lateral / z_step

    def spread(sigma):
        weights = np.exp(-((planes[:, None] - planes) ** 2) / (2 * sigma**2))
        return weights / weights.sum(axis=0)

    sharp = spread(axial)
    return sharp @ profile + 0.12 * sharp @ spread(10 / z_step) @ profile


@pytest.mark.parametrize("z_step", [1.0, 3.0])
@pytest.mark.parametrize("lateral", [0.8, 1.4])
def test_light_that_leaks_out_of_planes_is_that_of_the_psf(z_step, lateral, monkeypatch):
    depth = round(120 / z_step)
    rng = np.random.default_rng(1)
    light, _ = nuclei.draw((depth, 48, 48), (z_step, 1, 1), 1, rng)
    light = np.roll(light, depth // 2 - light.sum(axis=(1, 2)).argmax(), axis=0)
    monkeypatch.setattr(simulator, "_illumination", lambda size, rng: 1.0)

    class Draws:
        """No background, and a point spread function of known width."""

        def uniform(self, low, high):
            return lateral if high == 1.4 else 0.0

    clean = simulator._expose(light, (z_step, 1, 1), Draws()) - simulator.CAMERA_OFFSET
    profile, inside = light.sum(axis=(1, 2)), light.any(axis=(1, 2))
    seen, expected = clean.sum(axis=(1, 2)), blurred_profile(profile, lateral, z_step)
    assert seen[~inside].sum() / seen.sum() == pytest.approx(
        expected[~inside].sum() / expected.sum(), abs=0.005
    )
    np.testing.assert_allclose(seen, expected, atol=0.01 * expected.max())


def test_a_single_plane_is_ambiguous():
    """Beside a nucleus along z, background is as bright as the dimmest nuclei are."""
    for item in THREE:
        beside_z = (item.mask == 0) & ndimage.binary_dilation(
            item.mask > 0, np.ones((3, 1, 1), bool)
        )
        background = np.percentile(item.clean[item.mask == 0], 20)
        ghosts = np.percentile(item.clean[beside_z], 75) - background
        levels = ndimage.mean(item.clean, item.mask, range(1, item.mask.max() + 1)) - background
        assert ghosts > levels.min()
        assert ghosts < np.median(levels)


def test_noise_is_photon_noise():
    residual = np.concatenate([(i.image - i.clean).ravel() for i in THREE])
    clean = np.concatenate([i.clean.ravel() for i in THREE])
    assert abs(residual.mean()) < 0.05
    expected = (clean.mean() - simulator.CAMERA_OFFSET) / simulator.PHOTONS_PER_LEVEL + 1 / 12
    assert residual.var() == pytest.approx(expected, rel=0.05)


def test_files_say_their_axes_and_the_size_of_a_voxel(tmp_path):
    options = OPTIONS | {"size": 32, "n_nuclei": (3, 4)}
    simulator.write(tmp_path / "one", n_images=2, annotated=1, **options)
    simulator.write(tmp_path / "two", n_images=2, annotated=1, **options)
    files = sorted(path.relative_to(tmp_path / "one") for path in tmp_path.glob("one/*/*"))
    assert len(files) == 5
    first = next(simulator.simulate(n_images=2, **options))
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        with tifffile.TiffFile(tmp_path / "one" / file) as tif:
            assert tif.series[0].axes == "ZYX" and len(tif.series) == 1
            pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
            sizes = [float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"]
            assert sizes == pytest.approx([1.25, 0.5, 0.5])
            if file.stem == first.name:
                values = {"images": first.image, "masks": first.mask, "clean": first.clean}
                np.testing.assert_array_equal(tif.asarray(), values[file.parent.name])


def test_files_of_planes_have_no_pixel_size(tmp_path):
    simulator.write(tmp_path, n_images=1, size=32)
    for path in tmp_path.glob("*/*"):
        assert read_metadata(path) == Metadata("YX")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 1}, "depth is 1, but a volume has at least 2 z-slices; raise it, or leave"),
        ({"depth": -3}, "depth is -3, but"),
        ({"depth": 8, "z_step": 0}, "z_step is 0, but the distance of z-slices must be from 0.1"),
        ({"depth": 8, "z_step": 11.0}, "z_step is 11.0, but the distance"),
        ({"depth": 8, "z_step": float("nan")}, "z_step is nan, but the distance"),
        ({"z_step": 3.0}, "z_step is 3.0, but without 'depth' the images are 2D"),
        (
            {"depth": 8, "structure": "filaments"},
            "depth is 8, but filaments are simulated in 2D only; leave 'depth' out, or write "
            "'structure: nuclei'",
        ),
    ],
)
def test_refuses_impossible_volumes(options, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        next(simulator.simulate(**options))
