"""Stained sections in colour: denoised, segmented, reported and predicted in colour."""

import io
import re
from base64 import b64decode

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from snakemake_call import call_here

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import open_image, read_metadata, write_labels
from denoiseg_flow.models.model_file import load_model

SIGMA = 20
ABSORBED = (100, 190, 60)  # of 240 grey levels, by the stain of a bright nucleus
STUDY = (
    "datasets={sections: {source: folder, images: images, masks: masks, clean: images, "
    "colour: rgb}}",
    "noises={n20: {kind: gaussian, sigma: 20}}",
    "recipes={tiny: {steps_per_epoch: 60}}",
    "grid={datasets: [sections], noises: [n20], n_annotated: [4], seeds: [1], "
    "methods: [n2v, denoiseg, gaussian, otsu, baseline], reference: n2v}",
    "predict={images: new, method: denoiseg}",
)
TARGETS = ("all", "predict")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of sections with dark purple nuclei, and predictions of two new ones."""
    folder = tmp_path_factory.mktemp("colour")
    for number, each in enumerate(simulate(n_images=14, size=64, n_nuclei=(3, 6))):
        low, high = each.clean.min(), each.clean.max()
        stain = np.clip((each.clean - low) / (high - low), 0, 1)[..., None]
        picture = np.rint(240 - stain * ABSORBED).astype(np.uint8)
        kind = "images" if number < 12 else "new"
        (folder / kind).mkdir(exist_ok=True)
        if number % 2:
            Image.fromarray(picture).save(folder / kind / f"{each.name}.png")
        else:
            tifffile.imwrite(folder / kind / f"{each.name}.tif", picture, photometric="rgb")
        if kind == "images":
            write_labels(folder / "masks" / f"{each.name}.tif", each.mask, Metadata("YX"))
    call = call_here(folder, "--cores", "2", *TARGETS, "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


def run_of(study, method, n_annotated=0):
    return study / f"results/runs/sections/n20/{method}/annotated{n_annotated}/seed1"


def test_noise_is_another_in_each_colour(study):
    prepared = PreparedData(study / "results/data/sections/prepared")
    name = prepared.read_manifest()["image"].iloc[0]
    noisy = open_image(next((study / "results/data/sections").glob(f"**/n20/**/{name}.tif")))
    noise = (noisy - open_image(prepared.image(name))).reshape(3, -1)
    assert noise.std(axis=1) == pytest.approx([SIGMA] * 3, rel=0.1)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.1


def test_all_colours_are_denoised_together(study):
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    scores = metrics.groupby(["method", "metric"])["value"].mean()
    assert scores["n2v", "PSNR"] > scores["n2v", "PSNR_noisy"] + 2
    model = load_model(run_of(study, "n2v") / "model.pt")
    assert model.layout.channels == 3 and model.layout.colour
    assert len(set(model.normalisation.mean)) == 3
    for path in (run_of(study, "n2v") / "predictions/denoised").iterdir():
        assert read_metadata(path).colour and open_image(path).dtype == np.float32


def test_dark_nuclei_are_found_without_annotation(study):
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    scores = metrics[metrics["metric"] == "AP"].groupby("method")["value"].mean()
    assert scores["otsu"] > 0.3


def test_the_report_shows_colours(study):
    page = (study / "results/report.html").read_text()
    found = re.findall(r'<img (?:class="(?:under|over)"|src="data:image/jpeg).*', page)
    assert any("image/jpeg" in each for each in found)
    found = [re.search(r'src="data:image/\w+;base64,([^"]+)"', each)[1] for each in found]
    pictures = [Image.open(io.BytesIO(b64decode(each))) for each in found]
    shown = [np.asarray(each).astype(int) for each in pictures if each.mode == "RGB"]
    assert shown
    for pixels in shown:  # on the whole, red and blue light passes, and green is absorbed
        red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
        assert min(red, blue) > green


def test_new_images_are_predicted_in_colour(study):
    (folder,) = (study / "results/predicted").glob("**/denoised")
    paths = sorted(folder.iterdir())
    assert len(paths) == 2
    for path in paths:
        with tifffile.TiffFile(path) as tif:
            assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
            assert tif.series[0].dtype == np.uint8 and tif.series[0].shape == (64, 64, 3)
