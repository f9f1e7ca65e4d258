"""What a round of annotation writes, and what it refuses."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.folders import find
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.prepare import prepare
from denoiseg_flow.data.store import open_labels, read_metadata, write_array, write_labels
from denoiseg_flow.deployment import annotation_round
from denoiseg_flow.deployment.annotation_round import finished_runs, write_round
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.annotate_next import overlap
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.methods.pixel_classifier import PixelClassifier
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.models.threshold import Threshold
from denoiseg_flow.study.grid import Run

SIZE = 64
BASELINE = Run("own", "n0", "baseline", 1, 1)


class Study:
    """A folder of results without its jobs: prepared images, and the model of one run."""

    def __init__(self, folder, config, make_model, make_blobs):
        self.folder, self.results, self.config = folder, folder / "results", config
        self.make_model, self.make_blobs = make_model, make_blobs
        config["datasets"] = {
            "own": {"source": "folder", "images": f"{folder}/images", "split": {}}
        }
        config["grid"] |= {"datasets": ["own"], "noises": ["n0"], "reference": "baseline"}
        self.recipe = make_model().recipe
        config["recipes"]["tiny"] = as_dict(self.recipe)

    def add_images(self, count=4, annotated=1, shape=(SIZE, SIZE)):
        for number in range(count):
            image, mask = (part[: shape[0], : shape[1]] for part in self.make_blobs(SIZE, number))
            write_array(self.folder / f"images/{number}.tif", image)
            if number < annotated:
                write_labels(self.folder / f"masks/{number}.tif", mask)
        if annotated:
            self.config["datasets"]["own"]["masks"] = f"{self.folder}/masks"
        return self.prepare("own", self.config["datasets"]["own"])

    def prepare(self, dataset, spec, parts=()):
        data = self.results / "data" / dataset
        prepare(
            spec,
            None,
            data / "prepared",
            [self.results / f"data/{each}/prepared" for each in parts],
        )
        table = PreparedData(data / "prepared").read_manifest()
        how = {"val": 0.15, "test": 0.25, "seed": 0, "cross_validate_below": 8}
        manifest.write(splitting.split(table, how, 1), data / "split/seed1.tsv")
        shutil.copytree(data / "prepared/images", data / "noisy/n0")
        return self

    def add_run(self, method="baseline", n_annotated=1, seed=1, dataset="own", **fields):
        method = Method(name=method, **fields)
        model = self.make_model(method)
        model.recipe = self.recipe
        if method.segmenter:
            model.network = PixelClassifier(model.layout)
        if method.segments:
            model.threshold = Threshold(0.2, 0.5, 1)
        run = Run(dataset, "n0", method.name, n_annotated, seed)
        model.identity = run.as_dict()
        self.config["methods"].setdefault(method.name, fields)
        save_model(model, self.results / "runs" / run.folder / "model.pt")
        return self

    def write(self, name="round1", run=BASELINE, count=3, crop=32):
        return write_round(self.results, self.config, run, self.folder / name, count, crop)

    def next_config(self, name="round1"):
        return yaml.safe_load((self.folder / name / "next.yaml").read_text())


@pytest.fixture
def study(tmp_path, config, make_model, make_blobs):
    return Study(tmp_path, config, make_model, make_blobs)


def test_crops_and_their_masks_are_parts_of_the_images(study, tmp_path):
    study.add_images().add_run()
    chosen = study.write()
    assert len(chosen) == 3 and {each.image for each in chosen} <= {"1", "2", "3"}
    pairs = find(tmp_path / "round1/images", tmp_path / "round1/masks")
    assert {pair.name for pair in pairs} == {each.name for each in chosen}
    images = study.results / "data/own/noisy/n0"
    model = load_model(study.results / "runs" / BASELINE.folder / "model.pt")
    predict_folder(model, images, ["1", "2", "3"], tmp_path / "predicted", False)
    for name, image, (y, x), _ in chosen:
        assert name == f"{image}_y{y.start}_x{x.start}"
        assert (y.stop - y.start, x.stop - x.start) == (32, 32)
        mask = tifffile.imread(tmp_path / f"round1/masks/{name}.tif")
        assert mask.dtype == np.uint16
        found = open_labels(tmp_path / f"predicted/labels/{image}.tif")[y, x]
        assert np.array_equal(mask > 0, found > 0)
        assert set(np.unique(mask)) - {0} == set(range(1, len(np.unique(found[found > 0])) + 1))
        shown = tifffile.imread(tmp_path / f"round1/images/{name}.tif")
        assert np.array_equal(shown, tifffile.imread(tmp_path / f"images/{image}.tif")[y, x])
    table = pd.read_csv(tmp_path / "round1/suggestions.csv", dtype={"image": str})
    assert table["file"].tolist() == [each.name for each in chosen]
    assert table["rank"].tolist() == [1, 2, 3]


def test_pixel_size_and_clean_images_come_along(study, tmp_path):
    for number in range(3):
        image = study.make_blobs(SIZE, number)[0]
        resolution = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
        for kind in ("images", "clean"):
            (tmp_path / kind).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / kind / f"{number}.tif", image, **resolution)
    spec = study.config["datasets"]["own"]
    spec["clean"] = f"{tmp_path}/clean"
    study.prepare("own", spec).add_run()
    (first, *_) = study.write(count=2)
    for kind in ("images", "masks"):
        size = read_metadata(tmp_path / f"round1/{kind}/{first.name}.tif").pixel_size
        assert size == pytest.approx({"Y": 0.25, "X": 0.25})
    assert len(list((tmp_path / "round1/clean").iterdir())) == 2
    assert study.next_config()["datasets"]["round1"]["clean"] == f"{tmp_path}/round1/clean"


def test_the_next_study_adds_the_round_to_the_old_masks(study, tmp_path):
    study.add_images(annotated=2).add_run(n_annotated=2)
    study.write(run=replace(BASELINE, n_annotated=2))
    config = study.next_config()
    assert config["datasets"]["with_round1"] == {"source": "combine", "of": ["own", "round1"]}
    assert config["datasets"]["own"] == study.config["datasets"]["own"]
    assert config["methods"]["round1"] == {"init": f"{tmp_path}/round1/model.pt", "recipe": "tiny"}
    grid = config["grid"]
    assert (grid["methods"], grid["n_annotated"]) == (["baseline", "round1"], ["all"])
    first, copied = (path.read_bytes() for path in (
        study.results / "runs/own/n0/baseline/annotated2/seed1/model.pt",
        tmp_path / "round1/model.pt",
    ))  # fmt: skip
    assert first == copied


def test_a_continued_network_rehearses_what_it_has_rehearsed(study, tmp_path):
    study.recipe = replace(study.recipe, rehearsal=0.5)
    study.config["recipes"]["tiny"] = as_dict(study.recipe)
    study.add_images(annotated=2).add_run(n_annotated=2, init="simulated_objects")
    study.write(run=replace(BASELINE, n_annotated=2))
    assert study.next_config()["methods"]["round1"] == {
        "init": f"{tmp_path}/round1/model.pt", "recipe": "tiny", "rehearse": "simulated_objects",
    }  # fmt: skip


def test_without_masks_before_the_round_is_what_is_scored(study):
    study.add_images(annotated=0).add_run(n_annotated=0)
    study.write(run=replace(BASELINE, n_annotated=0), count=5)
    config = study.next_config()
    assert config["datasets"]["with_round1"]["of"] == ["round1", "own"]
    split = config["datasets"]["round1"]["split"]
    assert split["cross_validate_below"] == 6
    assert re.match(split["group"], "a_y3_x4_y0_x12.tif")[1] == "a_y3_x4"


def test_a_pixel_classifier_learns_anew(study, monkeypatch):
    study.add_images().add_run("forest", segmenter="pixel_classifier")
    study.write(run=replace(BASELINE, method="forest"))
    config = study.next_config()
    assert config["methods"] == {"forest": {"segmenter": "pixel_classifier"}}
    assert not (study.folder / "round1/model.pt").exists()


def test_what_is_annotated_is_not_suggested_again(study, tmp_path):
    study.add_images().add_run()
    first = study.write(count=4)
    datasets = study.config["datasets"]
    datasets |= study.next_config()["datasets"]
    study.prepare("round1", datasets["round1"])
    study.prepare("with_round1", datasets["with_round1"], ["own", "round1"])
    study.add_run(dataset="with_round1", n_annotated=5)
    run = replace(BASELINE, dataset="with_round1", n_annotated=5)
    rest = study.write("round2", run, 50)
    assert len(rest) == 3 * 4 - 4
    assert not {each.name for each in first} & {each.name for each in rest}
    assert all(pair.mask for pair in find(tmp_path / "round2/images", tmp_path / "round2/masks"))
    small = study.write("round3", run, 50, crop=16)
    assert len(small) == 3 * 16 - 4 * 4
    taken = [(each.image, each.place) for each in first]
    for each in small:
        assert not any(image == each.image and overlap(place, each.place) for image, place in taken)
    datasets |= study.next_config("round2")["datasets"]
    study.prepare("round2", datasets["round2"])
    study.prepare("with_round2", datasets["with_round2"], ["own", "round1", "round2"])
    study.add_run(dataset="with_round2", n_annotated=13)
    run = replace(BASELINE, dataset="with_round2", n_annotated=13)
    with pytest.raises(InputError, match="is left to annotate"):
        study.write("round4", run)


def test_whole_images_and_the_size_of_crops(study, monkeypatch):
    study.add_images().add_run()
    whole = study.write(crop="image")
    assert {each.name for each in whole} == {"1", "2", "3"}
    labels = np.zeros((SIZE, SIZE), np.uint16)
    labels[:14, :14] = 1  # as large as a disc of 15.8 pixels: 8 of them are wider than an image
    monkeypatch.setattr(annotation_round, "segment", lambda model, image: labels)
    assert {each.name for each in study.write("auto", crop="auto")} == {"1", "2", "3"}
    monkeypatch.setattr(annotation_round, "WIDE", 2)
    parts = study.write("parts", crop="auto")
    assert all(each.place[0].stop - each.place[0].start == 32 for each in parts)


def test_a_run_is_chosen(study):
    study.add_images()
    study.add_run(n_annotated=2).add_run(n_annotated=10, seed=2).add_run(n_annotated=10)
    study.add_run("denoiseg", target="blind_spot", alpha=0.5)
    study.add_run("n2v", target="blind_spot", alpha=1)
    best, other = finished_runs(study.results, study.config)
    assert best == replace(BASELINE, n_annotated=10)
    assert other.method == "denoiseg"
    assert finished_runs(study.results, study.config, method="denoiseg") == [other]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "unet"}, "no finished run of method 'unet'; give --method one of .*baseline"),
        ({"method": "n2v"}, r"segments by a network or a pixel classifier \(only n2v\)"),
        ({"dataset": "other"}, "no finished run of dataset 'other'; give --dataset one of own"),
        ({"noise": "n10"}, "no finished run of noise 'n10'; give --noise one of n0"),
    ],
)
def test_runs_that_are_not_there(study, asked, message):
    study.add_images().add_run().add_run("n2v", target="blind_spot", alpha=1)
    with pytest.raises(InputError, match=message):
        finished_runs(study.results, study.config, **asked)


def test_a_study_that_has_not_finished(study):
    with pytest.raises(InputError, match="has no finished run; let the study run"):
        finished_runs(study.results, study.config)


def test_nothing_of_a_user_is_written_over(study, tmp_path):
    study.add_images().add_run()
    study.write()
    mask = next((tmp_path / "round1/masks").iterdir())
    mask.write_text("corrected")
    with pytest.raises(InputError, match="may hold masks that you corrected; give each round"):
        study.write()
    assert mask.read_text() == "corrected"
    (tmp_path / "empty").mkdir()
    assert study.write("empty")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "round 1"}, "give --out a folder whose name consists of letters"),
        ({"name": "baseline"}, "dataset or method of the name of .*; give --out a folder"),
        ({"crop": 8}, r"crops of 8 pixels are smaller than the training patches .*\(16 pixels\)"),
        ({"count": 0}, "0 images or crops are asked for; give --n a number up to 50"),
    ],
)
def test_requests_that_make_no_sense(study, tmp_path, changes, message):
    study.add_images().add_run()
    with pytest.raises(InputError, match=message):
        study.write(**changes)
    assert not (tmp_path / changes.get("name", "round1")).exists()


def test_all_images_are_annotated(study):
    study.add_images(annotated=4).add_run(n_annotated=4)
    with pytest.raises(InputError, match="is left to annotate; add images without a mask"):
        study.write(run=replace(BASELINE, n_annotated=4))


def test_a_recipe_that_is_not_in_the_config_any_more(study, tmp_path):
    study.add_images().add_run()
    del study.config["recipes"]["tiny"]
    with pytest.raises(InputError, match="the recipe that method 'baseline' was trained by"):
        study.write()
    assert not (tmp_path / "round1").exists()
