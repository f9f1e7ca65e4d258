"""Study, suggestions, corrected masks, and a second study that starts from the first model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from snakemake_call import REPO, call_here, dry_run

from denoiseg_flow import cli
from denoiseg_flow.data import manifest
from denoiseg_flow.data.simulated.simulator import SimulatedImage, simulate
from denoiseg_flow.data.store import write_labels
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.napari_plugin.corrections import find_crops

PIXEL_SIZE = 0.25  # micrometres


FIRST = """
datasets:
  mine:
    source: folder
    images: images
    masks: masks
grid:
  datasets: [mine]
  noises: [n0]
  methods: [baseline]
  n_annotated: [all]
  reference: baseline
"""


@dataclass(frozen=True)
class Study:
    """A folder in which a study ran, and the truth about its images."""

    folder: Path
    truth: dict[str, SimulatedImage]

    def snakemake(self, *configs, run, call=call_here):
        """Score a run of a study with these configs on top of the smallest recipe."""
        files = [REPO / "config/test.yaml", self.folder / "first.yaml", *configs]
        target = f"results/runs/{run}/metrics.tsv"
        done = call(self.folder, "--cores", "2", target, "--configfile", *files, config=None)
        assert done.status == 0, done.screen
        return done


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "first.yaml").write_text(FIRST)
    (folder / "images").mkdir()
    truth = {each.name: each for each in simulate(n_images=6, size=96, seed=1, n_nuclei=(6, 12))}
    resolution = {"resolution": (1e4 / PIXEL_SIZE,) * 2, "resolutionunit": "CENTIMETER"}
    for number, (name, each) in enumerate(truth.items()):
        tifffile.imwrite(folder / "images" / f"{name}.tif", each.image, **resolution)
        if number < 3:
            write_labels(folder / "masks" / f"{name}.tif", each.mask.astype(np.uint16))
    found = Study(folder, truth)
    found.snakemake(run="mine/n0/baseline/annotated1/seed1")
    return found


@pytest.fixture(autouse=True)
def here(monkeypatch, request):
    """Paths on the command line are relative to the folder of the study."""
    if "study" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("study").folder)


def annotate_next(*options):
    return cli.main(["annotate-next", "results", "--device", "cpu", *map(str, options)])


def correct(study, folder):
    """Replace the predicted masks by the truth, as the plugin of napari does."""
    table = pd.read_csv(folder / "suggestions.csv")
    for row, crop in zip(table.itertuples(), find_crops(folder), strict=True):
        height, width = crop.layers()[-1][0].shape
        crop.save(study.truth[row.image].mask[row.y : row.y + height, row.x : row.x + width])
    return table


def test_two_rounds(study, capsys):
    assert annotate_next("--out", "round1", "--n", 4, "--crop", 40) == 0
    screen = capsys.readouterr().out
    assert "4 images to annotate, as suggested by mine/n0/baseline/annotated1/seed1" in screen
    text = Path("round1/next.yaml").read_text()
    assert text in screen
    assert "snakemake --cores all --configfile YOUR_CONFIG.yaml round1/next.yaml" in text
    table = correct(study, study.folder / "round1")
    assert set(table["image"]) <= set(list(study.truth)[3:])
    for row in table.itertuples():
        with tifffile.TiffFile(f"round1/images/{row.file}.tif") as file:
            assert f'PhysicalSizeX="{PIXEL_SIZE}"' in file.ome_metadata
            shown = study.truth[row.image].image[row.y : row.y + 40, row.x : row.x + 40]
            assert np.array_equal(file.asarray(), shown)

    call = study.snakemake("round1/next.yaml", run="with_round1/n0/round1/annotated5/seed1")
    assert call.jobs["train"] == 1, "the first model is a file of the round"
    split = manifest.read(Path("results/data/with_round1/split/seed1.tsv"))
    new = split[split["image"].str.startswith("round1_")]
    assert new["subset"].eq("train").all() and new["annotated"].eq(1).all() and len(new) == 4
    run = Path("results/runs/with_round1/n0/round1/annotated5/seed1")
    model = load_model(run / "model.pt")
    assert model.origin["init"]["dataset"] == "mine"
    assert model.origin["annotated"] == 5
    scores = pd.read_csv(run / "metrics.tsv", sep="\t")
    before = pd.read_csv("results/runs/mine/n0/baseline/annotated1/seed1/metrics.tsv", sep="\t")
    assert set(scores["image"]) == set(before["image"]), "the same images as before"

    assert annotate_next("--out", "round2", "--n", 50, "--crop", 40) == 0
    again = pd.read_csv("round2/suggestions.csv")
    assert len(again) == 3 * 4 - 4, "all crops of the images without a mask but the annotated ones"
    assert not set(again["file"]) & set(table["file"])
    following = yaml.safe_load(Path("round2/next.yaml").read_text())
    assert following["datasets"]["with_round2"]["of"] == ["mine", "round1", "round2"]
    call = study.snakemake(
        "round1/next.yaml",
        "round2/next.yaml",
        run="with_round2/n0/round2/annotated13/seed1",
        call=dry_run,
    )
    assert call.jobs["train"] == 1
