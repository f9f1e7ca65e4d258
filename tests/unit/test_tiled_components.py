"""Components of a mask in tiles are those of the whole mask, number for number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from denoiseg_flow.instances import label_foreground
from denoiseg_flow.tiled_components import TiledComponents
from denoiseg_flow.tiles import spans


def components(mask, tile):
    """Number of components, and their labels."""
    tiled = TiledComponents(mask.shape)
    places = [
        (rows, columns)
        for rows, _ in spans(mask.shape[0], tile[0], 0)
        for columns, _ in spans(mask.shape[1], tile[1], 0)
    ]
    for place in places:
        tiled.add(place, mask[place])
    count = tiled.merge()
    labels = np.full(mask.shape, -1)
    for place in places[::-1]:
        labels[place] = tiled.read(place)
    assert np.array_equal(tiled.read((slice(None), slice(None))), labels)
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


@pytest.mark.parametrize("tile", TILES)
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
def test_objects_across_seams(mask, count, tile):
    for turned in (mask, mask[::-1], mask[:, ::-1], mask.T):
        found, labels = components(turned, tile)
        assert found == count
        assert np.array_equal(labels, label_foreground(turned))


@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=17)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_tiled_equals_untiled(mask, tile):
    count, labels = components(mask, tile)
    expected = label_foreground(mask)
    assert np.array_equal(labels, expected)
    assert count == expected.max()


@pytest.mark.parametrize("density", [0.3, 0.6, 0.8])
def test_tiled_equals_untiled_on_larger_images(density):
    mask = np.random.default_rng(0).random((150, 130)) < density
    _, labels = components(mask, (32, 17))
    assert np.array_equal(labels, label_foreground(mask))
