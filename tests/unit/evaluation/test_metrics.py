"""Metrics against closed forms, scikit-image and an independent brute-force oracle."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from denoiseg_flow.evaluation import metrics
from denoiseg_flow.evaluation.overlap import object_overlap
from denoiseg_flow.evaluation.scoring import denoising_scores, j_invariant_scores

LABELS = st.sampled_from([0, 0, 1, 2, 3, 7, 40])


def brute_force(truth, prediction, iou):
    """AP and SEG by comparing every pair of boolean object masks, ignored pixels cut out."""
    kept = truth >= 0
    truth, prediction = truth[kept], prediction[kept]
    true_objects = [truth == k for k in set(truth.tolist()) - {0}]
    predicted_objects = [prediction == k for k in set(prediction.tolist()) - {0}]
    matches, seg = 0, 0.0
    for a in true_objects:
        for b in predicted_objects:
            both, either = (a & b).sum(), (a | b).sum()
            matches += both / either > iou
            seg += both / either if both > a.sum() / 2 else 0
    n, m = len(true_objects), len(predicted_objects)
    ap = matches / (n + m - matches) if n + m else float("nan")
    return ap, seg / n if n else float("nan")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(
    st.data(),
    st.one_of(
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    ),
    st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9]),
)
def test_agrees_with_brute_force(data, shape, iou):
    truth = data.draw(arrays(np.int32, shape, elements=st.one_of(LABELS, st.just(-1))))
    noise = data.draw(arrays(np.int32, shape, elements=LABELS))
    copied = data.draw(arrays(np.bool_, shape))
    prediction = np.where(copied, np.maximum(truth, 0), noise)
    ap, seg = brute_force(truth, prediction, iou)
    assert metrics.average_precision(truth, prediction, iou) == pytest.approx(
        ap, abs=1e-12, nan_ok=True
    )
    assert metrics.seg_score(truth, prediction) == pytest.approx(seg, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("shift", range(10))
def test_shifted_squares(shift):
    truth, prediction = np.zeros((30, 60), int), np.zeros((30, 60), int)
    for k in range(3):
        truth[5:15, 20 * k : 20 * k + 10] = k + 1
        prediction[5:15, 20 * k + shift : 20 * k + shift + 10] = 9 - k
    iou = (10 - shift) / (10 + shift)
    assert metrics.average_precision(truth, prediction) == (1.0 if iou > 0.5 else 0.0)
    covered = 10 - shift > 5
    assert metrics.seg_score(truth, prediction) == pytest.approx(iou if covered else 0, abs=1e-12)


def test_iou_equal_to_the_threshold_is_no_match():
    truth = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    for shared, iou in ((5, 0.5), (6, 0.6), (7, 0.7), (8, 0.8), (9, 0.9)):
        prediction = (np.arange(10) < shared).astype(int)[None]
        assert metrics.average_precision(truth, prediction, iou) == 0
        assert metrics.average_precision(truth, prediction, iou - 0.05 if iou > 0.5 else 0.5) == (
            1.0 if iou > 0.5 else 0.0
        )


def test_half_covered_object_does_not_count_for_seg():
    assert metrics.seg_score(np.array([1, 1, 1, 1]), np.array([1, 1, 0, 0])) == 0
    assert metrics.seg_score(np.array([1, 1, 1, 1]), np.array([1, 1, 1, 0])) == 0.75


def test_background_enlarges_the_union():
    truth, prediction = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([1, 1, 1, 1, 1, 1, 0])
    assert metrics.seg_score(truth, prediction) == 0.5
    assert metrics.average_precision(truth, prediction) == 0


def test_empty_images():
    empty, full = np.zeros((4, 4), np.uint16), np.ones((4, 4), np.uint16)
    assert np.isnan(metrics.average_precision(empty, empty))
    assert np.isnan(metrics.seg_score(empty, empty))
    assert metrics.average_precision(empty, full) == 0
    assert np.isnan(metrics.seg_score(empty, full))
    assert metrics.average_precision(full, empty) == 0
    assert metrics.seg_score(full, empty) == 0
    assert np.isnan(metrics.average_precision(np.zeros((0, 3), int), np.zeros((0, 3), int)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i4", "uint32", "int64", "uint64", "bool"])
def test_any_integer_dtype(dtype):
    truth = np.array([[0, 1, 1], [0, 0, 1]]).astype(dtype)
    assert metrics.average_precision(truth, truth) == 1
    assert metrics.seg_score(truth, np.array([[0, 1, 1], [0, 0, 0]])) == pytest.approx(2 / 3)


def test_most_similar_prediction_of_every_object():
    """Two parts of an object; one in an object and its surroundings; none."""
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3]])
    prediction = np.array([[7, 7, 7, 4, 0, 5, 5, 5, 0]])
    assert object_overlap(truth, prediction).best_iou() == pytest.approx([3 / 4, 2 / 3, 0])


def test_huge_labels_with_gaps():
    truth = np.array([0, 1, 2**31 - 1, 2**31 - 1], np.int32)
    prediction = np.array([0, 5, 2**63, 2**64 - 1], np.uint64)
    counts = object_overlap(truth, prediction).counts(0.5)
    assert counts == (0.5, 1, 2, 1)
    assert counts.average_precision == 0.25


def test_ignored_pixels_vanish_from_both_images():
    truth = np.array([[1, 1, -1, -1, 0], [1, 1, -1, -2, 0]])
    prediction = np.array([[1, 1, 1, 2, 0], [1, 1, 1, 2, 0]])
    assert metrics.average_precision(truth, prediction, 0.9) == 1
    assert metrics.seg_score(truth, prediction) == 1


def test_thresholds_are_exclusive():
    truth, prediction = np.array([1] * 10), np.array([1] * 8 + [0] * 2)
    found = [metrics.average_precision(truth, prediction, iou) for iou in (0.5, 0.7, 0.8, 0.9)]
    assert found == [1, 1, 0, 0]


def test_refuses_what_is_no_pair_of_label_images():
    labels = np.ones((3, 3), int)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.average_precision(labels, labels[:2])
    with pytest.raises(ValueError, match="integers"):
        metrics.seg_score(labels, labels.astype(float))
    with pytest.raises(ValueError, match="negative"):
        metrics.seg_score(labels, -labels)
    for iou in (0.3, 1.0):
        with pytest.raises(ValueError, match="threshold"):
            metrics.average_precision(labels, labels, iou)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.psnr(labels, labels[:2])


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    truth = random.uniform(10, 90, (20, 30)).astype(np.float32)
    return truth, truth + random.normal(0, 5, truth.shape).astype(np.float32)


def test_psnr_closed_form():
    truth = np.array([[0.0, 100.0], [50.0, 50.0]])
    assert metrics.psnr(truth, truth + 10) == pytest.approx(20)
    assert metrics.psnr_255(truth, truth + 25.5) == pytest.approx(20)
    assert metrics.psnr(truth, truth) == float("inf")
    assert metrics.psnr_scale_invariant(truth, truth) == float("inf")
    # The best constant is the mean; what remains is the variance, 1250.
    assert metrics.psnr_scale_invariant(truth, np.zeros_like(truth)) == pytest.approx(
        10 * np.log10(100**2 / 1250)
    )


@pytest.mark.parametrize("n_others", [1, 2, 6])
def test_the_mean_of_repeats_agrees_with_the_truth(n_others):
    """Whatever the noise, also if it depends on the signal, and in the noisy input itself."""
    random = np.random.default_rng(n_others)
    truth = 60 + 50 * np.sin(np.arange(300) / 20)[:, None] * np.cos(np.arange(320) / 15)
    acquired = truth + np.sqrt(truth) * random.standard_normal((n_others + 1, *truth.shape))
    first, others = acquired[0], acquired[1:]
    mean = others.mean(axis=0)
    plain = np.mean((truth - mean) ** 2)
    assert plain == pytest.approx(truth.mean() / n_others, rel=0.02)  # variance / (n - 1)
    offset = 20 * np.log10(np.ptp(mean) / np.ptp(truth))
    for error, precision in ((1.5, 0.15), (5, 0.03)):
        predicted = truth + error
        found = metrics.psnr_mean_of_repeats(others, first, predicted)
        assert found == pytest.approx(metrics.psnr(truth, predicted) + offset, abs=8 * precision)
    noisy = metrics.psnr_mean_of_repeats(others, first, first)
    assert noisy == pytest.approx(metrics.psnr(truth, first) + offset, abs=0.1)


def test_no_error_can_be_smaller_than_its_uncertainty():
    """A perfect prediction gets a finite score, a better one than any other."""
    random = np.random.default_rng(0)
    truth = np.add.outer(np.arange(64.0), np.arange(64.0))
    first, *others = truth + random.normal(0, 10, (4, 64, 64))
    perfect, close, far = (
        metrics.psnr_mean_of_repeats(np.array(others), first, truth + error) for error in (0, 3, 9)
    )
    assert np.isfinite(perfect) and perfect > close > far
    flat = np.zeros((2, 4, 4))
    assert np.isnan(metrics.psnr_mean_of_repeats(flat, flat[0], flat[0]))


def test_unsigned_images_do_not_wrap():
    truth, prediction = np.array([[0, 200]], np.uint8), np.array([[10, 190]], np.uint8)
    assert metrics.psnr(truth, prediction) == pytest.approx(10 * np.log10(200**2 / 100))


def test_psnr_and_ssim_agree_with_skimage(images):
    truth, prediction = (image.astype(np.float64) for image in images)
    span = np.ptp(truth)
    assert metrics.psnr(*images) == pytest.approx(
        peak_signal_noise_ratio(truth, prediction, data_range=span), abs=1e-9
    )
    assert metrics.psnr_255(*images) == pytest.approx(
        peak_signal_noise_ratio(truth, prediction, data_range=255), abs=1e-9
    )
    assert metrics.ssim(*images) == pytest.approx(
        structural_similarity(truth, prediction, data_range=span), abs=1e-12
    )


def test_scale_invariant_psnr_is_psnr_after_polyfit(images):
    truth, prediction = (image.astype(np.float64) for image in images)
    fitted = np.polyval(np.polyfit(prediction.ravel(), truth.ravel(), 1), prediction)
    expected = metrics.psnr(truth, fitted)
    assert metrics.psnr_scale_invariant(truth, prediction) == pytest.approx(expected, abs=1e-9)
    assert metrics.psnr_scale_invariant(truth, 7 - 3 * prediction) == pytest.approx(expected)


def test_undefined_image_metrics_are_nan(images):
    flat = np.full((8, 8), 3.0)
    for prediction in (flat, flat + 1, images[0][:8, :8]):
        assert np.isnan(metrics.psnr(flat, prediction))
        assert np.isnan(metrics.psnr_scale_invariant(flat, prediction))
    assert np.isnan(metrics.ssim(flat, flat + 1))
    assert np.isnan(metrics.ssim(images[0][:6], images[1][:6]))


# Volumes


@pytest.fixture
def volumes():
    random = np.random.default_rng(0)
    truth = random.uniform(10, 90, (5, 20, 30)).astype(np.float32)
    truth[2] /= 3  # the range of the volume is that of no plane
    return truth, truth + random.normal(0, 5, truth.shape).astype(np.float32)


@pytest.mark.parametrize(
    "metric", [metrics.psnr, metrics.psnr_255, metrics.psnr_scale_invariant, metrics.mse]
)
def test_voxels_count_like_pixels(metric, volumes):
    truth, prediction = volumes
    flat = metric(truth.reshape(50, 60), prediction.reshape(50, 60))
    assert metric(truth, prediction) == pytest.approx(flat, rel=1e-12)


def test_ssim_of_volumes_is_the_mean_over_planes(volumes):
    """With the range of the volume; no window reaches from one plane into the next."""
    truth, prediction = (volume.astype(np.float64) for volume in volumes)
    planes = [
        structural_similarity(*pair, data_range=np.ptp(truth))
        for pair in zip(truth, prediction, strict=True)
    ]
    assert metrics.ssim(truth, prediction) == pytest.approx(np.mean(planes), abs=1e-12)
    own = [metrics.ssim(*pair) for pair in zip(truth, prediction, strict=True)]
    assert metrics.ssim(truth, prediction) != pytest.approx(np.mean(own), abs=1e-3)
    order = [3, 0, 4, 2, 1]
    assert metrics.ssim(truth[order], prediction[order]) == pytest.approx(np.mean(planes))


def test_thin_volumes_have_a_ssim_and_narrow_ones_have_not(volumes):
    truth, prediction = volumes
    assert metrics.ssim(truth[:1], prediction[:1]) == metrics.ssim(truth[0], prediction[0])
    assert np.isnan(metrics.ssim(truth[:, :6], prediction[:, :6]))
    assert np.isnan(metrics.ssim(truth[..., :6], prediction[..., :6]))
    assert np.isnan(metrics.ssim(np.ones((9, 9, 9)), np.zeros((9, 9, 9))))


def test_mse_by_hand():
    truth = np.array([[0, 200], [10, 10]], np.uint8)
    assert metrics.mse(truth, np.array([[2, 196], [10, 10]], np.uint8)) == (4 + 16) / 4
    assert metrics.mse(truth, truth) == 0
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.mse(truth, truth[:1])


SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE]


def checkerboard(residual):
    """Of a prediction that is wrong by ``residual``."""
    truth = np.random.default_rng(1).uniform(0, 255, residual.shape)
    return metrics.checkerboard(truth, truth + residual)


@pytest.mark.parametrize("sigma", [1e-3, 20.0])
def test_white_noise_has_a_checkerboard_of_one(sigma):
    rng = np.random.default_rng(0)
    found = [checkerboard(sigma * rng.standard_normal((SIDE, SIDE + 5))) for _ in range(40)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / 40**0.5)
    assert np.std(found) < 0.1


@pytest.mark.parametrize("pattern", [(-1.0) ** (Y + X), (-1.0) ** Y, (-1.0) ** X])
def test_alternating_residuals_have_all_their_power_there(pattern):
    """Of 64 frequencies along each axis, 7 count as alternating; they hold all the power."""
    share = 1 - (57 / 64) ** 2
    assert checkerboard(3 * pattern) == pytest.approx(1 / share, rel=1e-3)
    assert checkerboard(-0.1 * pattern) == pytest.approx(1 / share, rel=1e-3)


@pytest.mark.parametrize(
    "residual",
    [
        np.ones((SIDE, SIDE)),
        X - 5.0 * Y,  # jumps from one border to the other
        np.sin(2 * np.pi * X / 8) + np.cos(2 * np.pi * Y / 5),
        gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 2),
    ],
)
def test_smooth_residuals_have_no_checkerboard(residual):
    assert checkerboard(residual) < 0.01


def test_checkerboards_of_volumes_are_those_of_their_planes():
    """Planes that alternate are none: each is looked at by itself."""
    rng = np.random.default_rng(0)
    found = [checkerboard(rng.standard_normal((5, SIDE, SIDE))) for _ in range(20)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / 20**0.5)
    z = np.arange(6)[:, None, None]
    share = 1 - (57 / 64) ** 2
    for pattern in ((-1.0) ** (Y + X), (-1.0) ** X):
        assert checkerboard(pattern[None]) == checkerboard(pattern)
        assert checkerboard((1 + z) * pattern) == pytest.approx(1 / share, rel=1e-3)
    assert checkerboard((-1.0) ** z * np.ones((SIDE, SIDE))) < 0.01


def test_a_checkerboard_is_seen_in_noise():
    noise = np.random.default_rng(0).standard_normal((SIDE, SIDE))
    pattern = (-1.0) ** (Y + X)
    found = [checkerboard(noise + strength * pattern) for strength in (0, 0.3, 1)]
    assert found == sorted(found) and found[2] > 2 * found[0]


def test_no_residual_has_no_checkerboard(images):
    assert np.isnan(metrics.checkerboard(images[0], images[0]))


def test_every_shown_metric_is_defined():
    truth = np.random.default_rng(0).uniform(0, 9, (16, 16))
    shown = {*denoising_scores(truth, truth + 1, truth), *j_invariant_scores(truth, truth, truth)}
    assert {name for name in shown if not name.endswith("_noisy")} <= set(metrics.DEFINITIONS)


# Whatever the images

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))
LABEL_PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=LABELS)] * 2)
)
GREYS = st.floats(-1000, 1000, width=32)
IMAGE_PAIRS = st.tuples(st.integers(7, 9), st.integers(7, 9)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float32, shape, elements=GREYS)] * 2)
)
SEGMENTATION = (metrics.average_precision, metrics.seg_score)


@given(LABEL_PAIRS, st.permutations([1, 2, 3, 7, 40]))
def test_names_and_places_of_objects_do_not_matter(pair, new):
    truth, prediction = pair
    renamed = np.zeros(41, np.int32)
    renamed[[1, 2, 3, 7, 40]] = new
    turned = [np.rot90(image)[::-1] for image in pair]
    for metric in SEGMENTATION:
        found = metric(truth, prediction)
        for other in (
            (renamed[truth], prediction),
            (truth, renamed[prediction]),
            turned,
            [image.ravel() for image in pair],
        ):
            assert metric(*other) == pytest.approx(found, nan_ok=True)


@given(LABEL_PAIRS)
def test_segmentation_scores_are_shares(pair):
    """1 for the truth itself and for nothing else; AP takes truth and prediction alike."""
    truth, prediction = pair
    same = metrics.average_precision(prediction, truth)
    scores = [metrics.average_precision(truth, prediction, iou) for iou in metrics.AP_THRESHOLDS]
    assert scores[0] == pytest.approx(same, nan_ok=True)
    if not truth.any():
        assert np.isnan(metrics.seg_score(truth, prediction))
        return
    assert [metric(truth, truth) for metric in SEGMENTATION] == [1, 1]
    assert all(0 <= score <= 1 for score in (*scores, metrics.seg_score(truth, prediction)))
    assert scores == sorted(scores, reverse=True)
    if metrics.seg_score(truth, prediction) == 1 and scores[0] == 1:
        assert np.array_equal(truth > 0, prediction > 0)


@given(IMAGE_PAIRS, st.floats(-1000, 1000), st.sampled_from([-4.0, -0.5, 0.25, 8.0]))
def test_scores_of_images_do_not_depend_on_units(pair, shift, scale):
    truth, prediction = (image.astype(np.float64).round(1) for image in pair)
    moved, scaled = (truth + shift, prediction + shift), (truth * scale, prediction * scale)
    psnr = metrics.psnr(truth, prediction)
    assert metrics.psnr(*moved) == pytest.approx(psnr, abs=1e-3, nan_ok=True)
    assert metrics.psnr(*scaled) == pytest.approx(psnr, nan_ok=True)
    assert metrics.mse(*scaled) == pytest.approx(scale**2 * metrics.mse(truth, prediction))
    assert metrics.psnr(truth[::-1].T, prediction[::-1].T) == pytest.approx(psnr, nan_ok=True)
    assert metrics.ssim(*scaled) == pytest.approx(metrics.ssim(truth, prediction), nan_ok=True)
    best = metrics.psnr_scale_invariant(truth, prediction)
    assert np.isnan(psnr) or best >= psnr - 1e-6
    error = metrics.mse(truth, prediction)
    assert error == metrics.mse(prediction, truth) >= 0
    assert (error == 0) == np.array_equal(truth, prediction)
    assert np.isnan(psnr) == (np.ptp(truth) == 0)
    assert np.isnan(psnr) or (psnr == np.inf) == (error == 0)
    assert np.isnan(metrics.ssim(truth, prediction)) or metrics.ssim(truth, prediction) <= 1 + 1e-9
