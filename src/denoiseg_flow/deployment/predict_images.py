"""Predict new images with a trained model: denoised images, labels, overlays, object tables.

Images are predicted one by one, so thousands need no more memory than one. Finished images are
recorded, so running the same command again only predicts the missing ones. Several jobs may
predict different images in the same folder at the same time.
"""

import errno
import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from denoiseg_flow.data.files.regions import Reading
from denoiseg_flow.deployment.csv_tables import table_of
from denoiseg_flow.deployment.ledger import Entry, Record, files_of
from denoiseg_flow.deployment.object_tables import join_results
from denoiseg_flow.deployment.output_folder import at_work, check_targets
from denoiseg_flow.deployment.predict_file import predict_file, remove, results_of
from denoiseg_flow.deployment.scaling import Scaling
from denoiseg_flow.errors import InputError, plain
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.devices import is_out_of_memory
from denoiseg_flow.jobs.logs import advice
from denoiseg_flow.models.model import AnyModel, TrainedModel, chain
from denoiseg_flow.models.model_file import existing_model, load_model
from denoiseg_flow.models.tiled_prediction import check_tile

logger = logging.getLogger(__name__)


def predict_images(
    file: Path,
    images: Mapping[str, Path],
    folder: Path,
    device: torch.device | str = "cpu",
    reading: Reading = Reading(),  # noqa: B008, it is immutable
    scaling: Scaling = Scaling(),  # noqa: B008
    form: str = "tif",
    tile: int | None = None,
    chunk: bool = False,
) -> dict[str, Path]:
    """Predict images with a model and write the results of each image.

    Writes ``denoised/{image}.tif`` (float32, on the scale of the image; colour images with 8 or 16
    bits keep their pixel type), and for models that
    segment ``labels/{image}.tif`` (uint16 or uint32), ``overlays/{image}.png`` and
    ``objects/{image}.csv``; then the tables of all images, see :func:`object_tables.join_results`.
    Images that the folder's record lists with the same model and unchanged files are skipped. For
    images that cannot be predicted, the record states the reason. If another process is writing to
    the folder, waits for it.

    Parameters
    ----------
    file
        Model file of any method except those that train a network for each image.
    images
        Files of images by name, see :func:`~denoiseg_flow.data.folders.find_images`.
    folder
        Folder of the results; other files in it are left unchanged.
    reading
        How to read the files. ``dimensions`` decides about stacks: with 2, a 2D model predicts each
        z-slice separately; None takes the dimensions of the training images.
    scaling
        How to bring the images to the grey levels and the pixel size of the training images.
    form
        File format of denoised images and labels: ``"tif"`` (OME-TIFF) or ``"ome.zarr"``.
    tile
        Side in pixels of the tiles predicted one at a time; None: see
        :func:`~denoiseg_flow.models.tiled_prediction.tile_shape`.
    chunk
        Whether other jobs predict other images in the same folder at the same time. The tables are
        then not joined; do so when all jobs are done, see :func:`output_folder.at_work`.

    Returns
    -------
    dict of str to Path
        Files of the images that failed, by name, for :func:`object_tables.refuse_failures`; empty
        for a ``chunk``.

    Raises
    ------
    InputError
        If the model cannot be used on new images, or other files would be overwritten; see
        :func:`~denoiseg_flow.deployment.output_folder.check_targets`.
    """
    model = _load(file, device)
    scaling.check(model, f"model {file}")
    for step in chain(model):
        if tile is not None and isinstance(step, TrainedModel):
            check_tile(step, tile)
    if isinstance(model, TrainedModel) and model.method.segments and not model.precision:
        logger.info(
            "no expected precision of objects: too few annotated objects were there to measure it"
        )
    # Reading or scaling the same files differently changes the results, like another model.
    asked = "".join(repr(each) for each in (reading, scaling) if each != type(each)())
    checksum = hashlib.sha256(file.read_bytes() + asked.encode()).hexdigest()
    results = results_of(model, form)
    with at_work(folder, shared=chunk):
        known, record = check_targets(images, folder, results), Record(folder)
        todo = []
        for name, path in images.items():
            item, entry = Entry.of(name, path, checksum), known.get(name)
            done = entry and entry.model == checksum and not entry.failed and entry.is_of(item)
            if not (done and all(map(os.path.exists, files_of(name, results, folder)))):
                # Include results of an earlier model.
                there = _there(entry, folder) if entry else []
                todo.append(replace(item, results=" ".join(dict.fromkeys([*there, *results]))))
        if len(todo) < len(images):
            logger.info("%d of %d images are done already", len(images) - len(todo), len(images))
        # disable=None: show the progress bar only on a terminal.
        for item in tqdm(todo, unit="image", disable=None, file=sys.stderr):
            record.add(
                _predict(model, item, folder, torch.device(device), reading, scaling, form, tile)
            )
        return {} if chunk else join_results(images, folder)


def _there(entry: Entry, folder: Path) -> list[str]:
    """Return the results of an image that still exist."""
    listed = entry.results.split()
    files = zip(listed, entry.files(folder), strict=True)
    return [result for result, path in files if os.path.lexists(path)]


def _predict(
    model: AnyModel,
    item: Entry,
    folder: Path,
    device: torch.device,
    reading: Reading,
    scaling: Scaling,
    form: str,
    tile: int | None,
) -> Entry:
    """Predict one image and return its entry for the record."""
    try:
        done, doubts = predict_file(model, item, folder, reading, scaling, form, tile)
        for doubt in doubts:
            logger.warning("%s", doubt)
        table = "" if done.objects == "" else checksums.digest(table_of(item.image, folder))
        return replace(done, table=table, warned="; ".join(doubts))
    except Exception as error:
        short_of_memory = is_out_of_memory(error, device)
        if not short_of_memory and _ends_all(error):
            raise
        reason = _reason(error, item.source, short_of_memory)
        logger.warning("%s", reason)
        for path in item.files(folder):  # results of an earlier version of the file
            remove(path)
        return replace(item, failed=reason, results="")


def _ends_all(error: Exception) -> bool:
    """Return whether all other images would fail too: the disk is full, or the GPU failed."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return isinstance(error, torch.AcceleratorError)


def _reason(error: Exception, source: str, short_of_memory: bool) -> str:
    """Return, in one line, why an image failed."""
    if found := advice(error):
        text = " ".join(found.split())
        return text if source in text else f"{source}: {text}"
    if short_of_memory:
        return f"{source} needs more memory than is free; run fewer jobs at once"
    return f"cannot predict {source} ({type(error).__name__}: {plain(error)})"


def _load(file: Path, device: torch.device | str) -> AnyModel:
    """Read a model; raise InputError if it cannot predict new images."""
    model = load_model(existing_model(file), device)
    for step in chain(model):
        if step.method.each_image:
            raise InputError(
                f"model {file} cannot be used on new images, because method '{step.method.name}' "
                "trains a network for each image; use a model of another method"
            )
    return model
