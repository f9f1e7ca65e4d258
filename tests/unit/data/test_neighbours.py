"""Pairs of neighbouring pixels."""

from itertools import combinations

import numpy as np
import pytest

from denoiseg_flow.data.neighbours import neighbours


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_neighbours_are_found_once(dimensions, corners):
    """Pixels one step apart along one axis, or along several."""
    block = np.empty((3,) * dimensions, object)
    for place in np.ndindex(block.shape):
        block[place] = place
    found = [
        frozenset(pair)
        for one, other in neighbours(dimensions, corners)
        for pair in zip(block[one].flat, block[other].flat, strict=True)
    ]
    steps = {pair: np.abs(np.subtract(*pair)) for pair in combinations(block.flat, 2)}
    expected = {
        frozenset(pair)
        for pair, step in steps.items()
        if step.max() == 1 and (step.sum() > 1) == corners
    }
    assert set(found) == expected
    assert len(found) == len(expected)
