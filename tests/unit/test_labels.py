"""Three classes out of instance labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.segmentation import find_boundaries

from denoiseg_flow.labels import BACKGROUND, BORDER, FOREGROUND, IGNORE, encode_classes

CODES = {".": BACKGROUND, "f": FOREGROUND, "b": BORDER, "?": IGNORE}


def classes(*rows):
    return np.array([[CODES[code] for code in row] for row in rows])


def labels(*rows):
    """Digits are labels, dots background, question marks pixels to ignore."""
    values = {".": 0, "?": -1}
    return np.array([[values.get(code, code) for code in row] for row in rows], dtype=np.int32)


def encode(truth):
    return encode_classes(torch.from_numpy(truth)).numpy()


def test_border_is_the_outer_boundary():
    """A 2x2 object keeps its four pixels, its eight neighbours become border."""
    truth = labels("......", "..11..", "..11..", "......")
    expected = classes("..bb..", ".bffb.", ".bffb.", "..bb..")
    assert np.array_equal(encode(truth), expected)


def test_border_wins_where_objects_touch():
    """Of two touching objects both give up the pixels along the line between them."""
    truth = labels(".......", ".111222", ".111222", ".......")
    expected = classes(".bbbbbb", "bffbbff", "bffbbff", ".bbbbbb")
    assert np.array_equal(encode(truth), expected)


@given(
    hnp.arrays(
        np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
    )
)
def test_border_is_that_of_scikit_image(truth):
    border = find_boundaries(truth, mode="outer")
    assert np.array_equal(encode(truth) == BORDER, border)


def test_same_label_has_no_border_inside():
    assert np.array_equal(encode(np.full((5, 4), 7)), np.full((5, 4), FOREGROUND))


def test_ignored_pixels_stay_ignored():
    """Also where they would be border, and whatever their negative number."""
    truth = labels("......", "..11??", "..11??", "......")
    truth[2, 4:] = -7
    expected = classes("..bb..", ".bff??", ".bff??", "..bb..")
    assert np.array_equal(encode(truth), expected)


def test_no_objects_is_all_background():
    found = encode(np.zeros((3, 4), np.int32))
    assert np.array_equal(found, np.zeros((3, 4)))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_codes_are_int8_and_input_is_untouched(dtype):
    truth = np.zeros((6, 6), dtype)
    truth[2:4, 2:4] = 300
    before = truth.copy()
    found = encode(truth)
    assert found.dtype == np.int8
    assert np.array_equal(truth, before)
    counts = {code: int((found == code).sum()) for code in (BACKGROUND, FOREGROUND, BORDER)}
    assert counts == {BACKGROUND: 24, FOREGROUND: 4, BORDER: 8}
