"""Real fluorescence images of nuclei, if they lie beside the repository."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from snakemake_call import call_here

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.evaluation.grey_levels import GreyLevels, measure

N_IMAGES = 24


@pytest.fixture(scope="module")
def source(repo):
    """The images of the Data Science Bowl 2018."""
    source = Path(os.environ.get("DSB2018", repo.parent / "shared/data/dsb2018"))
    if not (source / "images").is_dir():
        pytest.skip(f"no images in {source}; name their folder in the environment variable DSB2018")
    return source


@pytest.fixture
def dsb2018(tmp_path, source):
    """Some small ones and their masks, in a folder to work in."""
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


def test_real_images(dsb2018, repo):
    folders = f"images: {dsb2018}/images, masks: {dsb2018}/masks, clean: {dsb2018}/images"
    recipe = "epochs: 3, steps_per_epoch: 100, filters: 8"
    call = call_here(
        dsb2018,
        *("--configfile", repo / "config/test.yaml", repo / "config/dsb2018.yaml"),
        *("--cores", "2", "--until", "aggregate", "--config"),
        f"datasets={{dsb2018: {{{folders}}}}}",
        "recipe=tiny",
        f"recipes={{tiny: {{{recipe}}}}}",
        "grid={noises: [n20], methods: [denoiseg], n_annotated: [6], seeds: [1]}",
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


# Share of images, in percent, that are doubted at least and at most where a model was trained on so
# many others.
@pytest.mark.parametrize("n_images", [2, 5, 50])
@pytest.mark.parametrize(
    ("scale", "offset", "least", "most"),
    [
        (1, 0, 0, 0),
        (1 / 255, 0, 99.5, 100),
        (1 / 65535, 0, 100, 100),
        (257, 0, 100, 100),
        (1, 32768, 100, 100),
        (1, 1e9, 100, 100),
        (16, 0, 50, 80),
        (1 / 16, 0, 10, 25),
    ],
)
def test_which_grey_levels_are_doubted(measured, n_images, scale, offset, least, most):
    rng, doubted = np.random.default_rng(0), []
    for _ in range(100):
        mean, std, n_pixels = measured[:, rng.permutation(measured.shape[1])]
        trained = np.average(mean[:n_images], weights=n_pixels[:n_images])
        squares = np.average((std**2 + mean**2)[:n_images], weights=n_pixels[:n_images])
        known = GreyLevels(1, trained, np.sqrt(squares - trained**2))
        doubted += [
            GreyLevels(1, scale * each + offset, scale * spread).far_from(known)
            for each, spread in zip(mean[n_images:], std[n_images:], strict=True)
        ]
    assert least <= 100 * np.mean(doubted) <= most


@pytest.fixture(scope="module")
def measured(source):
    """Mean, standard deviation and pixels of all images."""
    levels = [measure([read_image(path)[None]])[0] for path in (source / "images").glob("*.tif")]
    return np.array([(each.mean, each.std, each.count) for each in levels]).T
