"""Pairs of acquisitions of a user: Noise2Noise beside Noise2Void and a supervised network."""

import os
import time

import numpy as np
import pandas as pd
import pytest
from snakemake_call import call_here, dry_run

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array

SIGMA = 15
KINDS = ("images", "second")
TARGETS = ("results/tables/metrics.csv", "results/checks/cells_n0.html")
STUDY = (
    "datasets={cells: {source: folder, images: images, second: second, clean: clean}}",
    "recipes={tiny: {filters: 8, steps_per_epoch: 60}}",
    "grid={datasets: [cells], noises: [n0], methods: [n2v, n2n, supervised], reference: n2n}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Scores of three networks on images with known truth, and the checks."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for each in simulate(n_images=12, size=64, n_nuclei=(3, 6)):
        for kind, pixels in [
            ("clean", each.clean),
            *((kind, each.clean + rng.normal(0, SIGMA, each.clean.shape)) for kind in KINDS),
        ]:
            write_array(folder / kind / f"{each.name}.tif", pixels.astype(np.float32))
    call = call_here(folder, "--cores", "2", *TARGETS, "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


def test_noise2noise_denoises_as_if_it_knew_the_truth(study):
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    psnr = metrics[metrics["metric"] == "PSNR"].groupby("method")["value"].mean()
    split = pd.read_csv(study / "results/data/cells/split/seed1.tsv", sep="\t")
    tested = split.loc[split["subset"] == "test", "image"]
    noisy, clean = (
        np.stack([read_image(study / kind / f"{name}.tif") for name in tested])
        for kind in ("images", "clean")
    )
    before = 10 * np.log10(np.ptp(clean, axis=(1, 2)) ** 2 / np.mean((noisy - clean) ** 2, (1, 2)))
    assert psnr["n2n"] > before.mean() + 2
    assert psnr["n2n"] == pytest.approx(psnr["supervised"], abs=1.5)
    assert psnr["n2n"] > psnr["n2v"] - 0.5


def test_good_pairs_pass_the_checks(study):
    page = (study / "results/checks/cells_n0.html").read_text()
    assert "12 images of 64x64 pixels" in page and "acquisition" not in page


def test_another_second_acquisition_repeats_what_was_learned(study):
    second = study / "second"
    write_array(second / "sim_0000.tif", read_image(second / "sim_0000.tif") + np.float32(1))
    later = time.time() + 3600
    os.utime(second, (later, later))
    call = dry_run(study, *TARGETS, "--config", *STUDY)
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == 1 and call.jobs["train"] == 3
