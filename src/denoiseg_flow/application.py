"""Use a trained model on new images: denoised images, instance labels, overlays, object tables.

Images come one after the other, so that thousands need no more memory than one. What is finished
is recorded, so that a second run of the same command only does what the first one did not. Several
jobs may do so in one folder at the same time, each with other images.
"""

import hashlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from denoiseg_flow.applied_file import apply_to_file, remove, results_of
from denoiseg_flow.applied_tables import table_of
from denoiseg_flow.data import checksums
from denoiseg_flow.data.stacks import Reading
from denoiseg_flow.errors import InputError
from denoiseg_flow.models import AnyModel, TrainedModel, chain, existing_model, load_model
from denoiseg_flow.record import Entry, Record
from denoiseg_flow.tiled_prediction import check_tile

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
    segment ``labels/{image}.tif`` (uint16 or uint32), ``overlays/{image}.png`` and
    ``objects/{image}.csv``. What the record of the folder holds of the same model and the same
    files is not done again. Of images that cannot be predicted, the record says why.
    :func:`applied_tables.join_results` comes after the last call.

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
        :func:`tiled_prediction.tile_shape`.

    Raises
    ------
    InputError
        If the model cannot be used on new images.
    """
    model = _load(file, device)
    for step in chain(model):
        if tile is not None and isinstance(step, TrainedModel):
            check_tile(step, tile)
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder)
    # Another way to read the same files gives other results, like another model.
    asked = repr(reading).encode() if reading != Reading() else b""
    checksum = hashlib.sha256(file.read_bytes() + asked).hexdigest()
    known = record.read(images)
    todo = []
    for name, path in images.items():
        item, entry = Entry.of(name, path, checksum), known.get(name)
        done = entry and entry.model == checksum and not entry.failed and entry.is_of(item)
        if not (done and all(each.exists() for each in results_of(name, model, folder, form))):
            todo.append(item)
    if len(todo) < len(images):
        logger.info("%d of %d images are done already", len(images) - len(todo), len(images))
    # disable=None: no bar unless standard error is a terminal.
    for item in tqdm(todo, unit="image", disable=None, file=sys.stderr):
        try:
            count = apply_to_file(model, item, folder, reading, form, tile)
            table = "" if count == "" else checksums.digest(table_of(item.image, folder))
            outcome = replace(item, objects=count, table=table)
        except InputError as error:
            logger.warning("%s", error)
            outcome = replace(item, failed=" ".join(str(error).split()))
            # Those of an earlier state of the file.
            for path in results_of(item.image, model, folder, form):
                remove(path)
        record.add(outcome)


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
