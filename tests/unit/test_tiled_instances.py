"""Labels of an image in tiles are those of the image in memory."""

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from denoiseg_flow import tiled_instances
from denoiseg_flow.data.images import read_metadata
from denoiseg_flow.data.metadata import Metadata
from denoiseg_flow.instances import find_seeds, height_above_border, label_instances
from denoiseg_flow.labels import encode_classes
from denoiseg_flow.tiled_instances import TiledInstances
from denoiseg_flow.tiles import spans

METADATA = Metadata("YX", {"Y": 0.2, "X": 0.3})


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
    y, x = (rng.integers(0, side, shape[0] * shape[1] // distance**2) for side in shape)
    centres[y, x] = False
    away, (near_y, near_x) = ndimage.distance_transform_edt(centres, return_indices=True)
    number = near_y * shape[1] + near_x + 1
    return np.where(away < 0.6 * distance, np.unique(number, return_inverse=True)[1] + 1, 0)


@pytest.fixture
def labels_of(tmp_path):
    def labels_of(probabilities, instances, threshold, tile=(40, 50)):
        shape = probabilities.shape[1:]
        tiled = TiledInstances(shape, instances, threshold)
        for rows, _ in spans(shape[0], tile[0], 0):
            for columns, _ in spans(shape[1], tile[1], 0):
                tiled.add((rows, columns), probabilities[:, rows, columns])
        tiled.write(tmp_path / "sub" / "labels.tif", METADATA)
        return tifffile.imread(tmp_path / "sub" / "labels.tif")

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
    seeds, count = ndimage.label(find_seeds(height_above_border(probabilities)))
    assert np.array_equal(found[seeds > 0], seeds[seeds > 0])
    assert np.array_equal(np.unique(found), np.arange(count + 1))


@pytest.mark.parametrize("instances", ["components", "watershed"])
@pytest.mark.parametrize("value, count", [(0.0, 0), (1.0, 1)])
def test_nothing_and_everything(labels_of, instances, value, count):
    probabilities = np.zeros((3, 70, 90), np.float32)
    probabilities[1] = value
    assert (labels_of(probabilities, instances, 0.5) == count).all()


@pytest.mark.parametrize("instances", ["components", "watershed"])
def test_many_objects_need_32_bits(labels_of, instances):
    probabilities = np.zeros((3, 514, 514), np.float32)
    probabilities[1, ::2, ::2] = 1
    found = labels_of(probabilities, instances, 0.5, (512, 512))
    assert (found.dtype, found.max(), np.count_nonzero(found)) == (np.uint32, 257**2, 257**2)


def test_file(labels_of, tmp_path):
    """As other label images: compressed, with the size of its pixels; strips, not tiles."""
    labels_of(np.ones((3, 200, 300), np.float32), "components", 0.5)
    path = tmp_path / "sub" / "labels.tif"
    assert read_metadata(path) == METADATA
    assert path.stat().st_size < 3000
    with tifffile.TiffFile(path) as tif:
        assert (len(tif.pages), tif.is_bigtiff, tif.pages.first.is_tiled) == (1, False, False)
