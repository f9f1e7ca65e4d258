"""Exported models in the official test of the BioImage Model Zoo, which knows nothing of us."""

import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from denoiseg_flow import cli
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import write_array
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models.model import new_network
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.models.normalisation import Normalisation

# bioimageio.core 0.11 needs bioimageio.spec 0.5.12, and that one an older pydantic than ours.
PACKAGES = ("bioimageio.core==0.11.0", "pydantic<2.14")
OTHER_VERSIONS = ("bioimageio.spec", "pydantic", "pydantic_core")


@pytest.fixture(scope="module")
def bioimageio(tmp_path_factory, make_environment):
    """Run the command ``bioimageio`` in an environment that has torch, but not denoiseg-flow."""
    python, environment = make_environment("bioimageio.core", PACKAGES, OTHER_VERSIONS)
    folder = tmp_path_factory.mktemp("cache")
    environment["BIOIMAGEIO_CACHE_PATH"] = str(folder)
    found = subprocess.run(
        [python, "-c", "import denoiseg_flow"], capture_output=True, env=environment
    )
    assert found.returncode

    def run(*arguments):
        return subprocess.run(
            [python.with_name("bioimageio"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
            timeout=300,
        )

    return run


@pytest.fixture
def passes(bioimageio, tmp_path):
    """Export a model, and have the package tested at several sizes of images and batches."""

    def check(model, image):
        package = tmp_path / "package.zip"
        assert cli.main(["export", str(model), str(package), "--image", str(image)]) == 0
        call = bioimageio("test", package)
        assert call.returncode == 0, call.stdout
        assert re.search(r"status +passed", call.stdout), call.stdout
        assert len(re.findall(r"Run torchscript inference", call.stdout)) == 6

    return check


def trained(finished, run):
    return finished / f"results/runs/nuclei/n10/{run}/seed1/model.pt"


def test_official_test_passes_for_a_chain_of_models(finished, passes):
    noisy = min((finished / "results/data/nuclei/noisy/n10").glob("*.tif"))
    passes(trained(finished, "sequential/annotated2"), noisy)


@pytest.mark.parametrize(
    "run, axes, layout",
    [
        ("n2v/annotated0", "CYX", Layout(channels=2)),
        ("denoiseg/annotated2", "CZYX", Layout(3, channels=2, patch_depth=4, plane_by_plane=True)),
    ],
    ids=["denoised channels", "volumes of channels, plane by plane"],
)
def test_official_test_passes_for_other_images(finished, passes, tmp_path, run, axes, layout):
    """As a trained model would, but with random weights."""
    torch.manual_seed(0)
    model = load_model(trained(finished, run))
    scales = [(100.0, 25.0), (300.0, 50.0)][: layout.channels]
    other = replace(
        model,
        layout=layout,
        network=new_network(model.method, model.recipe, layout),
        normalisation=Normalisation.of_channels(scales),
    )
    save_model(other, tmp_path / "model.pt")
    shape = [{"C": 2, "Z": 12, "Y": 64, "X": 72}[axis] for axis in axes]
    # Sizes of pixels that are no binary fractions: lengths must not suffer from rounding.
    metadata = Metadata(axes, {"Z": 0.7, "Y": 0.1, "X": 0.3}).only(axes)
    image = np.random.default_rng(0).integers(50, 400, shape).astype(np.uint16)
    write_array(tmp_path / "image.tif", image, metadata)
    passes(tmp_path / "model.pt", tmp_path / "image.tif")
