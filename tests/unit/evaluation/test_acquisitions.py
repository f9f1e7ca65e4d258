"""What may be wrong with further acquisitions, found before training."""

import numpy as np
import pytest

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation.acquisitions import compare_acquisitions, find_shift


@pytest.fixture(scope="module")
def clean():
    """An image with room for shifts."""
    (image,) = simulate(n_images=1, size=160)
    return image.clean


def noisy(plane, seed, sigma=10):
    return (plane + np.random.default_rng(seed).normal(0, sigma, plane.shape)).astype(np.float32)


def findings(folder, pairs):
    """Findings about pairs by name; None: without another acquisition."""
    for name, (image, second) in pairs.items():
        write_array(folder / "images" / f"{name}.tif", image)
        if second is not None:
            write_array(folder / "repeats" / f"{name}.tif", second)
    return {each.topic: each for each in compare_acquisitions(PreparedData(folder), pairs)}


def test_good_pairs_and_images_alone_are_nothing_to_talk_about(tmp_path, clean):
    pairs = {f"a{k}": (noisy(clean, k), noisy(clean, 100 + k)) for k in range(8)}
    assert findings(tmp_path, pairs | {"b": (noisy(clean, 9), None)}) == {}


def test_bleached_acquisitions(tmp_path, clean):
    pairs = {"a": (noisy(clean, 0), noisy(clean, 1)), "b": (noisy(clean, 2), noisy(clean, 3) - 15)}
    found = findings(tmp_path, pairs)["brightness of acquisitions"]
    assert found.images == ("b",) and found.sentence.startswith(
        "In 1 image, the mean of another acquisition differs"
    )


def test_shifted_acquisitions(tmp_path, clean):
    first, other = noisy(clean[2:-2, 2:-2], 0), noisy(clean[2:-2, 4:], 1)
    found = findings(tmp_path, {"a": (first, other), "b": (first, noisy(clean[2:-2, 2:-2], 2))})
    (only,) = found.values()
    assert only.images == ("a",) and "by up to 2 pixels" in only.sentence


def test_the_worst_of_several_repeats_counts(tmp_path, clean):
    here, moved = clean[2:-2, 2:-2], np.roll(clean, 3, axis=1)[2:-2, 2:-2]
    good = [noisy(here, k) for k in range(1, 4)]
    stacks = {
        "fine": good,
        "bleached": [*good[:2], good[2] - 15],
        "shifted": [good[0], noisy(moved, 5), good[1]],
    }
    for name, others in stacks.items():
        write_array(tmp_path / "images" / f"{name}.tif", noisy(here, 0))
        write_array(tmp_path / "repeats" / f"{name}.tif", np.stack(others), Metadata("TYX"))
    found = list(compare_acquisitions(PreparedData(tmp_path), stacks))
    assert [each.images for each in found] == [("bleached",), ("shifted",)]
    assert "by up to 3 pixels" in found[1].sentence


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-3, 2), (5, 5)])
def test_shifts(clean, shift):
    moved = np.roll(clean, shift, axis=(0, 1))
    assert find_shift(noisy(clean, 0), noisy(moved, 1)) == max(map(abs, shift))


def test_no_shift_is_seen_in_noise_alone():
    flat = np.full((64, 64), 100.0)
    assert {find_shift(noisy(flat, k), noisy(flat, k + 50)) for k in range(20)} == {0}
    assert find_shift(flat[:4, :4], noisy(flat[:4, :4], 0)) == 0
