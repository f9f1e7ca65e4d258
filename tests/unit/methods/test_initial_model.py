"""Model files and packages that methods start from, as a plan sees them."""

import hashlib
import zipfile
from dataclasses import replace

import pytest
import torch
import yaml
from refusals import refusal

from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.initial_model import (
    ARCHITECTURE,
    InitialModel,
    check_channels,
    check_dimensions,
    describe_initial_model,
    find_source,
)
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import tensor_file
from denoiseg_flow.models.model import ClassicalModel, ImageModels
from denoiseg_flow.models.model_file import save_model

START = "config key 'methods.new.init' names 'a.pt'"
NEW = Method("new", init="a.pt")
KWARGS = {"name": "unet", "depth": 1, "filters": 2, "maps": 4}


def describe(path):
    return describe_initial_model(find_source(path, START), START)


@pytest.fixture
def saved(tmp_path, make_model):
    """Write a model file; return its path."""

    def write(**how):
        save_model(make_model(**how), tmp_path / "a.pt")
        return tmp_path / "a.pt"

    return write


@pytest.fixture
def package(tmp_path, make_model):
    """Write a package of a state dict, a folder or a zip file."""

    def write(kwargs=KWARGS, ending="", **changes):
        folder = tmp_path / "package"
        folder.mkdir(exist_ok=True)
        torch.save(make_model().network.state_dict(), folder / "state.pt")
        sha256 = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
        weights = {
            "source": "state.pt",
            "sha256": sha256,
            "architecture": {**ARCHITECTURE, "kwargs": kwargs},
        } | changes
        told = {"type": "model", "weights": {"pytorch_state_dict": weights}}
        (folder / "rdf.yaml").write_text(yaml.safe_dump(told))
        if not ending:
            return folder
        with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
        return tmp_path / "package.zip"

    return write


@pytest.mark.parametrize(
    ("init", "is_file"),
    [
        (None, False),
        ("n2v", False),
        ("simulated_objects", False),
        ("model.pt", True),
        ("nuclei.zip", True),
        ("../models/nuclei", True),
    ],
)
def test_paths_are_told_from_names(init, is_file):
    assert Method("new", init=init).init_file == (init if is_file else None)


def test_a_model_file_describes_its_network(saved, make_model):
    layout = Layout(3, channels=2, patch_depth=4, z_factors=(2,))
    method = Method("m", target="blind_spot", alpha=0.5, mask_channel=True, network="dncnn")
    path = saved(method=method, filters=4, layout=layout)
    assert describe(path) == InitialModel(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        {"dataset": "nuclei", "noise": "n10", "method": "m", "n_annotated": 4, "seed": 1},
        "dncnn",
        1,
        4,
        mask_channel=True,
        dimensions=3,
        instances="components",
    )
    flat = saved(layout=Layout(3, patch_depth=1, plane_by_plane=True))
    assert describe(flat).dimensions == 2
    n2v = saved(method=Method("n2v", target="blind_spot", alpha=1))
    assert describe(n2v).instances is None


@pytest.mark.parametrize("ending", ["", ".zip"])
def test_a_state_dict_is_described_by_its_architecture(package, ending):
    path = package(ending=ending)
    found = describe(path)
    state = (path.parent / "package/state.pt").read_bytes()
    assert found == InitialModel(hashlib.sha256(state).hexdigest(), {}, "unet", 1, 2)


@pytest.mark.parametrize("ending", ["", ".zip"])
@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": {"callable": "UNet2d", "source": "unet.py", "kwargs": {}}},
        {"architecture": {"import_from": "monai.networks.nets", "callable": "UNet"}},
    ],
)
def test_foreign_architectures_are_refused(package, changes, ending):
    assert refusal(describe, package(ending=ending, **changes)) == (
        f"{START}, a package without a network of denoiseg-flow: it holds neither 'model.pt', as "
        "those of `denoiseg-flow export` do, nor a state dict of "
        "denoiseg_flow.methods.networks.build_network; export the model again"
    )


def test_a_package_without_pytorch_weights_is_refused(package):
    path = package()
    (path / "rdf.yaml").write_text("weights: {onnx: {source: weights.onnx}}")
    assert "a package without a network of denoiseg-flow" in refusal(describe, path)
    (path / "rdf.yaml").unlink()
    assert "a package without a network of denoiseg-flow" in refusal(describe, path)


def test_incomplete_architectures_are_refused(package):
    assert refusal(describe, package({"name": "unet", "depth": 2})) == (
        f"{START}, whose architecture lacks 'name', 'depth' or 'filters'; correct the 'kwargs' of "
        "its weights"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, "state.pt is missing or has another checksum"),
        ({"source": "other.pt"}, "other.pt is missing or has another checksum"),
        ({"source": "../state.pt"}, "../state.pt is outside of the package"),
        ({"source": "/etc/passwd"}, "/etc/passwd is outside of the package"),
    ],
)
def test_damaged_packages_are_refused(package, changes, reason):
    assert refusal(describe, package(**changes)) == (
        f"{START}, which is damaged or not a model ({reason}); copy it again from where it was "
        "trained or exported"
    )


def test_any_damage_to_the_weights_in_a_zip_file_is_noticed(package):
    path = package(ending=".zip")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("state.pt")
    start = entry.header_offset + 30 + len("state.pt")
    for place in range(start, start + entry.compress_size, entry.compress_size // 50):
        damaged = bytearray(content)
        damaged[place] ^= 255
        path.write_bytes(damaged)
        assert "which is damaged or not a model (" in refusal(describe, path)
    for length in (10, len(content) // 2, len(content) - 9):
        path.write_bytes(content[:length])
        assert "which is damaged or not a model (" in refusal(describe, path)


def test_too_compressed_packages_are_refused(package):
    path = package(ending=".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", "type: model")
        archive.writestr("model.pt", bytes(10**7))
    assert "model.pt is compressed too much" in refusal(describe, path)


def test_missing_files_are_refused(tmp_path):
    assert (
        refusal(describe, tmp_path / "a.pt") == f"{START}, which does not exist; correct the path"
    )


def test_any_damage_to_a_model_file_is_noticed(saved):
    path = saved()
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [each for each in archive.infolist() if each.file_size]
    for entry in entries:
        name, extra = content[entry.header_offset :][26:28], content[entry.header_offset :][28:30]
        lengths = (int.from_bytes(each, "little") for each in (name, extra))
        place = entry.header_offset + 30 + sum(lengths)  # its first byte
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert "which is damaged or not a model (" in refusal(describe, path)
    path.write_bytes(content[:500])
    assert "which is damaged or not a model (" in refusal(describe, path)
    path.write_text("a model")
    assert "which is damaged or not a model (" in refusal(describe, path)


def test_models_without_a_description_are_refused(saved):
    path = saved()
    tensor_file.save(tensor_file.load(path), path)
    message = refusal(describe, path)
    assert message.startswith(f"{START}, which lacks a valid description (")
    assert message.endswith("write it again by load_model and save_model of denoiseg_flow")
    for described in ({}, {"method": {"name": 1}}, {"method": {"name": "m"}, "recipe": {}}):
        tensor_file.save({"a": torch.zeros(1)}, path, described)
        assert refusal(describe, path).startswith(f"{START}, which lacks a valid description (")


def test_models_without_a_single_network_are_refused(tmp_path, make_recipe):
    single = Method("single", target="blind_spot", alpha=1, masking="grid_zero", each_image=True)
    for model in (
        ClassicalModel(Method("median", classical="median"), {}, 2.0, None),
        ImageModels(single, make_recipe(), {}, {}),
    ):
        save_model(model, tmp_path / "a.pt")
        assert refusal(describe, tmp_path / "a.pt") == (
            f"{START}, a model of method '{model.method.name}', which has no single network to "
            "start from; name a model of another method"
        )


KNOWN = InitialModel("", {}, "unet", 2, 16)


def test_the_network_must_fit(make_recipe):
    recipe = make_recipe(depth=2, filters=16)
    KNOWN.check_network(NEW, recipe)
    assert refusal(KNOWN.check_network, replace(NEW, network="dncnn"), recipe) == (
        f"{START}, a network 'unet' without mask channel; write 'network: unet' and "
        "'mask_channel: false' in methods.new"
    )
    masked = replace(KNOWN, mask_channel=True)
    assert refusal(masked.check_network, NEW, recipe) == (
        f"{START}, a network 'unet' with mask channel; write 'network: unet' and "
        "'mask_channel: true' in methods.new"
    )
    for changes in ({"depth": 4}, {"filters": 8}):
        other = replace(recipe, **changes)
        assert refusal(KNOWN.check_network, NEW, other) == (
            f"{START}, a network with depth 2 and 16 filters, but the recipe of new has depth "
            f"{other.depth} and {other.filters} filters; name a recipe of the size of the model "
            "under 'methods.new.recipe'"
        )


def test_the_depth_matters_to_networks_that_have_one(make_recipe):
    dncnn, recipe = replace(KNOWN, network="dncnn"), make_recipe(depth=4, filters=16)
    dncnn.check_network(replace(NEW, network="dncnn"), recipe)


def test_the_dimensions_must_fit():
    planes = replace(NEW, planes=True)
    check_dimensions(NEW, 2, "nuclei", 2)
    check_dimensions(NEW, 3, "nuclei", 3)
    check_dimensions(planes, 2, "nuclei", 3)
    assert refusal(check_dimensions, NEW, 2, "stacks", 3) == (
        f"{START}, a network for 2D images, but dataset 'stacks' is 3D; write 'planes: true' to "
        "apply it to each z-slice, or remove new from grid.methods"
    )
    for method, seen in ((NEW, "dataset"), (planes, "each z-slice of dataset")):
        dimensions = 3 if method.planes else 2
        assert refusal(check_dimensions, method, 3, "nuclei", dimensions) == (
            f"{START}, a network for 3D images, but {seen} 'nuclei' is 2D; remove new from "
            "grid.methods"
        )


def test_one_channel_and_several_fit_each_other():
    for own, channels in ((1, 1), (1, 3), (3, 1), (3, 3)):
        check_channels(NEW, own, "cells", channels)
    assert refusal(check_channels, NEW, 2, "cells", 3) == (
        f"{START}, a network for 2 channels, but dataset 'cells' has 3; choose one of them by its "
        "key 'channel', or name a model for one channel or for 3"
    )


def test_which_methods_can_do_without_annotated_images(make_recipe):
    recipe, joint = make_recipe(), replace(NEW, target="blind_spot", alpha=0.5)
    segments = replace(KNOWN, instances="components")
    assert segments.segments_for(NEW, recipe)
    assert not segments.segments_for(joint, recipe)
    assert not segments.segments_for(NEW, replace(recipe, instances="distance"))
    assert not KNOWN.segments_for(NEW, recipe)
