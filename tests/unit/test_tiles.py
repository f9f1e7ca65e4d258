"""Tiles: every pixel kept once, seen with all of its neighbourhood."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.tiles import spans, within


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 30), st.integers(1, 9))
def test_spans(size, tile, halo, stride):
    kept_times = np.zeros(size, int)
    padded = -(-size // stride) * stride
    for kept, computed in spans(size, tile, halo, stride):
        kept_times[kept] += 1
        assert computed.start % stride == computed.stop % stride == 0
        assert computed.start == 0 or kept.start - computed.start >= halo
        assert computed.stop == padded or computed.stop - kept.stop >= halo
        axis = np.arange(padded)
        (inside,) = within((kept,), (computed,))
        assert np.array_equal(axis[computed][inside], axis[kept])
    assert (kept_times == 1).all()


def test_spans_without_stride():
    assert list(spans(10, 4, 3)) == [
        (slice(0, 4), slice(0, 7)),
        (slice(4, 8), slice(1, 10)),
        (slice(8, 10), slice(5, 10)),
    ]
