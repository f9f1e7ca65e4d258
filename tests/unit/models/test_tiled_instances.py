"""Labels of an image in tiles are those of the image in memory."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from denoiseg_flow.data import store
from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.files.tiles import boxes
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.methods.classes import encode_classes, relative_distance
from denoiseg_flow.methods.instances import find_seeds, height_of, label_instances
from denoiseg_flow.models import tiled_instances
from denoiseg_flow.models.tiled_instances import TiledInstances

BAND_ROWS = 64
SIZE = {"Z": 0.9, "Y": 0.2, "X": 0.3}


@pytest.fixture(autouse=True, scope="module")
def low_bands():
    """Lower ones than those of large images, so that tiles may be small."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (store, tiled_instances):
            patch.setattr(module, "BAND_ROWS", BAND_ROWS)
        yield


def metadata_of(shape):
    """What is known of an image of that shape."""
    axes = "ZYX"[-len(shape) :]
    return Metadata(axes, {axis: SIZE[axis] for axis in axes})


def blurred(labels, sigma=1.5, noise=0.1):
    """Probabilities like those of a network that is not quite certain of the classes."""
    classes = encode_classes(torch.from_numpy(labels)).numpy()
    rng = np.random.default_rng(0)
    logits = np.stack(
        [
            4 * ndimage.gaussian_filter((classes == kind).astype(float), sigma)
            + noise * rng.standard_normal(labels.shape)
            for kind in range(3)
        ]
    )
    weights = np.exp(3 * logits)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def nuclei(shape, distance=9, seed=0):
    """Touching cells: the pixels nearest to each of many random centres."""
    rng = np.random.default_rng(seed)
    centres = np.ones(shape, bool)
    count = np.prod(shape) // distance ** len(shape)
    centres[tuple(rng.integers(0, side, count) for side in shape)] = False
    away, nearest = ndimage.distance_transform_edt(centres, return_indices=True)
    number = np.zeros(shape, int)
    for index, length in zip(nearest, shape, strict=True):
        number = number * length + index
    return np.where(away < 0.6 * distance, np.unique(number, return_inverse=True)[1] + 1, 0)


@pytest.fixture
def labels_of(tmp_path):
    def labels_of(probabilities, instances, threshold, tile=(40, 50)):
        shape = probabilities.shape[1:]
        tiled = TiledInstances(shape, instances, threshold)
        for place, _ in boxes(shape, tile, (0,) * len(shape)):
            tiled.add(place, probabilities[:, *place])
        tiled.write(tmp_path / "sub" / "labels.tif", metadata_of(shape))
        found = tifffile.imread(tmp_path / "sub" / "labels.tif")
        # It drops the z axis of a single plane.
        return found[None] if len(shape) == 3 and shape[0] == 1 else found

    return labels_of


def in_memory(probabilities, instances, threshold):
    (labels,) = label_instances(probabilities, [threshold], instances)
    return labels


def same_objects(found, expected):
    """Whether two label images are equal but for the numbers."""
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    one_to_one = all(len(np.unique(side)) == len(side) for side in pairs)
    return found.shape == expected.shape and one_to_one and (0, 0) in zip(*pairs, strict=True)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setitem(tiled_instances.TILES, 2, (64, 64))
    monkeypatch.setitem(tiled_instances.MARGINS, 2, (24, 24))
    monkeypatch.setitem(tiled_instances.TILES, 3, (11, 24, 20))
    monkeypatch.setitem(tiled_instances.MARGINS, 3, (12, 12, 12))


STACK = (25, 50, 45)


@pytest.mark.parametrize(
    "way, threshold",
    [("components", 0.5), ("watershed", 0.2), ("watershed", 0.7), ("distance", 0.3)],
)
@pytest.mark.parametrize("shape", [STACK, (3, 70, 60), (1, 64, 65), (40, 20, 1)])
def test_volumes_are_labelled_as_in_memory(labels_of, small_tiles, shape, way, threshold):
    truth = nuclei(shape, distance=8)
    # Without ties, in which a watershed may go either way.
    noise = 0.02 * np.random.default_rng(0).standard_normal(shape)
    maps = np.stack([*blurred(truth, sigma=1), relative_distance(truth) + noise]).astype(np.float32)
    expected = in_memory(maps, way, threshold)
    for tile in [(7, 30, 20), (99, 99, 99)]:
        found = labels_of(maps, way, threshold, tile)
        assert found.dtype == np.uint16
        assert same_objects(found, expected)
        assert way != "components" or np.array_equal(found, expected)


def test_these_volumes_touch_and_cross_seams():
    """Else the comparison above would show nothing."""
    probabilities = blurred(nuclei(STACK, distance=8), sigma=1)
    found = in_memory(probabilities, "watershed", 0.2)
    assert found.max() > 40 + in_memory(probabilities, "components", 0.2).max()
    for axis, seam in enumerate((11, 24, 20)):
        before, after = found.take(seam - 1, axis), found.take(seam, axis)
        assert len(np.unique(before[(before == after) & (before > 0)])) > 5


def test_without_a_margin_seams_of_volumes_would_be_seen(labels_of, small_tiles, monkeypatch):
    probabilities = blurred(nuclei(STACK, distance=8), sigma=1)
    monkeypatch.setitem(tiled_instances.MARGINS, 3, (0, 0, 0))
    found = labels_of(probabilities, "watershed", 0.2, (99, 99, 99))
    assert not same_objects(found, in_memory(probabilities, "watershed", 0.2))


def test_the_prominence_counts_in_tiles(tmp_path):
    probabilities = blurred(nuclei(STACK, distance=8), sigma=1)
    counts = []
    for prominence in (0.1, 0.6):
        tiled = TiledInstances(STACK, "watershed", 0.3, prominence)
        tiled.add((slice(None),) * 3, probabilities)
        tiled.write(tmp_path / "labels.tif", metadata_of(STACK))
        (expected,) = label_instances(probabilities, [0.3], "watershed", prominence)
        counts.append(expected.max())
        assert tifffile.imread(tmp_path / "labels.tif").max() == counts[-1]
    assert counts[0] > counts[1]


def test_seeds_of_volumes_are_numbered_in_raster_order(labels_of, small_tiles):
    probabilities = blurred(nuclei(STACK, distance=8), sigma=1)
    found = labels_of(probabilities, "watershed", 0.3, (7, 30, 20))
    seeds, count = ndimage.label(find_seeds(height_of(probabilities, "watershed")))
    assert np.array_equal(found[seeds > 0], seeds[seeds > 0])
    assert np.array_equal(np.unique(found), np.arange(count + 1))


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 70), st.integers(1, 20)),
    st.tuples(st.integers(1, 12), st.integers(1, 70), st.integers(1, 20)),
    st.tuples(st.integers(1, 12), st.integers(1, 2), st.integers(1, 20)),
    st.sampled_from(["components", "watershed"]),
)
def test_any_tiling_of_volumes(shape, tile, own, way):
    """Tiles as they are predicted, and those in which seeds are found and grow."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, 1, 1, 1))
    weights = np.exp(10 * noise)
    probabilities = (weights / weights.sum(axis=0)).astype(np.float32)
    own = (own[0], own[1] * BAND_ROWS, own[2])
    with (
        mock.patch.dict(tiled_instances.TILES, {3: own}),
        mock.patch.dict(tiled_instances.MARGINS, {3: shape}),  # all of the image
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder, "labels.tif")
        tiled = TiledInstances(shape, way, 0.4)
        for place, _ in boxes(shape, tile, (0, 0, 0)):
            tiled.add(place, probabilities[:, *place])
        tiled.write(path, metadata_of(shape))
        found = tifffile.imread(path).reshape(shape)
    assert np.array_equal(found, in_memory(probabilities, way, 0.4))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(200, 150), (64, 64), (65, 129), (1, 90), (30, 1)])
def test_components_equal_those_in_memory(labels_of, small_tiles, shape, threshold):
    probabilities = blurred(nuclei(shape))
    expected = in_memory(probabilities, "components", threshold)
    for tile in [(40, 50), (512, 512)]:
        found = labels_of(probabilities, "components", threshold, tile)
        assert found.dtype == np.uint16
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(200, 150), (64, 64), (65, 129), (1, 90), (30, 1)])
def test_watershed_equals_that_in_memory(labels_of, small_tiles, shape, threshold):
    probabilities = blurred(nuclei(shape))
    expected = in_memory(probabilities, "watershed", threshold)
    for tile in [(40, 50), (512, 512)]:
        found = labels_of(probabilities, "watershed", threshold, tile)
        assert found.dtype == np.uint16
        assert same_objects(found, expected)


def test_these_nuclei_touch_and_cross_seams():
    """Else the comparisons above would show nothing."""
    probabilities = blurred(nuclei((200, 150)))
    watershed = in_memory(probabilities, "watershed", 0.2)
    components = in_memory(probabilities, "components", 0.2)
    assert watershed.max() > 10 * components.max()
    across = (watershed[63] == watershed[64]) & (watershed[63] > 0)
    assert len(np.unique(watershed[63, across])) > 5


def test_without_a_margin_seams_would_be_seen(labels_of, small_tiles, monkeypatch):
    probabilities = blurred(nuclei((200, 150)))
    monkeypatch.setitem(tiled_instances.MARGINS, 2, (0, 0))
    found = labels_of(probabilities, "watershed", 0.2)
    assert not same_objects(found, in_memory(probabilities, "watershed", 0.2))


def test_object_much_larger_than_tile_and_margin_is_one(labels_of, monkeypatch):
    """Its seed fills it but for a rim; the rim, not the object, must fit into the margin."""
    monkeypatch.setitem(tiled_instances.TILES, 2, (64, 64))
    monkeypatch.setitem(tiled_instances.MARGINS, 2, (4, 4))
    labels = np.zeros((300, 300), np.int32)
    labels[10:290, 10:290], labels[100:200, 100:200] = 1, 2
    probabilities = blurred(labels, sigma=1, noise=0)
    found = labels_of(probabilities, "watershed", 0.3)
    assert found.max() == 2
    assert same_objects(found, in_memory(probabilities, "watershed", 0.3))


def test_numbers_follow_the_seeds_in_raster_order(labels_of, small_tiles):
    probabilities = blurred(nuclei((200, 150)))
    found = labels_of(probabilities, "watershed", 0.3)
    seeds, count = ndimage.label(find_seeds(height_of(probabilities, "watershed")))
    assert np.array_equal(found[seeds > 0], seeds[seeds > 0])
    assert np.array_equal(np.unique(found), np.arange(count + 1))


@pytest.mark.parametrize("instances", ["components", "watershed"])
@pytest.mark.parametrize("value, count", [(0.0, 0), (1.0, 1)])
@pytest.mark.parametrize("shape", [(70, 90), (5, 70, 90)])
def test_nothing_and_everything(labels_of, small_tiles, instances, value, count, shape):
    probabilities = np.zeros((3, *shape), np.float32)
    probabilities[1] = value
    found = labels_of(probabilities, instances, 0.5, (3, 40, 50)[-len(shape) :])
    assert found.shape == shape
    assert (found == count).all()


@pytest.mark.parametrize("instances", ["components", "watershed"])
def test_many_objects_need_32_bits(labels_of, instances):
    probabilities = np.zeros((3, 514, 514), np.float32)
    probabilities[1, ::2, ::2] = 1
    found = labels_of(probabilities, instances, 0.5, (512, 512))
    assert (found.dtype, found.max(), np.count_nonzero(found)) == (np.uint32, 257**2, 257**2)


@pytest.mark.parametrize("shape", [(200, 300), (4, 150, 200)])
def test_file(labels_of, tmp_path, shape):
    """As other label images: compressed, with the size of its pixels; strips, not tiles."""
    labels_of(np.ones((3, *shape), np.float32), "components", 0.5, shape)
    path = tmp_path / "sub" / "labels.tif"
    assert read_metadata(path) == metadata_of(shape)
    assert path.stat().st_size < 4000
    with tifffile.TiffFile(path) as tif:
        pages = 1 if len(shape) == 2 else shape[0]
        assert (len(tif.pages), tif.is_bigtiff, tif.pages.first.is_tiled) == (pages, False, False)


@pytest.mark.parametrize("instances", ["components", "watershed"])
def test_many_objects_of_a_volume_need_32_bits(labels_of, instances, tmp_path):
    probabilities = np.zeros((3, 82, 82, 82), np.float32)
    probabilities[1, ::2, ::2, ::2] = 1
    found = labels_of(probabilities, instances, 0.5, (82, 82, 82))
    assert (found.dtype, found.max(), np.count_nonzero(found)) == (np.uint32, 41**3, 41**3)
    assert read_metadata(tmp_path / "sub" / "labels.tif") == metadata_of(found.shape)
