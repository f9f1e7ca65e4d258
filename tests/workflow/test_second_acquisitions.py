"""Pairs of acquisitions of a user: Noise2Noise beside Noise2Void and a supervised network."""

import json

import numpy as np
import pandas as pd
import pytest
from snakemake_call import call_here

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array

SIGMA = 15
STACKS = Metadata("CZYX", {"Z": 1.5, "Y": 0.5, "X": 0.5}, ("DAPI", "GFP"))
STACKS_RUN = "results/runs/stacks/n0/n2n/annotated0/seed1"
KINDS = ("images", "second")
STUDY = (
    "datasets={"
    "cells: {source: folder, images: images, second: second, clean: clean},"
    "stacks: {source: folder, images: stacks/images, second: stacks/second, dimensions: 3, "
    "channel: all}}",
    "recipes={tiny: {filters: 8, steps_per_epoch: 60}}",
    "grid={noises: [n0], reference: n2n}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Scores of planes with known truth, and predictions of volumes of two channels."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for each in simulate(n_images=12, size=64, n_nuclei=(3, 6)):
        for kind, pixels in [
            ("clean", each.clean),
            *((kind, each.clean + rng.normal(0, SIGMA, each.clean.shape)) for kind in KINDS),
        ]:
            write_array(folder / kind / f"{each.name}.tif", pixels.astype(np.float32))
    for each in simulate(n_images=4, size=40, depth=6, z_step=3.0, n_nuclei=(6, 9)):
        both = np.stack([each.clean, each.clean[::-1]])
        for kind in KINDS:
            noisy = (both + rng.normal(0, SIGMA, both.shape)).astype(np.float32)
            write_array(folder / "stacks" / kind / f"{each.name}.ome.tif", noisy, STACKS)
    for datasets, methods, targets in [
        ("cells", "n2v, n2n, supervised", ["results/tables/metrics.csv"]),
        ("stacks", "n2n", ["results/checks/stacks_n0.json", f"{STACKS_RUN}/predictions"]),
    ]:
        asked = f"grid={{datasets: [{datasets}], methods: [{methods}]}}"
        call = call_here(folder, "--cores", "2", *targets, "--config", *STUDY, asked)
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


def test_pairs_of_volumes_of_two_channels(study):
    for path in (study / STACKS_RUN / "predictions/denoised").iterdir():
        noisy = read_image(study / f"stacks/images/{path.stem}.ome.tif")
        denoised = read_image(path)
        assert denoised.shape == noisy.shape == (2, 6, 40, 40)
        assert denoised.std() < noisy.std()
    findings = json.loads((study / "results/checks/stacks_n0.json").read_text())
    assert not any("acquisitions" in each["topic"] for each in findings)
