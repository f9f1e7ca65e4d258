"""Tiles: every pixel kept once, seen with all of its neighbourhood."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.data.files.tiles import box_shape, boxes, equal_spans, pieces, spans, within


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


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 30), st.integers(1, 9))
def test_equal_spans(size, tile, halo, stride):
    found = equal_spans(size, tile, halo, stride)
    kept_times = np.zeros(size, int)
    padded, halo, tile = (-(-length // stride) * stride for length in (size, halo, tile))
    for kept, computed in found:
        kept_times[kept] += 1
        assert kept.start < kept.stop
        assert computed.start % stride == computed.stop % stride == 0
        assert computed.start == 0 or kept.start - computed.start >= halo
        assert computed.stop == padded or computed.stop - kept.stop >= halo
        assert 0 <= computed.start <= kept.start and kept.stop <= computed.stop <= padded
    assert (kept_times == 1).all()
    (length,) = {computed.stop - computed.start for _, computed in found}
    assert length <= min(tile + 2 * halo, padded)
    # No fewer are enough, nor as many that are a step shorter.
    for count, shorter in ((len(found) - 1, length), (len(found), length - stride)):
        assert count == 0 or count * shorter - 2 * halo * (count - 1) < padded


def test_equal_spans_by_hand():
    assert equal_spans(10, 4, 1) == [(slice(0, 5), slice(0, 6)), (slice(5, 10), slice(4, 10))]
    assert equal_spans(6, 4, 1) == [(slice(0, 6), slice(0, 6))]
    assert equal_spans(9, 4, 3, 4) == [(slice(0, 9), slice(0, 12))]


def test_spans_without_stride():
    assert list(spans(10, 4, 3)) == [
        (slice(0, 4), slice(0, 7)),
        (slice(4, 8), slice(1, 10)),
        (slice(8, 10), slice(5, 10)),
    ]


@st.composite
def cuts(draw):
    """Shape, tile, halo and stride of an image of one to four axes."""
    limits = [12, 8, 6, 5][: draw(st.integers(1, 4))]

    def each(low, high):
        return draw(st.tuples(*(st.integers(low, min(high, limit)) for limit in limits)))

    return each(1, 99), each(1, 99), each(0, 4), draw(st.sampled_from([None, each(1, 3)]))


@given(cuts())
def test_boxes_cover_an_image_once(cut):
    """In raster order; each seen with the halo around it that lies inside of the image."""
    shape, tile, halo, stride = cut
    steps = stride or (1,) * len(shape)
    padded = [-(-length // step) * step for length, step in zip(shape, steps, strict=True)]
    numbers = np.arange(np.prod(padded)).reshape(padded)
    kept_times, corners = np.zeros(shape, int), []
    for kept, computed in boxes(shape, tile, halo, stride):
        kept_times[kept] += 1
        corners.append([along.start for along in kept])
        seen = numbers[computed]
        assert box_shape(computed) == seen.shape
        assert np.array_equal(seen[within(kept, computed)], numbers[kept])
        for inner, outer, far, step, end in zip(kept, computed, halo, steps, padded, strict=True):
            assert outer.start % step == outer.stop % step == 0
            assert outer.start == 0 or inner.start - outer.start >= far
            assert outer.stop == end or outer.stop - inner.stop >= far
    assert (kept_times == 1).all()
    assert corners == sorted(corners)


@given(cuts())
def test_boxes_are_spans_along_every_axis(cut):
    shape, tile, halo, stride = cut
    found = list(boxes(shape, tile, halo, stride))
    for axis, step in enumerate(stride or (1,) * len(shape)):
        pairs = {(str(kept[axis]), str(computed[axis])) for kept, computed in found}
        expected = spans(shape[axis], tile[axis], halo[axis], step)
        assert pairs == {(str(kept), str(computed)) for kept, computed in expected}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 200))
def test_pieces_follow_each_other_in_memory(shape, limit):
    """Each one stretch of memory, and none larger than the limit unless it is a single row."""
    values = np.arange(np.prod(shape)).reshape(shape)
    found = [values[place] for place in pieces(shape, limit)]
    assert all(part.ndim == len(shape) and part.flags.c_contiguous for part in found)
    assert all(part.size <= limit or part.size == shape[-1] for part in found)
    together = np.concatenate([part.ravel() for part in [*found, values[:0]]])
    assert np.array_equal(together, values.ravel())


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 200))
def test_pieces_are_not_smaller_than_need_be(shape, limit):
    """Two that could be one box would be larger than the limit together."""
    for one, other in pairwise(pieces(shape, limit)):
        cut = next(axis for axis, along in enumerate(one) if along != other[axis])
        below = (*one[cut + 1 :], *other[cut + 1 :])
        if below == tuple(slice(0, length) for length in shape[cut + 1 :]) * 2:
            assert sum(np.prod(box_shape(place)) for place in (one, other)) > limit


def test_pieces_by_hand():
    assert list(pieces((5, 4), 8)) == [
        (slice(0, 2), slice(0, 4)),
        (slice(2, 4), slice(0, 4)),
        (slice(4, 5), slice(0, 4)),
    ]
    assert list(pieces((2, 3, 4), 4)) == [
        (slice(z, z + 1), slice(y, y + 1), slice(0, 4)) for z in range(2) for y in range(3)
    ]
    assert list(pieces((2, 3, 4), 24)) == [(slice(0, 2), slice(0, 3), slice(0, 4))]
    assert list(pieces((7,), 3)) == [(slice(0, 7),)]


def test_the_shape_of_a_box():
    assert box_shape((slice(2, 5), slice(0, 1), slice(7, 7))) == (3, 1, 0)
