"""A trained model on new images, one after the other."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.ome_zarr import create_ome_zarr
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.data.store import open_image, open_labels, read_metadata, write_array
from denoiseg_flow.deployment import predict_file
from denoiseg_flow.deployment.chunks import divide
from denoiseg_flow.deployment.ledger import INTERRUPTED, Record, shard
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.confidence import LOW, object_confidences
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.model import ClassicalModel, ImageModels
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.models.predict_run import predict_any

N2V = Method("n2v", target="blind_spot", alpha=1)
SEGMENTER = Method("sequential", input="n2v")
SINGLE = Method("single", target="blind_spot", masking="grid_zero", alpha=1, each_image=True)


@pytest.fixture
def images(tmp_path, make_blobs):
    """Three images: two tif files, one of them with a pixel size, and a png."""
    folder = tmp_path / "images"
    for number, name in enumerate(("a", "b")):
        image = make_blobs(48, number)[0].clip(0, 255).astype(np.uint8)
        metadata = Metadata("YX", {"Y": 0.5, "X": 0.25} if name == "b" else {})
        write_array(folder / f"{name}.tif", image, metadata)
    Image.fromarray(make_blobs(32, 2)[0].clip(0, 255).astype(np.uint8)).save(folder / "c.png")
    return folder


@pytest.fixture
def file(model_file):
    return model_file


@pytest.fixture
def predicted(monkeypatch):
    """Names of the images that are predicted, in order."""
    names = []

    def predict(model, source, *others, **options):
        names.append(source.stem)
        return predict_any(model, source, *others, **options)

    monkeypatch.setattr(predict_file, "predict_any", predict)
    return names


def predict_all(file, images, out):
    found = find_images([images])
    predict_images(file, found, out)
    refuse_failures(join_results(found, out), len(found), out)


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        predict_all(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def record(out):
    return pd.read_csv(out / "images.tsv", sep="\t", keep_default_na=False).set_index("image")


def test_what_is_written(file, images, tmp_path):
    out = tmp_path / "out"
    predict_all(file, images, out)
    assert sorted(path.name for path in out.iterdir()) == [
        *(".joined", "denoised", "images.tsv", "labels", "objects", "objects.csv"),
        *("objects.parquet", "overlays"),
    ]
    for kind, ending in {
        "denoised": "tif",
        "labels": "tif",
        "overlays": "png",
        "objects": "csv",
    }.items():
        assert {path.name for path in (out / kind).iterdir()} == {f"{n}.{ending}" for n in "abc"}
    for name, side in {"a": 48, "b": 48, "c": 32}.items():
        denoised = tifffile.imread(out / "denoised" / f"{name}.tif")
        labels = tifffile.imread(out / "labels" / f"{name}.tif")
        assert (denoised.dtype, denoised.shape) == (np.float32, (side, side))
        assert (labels.dtype, labels.shape) == (np.uint16, (side, side))
        assert labels.max() > 0
        objects = pd.read_csv(out / "objects" / f"{name}.csv")
        assert objects["label"].tolist() == list(range(1, labels.max() + 1))
        assert objects["area"].tolist() == np.bincount(labels.ravel())[1:].tolist()
        assert Image.open(out / "overlays" / f"{name}.png").size == (side, side)
        assert record(out).loc[name, "objects"] == labels.max()
    assert read_metadata(out / "denoised/b.tif").spacing() == pytest.approx((0.5, 0.25))
    objects = pd.read_csv(out / "objects.csv")
    assert objects["image"].is_monotonic_increasing
    assert len(objects) == record(out)["objects"].sum()
    assert objects["area_um2"].notna().tolist() == (objects["image"] == "b").tolist()


def test_the_same_as_in_the_workflow(file, images, tmp_path, make_model):
    predict_all(file, images, tmp_path / "out")
    predict_any(load_model(file), images / "a.tif", tmp_path / "run", False)
    for kind in ("denoised", "labels"):
        assert np.array_equal(
            tifffile.imread(tmp_path / "run" / kind / "a.tif"),
            tifffile.imread(tmp_path / "out" / kind / "a.tif"),
        )


def test_images_of_another_number_of_channels(file, images, tmp_path):
    tifffile.imwrite(images / "rgb.tif", np.zeros((48, 48, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(images / "two.tif", np.zeros((2, 48, 48), np.uint16))
    message = refusal(file, images, tmp_path / "out")
    assert message.startswith("2 of 5 images could not be predicted (")
    failed = record(tmp_path / "out")["failed"]
    assert "rgb.tif is a colour image" in failed["rgb"]
    assert "two.tif has 3 axes" in failed["two"]
    assert (failed[["a", "b", "c"]] == "").all()


def test_a_model_brings_the_one_that_it_reads_the_images_of(images, tmp_path, make_model):
    denoiser, segmenter = make_model(N2V), make_model(SEGMENTER)
    segmenter.input = denoiser
    save_model(segmenter, tmp_path / "model.pt")
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    predict_any(denoiser, images / "a.tif", tmp_path / "first", False)
    predict_any(segmenter, tmp_path / "first/denoised/a.tif", tmp_path / "second", False)
    for folder, kind in (("first", "denoised"), ("second", "labels")):
        assert np.array_equal(
            tifffile.imread(tmp_path / folder / kind / "a.tif"),
            tifffile.imread(tmp_path / "out" / kind / "a.tif"),
        )


def test_denoisers_one_after_the_other(images, tmp_path, make_model):
    """Each reads what the one before it made, and the last word counts."""
    median = ClassicalModel(Method("median", classical="median", parameter=1), {}, 1, None)
    denoiser = make_model(Method("n2v", target="blind_spot", alpha=1, input="median"))
    joint = make_model(Method("denoiseg", target="blind_spot", alpha=0.5, input="n2v"))
    joint.input, denoiser.input = denoiser, median
    save_model(joint, tmp_path / "model.pt")
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    read = images
    for number, step in enumerate((median, denoiser, joint)):
        predict_any(step, read / "a.tif", tmp_path / f"{number}", False)
        read = tmp_path / f"{number}" / "denoised"
    for kind in ("denoised", "labels"):
        assert np.array_equal(
            tifffile.imread(tmp_path / "2" / kind / "a.tif"),
            tifffile.imread(tmp_path / "out" / kind / "a.tif"),
        )


def test_new_images_may_have_the_names_of_old_ones(images, tmp_path, make_model):
    """A model that was trained without the old image "a" is not for the new one."""
    model, other = make_model(), make_model()
    with torch.no_grad():
        other.network.head.weight.mul_(-1)
    model.held_out = {"a": other}
    save_model(model, tmp_path / "model.pt")
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    predict_any(model, images / "a.tif", tmp_path / "run", False)
    assert np.array_equal(
        tifffile.imread(tmp_path / "run/denoised/a.tif"),
        tifffile.imread(tmp_path / "out/denoised/a.tif"),
    )


def test_a_denoiser_yields_denoised_images_only(images, tmp_path):
    median = Method("median", classical="median", parameter=1)
    save_model(ClassicalModel(median, {}, 1, None), tmp_path / "model.pt")
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"denoised", "images.tsv"}
    assert set(record(tmp_path / "out")["objects"]) == {""}


def test_a_file_that_fails_is_named_and_the_others_are_done(file, images, tmp_path, predicted):
    out = tmp_path / "out"
    (images / "b.tif").write_bytes(b"damaged")
    message = refusal(file, images, out)
    assert message == (
        f"1 of 3 images could not be predicted ({images / 'b.tif'}); see "
        f"{out / 'images.tsv'} for the reasons, correct or remove these files, and run the same "
        "command again (the others are done)"
    )
    assert predicted == ["a", "c"]
    assert "damaged or incomplete" in record(out).loc["b", "failed"]
    assert set(pd.read_csv(out / "objects.csv")["image"]) == {"a", "c"}

    (images / "b.tif").unlink()
    predict_all(file, images, out)
    assert predicted == ["a", "c"], "nothing was left to do"
    assert list(record(out).index) == ["a", "c"]


def test_a_link_to_nowhere_is_an_image_that_fails(file, images, tmp_path):
    (images / "b.tif").unlink()
    (images / "b.tif").symlink_to("nowhere")
    assert "1 of 3 images could not be predicted" in refusal(file, images, tmp_path / "out")
    assert "b.tif does not exist" in record(tmp_path / "out").loc["b", "failed"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("no codec"), "(ImportError: no codec)"),
        (OSError(5, "Input/output error"), "(OSError: [Errno 5] Input/output error)"),
        (OSError(36, "", "o.tif"), "cannot use o.tif: the name is too long with the suffixes"),
        (ZeroDivisionError("one\ntwo"), "(ZeroDivisionError: one)"),
        (MemoryError(), "needs more memory than is free; run fewer jobs at once"),
        (torch.OutOfMemoryError("CUDA"), "needs more memory than is free; run fewer jobs at once"),
        (RuntimeError("can't allocate memory: 12"), "needs more memory than is free; run fewer"),
        (InputError("a tile does not fit"), "b.tif: a tile does not fit"),
    ],
    ids=repr,
)
def test_whatever_goes_wrong_with_one_image(file, images, tmp_path, monkeypatch, error, reason):
    def predict(model, source, *others, **options):
        if source.stem == "b":
            raise error
        return predict_any(model, source, *others, **options)

    out = tmp_path / "out"
    predict_all(file, images, out)
    os.utime(images / "b.tif", ns=(1, 1))
    monkeypatch.setattr(predict_file, "predict_any", predict)
    assert "1 of 3 images could not be predicted" in refusal(file, images, out)
    assert reason in record(out).loc["b", "failed"]
    assert str(images / "b.tif") in record(out).loc["b", "failed"]
    assert set(pd.read_csv(out / "objects.csv")["image"]) == {"a", "c"}
    assert not list(out.rglob("b.*")) and not list(out.glob(".[!j]*"))


@pytest.mark.parametrize(
    "error",
    [
        *(KeyboardInterrupt(), OSError(28, "No space left on device"), OSError(30, "Read-only")),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=repr,
)
def test_what_no_other_image_would_survive_ends_all(file, images, tmp_path, monkeypatch, error):
    asked = []

    def predict(model, source, *_, **__):
        asked.append(source.stem)
        raise error

    monkeypatch.setattr(predict_file, "predict_any", predict)
    with pytest.raises(type(error)):
        predict_all(file, images, tmp_path / "out")
    assert asked == ["a"]


def test_images_of_one_bit(file, images, tmp_path):
    """The same as of the numbers 0 and 1, whatever the file."""
    bits = np.indices((40, 40)).sum(axis=0) % 20 < 10
    Image.fromarray(bits).save(images / "a.tif")
    Image.fromarray(bits).save(images / "c.png")
    with create_ome_zarr(images / "d.ome.zarr", bits.shape, bits.dtype, Metadata("YX")) as zarr:
        zarr[0:40, 0:40] = bits
    write_array(images / "b.tif", bits.astype(np.uint8))
    out = tmp_path / "out"
    predict_all(file, images, out)
    for kind in ("labels", "denoised"):
        found = [tifffile.imread(out / kind / f"{name}.tif") for name in "abcd"]
        assert all(np.array_equal(each, found[1]) for each in found)
    pictures = [np.asarray(Image.open(out / f"overlays/{name}.png")) for name in "abcd"]
    assert all(np.array_equal(each, pictures[1]) for each in pictures)
    assert pictures[1].max() == 255
    tables = [pd.read_csv(out / f"objects/{name}.csv").drop(columns="image") for name in "abcd"]
    assert len(tables[1])
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[1])


@pytest.mark.parametrize("name", ["n" * 251, "n" * 247, "é" * 125])
def test_names_as_long_as_file_systems_take_them(file, images, tmp_path, name):
    (images / "a.tif").rename(images / f"{name}.tif")
    predict_all(file, images, tmp_path / "out")
    assert name in set(pd.read_csv(tmp_path / "out/objects.csv")["image"])
    predict_all(file, images, tmp_path / "out")


def test_names_too_long_for_the_results(file, images, tmp_path):
    name = "n" * 251
    (images / "a.tif").rename(images / f"{name}.tif")
    found, out = find_images([images]), tmp_path / "out"
    assert list(predict_images(file, found, out, form="ome.zarr")) == [name]
    reason = record(out).loc[name, "failed"]
    assert f"denoised/{name}.ome.zarr: the name is too long" in reason
    assert (record(out).loc[["b", "c"], "failed"] == "").all()


def test_the_confidence_of_each_image_is_told(file, images, tmp_path, caplog):
    out = tmp_path / "out"
    predict_all(file, images, out)
    labels = open_labels(out / "labels/a.tif")
    objects = object_confidences(load_model(file), open_image(images / "a.tif"), labels)
    told, warned = record(out)["confidence"].astype(float), record(out)["warned"]
    assert told["a"] == pytest.approx(objects.mean(), abs=1e-3)
    lines = [line for line in caplog.messages if "confidence" in line]
    doubtful = told.index[told < LOW]
    assert len(doubtful), "a network that has learned nothing"
    for name, line in zip(doubtful, lines, strict=True):
        assert str(images / name) in line and line in warned[name]


def test_objects_have_a_confidence_and_an_expected_precision(file, images, tmp_path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    predict_all(file, images, out)
    table = pd.read_csv(out / "objects.csv")
    told = record(out)["confidence"].astype(float)
    for name, of_image in table.groupby("image"):
        assert of_image["confidence"].mean() == pytest.approx(told[name], abs=1e-3)
    assert "expected_precision" not in table
    assert "no expected precision of objects" in caplog.text
    model = load_model(file)
    model.precision = PrecisionCurve([0.0, 1.0], [0.2, 0.6], [0.1, 0.5], [0.3, 0.7], 40, 3)
    save_model(model, file)
    caplog.clear()
    predict_all(file, images, out)
    table = pd.read_csv(out / "objects.csv")
    assert table["expected_precision"].to_numpy() == pytest.approx(
        0.2 + 0.4 * table["confidence"].to_numpy(), abs=2e-4
    )
    assert "no expected precision" not in caplog.text


def test_a_denoiser_has_no_confidence(images, tmp_path, make_model):
    save_model(make_model(N2V), tmp_path / "model.pt")
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    assert (record(tmp_path / "out")["confidence"] == "").all()


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0), (1, 1e9), (257, 0)])
def test_foreign_grey_levels_are_doubted(file, images, tmp_path, caplog, scale, offset):
    image = tifffile.imread(images / "b.tif") * np.float64(scale) + offset
    write_array(images / "b.tif", image.astype(np.float32))
    out = tmp_path / "out"
    predict_all(file, images, out)
    warned = record(out)["warned"]
    (line,) = [line for line in caplog.messages if "grey levels" in line]
    assert warned.str.contains(line, regex=False).tolist() == [False, True, False]
    assert line.startswith(
        f"grey levels of {images / 'b.tif'} (mean {image.mean():.3g}, standard deviation "
    )
    assert "training images (mean 100, standard deviation 25)" in line
    predict_all(file, images, out)
    assert record(out)["warned"].equals(warned), "it is still known"


def test_many_failures_are_counted(file, images, tmp_path):
    for name in "defg":
        (images / f"{name}.tif").write_bytes(b"damaged")
    message = refusal(file, images, tmp_path / "out")
    assert message.startswith("4 of 7 images could not be predicted (")
    assert "f.tif and 1 more); " in message


def touch(file, images, out):
    os.utime(images / "b.tif", ns=(1, 1))


def lose_labels(file, images, out):
    (out / "labels/b.tif").unlink()


def kill_it(file, images, out):
    """As if a process had been killed while it added b to the record."""
    Record(out).add(replace(Record(out).read()["b"], failed=INTERRUPTED))
    begun = (out / f".record/{shard('b')}.tsv").read_text()
    _, *lines = (out / "images.tsv").read_text().splitlines(keepends=True)
    (out / "images.tsv").unlink()
    (out / "objects.csv").unlink()
    for name, line in zip("abc", lines, strict=True):
        added = begun + line[:20] if name == "b" else line
        (out / f".record/{shard(name)}.tsv").write_text(added)
    (out / ".unfinished_1").mkdir()


@pytest.mark.parametrize("change", [touch, lose_labels, kill_it])
def test_only_what_is_missing_is_done_again(file, images, tmp_path, predicted, change):
    out = tmp_path / "out"
    predict_all(file, images, out)
    before = {path: path.read_bytes() for path in out.rglob("[!.]*.*") if path.is_file()}
    del before[out / "images.tsv"]
    assert predicted == ["a", "b", "c"]
    change(file, images, out)
    predict_all(file, images, out)
    assert predicted[3:] == ["b"]
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(record(out).index) == ["a", "b", "c"]
    assert not (out / ".unfinished_1").exists() and not (out / ".record").exists()


def test_a_damaged_table_is_noticed_and_made_again(file, images, tmp_path, predicted):
    out = tmp_path / "out"
    predict_all(file, images / "a.tif", out)
    predict_all(file, images, tmp_path / "undisturbed")
    table = out / "objects/a.csv"
    table.write_bytes(table.read_bytes()[:-1])
    assert "1 of 3 images could not be predicted" in refusal(file, images, out)
    assert record(out)["failed"]["a"].startswith(f"{table} was damaged or deleted; run the same")
    predicted.clear()
    predict_all(file, images, out)
    assert predicted == ["a"]
    for path in (tmp_path / "undisturbed").rglob("[!.]*.*[!t]"):
        again = out / path.relative_to(tmp_path / "undisturbed")
        assert sorted(path.read_bytes().split()) == sorted(again.read_bytes().split())


def test_another_model_does_all_of_them_again(file, images, tmp_path, predicted, make_model):
    predict_all(file, images, tmp_path / "out")
    save_model(make_model(filters=3), file)
    predict_all(file, images, tmp_path / "out")
    assert predicted == list("abcabc")


def test_images_of_earlier_calls_stay(file, images, tmp_path, predicted):
    for name in ("a.tif", "c.png"):
        predict_all(file, images / name, tmp_path / "out")
    assert predicted == ["a", "c"]
    assert list(record(tmp_path / "out").index) == ["a", "c"]
    assert set(pd.read_csv(tmp_path / "out/objects.csv")["image"]) == {"a", "c"}


def test_jobs_of_chunks_make_what_one_makes(file, images, tmp_path, predicted):
    """The last of them never starts; an image is added, and then there are other chunks."""
    predict_all(file, images, tmp_path / "one")
    out, found = tmp_path / "out", find_images([images])
    chunks = list(divide(found, 16).values())
    assert len(chunks) == 3
    for chunk in chunks[:2]:
        predict_images(file, chunk, out)
    write_array(images / "d.tif", np.full((20, 20), 7, np.uint16))
    predicted.clear()
    chunks = divide(find_images([images]), 4)
    assert len(chunks) == 2
    for chunk in chunks.values():
        predict_images(file, chunk, out)
    assert len(predicted) == 2 and "d" in predicted
    assert join_results([*found, "d"], out) == {}
    assert list(record(out).index) == ["a", "b", "c", "d"]
    for path in (tmp_path / "one").glob("[!.]*/*[!t]"):  # parts of tables hold all images
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_file_that_became_unreadable_loses_its_results(file, images, tmp_path):
    predict_all(file, images, tmp_path / "out")
    (images / "b.tif").write_bytes(b"damaged")
    refusal(file, images, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("b.*"))


def test_constant_and_empty_images_have_no_objects(images, tmp_path, make_model):
    model = make_model()
    model.threshold = type(model.threshold)(1.0, 0.5, 1)
    save_model(model, tmp_path / "model.pt")
    write_array(images / "d.tif", np.full((20, 20), 7, np.uint16))
    predict_all(tmp_path / "model.pt", images, tmp_path / "out")
    assert set(record(tmp_path / "out")["objects"]) == {0}
    assert len(pd.read_csv(tmp_path / "out/objects.csv")) == 0


@pytest.mark.parametrize("as_input", [False, True])
def test_networks_of_single_images_are_refused(images, tmp_path, make_model, as_input):
    single = make_model(SINGLE)
    model = ImageModels(SINGLE, single.recipe, single.identity, {"a": single})
    if as_input:
        last = make_model(Method("sequential", input="single"))
        last.input = model
        model = last
    save_model(model, tmp_path / "model.pt")
    assert refusal(tmp_path / "model.pt", images, tmp_path / "out") == (
        f"model {tmp_path / 'model.pt'} cannot be used on new images, because method 'single' "
        "trains a network for each image; use a model of another method"
    )
    assert not (tmp_path / "out").exists()


def test_missing_model(images, tmp_path):
    assert refusal(tmp_path / "model.pt", images, tmp_path / "out") == (
        f"model {tmp_path / 'model.pt'} does not exist or is not a file; correct its path"
    )


def test_large_images_are_thinned_out_for_the_overlay(file, images, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_file, "OVERLAY_SIDE", 20)
    predict_all(file, images / "a.tif", tmp_path / "out")
    assert Image.open(tmp_path / "out/overlays/a.png").size == (16, 16)
