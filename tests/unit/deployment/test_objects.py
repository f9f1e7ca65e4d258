"""Objects are measured as by hand, wherever they lie in an image of any size."""

import numpy as np
import pandas as pd
import pytest
import skimage as ski
from hypothesis import given
from hypothesis import strategies as st

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.deployment import objects


def measured(labels, image, metadata=None):
    """One table of all objects, in the order of their labels."""
    metadata = metadata or Metadata.of_shape(labels.shape)
    parts = list(objects.measure_objects("x", labels, image, metadata))
    return pd.concat(parts).sort_values("label").set_index("label")


def test_objects_are_measured():
    """A rectangle of 4 x 6 pixels and a single pixel, by hand."""
    labels, image = np.zeros((20, 20), np.uint16), np.zeros((20, 20), np.uint8)
    labels[2:6, 10:16], labels[15, 3] = 1, 2
    image[2:4, 10:16], image[15, 3] = 10, 90
    table = measured(labels, image, Metadata("YX", {"Y": 0.5, "X": 2.0}))
    assert list(table["image"]) == ["x", "x"]
    assert table.loc[1, ["y", "x", "area", "area_um2"]].tolist() == [3.5, 12.5, 24, 24]
    assert table.loc[1, ["intensity_mean", "intensity_std"]].tolist() == [5, 5]
    assert table.loc[1, ["intensity_min", "intensity_max"]].tolist() == [0, 10]
    assert table.loc[1, "solidity"] == 1
    # A rectangle is measured by the ellipse of the same second moments: 4 sqrt((n**2 - 1) / 12).
    assert table.loc[1, "minor_axis"] == pytest.approx(4 * np.sqrt(15 / 12))
    assert table.loc[1, "major_axis"] == pytest.approx(4 * np.sqrt(35 / 12))
    assert table.loc[2, ["area", "intensity_mean"]].tolist() == [1, 90]
    assert measured(labels, image)["area_um2"].isna().all()
    assert len(measured(np.zeros_like(labels), image)) == 0


def test_voxels_may_be_longer_than_wide():
    """A cube of 4 x 4 x 4 voxels whose planes are 3 widths apart, and one voxel."""
    labels, image = np.zeros((8, 20, 20), np.uint16), np.zeros((8, 20, 20), np.uint8)
    labels[2:6, 4:8, 10:14], labels[7, 19, 19] = 1, 2
    image[2:4, 4:8, 10:14] = 10
    metadata = Metadata("ZYX", {"Z": 1.5, "Y": 0.5, "X": 0.5})
    table = measured(labels, image, metadata)
    assert table.loc[1, ["z", "y", "x"]].tolist() == [3.5, 5.5, 11.5]
    assert table.loc[1, ["volume", "intensity_mean"]].tolist() == [64, 5]
    assert table.loc[1, "volume_um3"] == pytest.approx(64 * 1.5 * 0.25)
    # The box is three times as long as wide.
    assert table.loc[1, "equivalent_diameter"] == pytest.approx(np.cbrt(6 / np.pi * 64 * 3))
    assert table.loc[1, "major_axis"] > 2 * table.loc[1, "minor_axis"]
    assert measured(labels, image)["volume_um3"].isna().all()
    assert "area" not in table and "orientation" not in table


@given(st.data())
def test_the_same_whatever_the_tiles(data):
    """As scikit-image measures the whole image at once, though objects begin in many tiles."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.sampled_from([(40, 55), (1, 30), (9, 21, 17)]))
    blobs = ski.filters.gaussian(rng.random(shape), 1.5, mode="wrap") > 0.5
    labels = ski.measure.label(blobs, connectivity=1)
    image = rng.integers(0, 255, shape).astype(np.uint8)
    expected = measured(labels, image)
    tile = tuple(data.draw(st.integers(3, 20)) for _ in shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "TILES", {len(shape): tile})
        patch.setattr(objects, "PIECE", data.draw(st.integers(10, 500)))
        found = measured(labels, image)
    pd.testing.assert_frame_equal(found, expected)
    by_hand = ski.measure.regionprops_table(labels, image, properties=("label", "area", "centroid"))
    assert found.index.tolist() == by_hand["label"].tolist()
    assert found["area" if labels.ndim == 2 else "volume"].tolist() == by_hand["area"].tolist()
    assert found["x"].to_numpy() == pytest.approx(by_hand[f"centroid-{labels.ndim - 1}"])
