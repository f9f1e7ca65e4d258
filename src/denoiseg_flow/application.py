"""Use a trained model on new images: denoised images, instance labels, overlays, object tables.

Images come one after the other, so that thousands need no more memory than one. What is finished
is recorded, so that a second run of the same command only does what the first one did not.
"""

import hashlib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import skimage as ski
import torch
from PIL import Image
from tqdm import tqdm

from denoiseg_flow.data.images import check_image, open_image, write_image
from denoiseg_flow.data.planes import read_pixel_size, read_plane
from denoiseg_flow.errors import InputError
from denoiseg_flow.figures.panels import overlay
from denoiseg_flow.models import AnyModel, load_model
from denoiseg_flow.prediction import predict_any
from denoiseg_flow.record import Entry, Record

logger = logging.getLogger(__name__)

# What scikit-image's regionprops_table is asked for, and our names where they differ. Lengths are
# in pixels, intensities those of the image as it was given.
PROPERTIES = {
    "label": "label",
    "centroid-0": "y",
    "centroid-1": "x",
    "area": "area",
    "intensity_mean": "intensity_mean",
    "intensity_std": "intensity_std",
    "intensity_min": "intensity_min",
    "intensity_max": "intensity_max",
    "equivalent_diameter_area": "equivalent_diameter",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "orientation": "orientation",
    "perimeter": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}

OVERLAY_SIDE = 2048  # pixels: larger images are thinned out for the picture

_UNFINISHED = ".unfinished_"


def apply_model(
    file: Path, images: Mapping[str, Path], folder: Path, device: torch.device | str = "cpu"
) -> None:
    """Predict images with the model of a file and write what it yields, each image on its own.

    Writes ``denoised/{image}.tif`` (float32, on the scale of the image), and for models that
    segment ``labels/{image}.tif`` (uint16 or uint32), ``overlays/{image}.png``,
    ``objects/{image}.csv`` and ``objects.csv``, the tables of all images in one. ``images.tsv`` is
    the record; what it holds of the same model and the same files is not done again.

    Parameters
    ----------
    file
        A model of any method but those that train a network for each image.
    images
        Files of grey images by name, see :func:`folders.find_images`.
    folder
        Where to write; other files in it are left alone.

    Raises
    ------
    InputError
        If the model cannot be used on new images; after all others are done, if an image could
        not be predicted. Such files are named in the log and in the record.
    """
    model = _load(file, device)
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{_UNFINISHED}*"):  # of a process that was killed
        shutil.rmtree(unfinished)
    record = Record(folder / "images.tsv")
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    wanted = {name: Entry.of(name, path, checksum) for name, path in images.items()}
    # Images of earlier calls stay in the record, and so in the table of all objects.
    finished = {
        entry.image: entry
        for entry in record.read()
        if entry.model == checksum
        and not entry.failed
        and entry.is_of(wanted.get(entry.image, entry))
        and all(path.exists() for path in _results(entry.image, model, folder))
    }
    record.write(finished.values())
    todo = [item for name, item in wanted.items() if name not in finished]
    if len(todo) < len(wanted):
        logger.info("%d of %d images are done already", len(wanted) - len(todo), len(wanted))
    failed = []
    # disable=None: no bar unless standard error is a terminal.
    for item in tqdm(todo, unit="image", disable=None, file=sys.stderr):
        try:
            found: dict[str, int | str] = {"objects": _apply_to_image(model, item, folder)}
        except InputError as error:
            logger.warning("%s", error)
            found = {"failed": " ".join(str(error).split())}
            failed.append(item.source)
            for path in _results(item.image, model, folder):  # of an earlier state of the file
                path.unlink(missing_ok=True)
        record.append(replace(item, **found))
    if model.method.segments:
        _join(folder, [entry.image for entry in record.read() if not entry.failed])
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise InputError(
            f"{len(failed)} of {len(images)} images could not be predicted "
            f"({', '.join(failed[:3])}{more}); the reasons are in {record.path}. Correct or remove "
            "these files and run the same command again: the others are done"
        )


def measure_objects(
    name: str, labels: np.ndarray, image: np.ndarray, pixel_size: tuple[float, float] | None
) -> pd.DataFrame:
    """Return one row per object: place, size, intensity and shape, :data:`PROPERTIES`.

    Parameters
    ----------
    name
        What the column ``image`` says.
    labels, image
        (y, x); intensities are those of ``image``.
    pixel_size
        Height and width of a pixel in micrometres, for ``area_um2``, which is empty without it.
    """
    wanted = {key.partition("-")[0]: None for key in PROPERTIES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an object of two pixels has no convex hull
        table = ski.measure.regionprops_table(labels, image, properties=tuple(wanted))
    objects = pd.DataFrame(table).rename(columns=PROPERTIES)[list(PROPERTIES.values())]
    objects["area"] = objects["area"].astype(np.int64)
    scale = np.nan if pixel_size is None else pixel_size[0] * pixel_size[1]
    objects.insert(list(objects).index("area") + 1, "area_um2", objects["area"] * scale)
    objects.insert(0, "image", name)
    return objects


def _load(file: Path, device: torch.device | str) -> AnyModel:
    """Read a model that new images can be predicted with."""
    if not file.is_file():
        raise InputError(f"model {file} does not exist or is not a file: correct its path")
    model = load_model(file, device)
    for step in _chain(model):
        if step.method.each_image:
            raise InputError(
                f"model {file} cannot be used on new images, because method '{step.method.name}' "
                "trains a network for each image; use a model of another method"
            )
    return model


def _apply_to_image(model: AnyModel, item: Entry, folder: Path) -> int | str:
    """Write all results of one image, or none; return how many objects it shows."""
    source, name = Path(item.source), f"{item.image}.tif"
    image = check_image(read_plane(source, indexed=False), str(source), constant=True)
    pixel_size = read_pixel_size(source)
    with TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as temporary:
        results = Path(temporary)
        write_image(results / "noisy" / name, image, pixel_size=pixel_size)
        read = results / "noisy" / name
        for number, step in enumerate(_chain(model)):
            predict_any(step, read, results / f"{number}", save_probabilities=False)
            if step.method.denoises:
                read = results / f"{number}" / "denoised" / name
        made = {"denoised": read, "labels": results / f"{number}" / "labels" / name}
        n_objects: int | str = ""
        if model.method.segments:
            for kind, ending in (("overlays", ".png"), ("objects", ".csv")):
                made[kind] = results / f"{item.image}{ending}"
            n_objects = _write_objects(item.image, image, pixel_size, made)
        for path in _results(item.image, model, folder):
            path.parent.mkdir(exist_ok=True)
            os.replace(made[path.parent.name], path)
    return n_objects


def _results(name: str, model: AnyModel, folder: Path) -> list[Path]:
    """The files that a model makes of an image."""
    kinds = {"denoised": ".tif"} if any(step.method.denoises for step in _chain(model)) else {}
    if model.method.segments:
        kinds |= {"labels": ".tif", "overlays": ".png", "objects": ".csv"}
    return [folder / kind / f"{name}{ending}" for kind, ending in kinds.items()]


def _write_objects(
    name: str,
    image: np.ndarray,
    pixel_size: tuple[float, float] | None,
    files: Mapping[str, Path],
) -> int:
    """Write the table of objects and the overlay of one image; return how many objects."""
    labels = open_image(files["labels"])
    objects = measure_objects(name, labels, image, pixel_size)
    objects.to_csv(files["objects"], index=False, lineterminator="\n")
    step = -(-max(image.shape) // OVERLAY_SIDE)
    picture = overlay(image[::step, ::step], labels[::step, ::step])
    Image.fromarray(picture).save(files["overlays"], optimize=True)
    return len(objects)


def _chain(model: AnyModel) -> list[AnyModel]:
    """The models that one after the other lead to the result."""
    return [*(_chain(model.input) if model.input else []), model]


def _join(folder: Path, images: Iterable[str]) -> None:
    """Write the object tables of some images, one after the other, to ``objects.csv``."""
    partial = folder / ".objects.csv.partial"
    with partial.open("w", encoding="utf-8") as file:
        for number, name in enumerate(sorted(images)):
            header, *rows = (folder / "objects" / f"{name}.csv").read_text().splitlines(True)
            file.writelines(rows if number else [header, *rows])
    os.replace(partial, folder / "objects.csv")
