"""Predict one file of new images: divide it as the model needs, predict, and join the results."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from denoiseg_flow.data.files.memory_maps import release
from denoiseg_flow.data.files.metadata import SPATIAL
from denoiseg_flow.data.files.ome_zarr import add_labels, create_ome_zarr, is_ome_zarr
from denoiseg_flow.data.files.plates import is_plate, place_of
from denoiseg_flow.data.files.reader import ImageFile, open_image_file
from denoiseg_flow.data.files.regions import ALL, Reading, Region, find_regions
from denoiseg_flow.data.files.tiles import PIECE, Readable, boxes, pieces
from denoiseg_flow.data.painting import overlay
from denoiseg_flow.data.store import (
    BAND_ROWS,
    copy_image,
    create_array,
    open_image,
    stem,
    write_bands,
)
from denoiseg_flow.data.validation import check_image, check_opaque
from denoiseg_flow.deployment.ledger import INTERRUPTED, Entry, Record, files_of, results_in
from denoiseg_flow.deployment.objects import measure_objects
from denoiseg_flow.deployment.output_folder import UNFINISHED
from denoiseg_flow.deployment.scaling import (
    Scaling,
    levels_of_training,
    move_levels,
    warning_of_other_size,
)
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.confidence import (
    confidence,
    doubt,
    object_confidences,
    of_labels,
    with_confidence,
)
from denoiseg_flow.evaluation.grey_levels import GreyLevels, trained_on, warning_of_other_levels
from denoiseg_flow.methods.instances import label_type
from denoiseg_flow.models.model import (
    AnyModel,
    ClassicalModel,
    ImageModels,
    TrainedModel,
    chain,
    denoises,
    reads_colour,
)
from denoiseg_flow.models.predict_run import predict_any

logger = logging.getLogger(__name__)

NORMALISE_IT = (
    "bring the image to the same scale (--normalise image, or 'normalise: image' in the config)"
)
LABELS = "objects"  # name of the labels inside a denoised image
OVERLAY_SIDE = 2048  # pixels; larger images are subsampled for the overlay


def predict_file(
    model: AnyModel,
    item: Entry,
    folder: Path,
    reading: Reading,
    scaling: Scaling,
    form: str,
    tile: int | None,
) -> tuple[Entry, list[str]]:
    """Write all results of one file, or none.

    Returns
    -------
    Its entry with the number of objects and the confidence, and warnings about the reliability of
    the results.
    """
    source = Path(item.source)
    with (
        TemporaryDirectory(prefix=UNFINISHED, dir=folder) as temporary,
        open_image_file(source, reading.axes, colour=reads_colour(model)) as file,
    ):
        check_opaque(file)
        if file.has_alpha:
            logger.info("%s: its alpha channel, opaque everywhere, is left out", source)
        results = Path(temporary)
        regions = list(find_regions(file, _fitting(model, file, reading)))
        factors = scaling.factors(model, regions[0])
        # One for each channel read by the model.
        levels = [GreyLevels() for _ in range(regions[0].channels)]
        folders = [results / f"{number}" for number in range(len(regions))]
        copies: Iterable[Path] = (
            _copy(region, within / "noisy" / f"{item.image}.tif", levels)
            for region, within in zip(regions, folders, strict=True)
        )
        trained = None
        if scaling.normalise == "image":
            trained = levels_of_training(model, source, len(levels))
            # Time points and z-slices of a file have its grey levels, measured before the first
            # is predicted.
            copies = list(copies)
        predicted = [
            _predict(model, read, within, tile, factors, levels, trained)
            for read, within in zip(copies, folders, strict=True)
        ]
        warnings = [warning_of_other_size(model, regions[0], factors)]
        if trained is None:
            known = trained_on(chain(model)[0])
            warnings.append(warning_of_other_levels(source, levels, known, NORMALISE_IT))
        done = item
        made = {kind: results / kind / f"{item.image}.tif" for kind in ("denoised", "labels")}
        for path in made.values():
            path.parent.mkdir()
        if denoises(chain(model)):
            denoised = [each.denoised for each in predicted]
            _join_denoised(file, regions, denoised, made["denoised"])
        if model.method.segments:
            for kind, ending in (("overlays", ".png"), ("objects", ".csv")):
                made[kind] = results / f"{item.image}{ending}"
            labels = [each.labels for each in predicted]
            n_objects = _write_objects(model, item.image, _place(source), regions, predicted, made)
            _join_labels(file, regions, labels, n_objects, made["labels"])
            done = replace(item, objects=n_objects)
            if isinstance(model, TrainedModel):
                objects = np.concatenate([each.confidences for each in predicted])
                value = confidence(objects, n_objects)
                done = replace(done, confidence="" if np.isnan(value) else f"{value:.3f}")
                warnings.append(doubt(source, value, n_objects))
        kinds = results_of(model, form)
        if form == "ome.zarr":
            made |= _as_zarr(made, kinds, source, folder)
        # From here on, results may exist.
        Record(folder).add(replace(item, failed=INTERRUPTED))
        for path in files_of(item.image, kinds, folder):
            path.parent.mkdir(exist_ok=True)
            remove(path)
            os.replace(made[path.parent.name], path)
    return done, [warning for warning in warnings if warning]


class _Predicted(NamedTuple):
    """The results of one image of a file; those that the model does not make do not exist."""

    denoised: Path
    labels: Path
    confidences: pd.Series
    """See :func:`confidence.of_labels`."""


def _as_zarr(
    made: Mapping[str, Path], kinds: Sequence[str], source: Path, folder: Path
) -> dict[str, Path]:
    """Write the denoised image and the labels of a file as OME-Zarr beside the tif files.

    Labels refer to the denoised image, which also gets a copy of them, or else to the input.
    """
    written = {}
    for kind in ("denoised", "labels"):
        if f"{kind}.ome.zarr" not in kinds:
            continue
        path = written[kind] = made[kind].with_suffix(".ome.zarr")
        belongs_to = None
        if kind == "labels" and "denoised" in written:
            belongs_to = f"../../denoised/{path.name}"
        elif kind == "labels" and is_ome_zarr(source):
            belongs_to = Path(os.path.relpath(source, folder / kind / path.name)).as_posix()
        with (
            open_image_file(made[kind], colour=None) as image,
            create_ome_zarr(
                path, image.shape, image.dtype, image.metadata,
                labels=kind == "labels", source=belongs_to,
            ) as out,
        ):  # fmt: skip
            for place, _ in boxes(image.shape, out.chunks):  # chunks are compressed as a whole
                out[place] = image.read(place)
    if len(written) == 2:
        add_labels(written["denoised"], written["labels"], LABELS)
    return written


def remove(path: Path) -> None:
    """Remove a file or the folder of an image, if it exists."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _fitting(model: AnyModel, file: ImageFile, reading: Reading) -> Reading:
    """Return how to read a file for a model; raise InputError if they do not match."""
    axes, path = file.metadata.axes, file.path
    is_stack = "Z" in axes
    if isinstance(model, ClassicalModel | ImageModels):
        # Classical denoisers process planes and volumes.
        return replace(reading, dimensions=reading.dimensions or (3 if is_stack else 2))
    trained = model.layout.dimensions
    if is_stack and trained == 2 and reading.dimensions is None:
        raise InputError(
            f"{path} is a stack of {file.length('Z')} planes, but the model was trained on planes; "
            "predict each z-slice separately (--planes, or 'predict: {planes: true}' in the "
            "config), or use a model trained on volumes"
        )
    if trained == 3 and (not is_stack or reading.dimensions == 2):
        raise InputError(
            f"the model was trained on volumes, but {path} is "
            f"{'to be read plane by plane' if is_stack else 'a plane'}; use a model trained on "
            "planes"
        )
    wanted = model.layout.channels
    if wanted > 1:
        count = file.length("C")
        if count != wanted or reading.channel not in (None, ALL):
            raise InputError(
                f"the model reads {wanted} channels at once, but {path} has {count}; give images "
                "with these channels, and do not choose one of them"
            )
        return replace(reading, dimensions=trained, channel=ALL)
    if reading.channel == ALL and "C" in axes:
        raise InputError(
            f"the model reads one channel, but all channels of {path} are requested; choose one by "
            "its number or name"
        )
    return replace(reading, dimensions=trained)


def _copy(region: Region, path: Path, levels: Sequence[GreyLevels]) -> Path:
    """Copy one image of a file, and add its pixels to the grey levels of the file."""
    dtype = check_image(region, f"{region.file.path}{region.suffix}", constant=True)
    copy_image(region, path, region.metadata, dtype)
    for each, channel in zip(levels, open_image(path), strict=True):
        each.add(channel)
    return path


def _predict(
    model: AnyModel,
    read: Path,
    folder: Path,
    tile: int | None,
    factors: Sequence[float] | None,
    levels: Sequence[GreyLevels],
    trained: Sequence[GreyLevels] | None,
) -> _Predicted:
    """Predict a copy of one image of a file, and remove it if it is not needed any more.

    With ``trained``, its grey levels are moved from ``levels`` to these, and those of the denoised
    image back.
    """
    name, confidences = read.name, pd.Series(dtype=float)
    if trained is not None:
        read = _moved(read, folder / "moved", levels, trained)
    for number, step in enumerate(chain(model)):
        assert not isinstance(step, ImageModels)
        predict_any(
            step, read, folder / f"{number}", save_probabilities=False, tile=tile, factors=factors
        )
        labels = folder / f"{number}" / "labels" / name
        if step is model and isinstance(step, TrainedModel) and step.method.segments:
            with open_image_file(labels) as found:
                whole = Region.whole(found)
                objects = object_confidences(step, open_image(read), whole, tile, factors)
                confidences = of_labels(whole, objects)
        if step.method.denoises:
            read.unlink()  # it may be large
            read = folder / f"{number}" / "denoised" / name
    if trained is not None and denoises(chain(model)):
        read = _moved(read, folder / "denoised", trained, levels)
    return _Predicted(read, labels, confidences)


def _moved(
    source: Path, folder: Path, before: Sequence[GreyLevels], after: Sequence[GreyLevels]
) -> Path:
    """Replace an image by one with other grey levels, see :func:`scaling.move_levels`."""
    move_levels(source, folder / source.name, before, after)
    source.unlink()
    return folder / source.name


def _join_denoised(
    file: ImageFile, regions: Sequence[Region], denoised: Sequence[Path], path: Path
) -> None:
    """Join the denoised images of a file with the channels that were not denoised.

    Colours of 8 or 16 bits stay such, because few programs show others.
    """
    highest = None
    if file.metadata.colour and file.dtype in (np.uint8, np.uint16):
        highest = np.iinfo(file.dtype).max
    elif len(regions) == 1 and regions[0].shape == file.shape:
        os.replace(denoised[0], path)
        return
    dtype = np.float32 if highest is None else file.dtype
    joined = create_array(path, file.shape, file.metadata, dtype)
    if "C" in file.metadata.axes and "C" not in regions[0].metadata.axes:
        for place in pieces(file.shape, PIECE):
            joined[place] = file.read(place)
            release(joined)
    for region, source in zip(regions, denoised, strict=True):
        image = open_image(source).reshape(region.shape)
        for place in pieces(region.shape, PIECE):
            values = image[place]
            if highest is not None:
                values = np.clip(np.rint(values), 0, highest)
            joined[region.within_file(place)] = values
            release(image)
            release(joined)


def _join_labels(
    file: ImageFile, regions: Sequence[Region], labels: Sequence[Path], count: int, path: Path
) -> None:
    """Join the labels of the images of a file; each object keeps a unique number."""
    if len(regions) == 1:
        os.replace(labels[0], path)
        return
    metadata = file.metadata.only("T" + SPATIAL)
    shape = tuple(map(file.length, metadata.axes))
    dtype = label_type(count)

    def bands() -> Iterator[np.ndarray]:
        before = 0
        for source in labels:
            with open_image_file(source) as image:
                highest = 0
                *above, height, width = image.shape
                for plane in np.ndindex(*above):
                    for top in range(0, height, BAND_ROWS):
                        rows = slice(top, min(top + BAND_ROWS, height))
                        band = image.read((*plane, rows, slice(0, width))).astype(dtype)
                        highest = max(highest, int(band.max()))
                        band[band > 0] += before
                        yield band
                before += highest

    write_bands(path, bands(), shape, dtype, count, metadata)


def results_of(model: AnyModel, form: str) -> list[str]:
    """Return the results of a model, see :func:`~denoiseg_flow.deployment.ledger.results_in`."""
    return results_in(form, denoises(chain(model)), model.method.segments)


def _place(source: Path) -> dict[str, str]:
    """Return the columns of the object table that say where in a plate an image is."""
    place = place_of(source.absolute())
    if place is None or not is_plate(Path(place.plate)):
        return {}
    return {"plate": stem(place.plate.name), "well": place.well, "field": place.field}


def _write_objects(
    model: AnyModel,
    name: str,
    constant: Mapping[str, str],
    regions: Sequence[Region],
    predicted: Sequence[_Predicted],
    files: Mapping[str, Path],
) -> int:
    """Write the object table and the overlay of one file; return the number of objects.

    The ``constant`` columns have one value for all objects.
    """
    count = 0
    with files["objects"].open("w", encoding="utf-8", newline="") as table:
        for number, (region, results) in enumerate(zip(regions, predicted, strict=True)):
            with open_image_file(results.labels) as found:
                whole = Region.whole(found)
                grey = region.first_channel()
                highest = 0
                for part, rows in enumerate(measure_objects(name, whole, grey, region.metadata)):
                    highest = max(highest, rows["label"].max() if len(rows) else 0)
                    if isinstance(model, TrainedModel):
                        rows = with_confidence(rows, results.confidences, model.precision)
                    rows["label"] += count
                    for place, (axis, index) in enumerate(region.numbers.items(), start=2):
                        rows.insert(place, axis.lower(), index)
                    for place, (column, value) in enumerate(constant.items(), start=1):
                        rows.insert(place, column, value)
                    header = number == part == 0
                    rows.to_csv(table, index=False, lineterminator="\n", header=header)
                if number == len(regions) // 2:
                    picture = overlay(_picture(region), _thinned(whole))
                    Image.fromarray(picture).save(files["overlays"], optimize=True)
                count += int(highest)
    return count


def _picture(region: Region) -> np.ndarray:
    """Return what the overlay shows of an image: its first channel (y, x), or colours (y, x, 3)."""
    if not region.metadata.colour:
        return _thinned(region.first_channel())
    colours = [_thinned(region.channel(number)) for number in range(region.channels)]
    return np.stack(colours, axis=-1)


def _thinned(image: Readable) -> np.ndarray:
    """Subsample the middle plane to at most ``OVERLAY_SIDE`` pixels a side."""
    *above, height, width = image.shape
    middle = tuple(slice(length // 2, length // 2 + 1) for length in above)
    step = -(-max(height, width) // OVERLAY_SIDE)
    parts = []
    for top in range(0, height, BAND_ROWS):
        rows = slice(top, min(top + BAND_ROWS, height))
        band = image[*middle, rows, slice(0, width)].reshape(-1, width)
        parts.append(band[-top % step :: step, ::step])
    return np.concatenate(parts)
