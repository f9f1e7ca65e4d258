"""Predictions, opened by the programs in which people look at them."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow import cli
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array

SIZE = {"Z": 2.0, "Y": 0.65, "X": 0.325}
STACK = Metadata("TCZYX", SIZE, ("DAPI", "GFP"), ("0000FF", "00FF00"), 5.0)

# Of Debian's package imagej. It opens files only where there is a screen.
IMAGEJ = Path("/usr/share/java/ij.jar")
MACRO = """
parts = split(getArgument(), "\\n");
for (i = 0; i < parts.length - 1; i++) {
  open(parts[i]);
  getDimensions(width, height, channels, slices, frames);
  getVoxelSize(x, y, z, unit);
  getMinAndMax(low, high);
  Stack.setPosition(channels, slices, frames);
  value = getValue(9, 8);
  getLut(reds, greens, blues);
  highest = 0;
  for (n = 1; n <= nSlices; n++) {
    setSlice(n);
    getRawStatistics(count, mean, min, max);
    highest = maxOf(highest, max);
  }
  print(channels, slices, frames, height, width);
  print(bitDepth, z, y, x, unit, Stack.getFrameInterval);
  print(value, highest, low, high);
  print(reds[255], greens[255], blues[255]);
  close();
}
Table.open(parts[parts.length - 1]);
print(Table.size, Table.get("area", 0), Table.getString("image", 0));
"""

PACKAGES = ("bioio", "bioio-ome-tiff", "bioio-ome-zarr", "ome-zarr-models", "pydantic<2.13")
OTHER_VERSIONS = ("bioimageio.spec", "pydantic", "pydantic_core")
# Raises an error for metadata that do not follow the schema of OME, or its models of OME-Zarr.
READ = """
import json, sys
import ome_types, ome_zarr_models.v04, tifffile, zarr
from bioio import BioImage

def describe(path):
    image = BioImage(path)
    if path.endswith(".zarr"):
        group, labels = zarr.open_group(path, mode="r"), "/labels/" in path
        kind = ome_zarr_models.v04.ImageLabel if labels else ome_zarr_models.v04.Image
        kind.from_zarr(group)
        step = image.time_interval
    else:
        ome_types.from_xml(tifffile.tiffcomment(path), validate=True)
        step = image.ome_metadata.images[0].pixels.time_increment  # bioio does not read it
    *place, _, _ = (length - 1 for length in image.shape)
    return {
        "shape": image.shape,
        "type": str(image.dtype),
        "channels": [str(name) for name in image.channel_names],
        "size": [*image.physical_pixel_sizes, step],
        "value": image.data[*place, 8, 9],
        "highest": image.data.max(),
    }

assert BioImage(sys.argv[1]).dims.order == "TCZYX"
print(json.dumps([describe(path) for path in sys.argv[1:]], default=float))
"""


@pytest.fixture(scope="module")
def predict(finished, tmp_path_factory):
    """Predict a time series of stacks of two channels; return the folder of results."""
    folder = tmp_path_factory.mktemp("predicted")
    planes = np.stack([each.image for each in simulate(n_images=6, size=64)])
    channels = np.stack([planes, planes[:, ::-1] * 10]).reshape(2, 2, 3, 64, 64)
    pixels = channels.swapaxes(0, 1).astype(np.uint16)
    write_array(folder / "images/stack.tif", pixels[..., :60], STACK)
    model = finished / "results/runs/nuclei/n10/denoiseg/annotated2/seed1/model.pt"

    @cache
    def run(form):
        out = ["--out", str(folder / form), "--format", form, "--planes", "--channel", "DAPI"]
        assert cli.main(["predict", str(model), str(folder / "images"), *out]) == 0
        return folder / form

    return run


@pytest.fixture
def imagej(tmp_path):
    """Run a macro in ImageJ, and return the lines that it prints, divided into words."""
    if not IMAGEJ.exists() or not shutil.which("xvfb-run"):
        pytest.skip("ImageJ is not installed, or no screen for it (Debian: imagej, xvfb, xauth)")

    def run(macro, *arguments):
        (tmp_path / "macro.ijm").write_text(macro)
        command = ["xvfb-run", "-a", "java", f"-Duser.home={tmp_path}", "-cp", IMAGEJ, "ij.ImageJ"]
        command += ["-batch", tmp_path / "macro.ijm", "\n".join(map(str, arguments))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        call = subprocess.run(command, **pipes, timeout=120)
        assert call.returncode == 0, call.stdout
        return [line.split() for line in call.stdout.splitlines()]

    return run


@pytest.fixture(scope="module")
def describe(make_environment):
    """Describe files as bioio does, and validate them."""
    python, environment = make_environment("bioio", PACKAGES, OTHER_VERSIONS)

    def run(*paths):
        command = [python, "-c", READ, *paths]
        call = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert call.returncode == 0, call.stderr
        return json.loads(call.stdout)

    return run


def test_imagej(predict, imagej):
    """Axes, pixel size, time step, colours and, of labels, the range."""
    results = predict("tif")
    files = (results / "denoised/stack.tif", results / "labels/stack.tif")
    denoised, labels = map(read_image, files)
    objects = pd.read_csv(results / "objects.csv")
    lines = imagej(MACRO, *files, results / "objects.csv")
    assert lines[0] == ["2", "3", "2", "64", "60"]
    assert lines[1] == ["32", "2", "0.65", "0.325", "µm", "5"]
    value, highest, *_ = map(float, lines[2])
    assert value == denoised[-1, -1, -1, 8, 9] and highest == denoised.max()
    assert lines[3] == ["0", "255", "0"]
    assert lines[4] == ["1", "3", "2", "64", "60"]
    assert lines[5] == ["16", "2", "0.65", "0.325", "µm", "5"]
    assert list(map(float, lines[6])) == [labels[-1, -1, 8, 9], len(objects), 0, len(objects)]
    assert len(objects) == labels.max() > 1
    assert lines[8] == [str(len(objects)), str(objects["area"][0]), "stack"]


@pytest.mark.long
def test_bioio_and_validators(predict, describe):
    """Labels have no channels, which bioio counts as one."""
    paths = [
        predict(form) / kind / f"stack.{form}"
        for form in ("tif", "ome.zarr")
        for kind in ("denoised", "labels")
    ]
    for path, found in zip(paths, describe(*paths), strict=True):
        pixels = read_image(path)
        assert found["size"] == [2.0, 0.65, 0.325, 5.0]
        assert (found["type"], found["highest"]) == (pixels.dtype, pixels.max())
        assert found["value"] == pixels[-1, ..., -1, 8, 9].ravel()[-1]
        if path.parent.name == "denoised":
            assert found["shape"] == [2, 2, 3, 64, 60] and found["channels"] == ["DAPI", "GFP"]
        else:
            assert found["shape"] == [2, 1, 3, 64, 60] and pixels.max() > 1
