"""What napari itself shows of the files that ``denoiseg-flow predict`` writes."""

import numpy as np
import pytest
import tifffile
from viewer import need_viewer

need_viewer()


@pytest.mark.parametrize("predicted", ["tif"], indirect=True)
def test_tif_files_have_no_scale_and_labels_are_images(make_napari_viewer, predicted):
    """So the panel opens them; it gives both."""
    viewer = make_napari_viewer()
    for kind in ("denoised", "labels"):
        (layer,) = viewer.open(predicted / kind / "0.tif", plugin="napari")
        assert np.array_equal(layer.data, tifffile.imread(predicted / kind / "0.tif"))
    assert type(layer).__name__ == "Image"


@pytest.mark.parametrize("predicted", ["ome.zarr"], indirect=True)
def test_ome_zarr_has_scale_and_labels(make_napari_viewer, predicted):
    pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    viewer = make_napari_viewer()
    image, labels = viewer.open(predicted / "denoised/0.ome.zarr", plugin="napari-ome-zarr")
    (alone,) = viewer.open(predicted / "labels/0.ome.zarr", plugin="napari-ome-zarr")
    assert [type(each).__name__ for each in (image, labels, alone)] == ["Image", "Labels", "Labels"]
    for layer in (image, labels, alone):
        assert np.allclose(layer.scale, 0.25)
        assert {str(unit) for unit in layer.units} == {"micrometer"}
    assert np.array_equal(labels.data, alone.data) and np.max(alone.data) > 0
