"""Classical denoisers against their own libraries, closed forms and scikit-image's calibration."""

import importlib.util

import numpy as np
import pytest
from scipy import ndimage
from skimage import data, restoration
from skimage.morphology import ball, disk

from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.metrics import psnr
from denoiseg_flow.methods import classical
from denoiseg_flow.methods.classical import (
    DENOISERS,
    best_value,
    calibrate,
    denoise,
    denoise_planes,
    masked_pixel_loss,
    noise_level,
)

SIGMA = 0.1
METHODS = [name for name in DENOISERS if classical.is_available(name)]
OF_VOLUMES = [name for name in DENOISERS if name != "bm3d"]


def parameter_of(name):
    """A value in the middle of the candidates."""
    values = classical.candidates(name)
    return values[len(values) // 2] if values else None


@pytest.fixture(scope="module")
def camera():
    """The camera image (256, 256) in [0, 1], and with Gaussian noise of variance 0.01."""
    clean = data.camera()[128:384, 128:384] / 255
    return clean, clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape)


@pytest.fixture(scope="module")
def small(camera):
    """Part of the noisy camera image, neither square nor of even size, in 12-bit grey levels."""
    return (4095 * camera[1][60:107, 30:91]).astype(np.float32)


@pytest.fixture(scope="module")
def stack():
    """A smooth volume (9, 32, 36) with values from about 0 to 1, and with Gaussian noise."""
    rng = np.random.default_rng(0)
    clean = 4 * ndimage.gaussian_filter(rng.standard_normal((9, 32, 36)), 2) + 0.5
    return clean, clean + SIGMA * rng.standard_normal(clean.shape)


def test_table_of_denoisers():
    assert list(DENOISERS) == (
        ["raw", "median", "donut_median", "gaussian", "nlm", "wavelet", "tv", "bm3d"]
    )
    for name, denoiser in DENOISERS.items():
        values = classical.candidates(name)
        assert list(values) == sorted(set(values)) and all(value > 0 for value in values)
        assert bool(values) == (denoiser.parameter is not None) == (name != "raw")
    assert classical.candidates("donut_median") == (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("name", METHODS)
def test_scale_covariance_dtype_and_shape(name, small):
    """For 12-bit grey levels, a thousandth, a millionth, a thousandfold; and with an offset."""
    sigma, parameter = 4095 * SIGMA, parameter_of(name)
    reference = denoise(name, small, parameter, sigma)
    assert reference.dtype == np.float32
    assert reference.shape == small.shape
    assert (name == "raw") == np.array_equal(reference, small)
    for factor in (1e-6, 1e-3, 1e3):
        scaled = denoise(name, factor * small.astype(np.float64), parameter, factor * sigma)
        np.testing.assert_allclose(scaled, factor * reference, atol=factor * 4095 * 1e-5)
    shifted = denoise(name, small.astype(np.float64) - 4000, parameter, sigma)
    np.testing.assert_allclose(shifted, reference - 4000, atol=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_pixel_types_are_read_as_grey_levels(name, small):
    for dtype in ("uint8", "uint16", "int32", "float16"):
        image = np.clip(small[:24, :20] / 20, 0, 255).astype(dtype)
        expected = denoise(name, image.astype(np.float64), parameter_of(name), 20.0)
        np.testing.assert_array_equal(denoise(name, image, parameter_of(name), 20.0), expected)
        assert expected.max() > 100


@pytest.mark.parametrize("name", METHODS)
def test_input_is_not_changed(name, small):
    image = small.copy()
    result = denoise(name, image, parameter_of(name), 400.0)
    result += 1
    np.testing.assert_array_equal(image, small)


@pytest.mark.parametrize("name", METHODS)
def test_constant_image_is_unchanged(name):
    image = np.full((20, 24), 1000.3, np.float32)
    for sigma in (None, 0.0, 3.0):
        np.testing.assert_array_equal(denoise(name, image, parameter_of(name), sigma), image)


@pytest.mark.parametrize("name", [name for name in METHODS if DENOISERS[name].needs_noise])
def test_noise_level_is_estimated_and_at_0_nothing_is_denoised(name, small):
    parameter = parameter_of(name)
    estimated = denoise(name, small, parameter)
    np.testing.assert_array_equal(estimated, denoise(name, small, parameter, noise_level(small)))
    np.testing.assert_array_equal(denoise(name, small, parameter, 0), small)
    stripes = np.tile(np.array([0, 7], np.uint8), (32, 16))
    np.testing.assert_array_equal(denoise(name, stripes, parameter), stripes)


def test_noise_level():
    noise = np.random.default_rng(1).standard_normal((200, 300))
    assert noise_level(50 * noise + 1000) == pytest.approx(50, rel=0.02)
    assert noise_level(np.full((30, 30), 12345.678)) == 0
    assert noise_level(np.tile(np.arange(30) ** 2, (30, 1))) == 0  # no diagonal structure


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8, 20])
def test_noise_level_of_volumes(depth):
    """However few planes there are; those that were never recorded take no part."""
    noise = np.random.default_rng(1).standard_normal((depth, 100, 120))
    error = 5 / noise.size**0.5  # about twice that of a median of a quarter as many numbers
    assert noise_level(50 * noise + 1000) == pytest.approx(50, rel=error)
    padded = np.concatenate([50 * noise, np.zeros((4, 100, 120))])
    assert noise_level(padded) == pytest.approx(50, rel=error)
    assert noise_level(np.full(noise.shape, 12345.678)) == 0


def test_median_over_the_disk_within_the_image(small):
    for name, centre in (("median", True), ("donut_median", False)):
        for radius in (1, 2, 3):
            footprint = disk(radius).astype(bool)
            footprint[radius, radius] = centre
            padded = np.pad(small, radius, constant_values=np.nan)
            expected = [
                np.nanmedian(padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1][footprint])
                for y, x in np.ndindex(small.shape)
            ]
            result = denoise(name, small, float(radius))
            np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6)
    interior = np.s_[3:-3, 3:-3]
    expected = ndimage.median_filter(small, footprint=disk(3))[interior]
    np.testing.assert_array_equal(denoise("median", small, 3)[interior], expected)


@pytest.mark.parametrize("shape", [(9, 12, 11), (3, 9, 8), (2, 5, 6), (1, 9, 8)])
def test_median_over_the_ball_within_the_volume(shape):
    image = np.random.default_rng(2).standard_normal(shape)
    for name, centre in (("median", True), ("donut_median", False)):
        for radius in (1, 2, 4):
            footprint = ball(radius).astype(bool)
            footprint[radius, radius, radius] = centre
            padded = np.pad(image, radius, constant_values=np.nan)
            windows = np.lib.stride_tricks.sliding_window_view(padded, footprint.shape)
            expected = np.nanmedian(windows[..., footprint], axis=-1)
            np.testing.assert_allclose(denoise(name, image, radius), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (4, 4, 5), (2, 4, 5), (1, 5, 7)])
@pytest.mark.parametrize("name", ["donut_median", "median"])
def test_only_the_donut_ignores_the_pixel_itself(name, shape):
    """Everywhere, near borders and corners too, where an image might be mirrored."""
    image = np.random.default_rng(2).standard_normal(shape)
    for place in np.ndindex(shape):
        dark, bright = image.copy(), image.copy()
        dark[place], bright[place] = -100, 100
        differs = denoise(name, dark, 3) != denoise(name, bright, 3)
        assert differs[place] == (name == "median")
        assert differs.sum() > 5


def test_gaussian_is_scipys(small):
    expected = ndimage.gaussian_filter(small.astype(np.float64), 1.5, mode="mirror")
    np.testing.assert_allclose(denoise("gaussian", small, 1.5), expected, rtol=1e-6)


def test_nlm_wavelet_and_tv_are_scikit_images(camera):
    """To the PSNR of the library called by hand, on the image as it is."""
    clean, noisy = camera
    by_hand = {
        "nlm": restoration.denoise_nl_means(noisy, 7, 11, h=0.06, fast_mode=True, sigma=0.1),
        "wavelet": restoration.denoise_wavelet(
            noisy, sigma=0.06, wavelet="db2", mode="soft", method="BayesShrink"
        ),
        "tv": restoration.denoise_tv_chambolle(noisy, weight=0.06, eps=1e-5),
    }
    for name, expected in by_hand.items():
        result = denoise(name, noisy, 0.6, SIGMA)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
        assert psnr(clean, result) == pytest.approx(psnr(clean, expected), abs=1e-5)
        assert psnr(clean, result) > psnr(clean, noisy) + 1


def test_volumes_are_denoised_by_the_same_calls(stack):
    """Along three axes at once, with smaller patches for non-local means."""
    clean, noisy = stack
    by_hand = {
        "gaussian": ndimage.gaussian_filter(noisy, 0.6, mode="mirror"),
        "nlm": restoration.denoise_nl_means(noisy, 5, 4, h=0.06, fast_mode=True, sigma=0.1),
        "wavelet": restoration.denoise_wavelet(
            noisy, sigma=0.06, wavelet="db2", mode="soft", method="BayesShrink"
        ),
        "tv": restoration.denoise_tv_chambolle(noisy, weight=0.06, eps=1e-5),
    }
    for name, expected in by_hand.items():
        result = denoise(name, noisy, 0.6, SIGMA)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
        assert psnr(clean, result) > psnr(clean, noisy) + 1
        assert not np.allclose(result, denoise_planes(name, noisy, 0.6, SIGMA), atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_planes_are_denoised_each_by_itself(name, stack):
    noisy = stack[1][:3].astype(np.float32)
    parameter = parameter_of(name)
    for sigma in (None, SIGMA):
        expected = [denoise(name, plane, parameter, sigma) for plane in noisy]
        found = denoise_planes(name, noisy, parameter, sigma)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(denoise_planes(name, noisy[0], parameter, sigma), found[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_volume_of_one_plane_is_that_plane(name, stack):
    plane, parameter = stack[1][0], parameter_of(name)
    for sigma in (None, SIGMA):
        found = denoise(name, plane[None], parameter, sigma)
        np.testing.assert_array_equal(found, denoise(name, plane, parameter, sigma)[None])
    assert noise_level(plane[None]) == noise_level(plane)


@pytest.mark.parametrize("name", OF_VOLUMES)
def test_grey_levels_of_volumes(name, stack):
    """As for planes: float32 of the same shape, in any units, and constant ones unchanged."""
    noisy, parameter = stack[1], parameter_of(name)
    reference = denoise(name, noisy, parameter, SIGMA)
    assert (reference.dtype, reference.shape) == (np.float32, noisy.shape)
    scaled = denoise(name, 4095 * noisy - 4000, parameter, 4095 * SIGMA)
    np.testing.assert_allclose(scaled, 4095 * reference - 4000, atol=0.05)
    constant = np.full((4, 20, 24), 1000.3, np.float32)
    np.testing.assert_array_equal(denoise(name, constant, parameter, 3.0), constant)


def test_bm3d_refuses_volumes(stack):
    """It would take the last axis for colours."""
    pytest.importorskip("bm3d")
    for volume in (stack[1], stack[1][..., :3]):
        with pytest.raises(InputError, match="bm3d is for planes only"):
            denoise("bm3d", volume, 1.0, SIGMA)


def test_bm3d_is_its_authors():
    bm3d = pytest.importorskip("bm3d")
    clean = data.camera()[200:264, 200:264] / 255
    noisy = clean + SIGMA * np.random.default_rng(3).standard_normal(clean.shape)
    result = denoise("bm3d", noisy, 1.2, SIGMA)
    one_thread = bm3d.BM3DProfile()
    one_thread.num_threads = 1
    low, extent = noisy.min(), np.ptp(noisy)
    mapped = bm3d.bm3d((noisy - low) / extent, 1.2 * SIGMA / extent, one_thread) * extent + low
    assert psnr(clean, result) == pytest.approx(psnr(clean, mapped), abs=1e-5)
    # The range hardly matters where it is near 1, nor does the number of threads.
    plain = bm3d.bm3d(noisy, sigma_psd=1.2 * SIGMA)
    assert psnr(clean, result) == pytest.approx(psnr(clean, plain), abs=1e-2)
    assert psnr(clean, result) > psnr(clean, noisy) + 3


def test_loss_of_the_calibration(small):
    """Pixels are hidden twice: behind their neighbours, and behind what is foretold of them."""
    image = small.astype(np.float64)
    grids = classical._subgrids(image.shape, 16)
    for name in ("gaussian", "median", "tv"):
        values = classical.candidates(name)[1:3]
        expected = []
        for value in values:

            def function(image, name=name, value=value):
                return denoise(name, image, value, 400.0)

            foretold = restoration.denoise_invariant(image, function, masks=grids)
            for grid in grids:
                shown = image.copy()
                shown[grid] = foretold[grid]
                foretold[grid] = function(shown)[grid]
            loss = (foretold - image) ** 2 + (function(image) - foretold) ** 2
            expected.append(loss.mean())
        table = calibrate(name, values, [small], 400.0, subgrids=16)
        np.testing.assert_allclose(table["loss_self_supervised"], expected, rtol=1e-9)


@pytest.mark.parametrize("name, sigma", [("gaussian", 10), ("tv", 20)])
def test_what_is_chosen_is_the_best_as_it_is_applied(name, sigma):
    """It is no better with another value, though fine lines are hard to foretell when hidden."""
    lines = simulator.simulate(n_images=3, size=96, structure="filaments", seed=3)
    clean = [each.clean.astype(float) for each in lines]
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(0, sigma, image.shape) for image in clean]
    table = calibrate(name, classical.candidates(name), noisy, clean=clean)
    chosen = table.loc[table["value"] == best_value(table), "mse"].item()
    assert 10 * np.log10(chosen / table["mse"].min()) < 0.15


def test_some_sub_grids_stand_for_all(camera):
    """The first four of the 16 lie in different rows and columns; together they are all pixels."""
    few, all_ = (calibrate("gaussian", (0.5, 1, 2), [camera[1]], subgrids=n) for n in (4, 16))
    np.testing.assert_allclose(few["loss_self_supervised"], all_["loss_self_supervised"], rtol=0.03)
    assert not np.array_equal(few["loss_self_supervised"], all_["loss_self_supervised"])
    visits = np.zeros((8, 8), int)
    for k, grid in enumerate(classical._subgrids(visits.shape, 16)):
        visits[grid] += 1
        if k == 3:
            assert (visits[:4, :4].sum(axis=0) == 1).all()
            assert (visits[:4, :4].sum(axis=1) == 1).all()
    assert (visits == 1).all()


def test_sub_grids_of_volumes():
    """In every plane every fourth pixel along y and x; along z too, every fourth voxel."""
    visits = np.zeros((9, 8, 12), int)
    for grid in classical._subgrids(visits.shape, 16):
        visits[grid] += 1
        assert (grid.sum(axis=(1, 2)) == 6).all()
        near = ndimage.convolve(grid.astype(int), np.ones((3, 3, 3)), mode="constant")
        assert near[grid].max() == 1
        for axis in range(3):
            along = np.argwhere(np.moveaxis(grid, axis, -1).any(axis=-1))
            lines = np.moveaxis(grid, axis, -1)[tuple(along.T)]
            assert {step for line in lines for step in np.diff(np.flatnonzero(line))} == {4}
    assert (visits == 1).all()


def test_columns_and_means_over_images(camera):
    clean, noisy = camera[0][:50, :50], camera[1][:50, :50]
    images, truths = [noisy, 3 * noisy], [clean, 3 * clean]
    table = calibrate("gaussian", (2, 1), iter(images), clean=iter(truths))
    assert list(table) == ["parameter", "value", "loss_self_supervised", "loss_plain", "mse"]
    assert table["parameter"].tolist() == ["sigma", "sigma"]
    assert table["value"].tolist() == [2, 1]
    first = calibrate("gaussian", (2, 1), images[:1], clean=truths[:1])
    for column in ("loss_self_supervised", "loss_plain", "mse"):  # (1 + 3^2) / 2
        np.testing.assert_allclose(table[column], 5 * first[column], rtol=1e-5)
    denoised = denoise("gaussian", noisy, 2)
    assert first.loc[0, "loss_plain"] == pytest.approx(np.mean((denoised - noisy) ** 2))
    assert first.loc[0, "mse"] == pytest.approx(np.mean((denoised - clean) ** 2))
    blind = calibrate("gaussian", (2, 1), images[:1])
    assert blind["mse"].isna().all()
    np.testing.assert_array_equal(blind["loss_plain"], first["loss_plain"])


def test_noise_level_is_that_of_the_image_before_pixels_are_replaced(small):
    """Replaced pixels are smoother: estimated after, the noise would be lower."""
    by_default, given = (
        calibrate("tv", (0.5, 1.0), [small], sigma) for sigma in (None, noise_level(small))
    )
    np.testing.assert_array_equal(by_default["loss_self_supervised"], given["loss_self_supervised"])


def test_figure_of_noise2self(camera):
    """The loss of the donut median finds the radius, the plain loss of a median does not.

    Batson & Royer 2019, on the camera image with noise of variance 0.01: the donut's loss is its
    true error plus 0.01 at every radius.
    """
    clean, noisy = camera
    radii = range(1, 5)
    donut = calibrate("donut_median", radii, [noisy], clean=[clean])
    median = calibrate("median", radii, [noisy], clean=[clean])
    for table in (donut, median):
        assert best_value(table) == table.loc[table["mse"].idxmin(), "value"]
    assert best_value(donut) == 2
    np.testing.assert_array_equal(donut["loss_self_supervised"], donut["loss_plain"])
    np.testing.assert_allclose(donut["loss_plain"] - donut["mse"], SIGMA**2, rtol=0.05)
    # The median of few pixels is often the pixel itself, which makes the plain loss small.
    assert median.loc[median["loss_plain"].idxmin(), "value"] == 1
    assert median.loc[median["mse"].idxmin(), "value"] == 2


def test_best_value_is_the_least_self_supervised_loss(camera):
    table = calibrate("gaussian", (0.5, 1, 4), [camera[1]], clean=[camera[0]])
    assert best_value(table) == 1 == table.loc[table["mse"].idxmin(), "value"]
    assert isinstance(best_value(table), float)


def test_what_cannot_be_used(small):
    with pytest.raises(InputError, match=r"unknown denoiser 'nml'; available: raw, median, "):
        denoise("nml", small, 1)
    with pytest.raises(ValueError, match="raw has no parameter to calibrate"):
        calibrate("raw", (1,), [small])
    with pytest.raises(ValueError, match="no image"):
        calibrate("median", (1,), [])
    with pytest.raises(ValueError, match="shorter"):
        calibrate("median", (1,), [small, small], clean=[small])
    with pytest.raises(ValueError, match="broadcast"):
        calibrate("median", (1,), [small], clean=[small[:, :-1]])
    for parameter in (None, 0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="sigma of gaussian must be above 0"):
            denoise("gaussian", small, parameter)
    with pytest.raises(ValueError, match=r"whole number, not 2\.5"):
        denoise("median", small, 2.5)
    for sigma in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="noise_sigma"):
            denoise("tv", small, 1, sigma)
    for image in (small[0], small[None, None], small * np.nan, small[:0]):
        with pytest.raises(ValueError, match="not a finite image"):
            denoise("raw", image, None)


def test_without_bm3d_the_message_says_how_to_install_it(monkeypatch, small):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [name for name in DENOISERS if not classical.is_available(name)] == ["bm3d"]
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt -e '\.\[bm3d\]'"):
        denoise("bm3d", small, 1.0, 400.0)


def test_loss_at_masked_pixels_of_a_denoiser_that_knows_the_truth():
    """Of the truth itself it is the variance of the noise, whatever was hidden."""
    rng = np.random.default_rng(0)
    clean = np.outer(np.arange(64.0), np.ones(64))
    noisy = clean + rng.normal(0, 10, clean.shape)
    seen = []

    def oracle(image):
        seen.append(image)
        return clean

    assert classical.masked_pixel_loss(oracle, noisy) == pytest.approx(100, rel=0.1)
    assert len(seen) == 9 and np.array_equal(seen[0], noisy)
    for one, two in zip(seen[1::2], seen[2::2], strict=True):
        assert np.array_equal(one != noisy, two != noisy)
    masked = [image != noisy for image in seen[1::2]]
    assert sum(each.sum() for each in masked) == noisy.size / 4
    assert not np.logical_and.reduce(masked[:2]).any()


def test_loss_at_masked_pixels_of_the_image_itself():
    """The mean of four neighbours has a quarter of the variance, and the pixel all of it.

    Twice, for the image is as far from what is foretold as that is from the image.
    """
    noisy = np.random.default_rng(0).normal(0, 10, (64, 64))
    assert classical.masked_pixel_loss(lambda x: x, noisy) == pytest.approx(2 * 125, rel=0.1)
    with pytest.raises(ValueError, match="not a finite image"):
        classical.masked_pixel_loss(lambda x: x, np.full((4, 4), np.nan))


VOLUMES = [(24, 40, 40), (5, 90, 90), (2, 140, 140), (1, 200, 200)]


@pytest.mark.parametrize("subgrids", [4, 16])
@pytest.mark.parametrize("shape", VOLUMES)
def test_loss_at_hidden_voxels_is_the_variance_where_the_truth_is_known(shape, subgrids):
    rng = np.random.default_rng(0)
    clean = 10 * ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    noisy = clean + rng.normal(0, 10, shape)
    seen = []

    def oracle(image):
        seen.append(image)
        return clean

    assert masked_pixel_loss(oracle, noisy, subgrids) == pytest.approx(100, rel=0.05)
    masked = [image != noisy for image in seen[1::2]]
    assert {image.shape for image in seen} == {shape}
    assert sum(masked).max() == 1
    assert sum(each.sum() for each in masked) == pytest.approx(noisy.size * subgrids / 16, rel=0.01)


@pytest.mark.parametrize("shape", VOLUMES)
def test_no_voxel_reaches_what_foretells_it(shape):
    """Of the six neighbours that stand for it, those outside are mirrored, never the voxel."""
    noisy = np.random.default_rng(0).normal(0, 10, shape)
    found = masked_pixel_loss(lambda x: x, noisy)
    # The mean of neighbours has a sixth of the variance, more where some of them count twice.
    depth, (inside, border) = shape[0], (1 / 6, (4 + 2**2) / 6**2)
    between = (2 * border + (depth - 2) * inside) / depth if depth > 1 else 1 / 4
    assert found == pytest.approx(2 * 100 * (1 + between), rel=0.06)


@pytest.mark.parametrize(
    "name, shape",
    [
        *(("gaussian", (12, 40, 40)), ("median", (12, 40, 40))),
        *(("donut_median", (4, 70, 70)), ("tv", (4, 70, 70))),
    ],
)
def test_self_supervised_loss_is_the_true_error_and_the_variance(name, shape):
    rng = np.random.default_rng(0)
    clean = 300 * ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    noisy = clean + rng.normal(0, 10, shape)
    for value in classical.candidates(name)[:2]:

        def function(image, value=value):
            return denoise(name, image, value, 10.0)

        error = np.mean((function(noisy) - clean) ** 2)
        loss = masked_pixel_loss(function, noisy, 8)
        # Slightly more, for what a pixel is taken for when hidden is not the truth.
        assert 0.96 * (error + 100) < loss < 1.2 * (error + 100)
        assert 1 < error < 100


def test_calibration_of_volumes(stack):
    """The loss of the donut is its error plus the variance, and all find the best value."""
    clean, noisy = stack[0], 2 * stack[1] - stack[0]
    for name, values in (("donut_median", (1, 2, 3)), ("gaussian", (0.5, 1, 2, 4))):
        table = calibrate(name, values, [noisy], clean=[clean])
        assert best_value(table) == table.loc[table["mse"].idxmin(), "value"]
        excess = table["loss_self_supervised"] - table["mse"]
        if name == "donut_median":
            np.testing.assert_array_equal(table["loss_self_supervised"], table["loss_plain"])
            np.testing.assert_allclose(excess, 4 * SIGMA**2, rtol=0.05)
