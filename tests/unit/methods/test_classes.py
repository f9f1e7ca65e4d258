"""Three classes out of instance labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.segmentation import find_boundaries

from denoiseg_flow.methods.classes import (
    BACKGROUND,
    BORDER,
    FOREGROUND,
    IGNORE,
    encode_classes,
    relative_distance,
)

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


@st.composite
def some_labels(draw):
    """Labels (y, x) or (z, y, x) of up to three objects."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
        )
    )
    return draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 3)))


@given(some_labels())
def test_border_is_that_of_scikit_image(truth):
    border = find_boundaries(truth, mode="outer")
    assert np.array_equal(encode(truth) == BORDER, border)


@pytest.mark.parametrize("shape", [(9, 40, 40), (1, 60, 60), (12, 12, 12)])
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_border_of_many_objects_is_that_of_scikit_image(shape, density):
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 9, shape).astype(np.int32) * (rng.random(shape) < density)
    truth = truth.repeat(2, axis=2).astype(np.int32)
    found = encode(truth)
    border = find_boundaries(truth, mode="outer")
    assert np.array_equal(found == BORDER, border)
    assert np.array_equal(found == FOREGROUND, (truth > 0) & ~border)


def test_border_of_a_box():
    """What shares a face, an edge or a corner with it counts only where it differs beside."""
    truth = np.zeros((6, 6, 6), np.int32)
    truth[2:4, 2:4, 2:4] = 1
    found = encode(truth)
    assert (found[2:4, 2:4, 2:4] == FOREGROUND).all()
    assert (found == BORDER).sum() == 6 * 4  # the faces
    assert all((found[z] == BORDER).sum() == 4 for z in (1, 4))


def test_a_volume_of_one_plane_is_a_plane():
    truth = np.random.default_rng(0).integers(-1, 3, (20, 30)).astype(np.int32)
    assert np.array_equal(encode(truth[None])[0], encode(truth))


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


def test_relative_distance_falls_from_the_middle_of_an_object_to_its_rim():
    y, x = np.ogrid[:41, :41]
    for radius in (5, 15):
        disc = ((y - 20) ** 2 + (x - 20) ** 2 <= radius**2).astype(np.int32)
        found = relative_distance(disc)
        assert found[20, 20] == 1
        assert found[disc == 0].max() == 0
        assert found[20, 20 + radius // 2] == pytest.approx(0.5, abs=1 / radius)


def test_relative_distance_belongs_to_each_object_by_itself():
    truth = labels("1112223", "1112223", "1112223", "???....")
    found = relative_distance(truth)
    assert found[1].tolist() == [0.5, 1, 0.5, 0.5, 1, 0.5, 1]
    assert found[3].tolist() == [0] * 7
    for number in (1, 2, 3):
        alone = np.where(truth == number, number, 0)
        assert np.array_equal(relative_distance(alone)[alone > 0], found[alone > 0])


def test_relative_distance_of_volumes_heeds_the_distance_of_slices():
    ball = np.ones((3, 9, 9), np.int32)
    near, far = relative_distance(ball, (1, 1, 1)), relative_distance(ball, (9, 1, 1))
    assert near[1, 4, 4] == far[1, 4, 4] == 1
    assert near[0, 4, 4] == 0.5
    assert far[0, 4, 4] == 1
