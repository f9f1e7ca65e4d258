"""A trained model on colour images: results in colour, and images of the other kind."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from refusals import refusal

from denoiseg_flow import api
from denoiseg_flow.data.files.ome_zarr import is_ome_zarr
from denoiseg_flow.data.files.reader import open_image_file, read_image
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import ClassicalModel, ThresholdModel, summary
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.threshold import Threshold

COLOUR = Layout(channels=3, colour=True)


@pytest.fixture
def stained(make_blobs):
    """Dark purple discs on bright ground (y, x, 3), uint8, as in a stained section."""
    density = make_blobs(48, 0)[0].clip(0, 255) / 255
    return (240 - density[..., None] * (90, 180, 60)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def model(make_model):
    """A joint model for colour images that finds objects."""
    made = make_model(layout=COLOUR)
    made.normalisation = Normalisation((200.0, 180.0, 210.0), (30.0, 40.0, 20.0))
    made.threshold = Threshold(0.2, 0.5, 1)
    return made


def predict(model, folder, form="tif", **files):
    """Predict these arrays; return the folder of the results, and why images failed."""
    for name, pixels in files.items():
        (folder / "new").mkdir(exist_ok=True)
        kind = "minisblack" if pixels.ndim == 2 else "rgb"
        tifffile.imwrite(folder / "new" / f"{name}.tif", pixels, photometric=kind)
    save_model(model, folder / "model.pt")
    predict_images(folder / "model.pt", find_images([folder / "new"]), folder / "out", form=form)
    table = pd.read_csv(folder / "out/images.tsv", sep="\t", keep_default_na=False)
    return folder / "out", dict(zip(table["image"], table["failed"], strict=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_results_are_in_colour_for_every_program(model, stained, tmp_path, dtype):
    out, failed = predict(model, tmp_path, a=stained.astype(dtype))
    assert failed == {"a": ""}
    with tifffile.TiffFile(out / "denoised/a.tif") as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
        assert tif.series[0].axes == "YXS" and tif.series[0].dtype == dtype
        pixels = tif.asarray()
    if dtype == np.uint8:
        np.testing.assert_array_equal(np.asarray(Image.open(out / "denoised/a.tif")), pixels)
    alone = api.predict(model, stained.astype(np.float32), axes="YXS").denoised
    assert alone.dtype == np.float32 and alone.std() > 1
    expected = alone.transpose(1, 2, 0)
    if dtype != np.float32:
        expected = np.rint(expected).clip(0, np.iinfo(dtype).max)
    np.testing.assert_allclose(pixels, expected, atol=0.01)


def test_overlays_are_in_colour(model, stained, tmp_path):
    model.threshold = Threshold(1.0, 0.5, 1)  # no object covers the image
    out, _ = predict(model, tmp_path, a=stained)
    assert not read_image(out / "labels/a.tif").any()
    overlay = np.asarray(Image.open(out / "overlays/a.png")).astype(int)
    hue, wanted = (each[..., 1].astype(int) - each[..., 2] for each in (overlay, stained))
    assert np.corrcoef(hue.ravel(), wanted.ravel())[0, 1] > 0.99 and np.ptp(hue) > 50


def test_the_model_file_remembers_its_colours(model, stained, tmp_path):
    save_model(model, tmp_path / "model.pt")
    again = load_model(tmp_path / "model.pt")
    assert again.layout == COLOUR and summary(again) == "Denoises and segments planes in colour."
    grey = stained[..., 0]
    _, failed = predict(model, tmp_path, grey=grey, colour=stained)
    assert failed == {
        "colour": "",
        "grey": f"{tmp_path / 'new/grey.tif'} is not a colour image, but has axes YX of shape "
        "(48, 48); remove it, or leave out 'colour' of the dataset if all its images are grey",
    }


def test_a_grey_model_refuses_colours(make_model, stained, tmp_path):
    _, failed = predict(make_model(), tmp_path, colour=stained)
    assert f"{tmp_path / 'new/colour.tif'} is a colour image" in failed["colour"]


def test_an_opaque_alpha_channel_is_left_out(model, stained, tmp_path):
    alpha = np.full((48, 48, 1), 255, np.uint8)
    clear = np.dstack([stained, alpha])
    clear[0, 0, 3] = 0
    out, failed = predict(model, tmp_path, a=stained, b=np.dstack([stained, alpha]), c=clear)
    assert "has transparent pixels" in failed.pop("c") and not any(failed.values())
    one, other = (tifffile.imread(out / f"denoised/{name}.tif") for name in "ab")
    np.testing.assert_array_equal(one, other)


def test_zarr_stores_name_the_colours(model, stained, tmp_path):
    out, _ = predict(model, tmp_path, "ome.zarr", a=stained)
    with open_image_file(out / "denoised/a.ome.zarr") as file:
        assert is_ome_zarr(file.path)
        assert file.metadata.channels == ("red", "green", "blue") and file.shape == (3, 48, 48)


def test_classical_denoisers_treat_colours_separately(stained, tmp_path):
    model = ClassicalModel(Method("gaussian", classical="gaussian", alpha=1), {}, 1.5, None)
    noisy = stained.astype(np.float32)
    both = api.predict(model, noisy, axes="YXS").denoised
    apart = [api.predict(model, noisy[..., number]).denoised for number in range(3)]
    np.testing.assert_array_equal(both, apart)


def test_otsu_finds_what_is_darker_than_the_ground(stained, tmp_path):
    method = Method("otsu", segmenter="otsu", alpha=0)
    dark = ThresholdModel(method, {}, COLOUR, (-30.0, -40.0, -20.0))
    labels = api.predict(dark, stained, axes="YXS").labels
    green = stained[..., 1]
    assert labels.max() > 1 and (labels[green < 120] > 0).mean() > 0.9
    assert (labels[green > 160] > 0).mean() < 0.1


def test_axes_of_arrays_in_colour(model, stained):
    assert "S for three colours" in refusal(api.predict, model, stained[..., :2], axes="YXS")
