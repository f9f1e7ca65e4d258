"""Packages of the BioImage Model Zoo: what they hold, and what is refused."""

import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from denoiseg_flow import __version__, cli
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.data.store import write_array
from denoiseg_flow.deployment import torchscript
from denoiseg_flow.deployment.bioimageio import export_model
from denoiseg_flow.deployment.model_card import citations, description, readme, tags
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.pixel_classifier import PixelClassifier
from denoiseg_flow.models.initial_model import load_initial_model
from denoiseg_flow.models.model import ClassicalModel, ImageModels, ThresholdModel, chain
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.tiled_prediction import predict_tiles

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SIZE = {"Z": 0.7, "Y": 0.1, "X": 0.3}
VOLUMES = Layout(3, channels=2, patch_depth=4, z_factors=(1,))
FILES = {"noisy", "denoised", "probabilities"}


def described(folder):
    """A package as the Model Zoo reads it."""
    # Not above: it takes seconds, and not every process runs these tests.
    from bioimageio.spec import InvalidDescr, load_description

    description = load_description(folder / "package.zip")
    assert not isinstance(description, InvalidDescr)
    return description


@pytest.fixture
def folder(tmp_path, make_model, make_blobs, monkeypatch):
    """A model and an image, which is smaller than the test image along one axis."""
    monkeypatch.setattr(torchscript, "TEST_SIDES", {2: (40, 40), 3: (1, 40, 40)})
    save_model(make_model(), tmp_path / "model.pt")
    write_array(tmp_path / "image.tif", make_blobs(64, 0)[0][:, :32])
    return tmp_path


@pytest.fixture
def volumes(make_model):
    """Make a model of volumes with two channels."""

    def make(**changes):
        model = make_model(layout=replace(VOLUMES, **changes))
        if model.layout.channels > 1:
            model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
        return model

    return make


@pytest.fixture
def stack(folder):
    """Write an image with these axes; return its pixels."""

    def write(axes="CZYX", channels=("DAPI", "GFP"), size=SIZE):
        lengths = {"T": 2, "C": 2, "Z": 20, "Y": 64, "X": 48}
        shape = [lengths[axis] for axis in axes]
        image = np.random.default_rng(0).integers(50, 500, shape).astype(np.uint16)
        known = {axis: length for axis, length in size.items() if axis in axes}
        metadata = Metadata(axes, known, channels if "C" in axes else ())
        write_array(folder / "image.tif", image, metadata)
        return image

    return write


@pytest.fixture
def sequential(make_model):
    """A segmenter that reads what Noise2Void yields."""
    model = make_model(replace(BASELINE, name="sequential", input="n2v"))
    model.input = make_model(N2V)
    return model


def export(folder, model=None, **options):
    """Export; return the description, as a reader of the package sees it, and its arrays."""
    if model is not None:
        save_model(model, folder / "model.pt")
    export_model(folder / "model.pt", folder / "package.zip", folder / "image.tif", **options)
    with zipfile.ZipFile(folder / "package.zip") as package:
        package.extractall(folder / "package")
    told = yaml.safe_load((folder / "package/rdf.yaml").read_text())
    return told, {path.stem: np.load(path) for path in (folder / "package").glob("*.npy")}


def test_package_is_complete(folder):
    told, arrays = export(folder, title="Nuclei", authors=["Ada", "Bo"], licence="CC-BY-4.0")
    assert {path.name for path in (folder / "package").iterdir()} == {
        "rdf.yaml",
        "README.md",
        "cover.png",
        "model.pt",
        "weights.pt",
        *(f"{name}.{ending}" for name in FILES for ending in ("npy", "tif")),
    }
    assert {path.name for path in folder.iterdir()} == {
        "image.tif",
        "model.pt",
        "package",
        "package.zip",
    }
    assert told["name"] == "Nuclei"
    assert told["license"] == "CC-BY-4.0"
    assert [author["name"] for author in told["authors"]] == ["Ada", "Bo"]
    for name, array in arrays.items():
        assert (tifffile.imread(folder / f"package/{name}.tif").squeeze() == array.squeeze()).all()
    with Image.open(folder / "package/cover.png") as cover:
        assert cover.size == arrays["noisy"].shape[:-3:-1]


def test_package_is_valid(folder):
    export(folder)
    described(folder)
    network = torch.jit.load(folder / "package/weights.pt")
    arrays = [np.load(folder / f"package/{name}.npy") for name in ("noisy", "denoised")]
    with torch.no_grad():
        denoised, _ = network(torch.from_numpy((arrays[0] - 100) / 25))
    np.testing.assert_allclose(denoised.numpy(), arrays[1], rtol=1e-5)


def test_tensors_are_described(folder, make_model):
    told, arrays = export(folder)
    halo, _ = make_model().network.halo
    (noisy,), (denoised, probabilities) = told["inputs"], told["outputs"]
    assert [axis["type"] for axis in noisy["axes"]] == ["batch", "channel", "space", "space"]
    assert [axis.get("id") for axis in noisy["axes"][2:]] == ["y", "x"]
    assert [axis["size"] for axis in noisy["axes"][2:]] == [{"min": 2 * halo + 2, "step": 2}] * 2
    (normalise,) = [one for one in noisy["preprocessing"] if one["id"] != "ensure_dtype"]
    assert normalise["id"] == "fixed_zero_mean_unit_variance"
    assert normalise["kwargs"] == {"mean": 100.0, "std": 25.0}
    for output, channels in ((denoised, 1), (probabilities, 3)):
        assert [axis["halo"] for axis in output["axes"][2:]] == [halo, halo]
        assert len(output["axes"][1]["channel_names"]) == channels
        assert arrays[output["id"]].shape == (1, channels, 40, 40)
    np.testing.assert_allclose(arrays["probabilities"].sum(axis=1), 1, rtol=1e-5)


def test_volumes_of_several_channels(folder, volumes, stack):
    image = stack()
    told, arrays = export(folder, volumes())
    described(folder)
    (noisy,), (denoised, probabilities) = told["inputs"], told["outputs"]
    halos = volumes().network.halo
    assert halos == (6, 9, 9)
    for tensor in (noisy, denoised, probabilities):
        space = tensor["axes"][2:]
        assert [axis["id"] for axis in space] == ["z", "y", "x"]
        assert [axis["unit"] for axis in space] == ["micrometer"] * 3
        assert [axis["scale"] for axis in space] == pytest.approx(list(SIZE.values()))
    sizes = [{"min": 13, "step": 1}, {"min": 20, "step": 2}, {"min": 20, "step": 2}]
    assert [axis["size"] for axis in noisy["axes"][2:]] == sizes
    assert [axis["halo"] for axis in denoised["axes"][2:]] == list(halos)
    assert noisy["axes"][1]["channel_names"] == ["DAPI", "GFP"]
    assert denoised["axes"][1]["channel_names"] == ["DAPI", "GFP"]
    (normalise,) = [one for one in noisy["preprocessing"] if one["id"] != "ensure_dtype"]
    kwargs = {"axis": "channel", "mean": [100.0, 300.0], "std": [25.0, 50.0]}
    assert normalise["kwargs"] == kwargs
    assert (arrays["noisy"][0] == image[:, 3:17, 12:52, 4:44]).all()
    assert arrays["denoised"].shape == (1, 2, 14, 40, 40)
    assert arrays["probabilities"].shape == (1, 3, 14, 40, 40)
    with tifffile.TiffFile(folder / "package/noisy.tif") as file:
        assert file.series[0].axes == "CZYX"


def test_planes_by_themselves(folder, volumes, stack):
    stack()
    told, arrays = export(folder, volumes(plane_by_plane=True))
    described(folder)
    assert told["inputs"][0]["axes"][2]["size"] == {"min": 1, "step": 1}
    assert "halo" not in told["outputs"][0]["axes"][2]
    assert arrays["noisy"].shape == (1, 2, 2, 40, 40)
    assert "processed separately by `denoiseg`" in (folder / "package/README.md").read_text()


@pytest.mark.parametrize(
    "axes, channels, how, expected",
    [
        ("TYX", 1, {}, np.s_[:1, 12:52, 4:44]),
        ("ZYX", 1, {}, np.s_[:1, 12:52, 4:44]),
        ("TCYX", 1, {"channel": "GFP"}, np.s_[0, 1:, 12:52, 4:44]),
        ("CYX", 2, {"channel": "all"}, np.s_[:, 12:52, 4:44]),
        ("TYX", 1, {"axes": "CYX", "channel": 1}, np.s_[1:, 12:52, 4:44]),
    ],
)
def test_first_image_of_a_file(folder, volumes, stack, axes, channels, how, expected):
    image = stack(axes)
    model = volumes(dimensions=2, channels=channels)
    _, arrays = export(folder, model, reading=Reading(**how))
    assert (arrays["noisy"][0] == image[expected]).all()


def test_a_model_for_colour_images(folder, volumes):
    """Its channels are named, its cover is in colour, and grey images are refused."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (64, 64)).astype(np.uint8)
    model = volumes(dimensions=2, channels=3, colour=True)
    model.normalisation = Normalisation((100.0, 50.0, 155.0), (58.0, 29.0, 58.0))
    with pytest.raises(InputError, match=r"image\.tif is not a colour image"):
        export(folder, model)
    pixels = np.stack([grey, grey // 2, 255 - grey], axis=-1)
    tifffile.imwrite(folder / "image.tif", pixels, photometric="rgb")
    told, arrays = export(folder, model)
    described(folder)
    assert told["inputs"][0]["axes"][1]["channel_names"] == ["red", "green", "blue"]
    assert "2D images in colour" in told["description"]
    assert (arrays["noisy"][0] == pixels[12:52, 12:52].transpose(2, 0, 1)).all()
    with Image.open(folder / "package/cover.png") as cover:
        left = np.asarray(cover).astype(int)[:, :10]
    assert np.ptp(left, axis=2).mean() > 30


def test_channels_without_names(folder, volumes, stack):
    stack("CYX", channels=())
    told, _ = export(folder, volumes(dimensions=2))
    assert told["inputs"][0]["axes"][1]["channel_names"] == ["channel 0", "channel 1"]


def test_lengths_are_those_of_the_input_at_any_pixel_size(folder, volumes, stack):
    stack("YX", size={"Y": 0.003, "X": 0.1625})
    export(folder, volumes(dimensions=2, channels=1))
    description = described(folder)
    axes = zip(description.inputs[0].axes[2:], description.outputs[0].axes[2:], strict=True)
    for read, written in axes:
        sizes = range(20, 600)
        assert [written.size.get_size(written, read, ref_size=size) for size in sizes] == [*sizes]


def test_small_images_are_mirrored(folder):
    _, arrays = export(folder)
    image = tifffile.imread(folder / "image.tif")
    noisy = arrays["noisy"][0, 0]
    assert (noisy[:, :32] == image[12:52]).all()
    assert (noisy[:, 32:] == noisy[:, 30:22:-1]).all()


def test_record_of_the_training(folder, sequential):
    told, _ = export(folder, sequential)
    record = told["config"]["denoiseg_flow"]
    assert record["version"] == __version__
    assert [model["identity"]["method"] for model in record["models"]] == ["n2v", "sequential"]
    assert [model["normalisation"]["std"] for model in record["models"]] == [25.0, 25.0]
    threshold = {"value": 0.35, "average_precision": 0.75, "n_images": 3, "prominence": 0.3}
    assert [model["threshold"] for model in record["models"]] == [None, threshold]
    assert record["models"][0]["recipe"]["depth"] == 1
    assert told["name"] == "sequential of nuclei n10 (seed 1)"
    assert "with 4 annotated images (seed 1)" in told["description"]
    assert {entry["doi"] for entry in told["cite"]} == {
        "10.48550/arXiv.1811.10980",
        "10.48550/arXiv.1505.04597",
    }


@pytest.mark.parametrize("method, missing", [(N2V, "probabilities"), (BASELINE, "denoised")])
def test_only_what_the_method_yields(folder, make_model, method, missing):
    told, arrays = export(folder, make_model(method))
    assert set(arrays) == FILES - {missing}
    assert {output["id"] for output in told["outputs"]} == FILES - {missing, "noisy"}
    text = (folder / "package/README.md").read_text()
    assert f"`{missing}`" not in text
    assert ("## Instances" in text) == method.segments


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"instances": "components"}, "ndimage.label(probabilities[1] > 0.35)"),
        ({"instances": "watershed"}, "found by a watershed"),
        ({"preserve_mean": True}, "shifts each channel of a denoised image"),
        ({"test_time_augmentation": True}, "means over eight orientations"),
        ({"multiscale": True}, "also segments images of half the size"),
    ],
)
def test_readme_follows_the_recipe(make_model, changes, sentence):
    model = make_model()
    other = replace(model, recipe=replace(model.recipe, **changes))
    assert sentence in readme("Nuclei", [other], Metadata("YX"))


def test_readme_of_volumes(volumes):
    model = volumes()
    text = readme("Nuclei", [model], Metadata("CZYX", SIZE, ("DAPI", "GFP")))
    for words in (
        "volumes with 2 channels",
        "batch, channel, z, y, x.",
        "DAPI (mean 100, standard deviation 25), GFP (mean 300, standard deviation 50)",
        "voxels of the test image measure 0.7 x 0.1 x 0.3 micrometres (z, y, x)",
        "voxels are connected by their faces",
        "voxel size",
    ):
        assert words in text
    assert "3d" in tags([model]) and "2d" not in tags([model])


@pytest.mark.parametrize(
    "changes, doi",
    [
        ({"target": "blind_spot", "masking": "median"}, "10.48550/arXiv.2211.08512"),
        ({"target": "blind_spot", "masking": "grid_zero"}, "10.48550/arXiv.1901.11365"),
        ({"target": "blind_spot", "struct_mask": [[1, 1, 1]]}, "10.1109/ISBI45749.2020.9098336"),
        ({"target": "second_noisy"}, "10.48550/arXiv.1803.04189"),
        ({"target": "clean", "network": "autoencoder"}, "10.48550/arXiv.1608.04667"),
        ({"target": "blind_spot", "alpha": 0.5}, "10.48550/arXiv.2005.02987"),
    ],
)
def test_citations(make_model, changes, doi):
    model = make_model(Method(**{"name": "method", "alpha": 1} | changes))
    assert doi in {entry["doi"] for entry in citations(chain(model))}


def refusal(folder, capsys, *options, package="package.zip", image="image.tif"):
    """The sentence of the command, which must write nothing."""
    before = set(folder.rglob("*"))
    arguments = [folder / "model.pt", folder / package, "--image", folder / image, *options]
    assert cli.main(["export", *map(str, arguments)]) == 1
    assert set(folder.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    "options, files, message",
    [
        ([], {"package": "package.tar"}, "must end in .zip; name it package.zip"),
        ([], {"image": "nothing.tif"}, "nothing.tif does not exist or is not a file"),
        ([], {"image": "model.pt"}, "model.pt, it seems damaged"),
        (["--title", "Nuclei/2"], {}, "title 'Nuclei/2' must have 5 to 128 characters"),
        (["--author", "A/B"], {}, "author 'A/B' must be a name without slashes"),
        (["--license", "free"], {}, "licence 'free' is not an SPDX identifier; write one such as"),
    ],
)
def test_mistakes_end_in_a_sentence(folder, capsys, options, files, message):
    assert message in refusal(folder, capsys, *options, **files)


@pytest.mark.parametrize(
    "layout, axes, options, message",
    [
        ({}, "CYX", [], "is a plane, but the model is for volumes; give a z-stack, or name"),
        ({}, "ZYX", [], "with 1 channel(s), but the model is for 2; give an image"),
        ({}, "CZYX", ["--channel", "0"], "with the same channels, and leave --channel out"),
        ({"channels": 1}, "CZYX", [], "(or --channel), or write"),
        ({"channels": 1}, "CZYX", ["--channel", "all"], "and choose one by --channel"),
        ({"channels": 1}, "CZYX", ["--channel", "RFP"], "has no channel 'RFP'"),
        ({"channels": 1}, "CZYX", ["--axes", "ZYX"], "has fewer letters"),
    ],
)
def test_images_that_the_model_is_not_for(
    folder, volumes, stack, capsys, layout, axes, options, message
):
    stack(axes)
    save_model(volumes(**layout), folder / "model.pt")
    assert message in refusal(folder, capsys, *options)


def test_volumes_need_a_voxel_size(folder, volumes, stack, capsys):
    stack(size={})
    save_model(volumes(), folder / "model.pt")
    assert "(or --pixel-size)" in refusal(folder, capsys)
    image = ["--image", str(folder / "image.tif"), "--pixel-size"]
    arguments = ["export", str(folder / "model.pt"), str(folder / "package.zip"), *image]
    with pytest.raises(SystemExit):
        cli.main([*arguments, "0", "1", "1"])
    assert "'0' is not a pixel size" in capsys.readouterr().err
    assert cli.main([*arguments, "2", "0.5", "0.5"]) == 0


def test_a_missing_model(folder, capsys):
    (folder / "model.pt").unlink()
    assert "does not exist or is not a file; correct its path" in refusal(folder, capsys)


def test_models_without_one_network_are_refused(folder, make_model, sequential, capsys):
    nlm = ClassicalModel(Method(name="nlm", classical="nlm"), {}, 0.8, None)
    save_model(nlm, folder / "model.pt")
    assert "method 'nlm' is a classical filter without a network" in refusal(folder, capsys)
    sequential.input = nlm
    save_model(sequential, folder / "model.pt")
    assert "method 'nlm' is a classical filter without a network" in refusal(folder, capsys)
    otsu = ThresholdModel(Method("otsu", segmenter="otsu"), {}, Layout(), (1.0,))
    save_model(otsu, folder / "model.pt")
    assert "method 'otsu' segments by a threshold, without a network" in refusal(folder, capsys)
    method = Method("rf", segmenter="pixel_classifier")
    forest = replace(make_model(), method=method, network=PixelClassifier(Layout()))
    save_model(forest, folder / "model.pt")
    assert "method 'rf' is a random forest, not a network" in refusal(folder, capsys)
    single = make_model(replace(N2V, name="single", each_image=True))
    each = ImageModels(single.method, single.recipe, single.identity, {"image": single})
    save_model(each, folder / "model.pt")
    assert "method 'single' trains a network for each image" in refusal(folder, capsys)


def test_intensities_that_hardly_vary_are_refused(folder, make_model, capsys):
    model = make_model()
    model.normalisation = Normalisation((1e-4,), (2e-5,))
    save_model(model, folder / "model.pt")
    message = refusal(folder, capsys)
    assert "is only 2.0e-05" in message and "multiply the images by 100000 and" in message


def test_missing_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    assert "install it with `python -m pip install" in refusal(folder, capsys)


def test_a_wrong_network_is_never_written(folder, make_model, monkeypatch):
    wrong = replace(make_model(), normalisation=Normalisation((100.0,), (26.0,)))
    predict_tiles = torchscript.predict_tiles
    monkeypatch.setattr(torchscript, "predict_tiles", lambda _, image: predict_tiles(wrong, image))
    (folder / "package.zip").write_bytes(b"the one before")
    with pytest.raises(RuntimeError, match="differ in their denoised output"):
        export(folder)
    assert (folder / "package.zip").read_bytes() == b"the one before"
    assert {path.name for path in folder.iterdir()} == {"image.tif", "model.pt", "package.zip"}


def test_command(folder):
    arguments = [folder / "model.pt", folder / "new/package.zip", "--image", folder / "image.tif"]
    assert cli.main(["export", *map(str, arguments), "--author", "Ada", "--author", "Bo"]) == 0
    assert [path.name for path in (folder / "new").iterdir()] == ["package.zip"]


# Packages as the start of a training


@pytest.mark.parametrize("ending", ["", ".zip"])
@pytest.mark.parametrize("layout", [Layout(), Layout(channels=2), VOLUMES])
def test_an_imported_package_predicts_what_the_exported_model_does(
    folder, stack, make_model, layout, ending
):
    """Bit by bit, also if a denoiser goes before; networks of a cross-validation are left out."""
    model = make_model(replace(BASELINE, name="sequential", input="n2v"), layout=layout)
    model.normalisation = Normalisation((100.0, 300.0), (25.0, 50.0))
    if layout.channels == 1:
        model.normalisation = Normalisation((100.0,), (25.0,))
    model.input = make_model(N2V, layout=layout)
    model.input.normalisation = model.normalisation
    model.held_out = {"a": make_model(layout=layout)}
    axes = "C" * (layout.channels > 1) + "ZYX"[-layout.dimensions :]
    image = stack(axes)
    export(folder, model)
    new = Method("new", init="package")
    found, origin = load_initial_model(new, model.recipe, folder / f"package{ending}")
    assert (found.method, found.threshold) == (model.method, model.threshold)
    assert (found.held_out, found.input.method.name) == ({}, "n2v")
    assert (origin["method"], origin["seed"]) == (model.identity["method"], 1)
    pixels = image.reshape(layout.channels, *image.shape[-layout.dimensions :]).astype(np.float32)
    expected, imported = (
        [(tile.denoised, tile.maps) for tile in predict_tiles(each, pixels)]
        for each in (model, found)
    )
    assert len(expected) == len(imported)
    for one, other in zip(expected, imported, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_the_description_names_the_initial_model(make_model):
    model = make_model()
    model.origin["init"] = {"file": "models/own.pt", "sha256": "ab" * 32, "method": "denoiseg"}
    assert "It started from the model 'denoiseg' (SHA-256 abababababab)." in description([model])
    del model.origin["init"]["method"]
    assert "It started from the model 'own.pt' (SHA-256" in description([model])
