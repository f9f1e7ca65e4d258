"""Own images divided by a table with groups, and two-channel volumes divided by subfolders."""

import os
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from snakemake_call import call_snakemake, dry_run

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array
from denoiseg_flow.models.model_file import load_model

STACKS = Metadata("CZYX", {"Z": 1.5, "Y": 0.5, "X": 0.5}, ("DAPI", "GFP"))
SLIDES = ["A", "A", "A", "B", "B", "C", "C", "C", "C"]
STUDY = (
    "datasets={crops: {source: folder, images: crops, masks: masks, clean: clean, "
    "split: {file: splits.tsv, cross_validate_below: 10}}}",
    "methods={median: {parameter: [1, 2]}, gaussian: {parameter: 1}}",
    "recipes={tiny: {filters: 2, steps_per_epoch: 5}}",
    "grid={datasets: [crops], n_annotated: [4], methods: [median, gaussian, denoiseg], "
    "reference: median}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of crops that a table assigns to slides."""
    folder = tmp_path_factory.mktemp("split")
    for each in simulate(n_images=len(SLIDES), size=48, n_nuclei=(3, 6)):
        for kind, pixels in (("crops", each.image), ("masks", each.mask), ("clean", each.clean)):
            write_array(folder / kind / f"{each.name}.tif", pixels)
    rows = [f"sim_{k:04d}\t{slide}\t{'' if k else 2}" for k, slide in enumerate(SLIDES)]
    rows[8] = "sim_0008.tif\tC\t1"
    (folder / "splits.tsv").write_text("\n".join(["image\tgroup\trank", *rows]))
    call = call_snakemake(folder, "--cores", "2", "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


def read_split(folder, dataset, seed):
    return pd.read_csv(folder / f"results/data/{dataset}/split/seed{seed}.tsv", sep="\t")


def test_each_group_is_predicted_without_having_been_seen(study):
    split = read_split(study, "crops", 1)
    assert split["group"].tolist() == SLIDES and set(split["subset"]) == {"cross"}
    ranked = split.sort_values("rank")["image"]
    assert ranked.tolist()[:2] == ["sim_0008", "sim_0000"]
    run = "crops/n10/denoiseg/annotated4/seed1"
    log = (study / "results/logs" / run / "train.log").read_text()
    folds = [set(names.split(", ")) for names in re.findall(r"fold \d: without (.*)", log)]
    members = split.groupby("group")["image"].agg(set)
    assert sorted(map(sorted, folds)) == sorted(map(sorted, members))
    model = load_model(study / "results/runs" / run / "model.pt")
    for group in members:
        (network,) = {id(model.for_image(name)) for name in group}
        others = set(split["image"]) - group
        assert network not in {id(model.for_image(name)) for name in (*others, "new")}


def test_intervals_are_over_groups_and_the_report_says_so(study):
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    assert set(metrics["source"]) == {"A", "B", "C"} and metrics["image"].nunique() == len(SLIDES)
    paired = pd.read_csv(study / "results/tables/paired.csv")
    assert set(paired["n_sources"]) == {3}
    # Without training, one seed is enough.
    assert paired.set_index("method").loc["gaussian", ["low", "high"]].notna().all(axis=None)
    caption = "In crops, groups of images take the place of files: means and intervals are over"
    for name in ("paired.html", "denoising.md", "segmentation.tex"):
        assert caption in (study / "results/tables" / name).read_text()
    report = (study / "results/report.html").read_text()
    assert "The images of crops belong to groups, which were divided as a whole" in report
    assert "9 test images from 3 groups" in report


@pytest.fixture
def again(study, tmp_path):
    """A copy of the study, and a function that plans it."""
    copy = shutil.copytree(study, tmp_path / "copy")
    return copy, lambda: dry_run(copy, "--config", *STUDY)


def make_younger(path):
    """Set the time of a file or folder to an hour after now."""
    later = time.time() + 3600
    os.utime(path, (later, later))


def test_a_changed_table_repeats_what_depends_on_it(again):
    folder, plan = again
    table = folder / "splits.tsv"
    assert "Nothing to be done" in plan().screen
    table.write_text(table.read_text().replace("C\t1", "C\t3"))
    make_younger(table)
    call = plan()
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == call.jobs["add_noise"] == 0
    assert call.jobs["split"] == 1
    assert call.jobs["train"] == call.jobs["predict_run"] == call.jobs["score"] == 3


def test_a_mistake_in_the_table_is_found_before_any_job(again):
    folder, plan = again
    with (folder / "splits.tsv").open("a") as file:
        file.write("\nother\tA\t")
    call = plan()
    assert call.status != 0 and "Traceback" not in call.screen
    assert "splits.tsv, line 11: the dataset has no image 'other'; correct the name" in call.screen


def test_volumes_of_two_channels_in_subfolders(tmp_path):
    """One of the two training volumes validates, the same for all seeds."""
    subsets = ["train", "train", "test", "test", "test"]
    stacks = simulate(n_images=5, size=40, depth=6, z_step=3.0)
    for each, subset in zip(stacks, subsets, strict=True):
        pixels = np.stack([each.image, each.image[::-1]])
        write_array(tmp_path / "stacks" / subset / f"{each.name}.ome.tif", pixels, STACKS)
    study = (
        "--config",
        "datasets={stacks: {source: folder, images: stacks, clean: stacks, dimensions: 3, "
        "channel: all, split: {subset: folder, group: '^.{4,5}/sim_(\\d{4})'}}}",
        "grid={datasets: [stacks], methods: [n2v], seeds: [1, 2], reference: n2v}",
        *("--until", "split"),
    )
    call = call_snakemake(tmp_path, "--cores", "2", *study)
    assert call.status == 0, call.screen
    first, second = (read_split(tmp_path, "stacks", seed) for seed in (1, 2))
    assert first["image"].tolist()[:2] == ["test_sim_0002", "test_sim_0003"]
    assert first["subset"].tolist() == ["test"] * 3 + second["subset"].tolist()[3:]
    assert set(first["subset"][3:]) == {"train", "val"}
    inside = tmp_path / "stacks/test"
    shutil.copy(inside / "sim_0002.ome.tif", inside / "sim_0009.ome.tif")
    make_younger(inside)
    call = dry_run(tmp_path, *study)
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == 1 and call.jobs["split"] == 2
