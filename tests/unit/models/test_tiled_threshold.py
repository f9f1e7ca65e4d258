"""Labels by a threshold, tile by tile, are those of the whole image."""

import numpy as np
import pytest
import tifffile

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import read_metadata, write_array
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.models import tiled_threshold
from denoiseg_flow.models.model import ThresholdModel
from denoiseg_flow.models.tiled_threshold import measure_levels, segment_file

SIZE = {"Z": 0.6, "Y": 0.2, "X": 0.2}
SHAPES = {2: (150, 170), 3: (14, 60, 70)}


def model_of(way, layout):
    return ThresholdModel(Method("m", segmenter=way), {}, layout, (2.0, 5.0)[: layout.channels])


def image_of(draw, shape, channels=1):
    rng = np.random.default_rng(0)
    signal = draw(max(shape), seed=0)[0][: shape[-2], : shape[-1]]
    return (signal + rng.normal(0, 4, (channels, *shape))).astype(np.float32)


@pytest.fixture
def label(tmp_path):
    """Labels of an image (channel, ...) from a file."""

    def label(model, image, tile=None):
        axes = "CZYX"[-image.ndim :] if model.layout.dimensions == 3 else "CYX"
        known = Metadata(axes, {axis: SIZE[axis] for axis in axes if axis in SIZE})
        write_array(tmp_path / "a.tif", image, known)
        segment_file(model, tmp_path / "a.tif", tmp_path, tile)
        found = tmp_path / "labels/a.tif"
        assert read_metadata(found).pixel_size == pytest.approx(known.pixel_size)
        return tifffile.imread(found)

    return label


@pytest.mark.parametrize("way", ["otsu", "local_threshold"])
@pytest.mark.parametrize(
    "layout", [Layout(), Layout(channels=2), Layout(3, z_step=3.0)], ids=["2D", "channels", "3D"]
)
def test_tiles_give_the_labels_of_the_whole_image(label, make_blobs, monkeypatch, way, layout):
    model = model_of(way, layout)
    image = image_of(make_blobs, SHAPES[layout.dimensions], layout.channels)
    whole = label(model, image)
    monkeypatch.setattr(tiled_threshold, "PIECE", 1000)
    assert whole.max() > 5
    assert np.array_equal(label(model, image, tile=37), whole)


def test_without_its_surroundings_the_seams_of_a_tile_would_be_seen(label, make_blobs, monkeypatch):
    model, image = model_of("local_threshold", Layout()), image_of(make_blobs, SHAPES[2])
    whole = label(model, image)
    monkeypatch.setattr(tiled_threshold, "reach", lambda *_: (0, 0))
    assert not np.array_equal(label(model, image, tile=37), whole)


def test_levels_are_those_of_the_whole_image_in_any_pieces(make_blobs, monkeypatch):
    image = image_of(make_blobs, SHAPES[2], channels=2)
    whole = measure_levels(image, (1.0, 3.0))
    monkeypatch.setattr(tiled_threshold, "PIECE", 500)
    assert measure_levels(image, (1.0, 3.0)) == whole


def test_an_image_of_noise_has_no_objects(label):
    image = np.random.default_rng(0).normal(100, 20, (1, 80, 90)).astype(np.float32)
    assert label(model_of("otsu", Layout()), image).max() == 0
    assert label(model_of("local_threshold", Layout()), np.ones_like(image)).max() == 0
