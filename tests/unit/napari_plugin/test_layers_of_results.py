"""The layers in which napari shows a study and predicted images."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.io import imsave

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import write_array
from denoiseg_flow.errors import InputError
from denoiseg_flow.napari_plugin.layers import image_layers, labels_layer
from denoiseg_flow.napari_plugin.results import find_parts


def names(layers):
    return [(arguments["name"], kind) for _, arguments, kind in layers]


def test_a_study_has_images_masks_and_predictions(study):
    for folder in (study.folder, study.results):
        plain, noisy = find_parts(folder)
        assert (plain.name, noisy.name) == ("own, n0", "own, n10")
        assert plain.images() == ["0", "1"]
        assert plain.runs() == ["denoiseg"] and noisy.runs() == []
    layers = plain.layers("0", "denoiseg")
    predictions = (
        ("0 denoiseg denoised", "image"),
        ("0 mask", "labels"),
        ("0 denoiseg labels", "labels"),
    )
    assert names(layers) == [("0", "image"), *predictions]
    for (pixels, arguments, _), path in zip(
        layers,
        (
            study.folder / "images/0.tif",
            study.results / "runs/own/n0/denoiseg/annotated1/seed1/predictions/denoised/0.tif",
            study.folder / "masks/0.tif",
            study.results / "runs/own/n0/denoiseg/annotated1/seed1/predictions/labels/0.tif",
        ),
        strict=True,
    ):
        assert np.array_equal(pixels, tifffile.imread(path))
        assert arguments["scale"] == [0.25, 0.25]
        assert arguments["units"] == ["micrometer", "micrometer"]
        assert arguments["axis_labels"] == ["y", "x"]
    assert names(noisy.layers("1", None)) == [("1", "image"), ("1 n10", "image")]


def test_runs_of_one_method_are_told_apart(study):
    run = study.results / "runs/own/n0/denoiseg/annotated1/seed2"
    run.mkdir()
    (run / "model.pt").touch()
    (part, _) = find_parts(study.folder)
    assert part.runs() == ["denoiseg annotated1 seed1", "denoiseg annotated1 seed2"]
    assert ("1 denoiseg annotated1 seed1 labels", "labels") in names(
        part.layers("1", part.runs()[0])
    )


def test_predicted_images_have_the_rows_of_their_objects(predicted, study):
    (part,) = find_parts(predicted)
    assert part.images() == ["0"] and part.runs() == []
    image, denoised, labels = part.layers("0", None)
    assert names([image, denoised, labels]) == [
        ("0", "image"),
        ("0 denoised", "image"),
        ("0 labels", "labels"),
    ]
    assert {tuple(arguments["scale"]) for _, arguments, _ in (image, denoised, labels)} == {
        (0.25, 0.25)
    }
    table = pd.read_csv(predicted / "objects/0.csv")
    assert len(table) and labels[1]["features"]["index"].tolist() == table["label"].tolist()
    assert set(np.unique(labels[0])) - {0} == set(table["label"])
    (study.folder / "images/0.tif").unlink()
    assert names(part.layers("0", None)) == names([denoised, labels])


def test_an_image_without_pixel_size_takes_that_of_its_results(tmp_path):
    imsave(tmp_path / "plain.png", np.eye(4, dtype=np.uint8), check_contrast=False)
    ((_, alone, _),) = image_layers(tmp_path / "plain.png", "plain")
    assert (alone["scale"], alone["units"]) == ([1, 1], ["pixel", "pixel"])
    like = Metadata("YX", {"Y": 0.5, "X": 0.25})
    ((_, placed, _),) = image_layers(tmp_path / "plain.png", "plain", like)
    assert placed["scale"] == [0.5, 0.25]


def test_channels_are_layers_in_their_colours(tmp_path):
    image = np.arange(24, dtype=np.float32).reshape(3, 2, 4)[:2]
    metadata = Metadata("CYX", {}, ("DAPI", "GFP"), ("0000FF", "00FF00"))
    write_array(tmp_path / "two.tif", image, metadata)
    layers = image_layers(tmp_path / "two.tif", "two")
    assert [each[1]["name"] for each in layers] == ["two DAPI", "two GFP"]
    assert [each[1]["colormap"] for each in layers] == ["#0000FF", "#00FF00"]
    assert np.array_equal([each[0] for each in layers], image)


def test_time_series_in_colour(tmp_path):
    """Colours come last; those of denoised images become those of the file."""
    image = np.linspace(-9, 300, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    metadata = Metadata("TCYX", {"Y": 2, "X": 2}, time_step=30).in_colour()
    write_array(tmp_path / "film.tif", image, metadata)
    ((pixels, arguments, _),) = image_layers(tmp_path / "film.tif", "film", colour_type="uint8")
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 4, 5, 3)
    assert np.array_equal(pixels, np.moveaxis(np.clip(np.rint(image), 0, 255), 1, -1))
    assert arguments["rgb"] and arguments["scale"] == [30, 2, 2]
    assert arguments["units"] == ["second", "micrometer", "micrometer"]


def test_masks_keep_regions_to_ignore(tmp_path):
    mask = np.array([[0, 1], [-1, 70_000]], np.int32)
    write_array(tmp_path / "mask.tif", mask)
    pixels, arguments, kind = labels_layer(tmp_path / "mask.tif", "mask")
    assert kind == "labels" and np.array_equal(pixels, mask) and "features" not in arguments


def test_other_folders_are_refused(tmp_path, study):
    with pytest.raises(InputError, match=r"has no results; choose the folder of a study"):
        find_parts(tmp_path)
    (tmp_path / "images.tsv").write_text("name\tplace\n")
    with pytest.raises(InputError, match=r"has no results"):
        find_parts(tmp_path)
    (study.results / "data").rename(study.results / "moved")
    with pytest.raises(InputError, match=r"no prepared images yet; let the study run"):
        find_parts(study.folder)
