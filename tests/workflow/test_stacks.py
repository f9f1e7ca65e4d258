"""Two-channel z-stacks of a user, as volumes, as planes and with all channels at once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from snakemake_call import call_here

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import read_metadata, write_array

N_STACKS, DEPTH, SIDE = 6, 6, 40
SIZE = {"Z": 1.5, "Y": 0.5, "X": 0.5}
STACKS = Metadata("CZYX", SIZE, ("DAPI", "GFP"), ("0000FF", "00FF00"))
STUDY = (
    "datasets={"
    "volumes: {source: folder, images: images, masks: masks, dimensions: 3, channel: DAPI},"
    "planes: {source: folder, images: images, masks: masks, dimensions: 2, channel: 0},"
    "both: {source: folder, images: images, dimensions: 3, channel: all}}",
    "methods={denoiseg_planes: {target: blind_spot, alpha: 0.5, planes: true}, "
    "median: {parameter: [1, 2]}}",
    "recipes={tiny: {patch_depth: 4, filters: 2, steps_per_epoch: 5}}",
    "grid={datasets: [volumes, planes, both], noises: [n10], n_annotated: [2], seeds: [1], "
    "methods: [n2v, denoiseg, denoiseg_planes, median]}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of six stacks of nuclei, the second channel ten times as bright."""
    folder = tmp_path_factory.mktemp("stacks")
    options = {"n_images": N_STACKS, "size": SIDE, "depth": DEPTH, "z_step": 3.0}
    for each in simulate(n_nuclei=(6, 9), **options):
        name = f"{each.name}.ome.tif"
        pixels = np.stack([each.image, each.image[::-1]]).astype(np.uint16)
        pixels[1] *= 10
        write_array(folder / "images" / name, pixels, STACKS)
        write_array(folder / "masks" / name, each.mask.astype(np.uint16), STACKS.only("ZYX"))
    call = call_here(folder, "--cores", "2", "--config", *STUDY)
    assert call.status == 0, call.screen
    assert call.jobs["train"] == 10
    return folder


def predictions(study, dataset, method, kind, n_annotated):
    run = study / f"results/runs/{dataset}/n10/{method}/annotated{n_annotated}/seed1"
    return sorted((run / "predictions" / kind).iterdir())


def test_every_stack_is_one_volume_or_many_planes(study):
    for dataset, count, axes in (("volumes", 1, "ZYX"), ("planes", DEPTH, "YX")):
        images = sorted((study / f"results/data/{dataset}/prepared/images").iterdir())
        assert len(images) == N_STACKS * count
        assert {read_metadata(path).axes for path in images} == {axes}
        for method in ("denoiseg", "denoiseg_planes"):
            for kind in ("denoised", "labels"):
                for path in predictions(study, dataset, method, kind, 2):
                    assert read_metadata(path) == STACKS.only(axes)
    first = study / "results/data/planes/prepared/images/sim_0000_z002.tif"
    whole = read_image(study / "images/sim_0000.ome.tif")
    np.testing.assert_array_equal(read_image(first), whole[0, 2])


def test_planes_of_one_stack_are_never_divided(study):
    split = pd.read_csv(study / "results/data/planes/split/seed1.tsv", sep="\t")
    assert (split.groupby("source")["subset"].nunique() == 1).all()
    assert set(split["subset"]) == {"train", "val", "test"}


def test_all_channels_are_denoised_together(study):
    for method in ("n2v", "median"):
        for path in predictions(study, "both", method, "denoised", 0):
            assert read_metadata(path) == STACKS
            noisy = read_image(study / "results/data/both/noisy/n10" / path.name)
            denoised = read_image(path)
            assert denoised.shape == (2, DEPTH, SIDE, SIDE)
            # Each on its own scale.
            for channel in range(2):
                assert denoised[channel].mean() == pytest.approx(noisy[channel].mean(), rel=0.05)


def test_tables_report_and_trust_hold_all_of_them(study):
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    scored = metrics.groupby("dataset")["method"].agg(set)
    everything = {"n2v", "denoiseg", "denoiseg_planes", "median"}
    assert scored["volumes"] == scored["planes"] == everything
    assert scored["both"] == {"n2v", "median"}
    assert set(metrics[metrics["dataset"] == "volumes"]["metric"]) >= {"AP", "SEG"}
    for dataset in scored.index:
        json.loads((study / f"results/trust/{dataset}_n10.json").read_text())
        assert (study / f"results/figures/{dataset}/panel_n10.png").stat().st_size > 1000
    page = (study / "results/checks/volumes_n10.html").read_text()
    assert f"{DEPTH}x{SIDE}x{SIDE} voxels" in page


def test_models_on_new_stacks(study, tmp_path):
    """In OME-Zarr: the other channel stays as it is; one model of volumes, one of planes."""
    new = study / "new"
    pixels = read_image(study / "images/sim_0001.ome.tif")
    write_array(new / "tomorrow.ome.tif", pixels, STACKS)
    for dataset, planes in (("volumes", "false"), ("planes", "true")):
        model = study / f"results/runs/{dataset}/n10/denoiseg/annotated2/seed1/model.pt"
        asked = f"{{images: new, model: {model}, channel: GFP, planes: {planes}, format: ome.zarr}}"
        call = call_here(
            study, "--cores", "2", "predict", "--forcerun", "predict_chunk", "--config", *STUDY,
            f"predict={asked}",
        )  # fmt: skip
        assert call.status == 0, call.screen
        with open_image_file(study / "results/predicted/new/denoised/tomorrow.ome.zarr") as file:
            assert file.metadata == STACKS
            dapi, gfp = (file.read((n, *[slice(None)] * 3)) for n in range(2))
        assert dapi.tobytes() == pixels[0].astype(np.float32).tobytes()
        assert not np.array_equal(gfp, pixels[1])
        labels = Path(study / "results/predicted/new/labels/tomorrow.ome.zarr")
        assert read_metadata(labels) == STACKS.only("ZYX")
