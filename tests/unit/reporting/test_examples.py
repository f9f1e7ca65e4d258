"""Which images the figures show."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS
from denoiseg_flow.reporting.figures import examples
from denoiseg_flow.reporting.figures.examples import Example
from denoiseg_flow.study.grid import Run

JOINT = Run("cells", "n20", "denoiseg", 4, 1)
BASELINE = Run("cells", "n20", "baseline", 4, 1)
N2V = Run("cells", "n20", "n2v", 0, 1)


@pytest.fixture
def rank_images(tmp_path):
    """Rank, where the predictions of images c and b lie in a folder."""
    for name in ("labels/c.tif", "denoised/c.tif", "labels/b.tif", "labels/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return lambda table, runs: examples.rank_images(
        examples.scores_of_images(table, runs), Predictions(tmp_path)
    )


def metrics(*rows):
    """Rows of (run, image, metric, value)."""
    return pd.DataFrame(
        [(*run.as_dict().values(), f"{image}.tif", image, *rest) for run, image, *rest in rows],
        columns=METRICS_COLUMNS,
    )


def test_worst_to_best_by_the_mean_of_all_runs(rank_images):
    table = metrics(
        (JOINT, "001", "AP", 0.9),
        (BASELINE, "001", "AP", 0.1),
        (JOINT, "002", "AP", 0.4),
        (BASELINE, "002", "AP", 0.5),
        (JOINT, "003", "AP", 0.7),
        (BASELINE, "003", "AP", 0.8),
        # What must not count: other metrics, and runs that were not asked for.
        (JOINT, "001", "AP_0.9", 100.0),
        (N2V, "002", "PSNR", 40.0),
        (Run("cells", "n20", "denoiseg", 4, 2), "002", "AP", 1.0),
        (Run("cells", "n20", "denoiseg", 9, 1), "002", "AP", 1.0),
        (Run("cells", "n10", "denoiseg", 4, 1), "002", "AP", 1.0),
    )
    assert rank_images(table, [N2V, BASELINE, JOINT]) == ["002", "001", "003"]
    assert rank_images(table, [JOINT]) == ["002", "003", "001"]


def test_by_psnr_where_nothing_segments(rank_images):
    table = metrics(
        (N2V, "001", "PSNR", 31.0),
        (N2V, "002", "PSNR", 29.0),
        (N2V, "001", "SSIM", 0.1),
        (JOINT, "001", "AP", 0.1),
    )
    assert rank_images(table, [N2V]) == ["002", "001"]


def test_equal_images_stay_in_order(rank_images):
    table = metrics(*((JOINT, image, "AP", 0.5) for image in ("d", "b", "a", "c")))
    assert rank_images(table, [JOINT]) == ["a", "b", "c", "d"]


def test_predicted_images_by_name_where_nothing_is_scored(rank_images):
    assert rank_images(metrics((N2V, "001", "PSNR", 31.0)), [JOINT]) == ["b", "c"]


@pytest.mark.parametrize("present", [{"denoised"}, {"labels", "truth"}, {"clean"}, set()])
def test_example_holds_what_there_is(tmp_path, present):
    folders = {
        "noisy": tmp_path / "noisy",
        "denoised": tmp_path / "predictions" / "denoised",
        "labels": tmp_path / "predictions" / "labels",
        "truth": tmp_path / "prepared" / "masks",
        "clean": tmp_path / "prepared" / "clean",
    }
    for number, (name, folder) in enumerate(folders.items()):
        folder.mkdir(parents=True)
        if name in {"noisy"} | present:
            tifffile.imwrite(folder / "007.tif", np.full((5, 6), number, np.uint16))
    example = Example.load(
        "n2v",
        "007",
        PreparedData(tmp_path / "prepared"),
        folders["noisy"],
        Predictions(tmp_path / "predictions"),
    )
    assert example.name == "n2v"
    for number, name in enumerate(folders):
        found = getattr(example, name)
        if name in {"noisy"} | present:
            assert found.shape == (5, 6)
            assert (found == number).all()
        else:
            assert found is None
