"""Use a trained model on new images: denoised images, instance labels, overlays, object tables.

Images come one after the other, so that thousands need no more memory than one. What is finished
is recorded, so that a second run of the same command only does what the first one did not.
"""

import csv
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from denoiseg_flow.applied_file import UNFINISHED, apply_to_file, remove, results_of
from denoiseg_flow.data.stacks import Reading
from denoiseg_flow.errors import InputError
from denoiseg_flow.models import AnyModel, TrainedModel, chain, existing_model, load_model
from denoiseg_flow.prediction import check_tile
from denoiseg_flow.record import Entry, Record

logger = logging.getLogger(__name__)


def apply_model(
    file: Path,
    images: Mapping[str, Path],
    folder: Path,
    device: torch.device | str = "cpu",
    reading: Reading = Reading(),  # noqa: B008, it is immutable
    form: str = "tif",
    tile: int | None = None,
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
    reading
        How the files are read. ``dimensions`` says what becomes of stacks: 2 lets a model of
        planes look at each plane by itself; None takes what the model was trained on.
    form
        Of images and labels: ``"tif"`` (OME-TIFF) or ``"ome.zarr"``.
    tile
        Side in pixels of the tiles that are predicted one at a time; None: see
        :func:`prediction.tile_shape`.

    Raises
    ------
    InputError
        If the model cannot be used on new images; after all others are done, if an image could
        not be predicted. Such files are named in the log and in the record.
    """
    model = _load(file, device)
    for step in chain(model):
        if tile is not None and isinstance(step, TrainedModel):
            check_tile(step, tile)
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{UNFINISHED}*"):  # of a process that was killed
        shutil.rmtree(unfinished)
    record = Record(folder / "images.tsv")
    # Another way to read the same files gives other results, like another model.
    asked = repr(reading).encode() if reading != Reading() else b""
    checksum = hashlib.sha256(file.read_bytes() + asked).hexdigest()
    wanted = {name: Entry.of(name, path, checksum) for name, path in images.items()}
    # Images of earlier calls stay in the record, and so in the table of all objects.
    finished = {
        entry.image: entry
        for entry in record.read()
        if entry.model == checksum
        and not entry.failed
        and entry.is_of(wanted.get(entry.image, entry))
        and all(path.exists() for path in results_of(entry.image, model, folder, form))
    }
    record.write(finished.values())
    todo = [item for name, item in wanted.items() if name not in finished]
    if len(todo) < len(wanted):
        logger.info("%d of %d images are done already", len(wanted) - len(todo), len(wanted))
    failed = []
    # disable=None: no bar unless standard error is a terminal.
    for item in tqdm(todo, unit="image", disable=None, file=sys.stderr):
        try:
            found: dict[str, int | str] = {
                "objects": apply_to_file(model, item, folder, reading, form, tile)
            }
        except InputError as error:
            logger.warning("%s", error)
            found = {"failed": " ".join(str(error).split())}
            failed.append(item.source)
            # Those of an earlier state of the file.
            for path in results_of(item.image, model, folder, form):
                remove(path)
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


def _load(file: Path, device: torch.device | str) -> AnyModel:
    """Read a model that new images can be predicted with."""
    model = load_model(existing_model(file), device)
    for step in chain(model):
        if step.method.each_image:
            raise InputError(
                f"model {file} cannot be used on new images, because method '{step.method.name}' "
                "trains a network for each image; use a model of another method"
            )
    return model


def _join(folder: Path, images: Iterable[str]) -> None:
    """Write the object tables of some images, one after the other, to ``objects.csv``."""
    partial = folder / ".objects.csv.partial"
    tables = [folder / "objects" / f"{name}.csv" for name in sorted(images)]
    headers = [_header(path) for path in tables]
    # Tables of files with time points or planes have columns that others lack.
    longest = max(headers, key=len, default=[])
    columns = longest + [each for header in headers for each in header if each not in longest]
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(columns)), lineterminator="\n")
        writer.writeheader()
        for path in tables:
            with path.open(encoding="utf-8", newline="") as table:
                writer.writerows(csv.DictReader(table))
    os.replace(partial, folder / "objects.csv")


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as table:
        return next(csv.reader(table))
