"""Scoring one run from its folders of images."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.data.store import open_image, write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation import metrics
from denoiseg_flow.evaluation.scoring import (
    METRICS_COLUMNS,
    j_invariant_scores,
    score_run,
    write_metrics,
)
from denoiseg_flow.reporting.tables.statistics import read_metrics
from denoiseg_flow.study.grid import Run

RUN = Run("cells", "n20", "m", 2, seed=1)
SEGMENTATION = ["AP", "AP_0.6", "AP_0.7", "AP_0.8", "AP_0.9", "AP_mean", "SEG"]
J_INVARIANT = ["PSNR_j_invariant", "SSIM_j_invariant", "MSE_j_invariant"]
DENOISING = [
    *("PSNR", "PSNR_255", "PSNR_scale_invariant", "SSIM", "MSE", "checkerboard"),
    *("PSNR_noisy", "SSIM_noisy"),
]


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")


@pytest.fixture
def folders(tmp_path):
    """Four test images: annotated and clean, empty truth, clean only, neither; one for training."""
    random = np.random.default_rng(0)
    labels = np.zeros((20, 20), np.int32)
    labels[2:10, 2:12] = 3
    clean = random.uniform(0, 100, (20, 20)).astype(np.float32)
    names = {key: tmp_path / key for key in ("masks", "clean", "predictions", "noisy")}
    write(names["masks"] / "001.tif", labels)
    write(names["masks"] / "002.tif", np.zeros_like(labels))
    for image in ("001", "002", "003", "004"):
        write(names["noisy"] / f"{image}.tif", clean + 10)
        write(names["predictions"] / "labels" / f"{image}.tif", np.roll(labels, 1, 1).astype("u2"))
        write(names["predictions"] / "denoised" / f"{image}.tif", clean + 1)
    for image in ("001", "003"):
        write(names["clean"] / f"{image}.tif", clean)
    return names


def score(split, folders):
    """Score with the folders of the fixture of that name."""
    prepared = PreparedData(folders["masks"].parent)
    return score_run(RUN, split, prepared, folders["noisy"], Predictions(folders["predictions"]))


def test_repeats_are_an_imperfect_truth_of_their_own_name(folders, split):
    """Beside the clean truth, and where there is none; over all channels."""
    random = np.random.default_rng(1)
    root = folders["masks"].parent
    before = score(split, folders)
    for image in ("001", "004"):
        acquired = random.uniform(0, 100, (4, 20, 20)).astype(np.float32)
        write(root / "images" / f"{image}.tif", acquired[0])
        write_array(root / "repeats" / f"{image}.tif", acquired[1:], Metadata("TYX"))
        denoised = open_image(folders["predictions"] / "denoised" / f"{image}.tif")[0]
        expected = metrics.psnr_mean_of_repeats(acquired[1:], acquired[0], denoised)
        rows = score(split, folders).query("image == @image").set_index("metric")["value"]
        assert rows["PSNR_mean_of_repeats"] == expected
        assert {"PSNR_mean_of_repeats_noisy"} < set(rows.index)
    after = score(split, folders)
    others = after[~after["metric"].str.startswith("PSNR_mean_of_repeats")]
    pd.testing.assert_frame_equal(others.reset_index(drop=True), before)
    assert len(after) == len(before) + 4


def test_groups_take_the_place_of_files(folders, split):
    alone = score(split, folders)
    grouped = score(split.assign(group="slide 1"), folders)
    assert set(grouped["source"]) == {"slide 1"} != set(alone["source"])
    pd.testing.assert_frame_equal(grouped.drop(columns="source"), alone.drop(columns="source"))


@pytest.fixture
def split():
    return pd.DataFrame(
        {
            "image": ["001", "002", "003", "004", "005"],
            "subset": ["test"] * 4 + ["train"],
            "annotated": [1, 1, 0, 0, 1],
            "clean": [1, 0, 1, 0, 1],
            "source": ["a.tif", "a.tif", "b.tif", "c.tif", "d.tif"],
        }
    )


def test_scores_what_has_a_truth(folders, split):
    frame = score(split, folders)
    assert list(frame.columns) == METRICS_COLUMNS
    sources = frame.groupby("image")["source"].unique().str.join(" ").to_dict()
    assert sources.items() <= {"001": "a.tif", "002": "a.tif", "003": "b.tif"}.items()
    found = frame.groupby("image")["metric"].agg(list).to_dict()
    assert found == {"001": SEGMENTATION + DENOISING, "003": DENOISING}
    assert (frame[list(RUN.as_dict())] == list(RUN.as_dict().values())).all(axis=None)
    values = frame[frame["image"] == "001"].set_index("metric")["value"]
    # Shifted by one column: 72 of 88 pixels shared.
    assert values["AP"] == values["AP_0.8"] == 1 and values["AP_0.9"] == 0
    assert values["AP_mean"] == pytest.approx(0.8)
    assert values["SEG"] == pytest.approx(72 / 88)
    clean = tifffile.imread(folders["clean"] / "001.tif")
    assert values["PSNR"] == metrics.psnr(clean, clean + 1)
    assert values["MSE"] == pytest.approx(1)
    assert values["checkerboard"] == metrics.checkerboard(clean, clean + 1)
    assert values["PSNR_noisy"] == metrics.psnr(clean, clean + 10)
    assert values["SSIM_noisy"] == metrics.ssim(clean, clean + 10)


def test_a_method_without_labels_has_no_segmentation_scores(folders, split):
    for file in (folders["predictions"] / "labels").iterdir():
        file.unlink()
    (folders["predictions"] / "labels").rmdir()
    assert set(score(split, folders)["metric"]) == set(DENOISING)


def test_j_invariant_predictions_are_judged_by_themselves_too(folders, split):
    """On every test image by the noisy image, and where there is a truth by that."""
    for image in ("001", "002", "003", "004"):
        clean = tifffile.imread(folders["noisy"] / f"{image}.tif") - 10
        write(folders["predictions"] / "j_invariant" / f"{image}.tif", clean + 3)
    frame = score(split, folders)
    found = frame.groupby("image")["metric"].agg(list).to_dict()
    blind = ["loss_self_supervised"]
    assert found == {
        "001": SEGMENTATION + DENOISING + blind + J_INVARIANT,
        "002": blind,
        "003": DENOISING + blind + J_INVARIANT,
        "004": blind,
    }
    values = frame[frame["image"] == "003"].set_index("metric")["value"]
    assert values["loss_self_supervised"] == pytest.approx((10 - 3) ** 2)
    assert values["MSE_j_invariant"] == pytest.approx(3**2)
    clean = tifffile.imread(folders["clean"] / "003.tif")
    assert values["PSNR_j_invariant"] == pytest.approx(metrics.psnr(clean, clean + 3))
    assert values["SSIM_j_invariant"] == pytest.approx(metrics.ssim(clean, clean + 3))


@pytest.mark.parametrize("sigma", [5.0, 40.0])
def test_the_self_supervised_loss_is_the_error_and_the_variance_of_the_noise(sigma):
    """For a prediction that does not depend on the noise of the pixel; not for the image itself."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(0, 255, (400, 400))
    noisy = clean + rng.normal(0, sigma, clean.shape)
    prediction = clean + rng.normal(3, 10, clean.shape)
    scores = j_invariant_scores(clean, prediction, noisy)
    assert scores["MSE_j_invariant"] == pytest.approx(100 + 9, rel=0.02)
    difference = scores["loss_self_supervised"] - scores["MSE_j_invariant"]
    # Its standard error is mostly that of the product of error and noise.
    error = (2 * sigma**4 + 4 * sigma**2 * 109) ** 0.5 / 400
    assert difference == pytest.approx(sigma**2, abs=4 * error)
    assert j_invariant_scores(None, prediction, noisy) == {
        "loss_self_supervised": scores["loss_self_supervised"]
    }
    assert j_invariant_scores(clean, noisy, noisy)["loss_self_supervised"] == 0


def test_written_metrics_read_back_unchanged(folders, split, tmp_path):
    frame = score(split, folders)
    write_metrics(frame, tmp_path / "metrics.tsv")
    again = read_metrics([tmp_path / "metrics.tsv"]).astype(frame.dtypes.to_dict())
    expected = frame.sort_values(METRICS_COLUMNS[:-1], ignore_index=True)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


def test_errors_name_the_file(folders, split):
    path = folders["predictions"] / "denoised" / "003.tif"
    write(path, np.arange(12, dtype=np.float32).reshape(3, 4))
    with pytest.raises(InputError, match=r"denoised/003\.tif.*shapes differ"):
        score(split, folders)
    path.unlink()
    with pytest.raises(InputError, match=r"denoised/003\.tif"):
        score(split, folders)
