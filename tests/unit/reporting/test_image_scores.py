"""The score of every image, and its picture."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from denoiseg_flow.data.painting import instance_colours
from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS
from denoiseg_flow.reporting import image_scores
from denoiseg_flow.reporting.image_scores import ImageScores
from denoiseg_flow.reporting.pictures import thumbnail_uri
from denoiseg_flow.reporting.study_report import _scores_or_confidences
from denoiseg_flow.study.grid import Run


def scores(values, metric="AP", n_pictures=10):
    named = pd.Series({f"i{place}": value for place, value in enumerate(values)}, name=metric)
    return ImageScores.of("title", named, "denoised", lambda name: f"data:{name}", n_pictures)


def test_from_the_worst_to_the_best_at_the_height_of_the_score():
    ranked = scores([0.75, 0.25, 1.0, 0.0])
    assert [point.name for point in ranked.points] == ["i3", "i1", "i0", "i2"]
    assert [point.bottom for point in ranked.points] == [0, 25, 75, 100]
    assert [point.left for point in ranked.points] == [12.5, 37.5, 62.5, 87.5]
    assert [point.value for point in ranked.points] == ["0.000", "0.250", "0.750", "1.000"]
    assert ranked.ticks == [(0, "0"), (50, "0.5"), (100, "1")]
    assert ranked.caption == ("AP of 4 images, from 0.000 (i3) to 1.000 (i2). Pictures: denoised.")


@pytest.mark.parametrize("values", [[21.2, 29.9], [30.0], [-3.5, 22.0]])
def test_psnr_is_between_whole_decibels(values):
    ranked = scores(values, "PSNR")
    low, high = ranked.scale
    assert low == int(low) and high == int(high)
    assert low <= min(values) < low + 1 and high - 1 <= max(values) < high
    for value, point in zip(sorted(values), ranked.points, strict=True):
        assert low + point.bottom / 100 * (high - low) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize("n_pictures, ranks", [(1, [0]), (2, [0, 100]), (5, [0, 25, 50, 75, 100])])
def test_pictures_are_spread_evenly_from_the_worst_to_the_best(n_pictures, ranks):
    ranked = scores(np.linspace(0, 1, 101), n_pictures=n_pictures)
    assert [rank for rank, point in enumerate(ranked.points) if point.picture] == ranks
    assert ranked.points[0].picture == "data:i0"
    assert f"Pictures of {n_pictures} images, evenly spread over the ranks" in ranked.caption


def test_many_images_have_no_more_points_than_a_screen_can_tell_apart(monkeypatch):
    monkeypatch.setattr(image_scores, "POINTS", 11)
    ranked = scores(np.linspace(0, 1, 101), n_pictures=3)
    assert [point.bottom for point in ranked.points] == [10 * place for place in range(11)]
    assert ranked.n_images == 101 and ranked.n_pictures == 3
    assert ranked.caption == (
        "AP of 101 images, from 0.000 (i0) to 1.000 (i100). Pictures of 3 images, and points of "
        "11, evenly spread: denoised."
    )


RUN = Run("cells", "n20", "denoiseg", 4, 1)


@pytest.mark.parametrize(
    "rows, labels, expected",
    [
        ([("a", "AP", 0.5), ("b", "AP", np.nan), ("a", "PSNR", 30)], RUN, ("AP", {"a": 0.5})),
        ([("a", "PSNR", np.inf), ("b", "PSNR", 30)], None, ("PSNR", {"b": 30})),
        ([], RUN, ("confidence", {"c": 0.25})),
        ([], None, ("PSNR", {})),
    ],
)
def test_finite_scores_or_else_the_confidence_of_labels(rows, labels, expected):
    metrics = pd.DataFrame(
        [(*RUN.as_dict().values(), f"{image}.tif", image, *rest) for image, *rest in rows],
        columns=METRICS_COLUMNS,
    ).astype({"value": float})
    images = pd.DataFrame({"image": ["c", "d"], "confidence": [0.25, np.nan]})
    found = _scores_or_confidences(metrics, RUN, labels, images)
    assert (found.name, found.to_dict()) == expected


def decode(uri):
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), float)


def test_thumbnail_is_the_small_centre():
    noisy = np.zeros((600, 1200))
    noisy[:, 600:] = 50
    picture = decode(thumbnail_uri(noisy))
    assert picture.shape == (192, 192, 3)  # of 512 x 512 pixels
    assert picture[:, :90].max() < 10 and picture[:, 102:].min() > 245


def test_thumbnail_shows_the_denoised_image_on_the_scale_of_the_noisy_one():
    noisy = np.zeros((64, 64))
    noisy[:32] = 100
    assert np.ptp(decode(thumbnail_uri(noisy, np.full((64, 64), 50.0)))) < 10
    assert np.ptp(decode(thumbnail_uri(noisy))) > 245
    colour = np.stack([noisy, 0 * noisy, 0 * noisy], axis=-1)
    red, green, _ = decode(thumbnail_uri(colour))[5, 32]
    assert red > 200 > 50 > green


def test_outlines_are_one_pixel_wide_whatever_the_size():
    """Two squares of a quarter of the side, of an image shown at a fourth or three eighths."""
    for side in (64, 512):
        labels = np.zeros((side, side), int)
        labels[side // 8 : 3 * side // 8, side // 8 : 3 * side // 8] = 1
        labels[side // 2 : 3 * side // 4, side // 2 : 3 * side // 4] = 2
        painted = decode(thumbnail_uri(np.zeros((side, side)), labels=labels)).max(axis=-1) > 60
        quarter = len(painted) // 4
        assert painted.sum() == pytest.approx(2 * 4 * (quarter - 1), rel=0.25)
        colour = 255 * instance_colours(labels)[side // 8, side // 4, :3]
        middle = decode(thumbnail_uri(np.zeros((side, side)), labels=labels))
        assert middle[quarter // 2, quarter] == pytest.approx(colour, abs=60)
