"""Own images divided by a table with groups, and two-channel volumes divided by subfolders."""

import os
import re
import shutil

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
    "datasets={"
    "crops: {source: folder, images: crops, masks: masks, clean: clean, "
    "split: {file: splits.tsv, cross_validate_below: 10}},"
    "stacks: {source: folder, images: stacks, clean: stacks, dimensions: 3, channel: all, "
    "split: {subset: folder}}}",
    "methods={median: {parameter: [1, 2]}}",
    "recipes={tiny: {patch_depth: 4, filters: 2, steps_per_epoch: 5}}",
    "grid={datasets: [crops, stacks], n_annotated: [4], methods: [median, denoiseg], "
    "seeds: [1, 2]}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study."""
    folder = tmp_path_factory.mktemp("split")
    for each in simulate(n_images=len(SLIDES), size=48, n_nuclei=(3, 6)):
        for kind, pixels in (("crops", each.image), ("masks", each.mask), ("clean", each.clean)):
            write_array(folder / kind / f"{each.name}.tif", pixels)
    rows = [f"sim_{k:04d}\t{slide}\t{'' if k else 2}" for k, slide in enumerate(SLIDES)]
    rows[8] = "sim_0008.tif\tC\t1"
    (folder / "splits.tsv").write_text("\n".join(["image\tgroup\trank", *rows]))
    subsets = ["train", "train", "test", "test", "test"]
    for each, subset in zip(
        simulate(n_images=5, size=40, depth=6, z_step=3.0), subsets, strict=True
    ):
        pixels = np.stack([each.image, each.image[::-1]])
        write_array(folder / "stacks" / subset / f"{each.name}.ome.tif", pixels, STACKS)
    call = call_snakemake(folder, "--cores", "2", "--config", *STUDY)
    assert call.status == 0, call.screen
    return folder


def read_split(study, dataset, seed):
    return pd.read_csv(study / f"results/data/{dataset}/split/seed{seed}.tsv", sep="\t")


def test_subfolders_are_the_split(study):
    """One of the two training volumes validates, the same for all seeds."""
    first, second = (read_split(study, "stacks", seed) for seed in (1, 2))
    assert first["subset"].tolist() == ["test"] * 3 + second["subset"].tolist()[3:]
    assert set(first["subset"][3:]) == {"train", "val"}
    metrics = pd.read_csv(study / "results/tables/metrics.csv")
    stacks = metrics[metrics["dataset"] == "stacks"]
    assert set(stacks["source"]) == {f"test/sim_{k:04d}.ome.tif" for k in (2, 3, 4)}
    assert set(stacks["image"]) == {f"test_sim_{k:04d}" for k in (2, 3, 4)}


@pytest.mark.parametrize("seed", [1, 2])
def test_each_group_is_predicted_without_having_been_seen(study, seed):
    split = read_split(study, "crops", seed)
    assert split["group"].tolist() == SLIDES and set(split["subset"]) == {"cross"}
    ranked = split.sort_values("rank")["image"]
    assert ranked.tolist()[:2] == ["sim_0008", "sim_0000"]
    run = f"crops/n10/denoiseg/annotated4/seed{seed}"
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
    crops = metrics[metrics["dataset"] == "crops"]
    assert set(crops["source"]) == {"A", "B", "C"} and crops["image"].nunique() == len(SLIDES)
    paired = pd.read_csv(study / "results/tables/paired.csv")
    rows = paired[paired["dataset"] == "crops"]
    assert (rows["n_sources"] == 3).all() and rows["low"].notna().all()
    caption = "In crops, groups of images take the place of files: means and intervals are over"
    for name in ("paired.html", "denoising.md", "segmentation.tex"):
        assert caption in (study / "results/tables" / name).read_text()
    report = (study / "results/report.html").read_text()
    assert "The images of crops belong to groups, which were divided as a whole" in report
    assert "9 test images from 3 groups" in report and "3 test images)" in report


@pytest.fixture
def again(study, tmp_path):
    """Plan the study again in a copy that differs."""
    copy = shutil.copytree(study, tmp_path / "copy")

    def plan():
        return dry_run(copy, "--config", *STUDY)

    return copy, plan


def write_later(path, text):
    """Write a file, which becomes an hour younger than all others."""
    path.write_text(text)
    later = path.stat().st_mtime + 3600
    os.utime(path, (later, later))


def test_a_changed_table_repeats_what_depends_on_it(again):
    folder, plan = again
    table = folder / "splits.tsv"
    assert "Nothing to be done" in plan().screen
    write_later(table, table.read_text().replace("C\t1", "C\t3"))
    call = plan()
    assert call.status == 0, call.screen
    assert call.jobs["split"] == 2 and call.jobs["prepare"] == call.jobs["add_noise"] == 0
    assert call.jobs["train"] == call.jobs["score"] == 4
    trained = re.findall(
        r"^rule train:\n(?:    .*\n)*?    wildcards: dataset=(\w+)", call.screen, re.M
    )
    assert set(trained) == {"crops"}


def test_a_mistake_in_the_table_is_found_before_any_job(again):
    folder, plan = again
    write_later(folder / "splits.tsv", (folder / "splits.tsv").read_text() + "\nother\tA\t")
    call = plan()
    assert call.status != 0 and "Traceback" not in call.screen
    assert "splits.tsv, line 11: the dataset has no image 'other'; correct the name" in call.screen


def test_another_image_in_a_subfolder_is_prepared(again):
    folder, plan = again
    inside = folder / "stacks/test"
    shutil.copy(inside / "sim_0002.ome.tif", inside / "more.ome.tif")
    os.utime(inside, (inside.stat().st_mtime + 3600,) * 2)
    call = plan()
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == call.jobs["add_noise"] == 1 and call.jobs["split"] == 2
