"""Every mistake ends in one clear sentence, a non-zero exit, and nothing half-written."""

import io
import os
import shutil
import socket
import subprocess
import tempfile
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import tifffile
from snakemake_call import call_here, call_snakemake, dry_run

from denoiseg_flow.data import manifest
from denoiseg_flow.deployment.ledger import Entry, Record
from denoiseg_flow.jobs import gpu_slots
from denoiseg_flow.methods.classical import is_available
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.models.model import ClassicalModel
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study.grid import Grid

SHAPE = (40, 48)


@pytest.fixture
def user(tmp_path):
    """A user's folders: five good images with masks, all smaller than 64 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "user"
    for number in range(5):
        labels = np.zeros(SHAPE, np.uint16)
        labels[4:12, 6:20], labels[20:30, 10:30] = 1, 2
        for kind, plane in [
            ("images", rng.integers(0, 200, SHAPE).astype(np.uint8)),
            ("masks", labels),
        ]:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"cell_{number}.tif", plane)
    return folder


# ---------------------------------------------------------------- mistakes in the config


def empty(folder):
    (folder / "images").mkdir()


def twins(folder):
    (folder / "images").mkdir()
    for name in ("a.tif", "a.png", "b.tif"):
        (folder / "images" / name).touch()


def orphan(folder):
    for name in ("images/a.tif", "images/b.tif", "images/c.tif", "masks/d.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def images_alone(folder):
    (folder / "images").mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        tifffile.imwrite(folder / "images" / name, np.zeros(SHAPE, np.uint8))


def alone_once(folder):
    images_alone(folder)
    shutil.copytree(folder / "images", folder / "second")
    (folder / "second/b.tif").unlink()


def one_mask(folder):
    images_alone(folder)
    (folder / "masks").mkdir()
    (folder / "masks/a.tif").touch()


def no_masks(folder):
    images_alone(folder)
    (folder / "masks").mkdir()


def two_annotations(folder):
    one_mask(folder)
    (folder / "masks/a_seg.npy").touch()


def coco_of_others(folder):
    images_alone(folder)
    (folder / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "z.png"}], "annotations": [{"image_id": 1}]}'
    )


def negative(folder):
    (folder / "images").mkdir()
    for name, lowest in (("a", 0), ("b", -3), ("c", 0)):
        plane = np.full(SHAPE, 5, np.float32)
        plane[0, 0] = lowest
        tifffile.imwrite(folder / "images" / f"{name}.tif", plane)


def classical_model(folder):
    method = Method("median", classical="median")
    save_model(ClassicalModel(method, {}, 2.0, None), folder / "a.pt")


def damaged_model(folder):
    classical_model(folder)
    content = (folder / "a.pt").read_bytes()
    (folder / "a.pt").write_bytes(content.replace(b"median", b"medium", 1))


def stacks(axes, size=None, **metadata):
    """Three files of those axes, five pixels along all but the last two."""

    def make(folder):
        (folder / "images").mkdir()
        shape = (*[5] * (len(axes) - 2), *SHAPE)
        known = {f"PhysicalSize{axis}": length for axis, length in (size or {}).items()}
        for name in ("a.ome.tif", "b.ome.tif", "c.ome.tif"):
            told = {"axes": axes, **known, **metadata}
            tifffile.imwrite(folder / "images" / name, np.zeros(shape, np.uint8), metadata=told)

    return make


def nameless(folder):
    """Files of five planes that do not say what these are."""
    (folder / "images").mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        planes = np.zeros((5, *SHAPE), np.uint8)
        tifffile.imwrite(folder / "images" / name, planes, photometric="minisblack")


def table(text):
    """Images without masks, and the table of their split."""

    def make(folder):
        images_alone(folder)
        (folder / "splits.csv").write_text(text)

    return make


def wrong_subfolder(folder):
    for subset in ("train", "validation"):
        (folder / "images" / subset).mkdir(parents=True)
        tifffile.imwrite(folder / "images" / subset / "a.tif", np.zeros(SHAPE, np.uint8))


OWN = [
    "grid={datasets: [mine], n_annotated: [1]}",
    "datasets={mine: {source: folder, images: images}}",
]
OWN_TABLE = [*OWN, "datasets={mine: {split: {file: splits.csv}}}", "grid={methods: [n2v]}"]
OWN_MASKS = [OWN[0], "datasets={mine: {source: folder, images: images, masks: masks}}"]


@pytest.mark.parametrize(
    ("files", "config", "sentence"),
    [
        (
            None,
            ["grid={methods: [n2v, n2s2]}"],
            "unknown method 'n2s2'; available: n2v, baseline, sequential, denoiseg, ",
        ),
        (
            None,
            ["grid={noises: [n99]}"],
            "unknown noise 'n99'; available: n0, n10, n20 (config key grid.noises)",
        ),
        (None, ["recipe=slow"], "unknown recipe 'slow'; available: "),
        (
            None,
            ["predict={method: n2n}"],
            "config key 'predict.method' is 'n2n', which is not in grid.methods; available: n2v, ",
        ),
        (
            None,
            ["grid={n_anotated: [2]}"],
            "unknown config key 'grid.n_anotated'; did you mean 'n_annotated'?",
        ),
        (
            None,
            ["grid={n_annotated: [8]}"],
            "grid.n_annotated asks for 8 annotated images, but dataset nuclei has only 7 annotated "
            "images left for training",
        ),
        (
            None,
            ["noises={n30: {kind: gaussian}}", "grid={noises: [n30]}"],
            "sigma of gaussian noise is missing, but must be a number above 0 (config key "
            "noises.n30)",
        ),
        (
            None,
            ["noises={n30: {kind: gaussian, sigma: 0}}", "grid={noises: [n30]}"],
            "config key 'noises.n30.sigma': 0 is less than or equal to the minimum of 0",
        ),
        (
            None,
            ["noises={n30: {kind: poisson, photons: 2, sigma: 5}}", "grid={noises: [n30]}"],
            "sigma is not a parameter of poisson noise, which takes photons (config key "
            "noises.n30)",
        ),
        (None, ["methods={n2v: {init: denoiseg_warm}}"], "builds on itself"),
        (
            images_alone,
            [*OWN, "grid={methods: [n2n], noises: [n0]}"],
            "there is no second noisy copy; name second acquisitions under 'datasets.mine.second', "
            "remove n2n from grid.methods, or n0 from grid.noises",
        ),
        (
            alone_once,
            [*OWN, "datasets={mine: {second: second}}", "grid={methods: [n2n], noises: [n0]}"],
            "images/b.tif has no second acquisition of the same name in second (config key "
            "'second'); add it, or remove the image",
        ),
        (
            None,
            ["methods={denoiseg: {init: models/a.pt}}"],
            "config key 'methods.denoiseg.init' names 'models/a.pt', which does not exist; correct "
            "the path",
        ),
        (
            damaged_model,
            ["methods={denoiseg: {init: a.pt}}"],
            "config key 'methods.denoiseg.init' names 'a.pt', which is damaged or not a model",
        ),
        (
            classical_model,
            ["methods={denoiseg: {init: a.pt}}"],
            "config key 'methods.denoiseg.init' names 'a.pt', a model of method 'median', which "
            "has no single network to start from; name a model of another method",
        ),
        (
            images_alone,
            [*OWN, "grid={methods: [n2v, supervised]}"],
            "config key 'methods.supervised.target' is 'clean', but dataset 'mine' has no clean "
            "images; set 'datasets.mine.clean', or remove supervised from grid.methods",
        ),
        (
            images_alone,
            [*OWN, "grid={methods: [dae]}"],
            "config key 'methods.dae.target' is 'clean', but dataset 'mine' has no clean images",
        ),
        (
            None,
            ["grid={noises: [n0], methods: [n2n]}"],
            "config key 'methods.n2n.target' is 'second_noisy', but noise level 'n0' adds no noise",
        ),
        (
            None,
            [
                "methods={structn2v: {struct_mask: [[" + "1, " * 34 + "1]]}}",
                "grid={methods: [structn2v]}",
            ],
            "config key 'methods.structn2v.struct_mask' has 1x35 pixels, more than a training "
            "patch (32x32)",
        ),
        (
            None,
            ["methods={n2s: {grid: 40}}", "grid={methods: [n2s]}"],
            "config key 'methods.n2s.grid' is 40, larger than a training patch, and so the "
            "smallest image, of 32 pixels a side",
        ),
        (
            negative,
            [*OWN, "noises={p: {kind: poisson, photons: 1}}", "grid={noises: [p], methods: [n2v]}"],
            "image images/b.tif holds negative values (minimum -3)",
        ),
        (
            one_mask,
            OWN_MASKS,
            "dataset mine has too few annotated images to choose the threshold of the segmentation",
        ),
        (
            None,
            [
                "datasets={nuclei: {annotated: 3, split: {cross_validate_below: 8}}}",
                "grid={n_annotated: [1]}",
            ],
            "config key 'grid.n_annotated' contains 1, but the annotated images of dataset "
            "'nuclei' are cross-validated",
        ),
        (no_masks, OWN_MASKS, "folder masks (config key 'masks') has no masks"),
        (
            two_annotations,
            OWN_MASKS,
            "masks/a.tif and a_seg.npy both annotate image a; keep one of them",
        ),
        (
            coco_of_others,
            [OWN[0], "datasets={mine: {source: folder, images: images, masks: coco.json}}"],
            "coco.json (config key 'masks') has objects of none of the images, but of z.png",
        ),
        (
            None,
            ["grid={n_annotated: [0]}"],
            "config key 'grid.n_annotated' is 0, but no method of grid.methods starts from a "
            "pretrained network; set another number, e.g. [4], or add a method with 'init: "
            "simulated_objects'",
        ),
        (
            stacks("ZYX"),
            OWN,
            "a.ome.tif is a stack of 5 planes; write 'dimensions: 3' in the dataset's config to "
            "read stacks as volumes, or 'dimensions: 2' to read each z-slice as an image",
        ),
        (
            stacks("ZYX"),
            [*OWN, "datasets={mine: {dimensions: 3}}"],
            "a.ome.tif does not say how far apart its planes and pixels are",
        ),
        (
            stacks("TYX"),
            [*OWN, "datasets={mine: {dimensions: 3}}"],
            "a.ome.tif is not a volume but has axes TYX of shape (5, 40, 48)",
        ),
        (
            stacks("CYX", Channel={"Name": list("vwxyz")}),
            OWN,
            "a.ome.tif has 5 channels, 0 (v), 1 (w), 2 (x), 3 (y), 4 (z); choose one",
        ),
        (
            stacks("CYX"),
            [*OWN, "datasets={mine: {channel: DAPI}}"],
            "a.ome.tif has no channel 'DAPI'; available: 0 (0), 1 (1), ",
        ),
        (
            nameless,
            OWN,
            "a.tif has 3 axes of shape (5, 40, 48) but does not say what they are (axes QYX); "
            "write 'axes' in the dataset's config",
        ),
        (
            nameless,
            [*OWN, "datasets={mine: {axes: YX}}"],
            "a.tif has 3 axes of shape (5, 40, 48), but 'axes: YX' has fewer letters",
        ),
        (
            nameless,
            [*OWN, "datasets={mine: {axes: planes}}"],
            "config key 'datasets.mine.axes': 'planes' does not match",
        ),
        (
            stacks("ZYX", {"Z": 2, "Y": 1, "X": 1}),
            [*OWN, "datasets={mine: {dimensions: 3}}", "grid={methods: [bm3d]}"],
            "config key 'methods.bm3d.classical' is 'bm3d', which is defined for planes only, but "
            "dataset 'mine' is 3D; set 'planes: true'",
        ),
        (
            None,
            [
                "datasets={deep: {source: simulate, depth: 5}, mixed: {source: combine, "
                "of: [nuclei, deep]}}",
                "grid={datasets: [mixed]}",
            ],
            "config key datasets.mixed.of combines 2D and 3D images (nuclei and deep); name "
            "datasets of the same dimensions",
        ),
        (None, ["device=gpu"], "config key 'device' is 'gpu'; available: auto, cpu, cuda"),
        (
            None,
            ["device=mps"],
            "config key 'device' is 'mps', but GPUs of Apple lack the float64 numbers that "
            "training computes with; write 'cpu', or 'auto', which takes the CPU there",
        ),
        (empty, OWN, "folder images (config key 'images') has no images"),
        (None, OWN, "folder images (config key 'images') does not exist"),
        (twins, OWN, "a.png and a.tif differ only in their ending"),
        (images_alone, OWN_TABLE, "splits.csv (config key 'split.file') does not exist; correct"),
        (
            table("image,subset\na,train\nb,val\nc,tset\n"),
            OWN_TABLE,
            "splits.csv, line 4: subset 'tset' is unknown; write train, val or test",
        ),
        (
            table("image,subset\na,train\nb,val\n"),
            OWN_TABLE,
            "splits.csv does not name image c.tif; write a line for each image, or",
        ),
        (
            table("image,subset\na,train\nb,val\nc,train\n"),
            OWN_TABLE,
            "dataset mine keeps no image for testing, so nothing would be predicted; put images",
        ),
        (
            table("image,subset\na,test\nb,val\nc,test\n"),
            OWN_TABLE,
            "dataset 'mine' has no training images, but method 'n2v' needs some; put images into",
        ),
        (
            table("image,group\na,A\nb,B\nc,B\n"),
            OWN_TABLE,
            "the images that are to be divided into test and val and train are of 2 groups (A, B)",
        ),
        (
            wrong_subfolder,
            [*OWN, "datasets={mine: {split: {subset: folder}}}", "grid={methods: [n2v]}"],
            "folder images/validation is named like no subset ('subset: folder' of the split)",
        ),
        (
            images_alone,
            [*OWN, "datasets={mine: {split: {group: '(x)'}}}", "grid={methods: [n2v]}"],
            "config key 'split.group' is '(x)', which finds no group in the name of a.tif; write",
        ),
        (orphan, OWN_MASKS, "masks/d.tif has no image of the same name in images"),
    ],
    ids=[
        *("method", "noise", "recipe", "predict_method", "key", "label_count", "sigma"),
        *("sigma_zero", "sigma_unknown", "circle"),
        *("no_second_copy", "no_partner", "missing_model", "damaged_model", "classical_model"),
        *("supervised", "autoencoder", "second_copy", "struct_mask", "grid", "photons"),
        *("one_mask", "one_of_three_masks", "no_masks", "two_annotations", "coco_of_others"),
        "zero_masks",
        *("stack", "no_pixel_size", "no_volume", "channels", "channel_name"),
        *("no_axes", "wrong_axes", "no_letters", "bm3d_of_volumes", "planes_and_volumes"),
        *("device", "device_of_apple"),
        *("empty_folder", "missing_folder", "duplicate_stems"),
        *("no_table", "unknown_subset", "unnamed_image", "no_test_image", "no_training_image"),
        *("two_groups", "wrong_subfolder", "no_group", "orphan_mask"),
    ],
)
def test_config(tmp_path, files, config, sentence):
    if files:
        files(tmp_path)
    before = set(tmp_path.iterdir())
    call = dry_run(tmp_path, "--config", *config)
    assert call.status != 0
    assert sentence in call.screen
    assert "Traceback" not in call.screen
    assert set(tmp_path.iterdir()) - before <= {tmp_path / ".snakemake"}


def test_predict_without_images(tmp_path):
    call = dry_run(tmp_path, "predict")
    assert call.status != 0
    assert (
        "config key 'predict.images' is missing: set it to the folder of new images" in call.screen
    )


def test_predict_to_a_missing_folder(tmp_path):
    call = dry_run(tmp_path, "predict", "--config", "predict={images: nowhere}")
    assert call.status != 0
    assert "nowhere" in call.screen


def test_predict_a_plate(tmp_path):
    """Into a folder that is not named like a store; a damaged plate is refused before any job."""
    for place, text in (("", '{"plate": {"wells": [{"path": "A/1"}]}}'), ("A/1", "{}")):
        (tmp_path / "p.zarr" / place).mkdir(parents=True)
        (tmp_path / "p.zarr" / place / ".zattrs").write_text(text)
    (tmp_path / "model.pt").write_bytes(b"")
    asked = ("predict", "--config", "predict={images: p.zarr, model: model.pt}")
    call = dry_run(tmp_path, *asked)
    assert call.status != 0 and "cannot read the plate p.zarr" in call.screen
    (tmp_path / "p.zarr/A/1/.zattrs").write_text('{"well": {"images": [{"path": "0"}]}}')
    (tmp_path / "p.zarr/A/1/0").mkdir()
    call = dry_run(tmp_path, *asked)
    assert call.jobs == {"predict_chunk": 1, "predict": 1}, call.screen
    assert "results/predicted/p/.finished" in call.screen


def test_predict_to_two_folders_of_one_name(tmp_path):
    """Each has results of its own; a name that is taken is refused before any job."""
    for day in ("day1", "day2"):
        (tmp_path / day / "images").mkdir(parents=True)
        (tmp_path / day / f"images/{day}.tif").write_bytes(b"")
    (tmp_path / "model.pt").write_bytes(b"")
    predicted = tmp_path / "results/predicted/images"
    predicted.mkdir(parents=True)
    source = tmp_path / "day1/images/day1.tif"
    Record(predicted).add(Entry("day1", str(source), 0, 0, "", results="labels.tif"))

    def call(day, **options):
        asked = ", ".join(f"{key}: {value}" for key, value in options.items())
        asking = f"predict={{images: {day}/images, model: model.pt, {asked}}}"
        return dry_run(tmp_path, "predict", "--config", asking)

    second = call("day2")
    assert second.jobs == {"predict_chunk": 1, "predict": 1}
    assert "those of day2/images go to results/predicted/images_2" in second.screen
    assert "results/predicted/images_2/.finished" in second.screen
    refused = call("day2", name="images")
    assert refused.status != 0
    assert f"images from {tmp_path}/day1/images (such as day1), not from day2/images" in (
        refused.screen
    )
    assert call("day2", name="second").jobs == {"predict_chunk": 1, "predict": 1}
    (predicted / "overlays").mkdir()
    (predicted / "overlays/day1.png").write_text("mine")
    assert "overlays/day1.png would be overwritten, but" in call("day1").screen


@pytest.mark.skipif(is_available("bm3d"), reason="bm3d is installed")
def test_a_package_that_is_missing(tmp_path):
    call = dry_run(tmp_path, "--config", "grid={methods: [bm3d]}")
    assert call.status != 0
    assert "install it with `python -m pip install -c constraints.txt -e '.[bm3d]'`" in call.screen


def test_another_definition_in_the_same_results(finished, tmp_path):
    """The results are as they were, and only runs of that method stand in the way."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = sorted(folder.rglob("*"))
    options = ("--cores", "1", "--config", "methods={denoiseg: {alpha: 0.3}}")
    call = call_here(folder, *options)
    assert call.status != 0
    assert "method 'denoiseg' has alpha 0.3, but existing runs in results used" in call.screen
    assert "Traceback" not in call.screen
    assert [path for path in before if not path.exists()] == []
    shutil.rmtree(folder / "results/runs/nuclei/n10/denoiseg")
    assert dry_run(folder, *options).jobs["train"] == 1


def test_results_of_an_older_version(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    record = folder / "results/study.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 0'))
    call = dry_run(folder)
    assert call.status != 0
    assert "the results in results were written by an older version" in call.screen
    assert "Traceback" not in call.screen


@pytest.mark.parametrize(
    "partitions, sentence",
    [
        ("cpu (null)\ngpu gpu:2", "the cluster has no default partition, and rule "),
        ("cpu* (null)\ngpu gpu:2", "rule 'predict_run' requests 1 GPU in partition 'cpu'"),
    ],
)
def test_profile_that_does_not_fit_the_cluster(tmp_path, monkeypatch, partitions, sentence):
    """Before anything is submitted: sbatch is not called."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    for name, text in [
        ("sinfo", f"cat <<'END'\n{partitions}\nEND"),
        ("sbatch", f"touch {tmp_path}/submitted; exit 1"),
        *((name, "exit 1") for name in ("sacct", "squeue", "scontrol", "scancel")),
    ]:
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n{text}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    folder = tmp_path / "study"
    folder.mkdir()
    call = call_snakemake(folder, "--workflow-profile", "slurm")
    assert call.status != 0
    assert sentence in call.screen
    assert "Traceback" not in call.screen
    assert not (tmp_path / "submitted").exists()
    assert not (folder / "results").exists()


def test_more_gpus_than_there_are(tmp_path, monkeypatch):
    """On a cluster, the limit counts what all of its nodes do together."""
    monkeypatch.setattr(gpu_slots, "visible_gpus", lambda: [f"GPU-{name}" for name in "abcd"])
    call = dry_run(tmp_path, "--resources", "gpu=8")
    assert call.status != 0
    assert "--resources gpu=8 exceeds the 4 slot(s) of 4 visible GPU(s)" in call.screen
    assert "Traceback" not in call.screen
    for more in (["--set-resources", "train:jobs_per_gpu=2"], ["--jobs", "8"]):
        call = dry_run(tmp_path, "--resources", "gpu=8", *more)
        assert call.status == 0, call.screen
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake"}


# ---------------------------------------------------------------- mistakes in the images


class Refusal:
    """Run a script that must refuse, and look at what it leaves."""

    def __init__(self, run_script, capsys, folder):
        self.run_script, self.capsys, self.folder = run_script, capsys, folder

    def __call__(self, script, output, **job):
        log = self.folder / f"{script}.log"
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            self.run_script(script, log, output=output, **job)
        screen = self.capsys.readouterr().err
        assert ended.value.code == 1
        assert screen.startswith("Error: ") and screen.count("\n") == 1
        assert screen in log.read_text()
        for path in map(Path, output.values()):
            assert not path.exists()
            assert not list(path.parent.glob("*partial*"))
        return screen


@pytest.fixture
def refusal(run_script, capsys, tmp_path):
    return Refusal(run_script, capsys, tmp_path)


def image(plane):
    return lambda folder: tifffile.imwrite(folder / "images/cell_3.tif", plane)


def mask(plane):
    return lambda folder: tifffile.imwrite(folder / "masks/cell_3.tif", plane)


def truncated(folder):
    path = folder / "images/cell_3.tif"
    path.write_bytes(path.read_bytes()[:-500])


def holding(value):
    plane = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    plane[3, 4] = value
    return plane


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (mask(np.ones((40, 40), np.uint16)), ["40 x 48", "40 x 40", "cell_3.tif", "same size"]),
        (
            mask(np.linspace(0, 2, 1920, dtype=np.float32).reshape(SHAPE)),
            ["fractional values", "nearest"],
        ),
        (mask(np.full(SHAPE, -1, np.int16)), ["cell_3.tif annotates no pixel", "annotate some"]),
        (image(np.zeros((*SHAPE, 3), np.uint8)), ["cell_3.tif", "colour"]),
        (image(np.full(SHAPE, 7, np.uint8)), ["cell_3.tif is constant (every pixel is 7)"]),
        (image(holding(np.nan)), ["cell_3.tif has 1 NaN or infinite pixels"]),
        (image(holding(np.inf)), ["cell_3.tif has 1 NaN or infinite pixels"]),
        (truncated, ["cell_3.tif"]),
        (image(np.zeros((5, *SHAPE), np.uint8)), ["cell_3.tif", "'axes'"]),
    ],
    ids=[
        *(
            "shapes_differ",
            "interpolated_mask",
            "all_ignored",
            "colour",
            "constant",
            "nan",
            "infinity",
        ),
        *("truncated", "stack"),
    ],
)
def test_images(user, refusal, tmp_path, spoil, words):
    spoil(user)
    spec = {"source": "folder", "images": str(user / "images"), "masks": str(user / "masks")}
    screen = refusal(
        "prepare",
        {"prepared": tmp_path / "out/prepared"},
        input={key: spec[key] for key in ("images", "masks")},
        params={"dataset": spec},
    )
    for word in words:
        assert word in screen


def test_binary_mask_is_a_warning(user, run_script, tmp_path):
    mask((tifffile.imread(user / "masks/cell_3.tif") > 0).astype(np.uint8) * 255)(user)
    spec = {"source": "folder", "images": str(user / "images"), "masks": str(user / "masks")}
    log, prepared = tmp_path / "prepare.log", tmp_path / "prepared"
    run_script("prepare", log, output={"prepared": prepared}, params={"dataset": spec})
    warnings = [line for line in log.read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "cell_3.tif" in warnings[0] and "'binary_masks: connected_components'" in warnings[0]
    assert len(manifest.read(prepared / "manifest.tsv")) == 5


def test_image_smaller_than_the_patch(user, config, run_script, refusal, tmp_path):
    spec = {"source": "folder", "images": str(user / "images"), "masks": str(user / "masks")}
    data = {"prepared": tmp_path / "prepared", "split": tmp_path / "split.tsv"}
    log = tmp_path / "other.log"
    run_script("prepare", log, output={"prepared": data["prepared"]}, params={"dataset": spec})
    run_script(
        "split",
        log,
        input={"prepared": data["prepared"]},
        output={"split": data["split"]},
        params={"split": {"val": 0.2, "test": 0.2, "seed": 0}, "n_train": None},
        wildcards={"seed": "1"},
    )
    grid = Grid(config)
    screen = refusal(
        "train",
        {"model": tmp_path / "run/model.pt", "history": tmp_path / "run/history.tsv"},
        input=data | {"images": data["prepared"] / "images", "init": []},
        params={
            "method": as_dict(grid.methods["denoiseg"]),
            "recipe": as_dict(grid.recipes["tiny"]) | {"patch_size": 64},
            "level": None,
            "subsets": [],
            "device": "cpu",
        },
        wildcards={
            **{"dataset": "mine", "noise": "n0", "method": "denoiseg"},
            **{"n_annotated": "1", "seed": "1"},
        },
        config=config,
    )
    assert "40x48, smaller than the training patch" in screen
    assert "'patch_size'" in screen and "40 or less" in screen


def test_whole_workflow_shows_the_sentence(user, tmp_path):
    image(holding(np.nan))(user)
    work = tmp_path / "work"
    work.mkdir()
    call = call_here(
        work,
        *("--cores", "1", "--config", "grid={datasets: [mine], n_annotated: [1]}"),
        f"datasets={{mine: {{source: folder, images: {user}/images, masks: {user}/masks}}}}",
    )
    assert call.status != 0
    assert f"Error: image {user}/images/cell_3.tif has 1 NaN or infinite pixels" in call.screen
    assert "Traceback" not in call.screen
    assert not (work / "results/data/mine").exists()


# ---------------------------------------------------------------- downloads


class Handler(BaseHTTPRequestHandler):
    """Serve the archives of the server; what is under /short/ ends early."""

    def do_GET(self):
        short, _, name = self.path.rpartition("/")
        content = self.server.archives.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:50] if short else content)

    def log_message(self, *arguments):
        pass


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(serve, monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)  # between two attempts
    server = serve(Handler)
    server.archives = {
        "good.zip": zipped({"images/a.tif": b"a" * 1000}),
        "escape.zip": zipped({"fine.txt": b"fine", "../../escaped.txt": b"evil"}),
    }
    return server


def fetched(folder):
    return {"archive": folder / "data/archive.zip", "raw": folder / "data/raw"}


def test_fetch(server, run_script, tmp_path):
    output = fetched(tmp_path)
    params = {"url": f"{server.url}/good.zip", "sha256": None}
    run_script("fetch", tmp_path / "fetch.log", output=output, params=params)
    assert (output["raw"] / "images/a.tif").read_bytes() == b"a" * 1000
    assert output["archive"].read_bytes() == server.archives["good.zip"]


@pytest.mark.parametrize(
    ("path", "sha256", "words"),
    [
        ("good.zip", "0" * 64, ["sha256", "0" * 64, "check both"]),
        ("short/good.zip", None, ["was interrupted", "run the workflow again"]),
        ("missing.zip", None, ["404", "correct 'url'"]),
    ],
    ids=["wrong_checksum", "interrupted", "missing"],
)
def test_download(server, refusal, tmp_path, path, sha256, words):
    url = f"{server.url}/{path}"
    screen = refusal("fetch", fetched(tmp_path), params={"url": url, "sha256": sha256})
    for word in [url, *words]:
        assert word in screen


def test_archive_that_leaves_its_folder(server, run_script, capsys, tmp_path):
    """The archive itself is a good download; Snakemake deletes it with the job's outputs."""
    output = fetched(tmp_path)
    with pytest.raises(SystemExit):
        run_script(
            "fetch",
            tmp_path / "fetch.log",
            output=output,
            params={"url": f"{server.url}/escape.zip", "sha256": None},
        )
    assert "not safe to unpack, because its member '../../escaped.txt'" in capsys.readouterr().err
    assert not output["raw"].exists()
    assert not list(tmp_path.rglob("escaped.txt")) and not list(tmp_path.rglob("fine.txt"))


def test_no_network(tmp_path, monkeypatch):
    """The whole workflow, where nobody answers."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    far = f'source: remote, url: "http://{address}/a.zip", format: denoiseg_npz'
    call = call_here(
        tmp_path,
        *("--cores", "1", "--config", "grid={datasets: [far], n_annotated: [1]}"),
        f"datasets={{far: {{{far}}}}}",
    )
    assert call.status != 0
    assert f"no connection to {address}; check the network" in call.screen
    assert "Traceback" not in call.screen
    assert not (tmp_path / "results/data/far").exists()


# ---------------------------------------------------------------- disks

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 KiB: enough for the simulated images, not for the prepared ones."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk, option):
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


@needs_root
def test_full_disk(small_disk, tmp_path):
    options = [
        *("--cores", "1", "--until", "prepare"),
        *("--config", f"pathvars={{results: {small_disk}}}"),
    ]
    call = call_here(tmp_path, *options)
    assert call.status != 0
    assert "the disk is full; free some space and run the same command again" in call.screen
    assert "Traceback" not in call.screen
    data = small_disk / "data/nuclei"
    assert {path.name for path in data.iterdir()} == {"raw"}

    remount(small_disk, "size=4m")
    call = call_here(tmp_path, *options)
    assert call.status == 0, call.screen
    assert call.jobs == {"prepare": 1}
    assert len(manifest.read(data / "prepared/manifest.tsv")) == 12


@needs_root
def test_read_only_disk(small_disk, user, refusal, tmp_path):
    (small_disk / "data").mkdir()
    remount(small_disk, "ro")
    screen = refusal(
        "prepare",
        {"prepared": small_disk / "data/prepared"},
        params={"dataset": {"source": "folder", "images": str(user / "images")}},
    )
    assert f"cannot use {small_disk}" in screen
    assert "the file system is read-only; choose another folder" in screen


@needs_root
def test_read_only_results(small_disk, tmp_path):
    remount(small_disk, "ro")
    options = ("--config", f"pathvars={{results: {small_disk}}}")
    call = call_here(tmp_path, "--cores", "1", *options)
    assert call.status != 0
    assert f"Error: cannot use {small_disk}" in call.screen
    assert "the file system is read-only; choose another folder" in call.screen
    assert "Traceback" not in call.screen
    assert dry_run(tmp_path, *options).status == 0


@pytest.fixture
def forbidden(load_script):
    """A folder that the user running this test may not write to."""
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which only root may enter
    (folder / "data").mkdir()
    folder.chmod(0o755)
    (folder / "data").chmod(0o555)
    load_script("simulate")  # nobody may not enter each folder that root may
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere, nobody may not
    yield folder / "data"
    if root:
        os.seteuid(0)
    (folder / "data").chmod(0o755)
    shutil.rmtree(folder)


def test_no_permission(forbidden, run_script, capsys):
    with tempfile.TemporaryDirectory() as own, pytest.raises(SystemExit):
        run_script(
            "simulate",
            Path(own, "simulate.log"),
            output={"raw": forbidden / "raw"},
            params={"dataset": {"n_images": 3, "size": 32, "n_nuclei": [1, 2]}},
        )
    screen = capsys.readouterr().err
    assert f"cannot use {forbidden}" in screen and screen.count("\n") == 1
    assert "permission denied; check the permissions" in screen
    assert list(forbidden.iterdir()) == []
