"""Stacks of repeats of a user: Noise2Noise between them, scored against the mean of the others."""

import numpy as np
import pandas as pd
import pytest
from snakemake_call import call_here

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array

SIGMA = 15
TARGETS = ("results/tables/denoising.md", "results/report.html", "results/checks/cells_n0.html")
STUDY = (
    "datasets={cells: {source: folder, images: images, repeats: T}}",
    "recipes={tiny: {filters: 8, steps_per_epoch: 60}}",
    "grid={datasets: [cells], noises: [n0], methods: [n2v, n2n], reference: n2v, seeds: [1]}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two to five repeats of a field; the truth is known to the test only."""
    folder = tmp_path_factory.mktemp("repeats")
    rng = np.random.default_rng(0)
    for number, each in enumerate(simulate(n_images=12, size=64, n_nuclei=(3, 6))):
        noise = rng.normal(0, SIGMA, (2 + number % 4, *each.clean.shape))
        stack = (each.clean + noise).astype(np.float32)
        write_array(folder / "images" / f"{each.name}.tif", stack, Metadata("TYX"))
        write_array(folder / "truth" / f"{each.name}.tif", each.clean.astype(np.float32))
    call = call_here(folder, "--cores", "2", *TARGETS, "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


def test_each_field_is_one_image(study):
    split = pd.read_csv(study / "results/data/cells/split/seed1.tsv", sep="\t")
    assert len(split) == 12 and set(split["subset"]) == {"train", "val", "test"}


def test_scores_against_repeats_are_those_against_the_truth(study):
    """Up to the range, which contains noise; and Noise2Noise is not behind Noise2Void."""
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    metrics = metrics[metrics["metric"] == "PSNR_mean_of_repeats"]
    assert set(metrics["method"]) == {"n2v", "n2n"}
    for row in metrics.itertuples():
        run = study / f"results/runs/cells/n0/{row.method}/annotated0/seed1"
        denoised = read_image(run / f"predictions/denoised/{row.image}.tif")
        truth = read_image(study / f"truth/{row.image}.tif")
        others = read_image(study / f"images/{row.image}.tif")[1:]
        error = np.mean((denoised - truth) ** 2)
        expected = 10 * np.log10(np.ptp(others.mean(axis=0)) ** 2 / error)
        # The noise of a mean of n - 1 repeats changes the error by about this.
        doubt = 3 * 2 * SIGMA * np.sqrt(error / len(others)) / 64
        doubt += 3 * SIGMA**2 * 2 / len(others) / 64
        tolerance = 10 * np.log10(1 + doubt / error)
        assert row.value == pytest.approx(float(expected), abs=float(tolerance) + 0.5)
    scores = metrics.groupby("method")["value"].mean()
    assert scores["n2n"] > scores["n2v"] - 0.5


def test_the_report_names_the_imperfect_truth(study):
    table = (study / "results/tables/denoising.md").read_text()
    assert "## PSNR\\_mean\\_of\\_repeats, cells" in table and "## PSNR, cells" not in table
    page = (study / "results/report.html").read_text()
    assert "n2n learned from several acquisitions of each field of cells" in page
    assert "The clean images of cells are unknown." in page
    assert "PSNR against the mean of other acquisitions" in page
    assert "acquisition" not in (study / "results/checks/cells_n0.html").read_text()
