"""Components of a mask in tiles are those of the whole mask, number for number."""

from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from denoiseg_flow.data.files.tiles import boxes
from denoiseg_flow.methods.instances import label_foreground
from denoiseg_flow.models import tiled_components
from denoiseg_flow.models.tiled_components import TiledComponents


def components(mask, tile):
    """Number of components, and their labels."""
    tiled = TiledComponents(mask.shape)
    places = [place for place, _ in boxes(mask.shape, tile, (0,) * mask.ndim)]
    for place in places:
        tiled.add(place, mask[place])
    count = tiled.merge()
    labels = np.full(mask.shape, -1)
    for place in places[::-1]:
        labels[place] = tiled.read(place)
    assert np.array_equal(tiled.read((slice(None),) * mask.ndim), labels)
    return count, labels


def drawn(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def spiral(size):
    """One line, a pixel wide, that winds to the centre."""
    mask = np.zeros((size, size), bool)
    y, x, direction = 0, 0, (0, 1)
    mask[0, 0] = True

    def free(y, x):
        """The next pixel is inside, and the one behind it not yet taken."""
        inside = 0 <= y < size and 0 <= x < size
        behind = (y + direction[0], x + direction[1])
        return inside and not (all(0 <= p < size for p in behind) and mask[behind])

    turns = 0
    while turns < 2:
        following = (y + direction[0], x + direction[1])
        if free(*following):
            y, x = following
            mask[y, x] = True
            turns = 0
        else:
            direction = (direction[1], -direction[0])
            turns += 1
    return mask


TILES = [(1, 1), (3, 3), (4, 7), (9, 2), (100, 100)]


@pytest.mark.parametrize(
    "mask, count",
    [
        (spiral(23), 1),
        (~spiral(23), 1),
        (drawn("#...#", "#...#", "#...#", "#####"), 1),  # parts far apart that meet at last
        (drawn("#####", "#...#", "#.#.#", "#...#", "#####"), 2),
        (drawn("#.#.#.#.#", "#.#.#.###", "#.#.###..", "#.###...."), 2),
        (drawn(".##.", "####", "####", ".##."), 1),
        (drawn("##..", "##..", "..##", "..##"), 2),  # corners do not connect
        (np.indices((21, 20)).sum(axis=0) % 2 == 0, 210),
        (np.ones((21, 20), bool), 1),
        (np.zeros((21, 20), bool), 0),
    ],
)
def test_objects_across_seams(mask, count):
    turned_masks = (mask, mask[::-1], mask[:, ::-1], mask.T)
    for turned, tile in product(turned_masks, TILES):
        found, labels = components(turned, tile)
        assert found == count
        assert np.array_equal(labels, label_foreground(turned))


@st.composite
def cut_masks(draw):
    """A mask (y, x) or (z, y, x), and the shape of a tile."""
    sides = draw(st.sampled_from([(17, 17), (6, 9, 9)]))
    shape = draw(st.tuples(*(st.integers(1, side) for side in sides)))
    tile = draw(st.tuples(*(st.integers(1, 6) for _ in sides)))
    return draw(hnp.arrays(bool, shape)), tile


@given(cut_masks(), st.sampled_from([1, 10, 50, 10_000]))
def test_tiled_equals_untiled(drawn, piece):
    """Whatever is looked at together while parts are joined."""
    mask, tile = drawn
    with mock.patch.object(tiled_components, "PIECE", piece):
        count, labels = components(mask, tile)
    expected = label_foreground(mask)
    assert np.array_equal(labels, expected)
    assert count == expected.max()


@pytest.mark.parametrize("density", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    "shape, tile", [((150, 130), (32, 17)), ((30, 40, 50), (7, 12, 9)), ((5, 60, 70), (5, 16, 16))]
)
def test_tiled_equals_untiled_on_larger_images(shape, tile, density):
    mask = np.random.default_rng(0).random(shape) < density
    _, labels = components(mask, tile)
    assert np.array_equal(labels, label_foreground(mask))


def helix(turns):
    """One line, a voxel wide, that winds up through the planes and touches itself nowhere else."""
    ring = [(0, x) for x in range(4)] + [(y, 4) for y in range(4)]
    ring += [(4, x) for x in range(4, 0, -1)] + [(y, 0) for y in range(4, 0, -1)]
    mask = np.zeros((len(ring) * turns // 2 + 1, 5, 5), bool)
    for step in range(len(ring) * turns):
        mask[step // 2][ring[step % len(ring)]] = True
        mask[(step + 1) // 2][ring[step % len(ring)]] = True
    return mask


@pytest.mark.parametrize("tile", [(1, 1, 1), (3, 2, 2), (100, 3, 3), (2, 100, 100)])
def test_a_line_through_many_tiles_is_one_object(tile):
    mask = helix(3)
    for turned in (mask, mask[::-1], mask.T, mask.swapaxes(0, 1)):
        found, labels = components(turned, tile)
        assert found == 1
        assert np.array_equal(labels, turned)


def test_edges_and_corners_do_not_connect():
    mask = np.indices((6, 7, 8)).sum(axis=0) % 2 == 0
    for tile in [(1, 1, 1), (2, 3, 4), (9, 9, 9)]:
        assert components(mask, tile)[0] == mask.sum()
