"""Objects in ROI files of ImageJ: one in a .roi file, several in a zip file of its ROI Manager."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import roifile

from denoiseg_flow.data.files.outlines import Outline, Ring, ring

_LARGEST = 2**28  # bytes of all ROIs of a file
_CORNERS_OF_OVAL = 256


def read_imagej_rois(path: Path, lengths: Mapping[str, int]) -> list[Outline]:
    """Read the ROIs of a file.

    Parameters
    ----------
    path
        A zip or .roi file.
    lengths
        Lengths of the axes T, C and Z of the image, because a ROI may state its plane as a number
        in the order of ImageJ: channels, then z-slices, then time points.

    Returns
    -------
    list of Outline
        ROIs that are no areas, such as lines and points, have no polygons.
    """
    content = path.read_bytes()
    members = _members(content) if zipfile.is_zipfile(io.BytesIO(content)) else [content]
    return [_outline(roifile.ImagejRoi.frombytes(member), lengths) for member in members]


def _members(content: bytes) -> list[bytes]:
    """Return the ROIs in a zip file, in the order of the file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = [
            info
            for info in archive.infolist()
            if info.filename.lower().endswith(".roi")
            and not PurePosixPath(info.filename).name.startswith(".")
        ]
        if not found:
            raise ValueError("it holds no .roi files, as written by the ROI Manager of ImageJ")
        if sum(info.file_size for info in found) > _LARGEST:
            raise ValueError("its ROIs are larger than any drawing")
        if not {info.compress_type for info in found} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("it is compressed as ImageJ compresses no ROIs")
        return [archive.read(info) for info in found]


def _outline(roi: Any, lengths: Mapping[str, int]) -> Outline:
    plane = {"Z": roi.z_position - 1, "T": roi.t_position - 1}
    if max(roi.c_position, roi.z_position, roi.t_position) <= 0 < roi.position:
        number = (roi.position - 1) // lengths.get("C", 1)
        plane["T"], plane["Z"] = divmod(number, lengths.get("Z", 1))
    stated = {axis: number for axis, number in plane.items() if number >= 0}
    rings = [each for each in _rings(roi) if len(each) > 2]
    return Outline([rings] if rings else [], plane=stated)


def _rings(roi: Any) -> list[Ring]:
    """Return the rings of a ROI; none if it is no area."""
    kind = roi.roitype
    if roi.subtype in (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.IMAGE):
        return []
    if kind == roifile.ROI_TYPE.RECT and roi.composite:
        return [ring(each) for each in roi.coordinates(multi=True)]
    if kind in (roifile.ROI_TYPE.RECT, roifile.ROI_TYPE.OVAL):
        left, top, width, height = (
            (roi.xd, roi.yd, roi.widthd, roi.heightd)
            if roi.subpixelrect
            else (roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top)
        )
        unit = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
        if kind == roifile.ROI_TYPE.OVAL:
            angles = np.linspace(0, 2 * np.pi, _CORNERS_OF_OVAL, endpoint=False)
            unit = 0.5 + 0.5 * np.column_stack([np.cos(angles), np.sin(angles)])
        return [ring(unit * (width, height) + (left, top))]
    if kind in (roifile.ROI_TYPE.POLYGON, roifile.ROI_TYPE.FREEHAND, roifile.ROI_TYPE.TRACED):
        return [ring(roi.coordinates())]
    return []
