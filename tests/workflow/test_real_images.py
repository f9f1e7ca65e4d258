"""Real fluorescence images of nuclei, if they lie beside the repository."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tifffile

N_IMAGES = 24


@pytest.fixture
def dsb2018(tmp_path, repo):
    """Some small images of the Data Science Bowl 2018 and their masks, in a folder to work in."""
    source = Path(os.environ.get("DSB2018", repo.parent / "shared/data/dsb2018"))
    if not (source / "images").is_dir():
        pytest.skip(f"no images in {source}; name their folder in the environment variable DSB2018")
    small = (
        path
        for path in sorted((source / "images").glob("*.tif"))
        if tifffile.TiffFile(path).pages[0].shape == (256, 256)
    )
    for _, path in zip(range(N_IMAGES), small, strict=False):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.copy(source / kind / path.name, tmp_path / kind)
    return tmp_path


def test_real_images(dsb2018, call_snakemake, repo):
    folders = f"images: {dsb2018}/images, masks: {dsb2018}/masks, clean: {dsb2018}/images"
    recipe = "epochs: 3, steps_per_epoch: 100, filters: 8"
    call = call_snakemake(
        dsb2018,
        *("--configfile", repo / "config/test.yaml", repo / "config/dsb2018.yaml"),
        *("--cores", "2", "--until", "aggregate", "--config"),
        f"datasets={{dsb2018: {{{folders}}}}}",
        "recipe=tiny",
        f"recipes={{tiny: {{{recipe}}}}}",
        "grid={noises: [n20], methods: [denoiseg], n_labelled: [6], seeds: [1]}",
        config=None,
    )
    assert call.status == 0, call.screen
    assert (call.jobs["train"], call.jobs["fetch"], call.jobs["aggregate"]) == (1, 0, 1)

    tables = dsb2018 / "results/tables"
    metrics = pd.read_csv(tables / "metrics.csv")
    assert metrics["image"].nunique() == N_IMAGES // 4
    mean = metrics.groupby("metric")["value"].mean()
    assert mean["PSNR"] > mean["PSNR_noisy"] + 3
    assert mean["SSIM"] > mean["SSIM_noisy"]
    assert 0.1 < mean["AP"] < 1
    assert 0.1 < mean["SEG"] < 1
    assert (tables / "segmentation.md").is_file() and (tables / "denoising.md").is_file()
    assert (tables / "published.md").is_file()
