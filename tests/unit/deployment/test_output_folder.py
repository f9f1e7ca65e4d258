"""What a folder of results on new images is safe from: other files, other images, other jobs."""

import csv
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.store import write_array
from denoiseg_flow.deployment import predict_file
from denoiseg_flow.deployment.ledger import INTERRUPTED, Entry, Record
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
from denoiseg_flow.deployment.output_folder import at_work, check_source, own_folder
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.model import ClassicalModel
from denoiseg_flow.models.model_file import save_model

FIX = (
    "; move it away, or choose another folder for the results ('--out', or 'predict: {name: ...}' "
    "in the config)"
)
# Works in a folder until it is told to end.
WORKER = """
import sys
from pathlib import Path
from denoiseg_flow.deployment.output_folder import at_work
with at_work(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("at work", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths in these tests are relative, as users write them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def images(here, make_blobs):
    """Two days of images, each in a folder of the same name."""
    for day in (1, 2):
        for number, name in enumerate("ab"):
            image = make_blobs(32, 10 * day + number)[0].clip(0, 255).astype(np.uint8)
            write_array(here / f"day{day}/images/{name}.tif", image)
    return here


@pytest.fixture
def model(model_file):
    return model_file


@pytest.fixture
def denoiser(here):
    median = Method("median", classical="median", parameter=1)
    save_model(ClassicalModel(median, {}, 1, None), here / "median.pt")
    return here / "median.pt"


@pytest.fixture
def work(here, start_python):
    return lambda how="alone": start_python(WORKER, here / "out", how)


def predict_all(file, images, out="out", **options):
    found = find_images([images])
    failed = predict_images(file, found, type(file)(out), **options)
    refuse_failures(failed, len(found), type(file)(out))


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        predict_all(*arguments, **options)
    assert str(caught.value).endswith(FIX)
    return str(caught.value).removesuffix(FIX)


def state(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "name", ["denoised/b.tif", "labels/b.tif", "overlays/b.png", "objects/b.csv"]
)
@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_the_user_is_left_alone(images, model, name, link):
    path = images / "out" / name
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere") if link else path.write_text("painted by hand")
    assert refusal(model, "day1/images") == (
        f"out/{name} would be overwritten, but is not among the results that out/images.tsv lists"
    )
    assert [each for each in (images / "out").rglob("*") if not each.is_dir()] == [path]
    path.unlink()
    predict_all(model, "day1/images")


@pytest.mark.parametrize("name", ["images.tsv", "objects.csv", "objects.parquet"])
def test_a_table_of_the_user_is_left_alone(images, model, denoiser, name):
    (images / "out").mkdir()
    (images / "out" / name).write_text("mine")
    for file in (denoiser, model):
        assert refusal(file, "day1/images") == (
            f"out/{name} would be overwritten, but no earlier call wrote it"
        )
    assert state(images / "out") == {images / "out" / name: b"mine"}


def test_other_files_do_not_matter(images, model):
    mine = images / "out/labels/a.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    predict_all(model, "day1/images")
    assert mine.read_text() == "mine"


def test_labels_of_the_user_beside_what_a_denoiser_made(images, model, denoiser):
    """That an image is known does not mean that all files of its name are."""
    predict_all(denoiser, "day1/images")
    path = images / "out/labels/a.tif"
    path.parent.mkdir()
    path.write_text("painted by hand")
    predict_all(denoiser, "day1/images")
    assert "out/labels/a.tif would be overwritten" in refusal(model, "day1/images")
    assert path.read_text() == "painted by hand"


def test_labels_of_the_user_for_an_image_that_failed(images, model):
    (images / "day1/images/b.tif").write_bytes(b"damaged")
    with pytest.raises(InputError, match="1 of 2 images could not be predicted"):
        predict_all(model, "day1/images")
    (images / "out/labels/b.tif").write_text("painted by hand")
    assert "out/labels/b.tif would be overwritten" in refusal(model, "day1/images")
    assert (images / "out/labels/b.tif").read_text() == "painted by hand"


def test_labels_of_the_user_in_the_place_of_those_that_were_deleted(images, model, denoiser):
    predict_all(model, "day1/images")
    (images / "out/labels/a.tif").unlink()
    predict_all(denoiser, "day1/images")
    (images / "out/labels/a.tif").write_text("painted by hand")
    assert "out/labels/a.tif would be overwritten" in refusal(model, "day1/images")


def test_the_other_form_of_images_counts_by_itself(images, model):
    predict_all(model, "day1/images", form="ome.zarr")
    (images / "out/labels/a.tif").write_text("painted by hand")
    assert "out/labels/a.tif would be overwritten" in refusal(model, "day1/images")


def test_results_of_another_folder(images, model):
    predict_all(model, "day1/images")
    before = state(images / "out")
    assert refusal(model, "day2/images") == (
        "out/denoised/a.tif would be overwritten, but is the result of day1/images/a.tif, not of "
        "day2/images/a.tif"
    )
    assert state(images / "out") == before


def test_the_images_themselves(images, model):
    shutil.copytree("day1/images", "out/denoised")
    before = state(images / "out")
    message = "out/denoised/a.tif would be overwritten, but is one of the images to predict"
    assert refusal(model, "out/denoised") == message
    for name in "ab":
        Record(images / "out").add(
            Entry(name, f"out/denoised/{name}.tif", 1, 1, "", results="denoised.tif")
        )
    assert refusal(model, "out/denoised") == message, "whatever the record says"
    assert before.items() <= state(images / "out").items()


def test_the_same_images_from_wherever_and_however_named(images, model, monkeypatch):
    predict_all(model, "day1/images")
    before = state(images / "out")
    predict_all(model, images / "day1/images")
    monkeypatch.chdir(images / "day1")
    predict_all(model, "images", "../out")
    assert state(images / "out") == before


def test_a_study_that_moves_as_a_whole(images, model, monkeypatch):
    predict_all(model, "day1/images")
    before = (images / "out/images.tsv").read_text()
    for name in ("out", "day1"):
        shutil.move(images / name, images / "elsewhere" / name)
    monkeypatch.chdir(images / "elsewhere")
    predict_all(model, "day1/images")
    assert (images / "elsewhere/out/images.tsv").read_text() == before


def test_other_models_one_after_the_other(images, model, denoiser):
    """What they made is known, though it no longer counts, and is made anew where it is asked."""
    predict_all(model, "day1/images")
    predict_all(denoiser, "day1/images/a.tif")
    entries = Record(images / "out").read()
    assert not entries["a"].failed and "with another model" in entries["b"].failed
    assert not (images / "out/objects.csv").exists()
    predict_all(denoiser, "day1/images/b.tif")
    predict_all(model, "day1/images")
    assert not any(entry.failed for entry in Record(images / "out").read().values())
    assert (images / "out/objects.csv").exists()


def test_the_record_of_an_older_version(images, model):
    """It has no columns for doubts and results, and paths as they were given."""
    predict_all(model, "day1/images")
    path = images / "out/images.tsv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    for row in rows[1:]:
        row[1] = f"day1/images/{row[0]}.tif"
    path.write_text("".join("\t".join(row[:8]) + "\n" for row in rows))
    before = state(images / "out")
    predict_all(model, "day1/images")
    assert state(images / "out") == before, "nothing was left to do"
    assert "is the result of day1/images/a.tif" in refusal(model, "day2/images")


def test_a_file_in_the_place_of_the_folder(images, model):
    (images / "out").write_text("mine")
    for out in ("out", "out/deeper"):
        with pytest.raises(InputError, match=f"^{out} is a file or lies below one; "):
            predict_all(model, "day1/images", out)
    assert (images / "out").read_text() == "mine"


def test_a_process_killed_while_it_writes_leaves_what_the_next_one_knows(
    images, model, monkeypatch
):
    calls = []

    def stop(path):
        calls.append(path)
        if len(calls) == 7:  # of eight files of two images
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predict_file, "remove", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_all(model, "day1/images")
    assert Record(images / "out").read()["b"].failed == INTERRUPTED
    predict_all(model, "day1/images")
    assert not any(entry.failed for entry in Record(images / "out").read().values())


def test_results_of_two_folders_are_not_mixed(images):
    record = Record(images / "out")
    (images / "out").mkdir()
    entry = Entry("c", "day1/images/c.tif", 1, 1, "m", results="denoised.tif")
    record.add(replace(entry, failed="damaged", results=""))
    check_source(images / "day2/images", images / "out")
    record.add(entry)
    check_source(images / "day1/images", images / "out")
    with pytest.raises(InputError) as caught:
        check_source(images / "day2/images", images / "out")
    assert str(caught.value) == (
        f"{images}/out has results of images from {images}/day1/images (such as c), not from "
        f"{images}/day2/images{FIX}"
    )


def test_results_of_a_plate(here):
    """They are from the plate, whether all of it is given, a well, or the folder of the plate."""
    (here / "out").mkdir()
    Record(here / "out").add(Entry("A1_f0", "day1/p.zarr/A/1/0", 1, 1, "m", results="denoised.tif"))
    for given in ("day1/p.zarr/A/1", "day1/p.zarr", "day1"):
        check_source(here / given, here / "out")
    for other in ("day1/q.zarr", "day1/p.zarr/A", "day2"):
        with pytest.raises(InputError, match=r"has results of images from .*/day1/p.zarr/A/1 "):
            check_source(here / other, here / "out")


def test_each_folder_of_images_has_results_of_its_own(images):
    out = images / "predicted/images"
    found = []
    for day in ["day1", "day2", "day3"]:
        folder = own_folder(images / day / "images", out)
        found.append(folder.name)
        folder.mkdir(parents=True)
        Record(folder).add(Entry("c", f"{day}/images/c.tif", 1, 1, "m", results="denoised.tif"))
        assert own_folder(images / day / "images", out) == folder
    assert found == ["images", "images_2", "images_3"]


@pytest.mark.parametrize("how", ["alone", "shared"])
def test_what_a_living_process_has_not_finished_is_left_alone(here, work, how):
    other = work(how)
    assert other.stdout.readline() == "at work\n"
    unfinished = here / "out/.unfinished_x"
    unfinished.mkdir()
    waiting = work("alone")
    time.sleep(2)
    assert waiting.poll() is None and unfinished.exists()
    other.communicate("\n")
    assert waiting.stdout.readline() == "at work\n"
    assert not unfinished.exists(), "it has ended"
    waiting.communicate("\n")
    assert list((here / "out").iterdir()) == []


def test_jobs_of_chunks_work_side_by_side(here, work):
    first, second = work("shared"), work("shared")
    assert first.stdout.readline() == second.stdout.readline() == "at work\n"
    for process in (first, second):
        process.communicate("\n")
    with at_work(here / "out"):
        pass
    assert list((here / "out").iterdir()) == []


def test_what_a_killed_process_left_is_removed(here, work):
    killed = work()
    assert killed.stdout.readline() == "at work\n"
    (here / "out/.unfinished_x").mkdir()
    killed.kill()
    killed.wait()
    with at_work(here / "out"):
        assert [path.name for path in (here / "out").iterdir()] == [".lock"]


def test_predictions_wait_for_another_process(images, model, work):
    other = work()
    assert other.stdout.readline() == "at work\n"
    predictions = threading.Thread(target=predict_all, args=[model, "day1/images"])
    predictions.start()
    predictions.join(2)
    assert predictions.is_alive() and not (images / "out/denoised").exists()
    other.communicate("\n")
    predictions.join()
    assert list(Record(images / "out").read()) == ["a", "b"]


def test_tables_of_chunks_are_joined_by_whoever_comes_last(images, model):
    found = find_images(["day1/images"])
    for name, path in found.items():
        assert predict_images(model, {name: path}, images / "out", chunk=True) == {}
    assert not (images / "out/images.tsv").exists()
    with at_work(images / "out"):
        assert join_results(found, images / "out") == {}
    assert list(Record(images / "out").read()) == ["a", "b"]
