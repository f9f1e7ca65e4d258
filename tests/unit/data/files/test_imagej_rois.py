"""ROIs of ImageJ."""

import zipfile

import numpy as np
import pytest
import roifile
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from denoiseg_flow.data.files.imagej_rois import read_imagej_rois
from denoiseg_flow.data.files.outlines import paint

SHAPE = (20, 30)


def labels_of(path, lengths=None, **numbers):
    return paint(read_imagej_rois(path, lengths or {}), SHAPE, numbers)[0]


def save(path, *rois, **options):
    roifile.roiwrite(path, rois[0] if path.suffix == ".roi" else rois, **options)
    return path


def test_rectangle(tmp_path):
    """Its right and lower sides are the first column and row outside."""
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, left=3, top=5, right=9, bottom=7)
    labels = labels_of(save(tmp_path / "a.roi", roi))
    expected = np.zeros(SHAPE)
    expected[5:7, 3:9] = 1
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("kind", [ROI_TYPE.RECT, ROI_TYPE.OVAL])
def test_sides_between_pixels(tmp_path, kind):
    roi = ImagejRoi(version=228, roitype=kind, left=3, top=5, right=9, bottom=9)
    roi.options = ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.xd, roi.yd, roi.widthd, roi.heightd = 3.6, 5.0, 4.0, 3.0
    found = np.argwhere(labels_of(save(tmp_path / "a.roi", roi)))
    assert found.min(axis=0).tolist() == [5, 4] and found.max(axis=0).tolist() == [7, 7]
    assert len(found) == (12 if kind == ROI_TYPE.RECT else 10)


def test_oval(tmp_path):
    roi = ImagejRoi(roitype=ROI_TYPE.OVAL, left=2, top=4, right=22, bottom=14)
    y, x = np.mgrid[:20, :30] + 0.5
    expected = ((x - 12) / 10) ** 2 + ((y - 9) / 5) ** 2 < 1
    np.testing.assert_array_equal(labels_of(save(tmp_path / "a.roi", roi)), expected)


@pytest.mark.parametrize("kind", [ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED])
def test_whole_corners(tmp_path, kind):
    roi = ImagejRoi.frompoints([[2, 3], [2, 8], [12, 8], [12, 3]])
    roi.roitype = kind
    labels = labels_of(save(tmp_path / "a.roi", roi))
    assert labels.sum() == 50 and labels[3:8, 2:12].all()


@pytest.mark.parametrize(
    "changes",
    [
        {"roitype": ROI_TYPE.POINT},
        {"roitype": ROI_TYPE.LINE},
        {"roitype": ROI_TYPE.POLYLINE},
        {"roitype": ROI_TYPE.FREELINE},
        {"roitype": ROI_TYPE.ANGLE},
        {"roitype": ROI_TYPE.RECT, "subtype": ROI_SUBTYPE.TEXT},
    ],
)
def test_what_is_no_area(tmp_path, changes):
    roi = ImagejRoi.frompoints([[2, 3], [2, 8], [12, 8], [12, 3]])
    for key, value in changes.items():
        setattr(roi, key, value)
    (outline,) = read_imagej_rois(save(tmp_path / "a.roi", roi), {})
    assert not outline.polygons


def squares(positions):
    rois = []
    for place, position in enumerate(positions):
        roi = ImagejRoi.frompoints(np.add([[0, 0], [0, 2], [2, 2], [2, 0]], (3 * place, 0)))
        for key, value in position.items():
            setattr(roi, key, value)
        roi.name = f"{9 - place}"
        rois.append(roi)
    return rois


def test_the_order_is_that_of_the_file_whatever_the_names(tmp_path):
    labels = labels_of(save(tmp_path / "a.zip", *squares([{}] * 4)))
    assert labels[0, :12].tolist() == [1, 1, 0, 2, 2, 0, 3, 3, 0, 4, 4, 0]


def test_planes_of_hyperstacks_and_of_stacks(tmp_path):
    given = [
        {"z_position": 2, "t_position": 3, "c_position": 1},
        {"position": 1},
        {"position": 2},  # second channel of the first z-slice
        {"position": 2 * 5 * 2 + 2 * 1 + 1},
        {"z_position": 4},
        {},
    ]
    outlines = read_imagej_rois(save(tmp_path / "a.zip", *squares(given)), {"C": 2, "Z": 5, "T": 3})
    assert [outline.plane for outline in outlines] == [
        {"Z": 1, "T": 2}, {"Z": 0, "T": 0}, {"Z": 0, "T": 0}, {"Z": 1, "T": 2}, {"Z": 3}, {},
    ]  # fmt: skip


def test_each_plane_has_its_own_objects(tmp_path):
    path = save(tmp_path / "a.zip", *squares([{"position": 2}, {"position": 1}, {"position": 2}]))
    lengths = {"T": 4}
    assert np.unique(labels_of(path, lengths, T=0, Z=0)).tolist() == [0, 2]
    assert np.unique(labels_of(path, lengths, T=1, Z=0)).tolist() == [0, 1, 3]
    assert not labels_of(path, lengths, T=2, Z=0).any()


def test_what_macos_adds_to_a_zip_file_is_no_roi(tmp_path):
    path = save(tmp_path / "a.zip", *squares([{}] * 2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._1.roi", b"Mac OS X")
        archive.writestr("notes.txt", b"")
    assert len(read_imagej_rois(path, {})) == 2
