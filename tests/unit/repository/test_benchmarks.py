"""The logic of the benchmarks, without the systems that they measure."""

import importlib
import re
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from torch import nn

from denoiseg_flow.methods.networks import build_network
from denoiseg_flow.study.grid import Grid


@pytest.fixture
def load(root, monkeypatch):
    """Import a module of the benchmarks, whose scripts find each other in their own folders."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(root / "benchmarks" / "workers")
    monkeypatch.syspath_prepend(root / "benchmarks")
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(root / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("filters", [2, 3])
def test_flops_of_the_unet_follow_from_its_layers(load, filters):
    """Depth 1: three pairs of 3x3 convolutions, the middle one at half the side, and a 1x1 head."""
    f, pixels = filters, 16 * 16
    down = 9 * (1 * f + f * f) * pixels
    middle = 9 * (f * 2 * f + 2 * f * f) * pixels // 4
    up = 9 * (2 * f * f + f * f) * pixels
    head = f * 4 * pixels
    network = build_network("unet", depth=1, filters=filters)
    assert load("flops").training_flops(network, 16) == 6 * (down + middle + up + head)


def test_numbers_moved_follow_from_the_layers(load):
    """Inputs and outputs of all convolutions, once forwards and twice backwards."""
    f, pixels = 2, 16 * 16
    shapes = [(1, f), (f, f), (2 * f, f), (f, f), (f, 4)]
    half = [(f, 2 * f), (2 * f, f)]
    numbers = sum(a + b for a, b in shapes) * pixels + sum(a + b for a, b in half) * pixels // 4
    network = build_network("unet", depth=1, filters=f)
    assert load("flops").training_numbers(network, 16) == 3 * numbers


def test_flops_count_groups_and_leave_the_network_alone(load):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=2))
    assert load("flops").training_flops(network, 6) == 6 * (4 * 9 * 16 + 4 * 2 * 16)
    assert network.training
    assert network[1].num_batches_tracked == 0
    assert torch.equal(network[1].running_mean, torch.zeros(4))


def test_every_second_round_runs_backwards(load):
    order = list(load("rounds").alternate(["a", "b", "c"], 3))
    assert order == [(n, x) for n, names in [(1, "abc"), (2, "cba"), (3, "abc")] for x in names]


def test_spread_is_median_and_range(load):
    assert load("rounds").spread([3, 1, 1200]) == "3.0 (1.0 to 1,200.0)"


def test_snapshots_are_the_best_weights_of_earlier_epochs(load):
    snapshots = load("snapshots").Snapshots([3.0, 1.0, 2.0])
    snapshots.after_epoch(0.8, 10, 5.0, "first")
    snapshots.after_epoch(1.6, 20, 7.0, "worse")
    snapshots.after_epoch(2.4, 30, 4.0, "better, but after minute 2")
    assert not snapshots.complete
    snapshots.after_epoch(3.2, 40, 1.0, "after minute 3")
    assert snapshots.complete
    assert [(s.point, s.minutes, s.step, s.weights) for s in snapshots.taken] == [
        (1.0, 1.0, 10, "first"),
        (2.0, 2.0, 20, "first"),
        (3.0, 3.0, 30, "better, but after minute 2"),
    ]


def test_points_before_the_first_validation_get_the_first_weights_and_their_time(load):
    snapshots = load("snapshots").Snapshots([1.0, 2.0, 9.0])
    snapshots.after_epoch(1.5, 10, 5.0, "first")
    snapshots.after_epoch(2.5, 20, float("nan"), "diverged")
    snapshots.finish(2.5)
    assert [(s.point, s.minutes, s.weights) for s in snapshots.taken] == [
        (1.0, 1.5, "first"),
        (2.0, 2.0, "first"),
        (9.0, 2.5, "first"),
    ]


def test_pace_fills_the_budget_and_never_exceeds_it(load):
    pace = load("pace").Pace.of_two((40, 12.0), (240, 52.0))
    assert (pace.overhead_seconds, pace.seconds_per_step) == (pytest.approx(4.0), 0.2)
    steps = 8 * pace.steps_per_epoch(1.0, epochs=8)
    assert 55 < pace.overhead_seconds + steps * pace.seconds_per_step <= 60
    assert pace.steps_per_epoch(0.05, epochs=8) == 0


def quality_options(quality, monkeypatch, folder, *arguments):
    folders = ["--images", "images", "--masks", "masks", "--out", str(folder)]
    monkeypatch.setattr(sys, "argv", ["quality.py", *folders, *arguments])
    return quality.read_options()


@pytest.mark.parametrize("kind, change", [("recipe", "learning_rate"), ("method", "alpha")])
def test_results_of_another_recipe_or_method_are_not_mixed(
    load, tmp_path, monkeypatch, kind, change
):
    """Their names may be the same."""
    quality = load("quality")
    options = quality_options(quality, monkeypatch, tmp_path)
    quality.keep_settings(options)
    quality.keep_settings(options)
    reader = {"recipe": "read_recipe_of", "method": "read_method"}[kind]
    read = getattr(quality, reader)
    monkeypatch.setattr(quality, reader, lambda *names: read(*names) | {change: 1})
    with pytest.raises(SystemExit, match=f"results with another {kind}; name another folder"):
        quality.keep_settings(options)


def test_processor_time_counts_work_and_not_waiting(load):
    clock = load("job").CLOCKS["processor"]
    started = clock()
    time.sleep(0.3)
    waited = clock()
    assert waited - started < 0.2
    while clock() == waited:
        pass
    assert clock() > waited


def test_a_pretrained_network_keeps_its_recipe_and_size(load, monkeypatch, tmp_path):
    quality = load("quality")
    options = quality_options(quality, monkeypatch, tmp_path, "--depth", "1")
    data = quality.Data(options)
    sizes = {
        method: quality.our_job(options, data, 1, 2, method, 7)["recipe"]
        for method in ("baseline", "pretrained")
    }
    assert [recipe["depth"] for recipe in sizes.values()] == [1, 4]
    assert [recipe["rehearsal"] for recipe in sizes.values()] == [0, 0.5]
    assert [recipe["steps_per_epoch"] for recipe in sizes.values()] == [7, 7]


@pytest.mark.parametrize("name", ["otsu", "bm3d", "sequential", "denoiseg_warm", "n2s_single"])
def test_methods_that_are_not_one_training_are_refused(load, name):
    check = load("quality").check_methods
    check(["denoiseg", "pretrained"])
    with pytest.raises(SystemExit, match=f"--methods cannot be '{name}'"):
        check(["denoiseg", name])


def test_a_pretrained_model_of_a_peer_must_be_on_this_machine(load, monkeypatch, tmp_path):
    quality = load("quality")

    def check(peer, path, *arguments):
        given = [f"--{peer}-model", str(path), *arguments]
        quality.check_models(quality_options(quality, monkeypatch, tmp_path, *given))

    folder, file = tmp_path / "2D_mine", tmp_path / "mine"
    with pytest.raises(SystemExit, match="--cellpose-model needs --cellpose-python as well"):
        check("cellpose", file)
    python = ["--stardist-python", "python", "--cellpose-python", "python"]
    for peer, path in (("cellpose", "cyto3"), ("cellpose", tmp_path), ("stardist", folder)):
        with pytest.raises(SystemExit, match=f"--{peer}-model .*{path}.* nothing is downloaded"):
            check(peer, path, *python)
    file.touch()
    check("cellpose", file, *python)
    folder.mkdir()
    (folder / "config.json").touch()
    with pytest.raises(SystemExit, match="is not the folder of a model"):
        check("stardist", folder, *python)
    (folder / "weights_best.h5").touch()
    check("stardist", folder, *python)


@pytest.fixture
def segmenters(load, monkeypatch, tmp_path):
    """Let fake workers of StarDist and Cellpose take part; return (quality, measure, jobs).

    Cellpose takes 10 s and 2 s per step, four of which are an epoch; both copy the masks to
    their predictions.
    """
    quality, jobs = load("quality"), []
    folder = tmp_path / "study" / "results" / "data" / "dsb2018"
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12] = 1
    names = [f"image{number}" for number in range(8)]
    for name in names:
        for kind in ("masks", "images"):
            (folder / "prepared" / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "prepared" / kind / f"{name}.tif", labels)
    split = pd.DataFrame(
        {
            "image": names,
            "subset": ["train"] * 3 + ["val"] * 3 + ["test"] * 2,
            "annotated": 1,
            "clean": 0,
            "source": names,
        }
    )
    (folder / "split").mkdir()
    split.to_csv(folder / "split" / "seed1.tsv", sep="\t", index=False)
    monkeypatch.setattr(quality.manifest, "read", lambda _: split)
    monkeypatch.setattr(quality.splitting, "annotated_images", lambda _, count: names[:count])

    def run(system, task, job, options):
        assert task == "train"
        jobs.append((system.name, job))
        report = {"versions": {system.kind: "1"}}
        if system.kind == "stardist":
            report["points"] = [[point, point, 0] for point in job["points"]]
        else:
            report |= {"steps": 4 * job["epochs"], "seconds": 10 + 8 * job["epochs"]}
            assert (job["images_per_epoch"], job["batch_size"]) == (8, 2)
        for point in [f"{point:g}" for point in job.get("points", [])] or ["."]:
            if job["predictions"]:
                (Path(job["predictions"]) / point / "labels").mkdir(parents=True)
                for name in job["test"]:
                    path = Path(job["predictions"]) / point / "labels" / f"{name}.tif"
                    tifffile.imwrite(path, labels)
        return report

    monkeypatch.setattr(quality, "run", run)

    def measure(*arguments):
        options = quality_options(
            quality, monkeypatch, tmp_path, "--draws", "1", "--n-annotated", "2",
            "--minutes", "5", "15", "--cellpose-batch", "2", "--stardist-patch", "128", *arguments,
        )  # fmt: skip
        options.methods = []
        peers = {"stardist": Path("python"), "cellpose": Path("python")}
        return quality.parts(options, quality.Data(options), peers)

    return quality, measure, jobs


def test_stardist_trains_once_and_cellpose_for_each_budget(segmenters):
    quality, measure, jobs = segmenters
    table = measure("--clock", "processor", "--peer-validation-images", "2")
    assert [name for name, _ in jobs] == ["stardist"] + ["cellpose"] * 4
    assert (jobs[0][1]["points"], jobs[0][1]["patch_size"]) == ([5, 15], 128)
    assert jobs[1][1]["batch_size"] == 2
    # Two short trainings, then as many epochs as fit into 97% of the minutes.
    assert [job["epochs"] for _, job in jobs[1:]] == [1, 3, 35, 107]
    for _, job in jobs:
        assert job["clock"] == "processor"
        assert job["revealed"] == ["image0", "image1"]
        assert len(job["val"]) == 2
        assert job["model"] is None
    assert list(table["system"]) == ["stardist", "stardist", "cellpose", "cellpose"]
    assert list(table["budget"]) == [5, 15, 5, 15]
    assert (table[["ap", "seg"]] == 1).all(axis=None)
    assert table["psnr"].isna().all()
    assert "| cellpose | 5 | 4.83 | 140 | 1.000 | 1.000 | - | 1 |" in quality.summary(table)
    measure("--clock", "processor", "--peer-validation-images", "2")
    assert len(jobs) == 5  # what is finished is not repeated


def test_a_given_model_is_measured_before_it_is_trained_further(segmenters, tmp_path):
    _, measure, jobs = segmenters
    models = ["--stardist-model", str(tmp_path), "--cellpose-model", str(tmp_path / "mine")]
    table = measure(*models)
    given = table[table["system"].str.endswith(" pretrained")]
    assert list(given["budget"]) == [0, 5, 15] * 2
    pretrained = [job for name, job in jobs if name == "cellpose pretrained"]
    assert [job["epochs"] for job in pretrained] == [0, 1, 3, 35, 107]
    assert {job["model"] for job in pretrained} == {str(tmp_path / "mine")}
    assert [job["points"] for name, job in jobs if name == "stardist pretrained"] == [[0, 5, 15]]
    assert all(job["model"] is None for name, job in jobs if "pretrained" not in name)


def test_what_needs_no_training_is_a_dashed_line(load, monkeypatch, tmp_path):
    figures = load("quality_figure")
    rows = [("given", 0.0, 0.7), ("given", 5.0, 0.8), ("other", 5.0, 0.6)]
    table = pd.DataFrame(rows, columns=["system", "budget", "ap"])
    table = table.assign(minutes=table["budget"], seg=table["ap"], psnr=np.nan, n_annotated=2)
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    figures.draw(table, tmp_path / "quality")
    axes = drawn[0].axes
    assert [axis.get_ylabel() for axis in axes] == ["AP (IoU > 0.5)", "SEG"]
    lines = [(line.get_linestyle(), list(line.get_ydata())) for line in axes[0].lines]
    assert lines == [("--", [0.7, 0.7]), ("-", [0.8]), ("-", [0.6])]


def test_what_the_config_lacks_is_named(load):
    with pytest.raises(SystemExit, match="no recipe 'slow'; give --recipe one of fast, demo"):
        load("systems").read_recipe("slow")
    with pytest.raises(SystemExit, match="no method 'n3v'; give --method one of n2v, baseline"):
        load("systems").read_method("n3v")


def test_record_is_a_csv_and_a_table_with_notes(load, tmp_path):
    record = load("record")
    body = record.markdown_table(["system", "speed"], [("ours", 2), ("theirs", 1)])
    assert body == "| system | speed |\n| :-- | --: |\n| ours | 2 |\n| theirs | 1 |"
    rows = pd.DataFrame({"system": ["ours"], "speed": [1 / 3]})
    record.write(tmp_path / "new" / "speed", "Speed", rows, body, ["theirs was left out."])
    assert (tmp_path / "new" / "speed.csv").read_text() == "system,speed\nours,0.333333\n"
    text = (tmp_path / "new" / "speed.md").read_text()
    assert text == f"# Speed\n\n{body}\n\n- theirs was left out.\n"


def test_a_missing_peer_is_left_out_and_said_so(load, tmp_path):
    systems = load("systems")
    options = systems.parser("test")
    systems.add_peers(options, "reference")
    assert systems.peer_python(options.parse_args([]), "reference")[1] == [
        "reference was left out: no --reference-python was given."
    ]
    there = tmp_path / "python"
    given = options.parse_args(["--reference-python", str(there)])
    assert systems.peer_python(given, "reference")[0] is None
    there.symlink_to(sys.executable)
    assert systems.peer_python(given, "reference") == (there, [])


def prediction_options(prediction, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prediction.py", "--filters", "2", *arguments])
    return prediction.read_options()


def test_a_prediction_is_measured_on_planes_or_volumes(load, monkeypatch, capsys):
    prediction = load("prediction")
    with pytest.raises(SystemExit):
        prediction_options(prediction, monkeypatch, "--shape", "64")
    assert "--shape needs two numbers, or three for a volume" in capsys.readouterr().err
    options = prediction_options(prediction, monkeypatch, "--shape", "65", "512", "512")
    systems, notes = prediction.choose_systems(options)
    assert [system.name for system in systems] == ["ours denoiseg"]
    assert notes == ["The peers were left out: the image has above 16,777,216 pixels."]


def test_noise_does_not_depend_on_the_pieces_it_is_written_by(load, monkeypatch, tmp_path):
    prediction = load("prediction")
    whole = tifffile.imread(prediction.write_noise(tmp_path / "whole.tif", [3, 20, 10]))
    monkeypatch.setattr(prediction, "PIECE", 64)
    pieces = tifffile.imread(prediction.write_noise(tmp_path / "pieces.tif", [3, 20, 10]))
    assert np.array_equal(whole, pieces)
    assert whole.dtype == np.uint8
    assert whole.std() == pytest.approx(30, rel=0.1)


def test_seams_are_a_share_of_the_range(load):
    tiled, untiled = np.array([-1.0, 2.9]), np.array([-1.0, 3.0])
    assert load("job").share_of_range(tiled, untiled) == pytest.approx(0.025)


@pytest.mark.parametrize("shape", [(30, 40), (6, 30, 40)])
def test_our_worker_predicts_what_the_benchmark_describes(load, monkeypatch, tmp_path, shape):
    prediction, worker = load("prediction"), load("ours_worker")
    options = prediction_options(prediction, monkeypatch, "--shape", *map(str, shape))
    [system], _ = prediction.choose_systems(options)
    job = prediction.describe(options, str(tmp_path)) | system.settings
    job |= {"threads": torch.get_num_threads(), "launched": 0.0}
    report = worker.predict(job)
    assert report["seconds"] > 0
    # 146 kernels of 3x3 or 3x3x3, batch normalisation of 34 channels and the head.
    assert report["parameters"] == 146 * 3 ** len(shape) + 2 * 34 + 15
    assert tifffile.imread(job["seam_image"]).shape == (96,) * len(shape)
    assert worker.seams(job)["seams"] < 1e-5


def test_runs_of_the_full_grid_are_counted_by_what_they_cost(load, config):
    grid_cost = load("grid_cost")
    full = grid_cost.jobs(Grid(config))
    # 2 noises x 2 seeds, and 2 label counts for all but n2v; the warm start trains like the other.
    assert full == {"n2v": 4, "baseline": 8, "sequential": 8, "denoiseg": 16}
    costs = pd.DataFrame(
        {
            "rule": "train",
            "method": ["n2v", "denoiseg"],
            "n_jobs": [1, 2],
            "median_seconds": [3600.0, 900.0],
            "total_hours": [1.0, 0.5],
        }
    )
    np.testing.assert_allclose(grid_cost.extrapolate(costs, full)["full_core_hours"], [4, 4])


@pytest.mark.parametrize("kind", ["boxes", "strokes"])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_scribbles_cover_the_share_that_is_asked_for(load, kind, share):
    draw = load("scribbles").KINDS[kind]
    painted = draw((200, 150), share, np.random.default_rng(0))
    assert painted.shape == (200, 150)
    assert share <= painted.mean() < share + 32 * 32 / (200 * 150)
    assert not np.array_equal(painted, draw((200, 150), share, np.random.default_rng(1)))


def test_scribbles_replace_the_masks_of_training_images_only(load, tmp_path):
    scribbles = load("scribbles")
    labels = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    for name in "ab":
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / kind / f"{name}.tif", labels)
    options = SimpleNamespace(
        images=tmp_path / "images", masks=tmp_path / "masks", out=tmp_path / "out", share=0.1
    )
    for folder in scribbles.paint(options, {"a"}).values():
        painted, whole = (tifffile.imread(folder / f"{name}.tif") for name in "ab")
        assert np.array_equal(whole, labels)
        assert 0.1 <= (painted >= 0).mean() < 0.4
        assert np.array_equal(painted[painted >= 0], labels[painted >= 0])


def test_scribbles_are_compared_with_full_masks(load):
    rows = [
        (kind, metric, value, 0.01)
        for kind, value in [("full", 0.8), ("boxes", 0.72), ("strokes", 0.4)]
        for metric in ("AP", "SEG")
    ]
    summary = pd.DataFrame(rows, columns=["dataset", "metric", "mean", "sem"])
    assert load("scribbles").compare(summary) == [
        ("full masks", "0.800 ± 0.010", "0.800 ± 0.010", "100%"),
        ("boxes", "0.720 ± 0.010", "0.720 ± 0.010", "90%"),
        ("strokes", "0.400 ± 0.010", "0.400 ± 0.010", "50%"),
    ]


def test_suggested_images_are_compared_with_random_ones(load):
    rows = [(1, 2, "start", 0, 0.5), (1, 4, "random", 0, 0.55), (1, 4, "random", 1, 0.65),
            (1, 4, "suggested", 0, 0.7), (2, 2, "start", 0, 0.4), (2, 4, "random", 0, 0.6),
            (2, 4, "suggested", 0, 0.55)]  # fmt: skip
    module = load("suggestions")
    assert module.compare(pd.DataFrame(rows, columns=module.COLUMNS)) == [
        ("2, draw 1", "0.500", "0.500", "+0.000"),
        ("2, draw 2", "0.400", "0.400", "+0.000"),
        ("2, mean", "0.450 ± 0.050", "0.450 ± 0.050", "+0.000 ± 0.000"),
        ("4, draw 1", "0.600", "0.700", "+0.100"),
        ("4, draw 2", "0.600", "0.550", "-0.050"),
        ("4, mean", "0.600 ± 0.000", "0.625 ± 0.075", "+0.025 ± 0.075"),
    ]


class NoTraining:
    """A study whose networks suggest the first images, and score by how many they learned from."""

    def __init__(self, options):
        self.pools, self.trained = {}, options.trained

    def add_pool(self, draw):
        self.pools[draw] = [f"i{number:02}" for number in range(12)]

    def train(self, draw, choice, annotated):
        assert len(set(annotated)) == len(annotated)
        self.trained.append((draw, choice, annotated))
        return annotated

    def suggest(self, draw, choice, annotated, count):
        return [name for name in self.pools[draw] if name not in annotated][:count]

    def average_precision(self, draw, model):
        return len(model) / 10


def test_rounds_build_on_each_other_and_go_on_where_they_ended(load, monkeypatch, tmp_path):
    module = load("suggestions")
    monkeypatch.setattr(module, "Study", NoTraining)
    (tmp_path / "study").mkdir()
    options = SimpleNamespace(out=tmp_path, draws=[1, 2], rounds=[2, 4, 8], random=2, trained=[])
    done = pd.DataFrame(columns=module.COLUMNS)
    rows = list(module.measure(options, done))
    assert len(rows) == 2 * (1 + 2 * 3)
    assert all(ap == count / 10 for _, count, _, _, ap in rows)
    of = {choice: annotated for draw, choice, annotated in options.trained if draw == 1}
    assert of["start2"] == of["suggested4"][:2] == of["random8_1"][:2]
    for choice in ("suggested", "random"):
        number = "_0" if choice == "random" else ""
        assert of[f"{choice}4{number}"] == of[f"{choice}8{number}"][:4]
    assert of["random8_0"] != of["random8_1"]
    trained = len(options.trained)
    finished = pd.DataFrame(rows[:-2], columns=module.COLUMNS)
    assert list(module.measure(options, finished)) == rows[-2:]
    assert len(options.trained) == trained + 2


def test_rows_of_other_options_are_not_mixed(load, tmp_path):
    module, file = load("suggestions"), tmp_path / "new/rows.csv"
    assert module.read_done(file, {"images": tmp_path}).empty
    pd.DataFrame([(1, 2, "start", 0, 0.5)], columns=module.COLUMNS).to_csv(file, index=False)
    assert len(module.read_done(file, {"images": tmp_path})) == 1
    with pytest.raises(SystemExit, match="written with other options; choose another --out"):
        module.read_done(file, {"images": tmp_path / "others"})


def test_measures_of_confidence_are_compared(load):
    module = load("confidence")
    rows = [("n0", 0.2, 0.5), ("n0", 0.4, 0.6), ("n0", 0.9, 0.9), ("other", np.nan, 0.3)]
    table = pd.DataFrame(
        {"noise": noise, "AP": score} | dict.fromkeys(module.MEASURES, 1 - value)
        | {"confidence": value}
        for noise, score, value in rows
    )  # fmt: skip
    first, *_, last = module.compare(table)
    assert first[:3] == ("entropy", "-1.00", "0.00")
    assert last == ("confidence", "1.00", "1.00", "0.51", "0.30", "0.30", "0.40")
    labels = np.repeat([0, 1, 2, 2], 5)
    assert module.similarity(labels, np.roll(labels, 5)) == 0.25  # 0 and 1/2
    assert module.similarity(0 * labels, labels) == 0


def test_objects_are_resized_and_segmented_at_another_size(load, make_blobs):
    module = load("robustness")
    image, labels = make_blobs(96, seed=1)
    smaller, truth = module.at_scale(image, labels, Fraction(1, 3))
    assert smaller.shape == truth.shape == (32, 32)
    assert (truth == labels[1::3, 1::3]).all()
    assert np.allclose(smaller[3, 4], image[9:12, 12:15].mean())
    larger, truth = module.at_scale(image, labels, Fraction(2))
    assert larger.shape == truth.shape == (192, 192)
    assert (truth == labels.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert larger[truth > 0].mean() - larger[truth == 0].mean() > 70
    model = module.load_pretrained("simulated_objects")
    model = module.at_size(model, [larger[None]], 2)
    assert module.score(model, [larger[None]], [truth]) > 0.9


def test_images_are_changed_as_said(load, make_blobs):
    """All keep their shape; noise has the standard deviation in its name, and no mean."""
    module = load("robustness")
    image = make_blobs(128, seed=1)[0].astype(np.float32)
    for name, change in module.CHANGES.items():
        changed = change(image, np.random.default_rng(0))
        assert changed.shape == image.shape, name
        assert np.array_equal(changed, image) == (name == "none"), name
        if name.startswith(("white noise of", "noise of 8", "noise of 20, correlated")):
            sigma = float(re.findall(r"noise of (\d+)", name)[0])
            assert (changed - image).std() == pytest.approx(sigma, rel=0.02), name
            assert abs((changed - image).mean()) < 0.2 * sigma, name


def test_pictures_of_other_things_come_with_scikit_image(load):
    module = load("confidence")
    names, images = zip(*module.pictures(), strict=True)
    assert names == module.PICTURES
    assert all(image.ndim == 3 and image.std() > 0 for image in images)


@pytest.mark.parametrize("given", [False, True])
def test_every_choice_of_images_is_a_dataset_of_its_own(load, tmp_path, given):
    options = SimpleNamespace(
        out=tmp_path / "out", pool=6, test=3, rare=0.5, start=2, add=3, method="denoiseg",
        noise="n20", images=tmp_path / "images" if given else None, masks=tmp_path / "masks",
    )  # fmt: skip
    module = load("suggestions")
    for name, image, mask in module.simulate(10, 1, 0.5) if given else ():
        module.write_array(options.images / f"{name}.tif", image)
        module.write_labels(options.masks / f"{name}.tif", mask.astype(np.uint16))
    study = module.Study(options)
    study.add_pool(1)
    names = study.pools[1]
    assert len(names) == 6
    study.add_choice(1, "start2", names[:2])
    study.add_choice(1, "suggested5", names[:5])
    assert sorted(study.datasets) == ["start2_1", "suggested5_1", "test1"]
    assert {name.split("_")[0] for name in names} == {"common", "rare"}
    others = {path.read_bytes() for path in (study.folder / "test1").iterdir()}
    assert len(others) == 3
    assert not others & {path.read_bytes() for path in (study.folder / "pool1").iterdir()}
    for choice, count in (("start2", 2), ("suggested5", 5)):
        spec = study.datasets[f"{choice}_1"]
        assert len(list((study.folder / spec["images"]).iterdir())) == 6
        assert len(list((study.folder / spec["masks"]).iterdir())) == count
        assert f"/annotated{count}/" in study.model_file(1, choice, count)
    times = [path.stat().st_mtime_ns for path in sorted(study.folder.rglob("*.tif"))]
    study.add_pool(1)
    study.add_choice(1, "start2", names[:2])
    assert times == [path.stat().st_mtime_ns for path in sorted(study.folder.rglob("*.tif"))]


def test_overhead_is_summed_up_by_rule(load):
    notes = pd.DataFrame(
        [
            ("/x/.snakemake/scripts/tmpab12_9xy.score.py", 3.0, 2.0),
            ("/x/.snakemake/scripts/tmpzz12_9xy.score.py", 4.0, 1.5),
            ("/x/.snakemake/scripts/tmpzz12_9xy.plot_panel.py", 1.0, 0.5),
            ("/bin/snakemake", 10.0, 0.0),
        ],
        columns=["script", "seconds", "before"],
    )
    table = load("overhead").by_rule(notes, 20.0).set_index("rule")
    assert list(table.index) == [
        "Snakemake itself", "score", "plot_panel", "end of Python, shells, solver"
    ]  # fmt: skip
    assert tuple(table.loc["score"]) == (2, 7.0, 3.5)
    assert table["seconds"].sum() == 20
