"""Objects in json files of COCO: polygons and runs of pixels, for many images in one file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from denoiseg_flow.data.files.outlines import Outline, ring
from denoiseg_flow.errors import InputError


@dataclass(frozen=True)
class CocoImage:
    """What a COCO json says of one image.

    Attributes
    ----------
    file_name
        As written, with or without folders.
    shape
        Height and width in pixels; None if not stated.
    annotations
        The objects, as in the json.
    """

    file_name: str
    shape: tuple[int, int] | None
    annotations: Sequence[dict[str, Any]]

    def outlines(self) -> list[Outline]:
        """Return the objects, those of a box or of points only without polygons."""
        return [_outline(each) for each in self.annotations]


def read_coco(path: Path) -> list[CocoImage]:
    """Return the images that a COCO json lists.

    Raises
    ------
    InputError
        If it is no COCO json.
    """
    known = path.stat()
    return _read(path, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=1)  # one file serves all images of a dataset
def _read(path: Path, modified: int, size: int) -> list[CocoImage]:
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or not {"images", "annotations"} <= document.keys():
        raise InputError(
            f"{path} (config key 'masks') is no COCO json, which has lists of images and "
            "annotations; export it as COCO, or name a folder of masks"
        )
    of_image: dict[Any, list[dict[str, Any]]] = {each["id"]: [] for each in document["images"]}
    for annotation in document["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    return [
        CocoImage(str(each["file_name"]), _shape(each), of_image[each["id"]])
        for each in document["images"]
    ]


def _shape(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def _outline(annotation: dict[str, Any]) -> Outline:
    found = annotation.get("segmentation") or []
    if isinstance(found, dict):
        height, width = map(int, found["size"])
        counts = found["counts"]
        numbers = _decompress(counts) if isinstance(counts, str) else counts
        runs = np.asarray(numbers, np.int64)
        within = (runs >= 0) & (runs <= height * width)
        if runs.ndim != 1 or not within.all() or int(runs.sum()) != height * width:
            raise ValueError(f"runs of pixels do not fill an image of {width} x {height} pixels")
        return Outline(runs=(runs, (height, width)))
    corners = [np.asarray(flat, np.float64).reshape(-1, 2) for flat in found]
    return Outline([[ring(each)] for each in corners if len(each) > 2])


def _decompress(text: str) -> list[int]:
    """Return the numbers in a compressed list of runs.

    Each is a sequence of characters with six bits: five of the number, the lowest first, and one
    that says whether more follow. From the fourth on, they are differences from the last but one.
    """
    numbers: list[int] = []
    number = place = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or place > 60:
            raise ValueError("compressed runs of pixels have an unexpected character")
        number |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << place
        numbers.append(number + (numbers[-2] if len(numbers) > 2 else 0))
        number = place = 0
    return numbers
