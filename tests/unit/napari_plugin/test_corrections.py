"""Corrected masks: under the name that the config reads, and nothing is lost."""

import numpy as np
import pytest
import tifffile

from denoiseg_flow.data.store import open_labels, read_metadata, write_labels
from denoiseg_flow.errors import InputError
from denoiseg_flow.napari_plugin.corrections import find_crops


def test_suggestions_come_in_their_order(suggested):
    assert [crop.name for crop in find_crops(suggested)] == ["1", "0"]
    (suggested / "masks/1.tif").unlink()
    assert [crop.name for crop in find_crops(suggested)] == ["0"]


def test_the_correction_replaces_the_prediction_which_is_kept(suggested):
    (crop, other) = find_crops(suggested)
    (image, mask) = crop.layers()
    predicted = crop.mask.read_bytes()
    assert image[2] == "image" and mask[2] == "labels" and mask[0].dtype == np.int32
    assert mask[1]["scale"] == [0.25, 0.25]
    mask[0][20:30, 20:30] = 2
    crop.save(mask[0])
    assert crop.is_corrected and not other.is_corrected
    written = tifffile.imread(suggested / "masks/1.tif")
    assert written.dtype == np.uint16 and np.array_equal(written, mask[0])
    assert read_metadata(crop.mask).pixel_size == pytest.approx({"Y": 0.25, "X": 0.25})
    kept = suggested / "before_correction/1.tif"
    assert kept.read_bytes() == predicted

    mask[0][:3] = -1
    mask[0][4, 4] = 70_000
    crop.save(mask[0])
    assert np.array_equal(open_labels(crop.mask), mask[0]), "regions to ignore stay negative"
    assert kept.read_bytes() == predicted
    left = {path.relative_to(suggested).parts[0] for path in suggested.rglob("*")}
    assert left == {"images", "masks", "before_correction", "suggestions.csv"}


def test_many_objects_need_more_bits(suggested):
    (crop, _) = find_crops(suggested)
    labels = crop.layers()[-1][0]
    labels[0, 0] = 70_000
    crop.save(labels)
    assert tifffile.imread(crop.mask).dtype == np.uint32


def test_what_another_program_saved_is_not_written_over(suggested):
    (crop, _) = find_crops(suggested)
    labels = crop.layers()[-1][0]
    elsewhere = labels.astype(np.uint16)
    elsewhere[-1] = 9
    write_labels(crop.mask, elsewhere)
    with pytest.raises(InputError, match=r"masks/1\.tif was changed by another program"):
        crop.save(labels)
    assert np.array_equal(open_labels(crop.mask), elsewhere)
    crop.mask.rename(suggested / "masks/elsewhere.tif")
    crop.save(labels)
    assert np.array_equal(open_labels(crop.mask), labels)
    crop.layers()
    crop.save(elsewhere)


def test_what_is_no_mask_is_refused(suggested):
    (crop, _) = find_crops(suggested)
    labels = crop.layers()[-1][0]
    before = crop.mask.read_bytes()
    with pytest.raises(InputError, match="mask of 1 annotates no pixel"):
        crop.save(np.full_like(labels, -1))
    assert crop.mask.read_bytes() == before and not crop.is_corrected


@pytest.mark.parametrize("text", [None, "", "rank,image\n1,a\n"])
def test_other_folders_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "suggestions.csv").write_text(text)
    with pytest.raises(InputError, match="is no folder of suggestions"):
        find_crops(tmp_path)
