"""Write what to annotate next: images or crops, predicted masks to correct, and the next config.

The folder of a round is a dataset of its own (``images/`` and ``masks/``), which the next study
combines with the dataset that it comes from. Nothing of an earlier round or study is changed.
"""

import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import skimage as ski
import torch
import yaml

from denoiseg_flow.data import manifest
from denoiseg_flow.data.combined import parts
from denoiseg_flow.data.files.tiles import Place
from denoiseg_flow.data.layout import Predictions, PreparedData, image_file, input_folder
from denoiseg_flow.data.sources import FOLDER_KEYS, count_in_advance, has_masks
from denoiseg_flow.data.splitting import EXTRA
from denoiseg_flow.data.store import (
    open_image,
    open_labels,
    open_repeats,
    read_metadata,
    write_image,
    write_labels,
)
from denoiseg_flow.errors import InputError, shown
from denoiseg_flow.evaluation.annotate_next import COLUMNS, LISTED, cut, suggest
from denoiseg_flow.evaluation.confidence import centre, segment
from denoiseg_flow.jobs.atomic import new_folder
from denoiseg_flow.methods.definition import Method, Recipe, as_dict
from denoiseg_flow.methods.instances import label_type
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.study.grid import Run, trained_runs

logger = logging.getLogger(__name__)

NEXT = "next.yaml"
SUGGESTIONS = "suggestions.csv"
AUTO, WHOLE = "auto", "image"  # ways to choose the size of crops

WIDE = 8  # diameters of an object along the side of a crop, by default
STEP = 32  # default sides are multiples of it, in pixels
UNKNOWN = 256  # default side without any object
MEASURED = 4  # images in which objects are measured for it
LITTLE = 1.5  # images of at most so many sides are annotated as a whole

# The end of the name of a crop: its first row and column in the image.
_CROP = re.compile(r"(.+)_y(\d+)_x(\d+)")
_GROUP = r"^(.+)_y\d+_x\d+"  # all crops of an image, see the config key 'group'
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Suggestion(NamedTuple):
    """An image or crop to annotate."""

    name: str
    """Of its files, without ending."""
    image: str
    """Name of the image in the dataset."""
    place: Place
    """(y, x) in the image."""
    confidence: float


def finished_runs(
    study: Path,
    config: Mapping[str, Any],
    dataset: str | None = None,
    noise: str | None = None,
    method: str | None = None,
) -> list[Run]:
    """Return the runs of a study that can suggest what to annotate: one for each method.

    Of each method, that is the run with the most annotated images and the lowest seed. The
    reference method comes first.

    Parameters
    ----------
    study
        Its folder of results.
    config
        See :func:`~denoiseg_flow.study.provenance.read_config`.
    dataset, noise
        By default, the first that the config selects and that has finished runs.
    method
        By default, all methods that predict class probabilities.

    Raises
    ------
    InputError
        If there is none.
    """
    found = [run for run in trained_runs(study) if run.method in config["methods"]]
    if not found:
        raise InputError(f"{study} has no finished run; let the study run, then try again")
    for axis, asked in (("dataset", dataset), ("noise", noise), ("method", method)):
        names = list(dict.fromkeys(getattr(run, axis) for run in found))
        if asked is None and axis == "method":
            continue
        selected = [name for name in config["grid"][f"{axis}s"] if name in names]
        wanted = asked or [*selected, *names][0]
        if wanted not in names:
            raise InputError(
                f"{study} has no finished run of {axis} {shown(wanted)}; give --{axis} one of "
                f"{', '.join(names)}"
            )
        found = [run for run in found if getattr(run, axis) == wanted]
    able = [run for run in found if _method_of(config, run.method).learns_segmentation]
    if not able:
        raise InputError(
            f"no finished run of dataset '{found[0].dataset}' in {study} segments by a network or "
            f"a pixel classifier (only {', '.join(dict.fromkeys(run.method for run in found))}); "
            "add a method such as 'pretrained' to grid.methods, and let the study run"
        )
    able.sort(key=lambda run: (run.method != config["grid"]["reference"], -run.n_annotated))
    return list({run.method: run for run in reversed(able)}.values())[::-1]


def _method_of(config: Mapping[str, Any], name: str) -> Method:
    values = config["methods"][name]
    known = {each.name for each in fields(Method)}
    return Method(name=name, **{key: value for key, value in values.items() if key in known})


def write_round(
    study: Path,
    config: Mapping[str, Any],
    run: Run,
    folder: Path,
    count: int,
    crop: int | str = AUTO,
    device: torch.device | str = "cpu",
) -> list[Suggestion]:
    """Write what to annotate next, as suggested by the model of a run.

    The folder gets ``images/`` (with the pixel values of the dataset), ``masks/`` (predicted labels
    of the same names, uint16 or uint32), ``clean/`` and ``second/`` if these are known (the first
    of several further acquisitions), ``suggestions.csv``, ``model.pt`` and the config of the next
    study, ``next.yaml``.

    Parameters
    ----------
    study, config, run
        See :func:`finished_runs`.
    folder
        Folder to write, which must not exist or be empty; the new dataset has its name.
    count
        Number of images or crops.
    crop
        Side of the crops in pixels; ``"image"``: whole images; ``"auto"``: crops of several objects
        from images that are much larger.

    Returns
    -------
    list of Suggestion
        The one to annotate first is the first.

    Raises
    ------
    InputError
        If the folder has any content, its name cannot be used in a config, the crops are smaller
        than a training patch, or no image is left to annotate.
    """
    name = folder.absolute().name
    _check_target(folder, name, config)
    if not 1 <= count <= LISTED:
        raise InputError(f"{count} images or crops are asked for; give --n a number up to {LISTED}")
    file = study / "runs" / run.folder / "model.pt"
    model = load_model(file, device)
    assert isinstance(model, TrainedModel)
    prepared = PreparedData(study / "data" / run.dataset / "prepared")
    images = study / "data" / run.dataset / "noisy" / run.noise
    if model.input:
        images = study / "runs" / Run(**model.input.identity).folder / "predictions"
    images = input_folder(images)
    table = prepared.read_manifest()
    bases = _base_names(table, parts(config["datasets"], run.dataset))
    taken = _taken(table, bases, prepared)
    new = [*table.loc[table["annotated"] == 0, "image"]]
    others = {
        image: [place for place in taken[bases[image]] if place]
        for image in new
        if None not in taken[bases[image]]
    }
    files = [image_file(images, image) for image in others]
    side = _side(crop, model, files) if files else None
    annotated = [*table.loc[table["annotated"] == 1, "image"]]
    suggested = suggest(model, images, annotated, [*others], side, others, count)
    rows = []
    for image, confidence, y, x in zip(*map(suggested.get, COLUMNS[1:]), strict=True):
        pixels = open_image(prepared.image(image))
        place = tuple(
            slice(start, start + min(side or length, length))
            for start, length in zip((y, x), pixels.shape[-2:], strict=True)
        )
        name = f"{bases[image]}_y{y}_x{x}" if side else bases[image]
        if np.ptp(cut(pixels, place)) > 0:  # an image with a single grey level is refused
            rows.append(Suggestion(name, image, place, confidence))
    chosen = rows[:count]
    if not chosen:
        raise InputError(
            f"no image of dataset '{run.dataset}' in {study} is left to annotate; add images "
            "without a mask to its folder of images, and let the study run again"
        )
    if len(chosen) < count:
        logger.info("only %d images or crops are left to annotate", len(chosen))
    with new_folder(folder) as unfinished:
        _write_parts(model, images, prepared, chosen, unfinished)
        _write_table(chosen, unfinished / SUGGESTIONS)
        if model.method.has_network:
            shutil.copyfile(file, unfinished / "model.pt")
        split = manifest.read(study / "data" / run.dataset / f"split/seed{run.seed}.tsv")
        n_annotated = int(split["rank"].notna().sum()) + len(chosen)
        following = _next_config(config, run, model, folder, unfinished, chosen, n_annotated)
        text = _instructions(study, folder) + yaml.safe_dump(following, sort_keys=False)
        (unfinished / NEXT).write_text(text, encoding="utf-8")
    return chosen


def _check_target(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists already, and may hold masks that you corrected; give each round of "
            "annotation a new folder by --out"
        )
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{folder} would name a dataset of the next config; give --out a folder whose name "
            "consists of letters, digits, '_', '-' and '.'"
        )
    if {name, _combined(name)} & {*config["datasets"], *config["methods"]}:
        raise InputError(
            f"the config has a dataset or method of the name of {folder} already; give --out a "
            "folder of another name"
        )


def _combined(name: str) -> str:
    """Return the name of the dataset that combines a round with what it comes from."""
    return f"with_{name}"


def _base_names(table: pd.DataFrame, of: Sequence[str]) -> dict[str, str]:
    """Return the name of each image of a dataset in the part that it comes from."""

    def base(name: str) -> str:
        prefix = next(f"{part}_" for part in of[1:] if name.startswith(f"{part}_"))
        return name.removeprefix(prefix)

    added = table["given_subset"] == EXTRA
    return {
        name: base(name) if extra else name
        for name, extra in zip(table["image"], added, strict=True)
    }


def _taken(
    table: pd.DataFrame, bases: Mapping[str, str], prepared: PreparedData
) -> defaultdict[str, list[Place | None]]:
    """Return the annotated crops (y, x) by the name of their image; None stands for all of it."""
    taken: defaultdict[str, list[Place | None]] = defaultdict(list)
    for name in table.loc[table["annotated"] == 1, "image"]:
        taken[bases[name]].append(None)
        if crop := _CROP.fullmatch(bases[name]):
            starts = map(int, crop.groups()[1:])
            sizes = open_labels(prepared.mask(name)).shape[-2:]
            place = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
            taken[crop[1]].append(tuple(place))
    return taken


def _side(crop: int | str, model: TrainedModel, files: Sequence[Path]) -> int | None:
    """Return the side of the crops in pixels; None: whole images."""
    if crop == WHOLE:
        return None
    patch = int(model.recipe.patch_size * model.layout.downscale) if model.method.has_network else 1
    if isinstance(crop, int):
        if crop < patch:
            raise InputError(
                f"crops of {crop} pixels are smaller than the training patches of the model "
                f"({patch} pixels); give --crop at least {patch}"
            )
        return crop
    step = max(1, len(files) // MEASURED)
    diameters: list[float] = []
    for image in map(open_image, files[::step][:MEASURED]):
        labels = segment(model, image[:, *centre(image.shape[1:])])
        planes = labels.reshape(-1, *labels.shape[-2:])
        sizes = np.bincount(planes[len(planes) // 2].ravel())[1:]
        diameters += [*(2 * np.sqrt(sizes[sizes > 0] / np.pi))]
    wanted = WIDE * float(np.median(diameters)) if diameters else UNKNOWN
    side = -(-max(wanted, patch) // STEP) * STEP
    largest = max(max(open_image(path).shape[-2:]) for path in files)
    return int(side) if largest > LITTLE * side else None


def _write_parts(
    model: TrainedModel,
    images: Path,
    prepared: PreparedData,
    chosen: Sequence[Suggestion],
    folder: Path,
) -> None:
    """Write the images or crops, and their predicted masks, cut from those of whole images."""
    with TemporaryDirectory() as temporary:
        predictions = Predictions(Path(temporary))
        names = dict.fromkeys(each.image for each in chosen)
        predict_folder(model, images, names, predictions.folder, save_probabilities=False)
        for name, image, place, _ in chosen:
            metadata = read_metadata(prepared.image(image))
            known = {"images": open_image(prepared.image(image))}
            if prepared.clean(image).exists():
                known["clean"] = open_image(prepared.clean(image))
            if prepared.repeats(image).exists():
                known["second"] = open_repeats(prepared.repeats(image))[0]
            for kind, whole in known.items():
                part = np.ascontiguousarray(cut(whole, place))
                write_image(image_file(folder / kind, name), part, metadata)
            labels = cut(open_labels(predictions.file("labels", image)), place)
            # Consecutive from 1, as in a mask that a person paints.
            mask = ski.segmentation.relabel_sequential(labels)[0]
            mask = mask.astype(label_type(int(mask.max())))
            spatial = metadata.only(metadata.spatial_axes)
            write_labels(image_file(folder / "masks", name), mask, spatial)


def _write_table(chosen: Sequence[Suggestion], path: Path) -> None:
    rows = [
        (rank, each.name, each.image, *(along.start for along in each.place), each.confidence)
        for rank, each in enumerate(chosen, start=1)
    ]
    table = pd.DataFrame(rows, columns=["rank", "file", "image", "y", "x", "confidence"])
    table.to_csv(path, index=False, lineterminator="\n", float_format="%.3f")


def _next_config(
    config: Mapping[str, Any],
    run: Run,
    model: TrainedModel,
    folder: Path,
    unfinished: Path,
    chosen: Sequence[Suggestion],
    n_annotated: int,
) -> dict[str, Any]:
    """Return the config of the next study, to be read on top of that of the last one."""
    name, datasets = folder.absolute().name, config["datasets"]
    old = parts(datasets, run.dataset)
    spec: dict[str, Any] = {"source": "folder"}
    for kind in FOLDER_KEYS:
        if all(image_file(unfinished / kind, each.name).exists() for each in chosen):
            spec[kind] = str(folder / kind)
    metadata = read_metadata(image_file(unfinished / "images", chosen[0].name))
    spec |= {"dimensions": 3} if "Z" in metadata.axes else {}
    if metadata.colour:
        spec["colour"] = "rgb"
    elif "C" in metadata.axes:
        spec["channel"] = "all"
    scored = has_masks(datasets, run.dataset)
    if not scored:  # nothing else can be scored, nor can the threshold be chosen on anything else
        spec["split"] = {"cross_validate_below": len(chosen) + 1}
        n_images = len({each.image for each in chosen})
        if 3 <= n_images < len(chosen):
            spec["split"]["group"] = _GROUP
    methods = {run.method: _as_written(_method_of(config, run.method))}
    if model.method.has_network:
        methods[name] = _continued(config, model, folder)
    counted = all(_is_counted(datasets[part]) for part in old)
    return {
        "datasets": {
            **{part: dict(datasets[part]) for part in old},
            name: spec,
            # The first part is divided into training, validation and test images.
            _combined(name): {"source": "combine", "of": [*old, name] if scored else [name, *old]},
        },
        "recipe": config["recipe"],
        "methods": methods,
        "grid": {
            "datasets": [_combined(name)],
            "noises": [run.noise],
            "methods": list(methods),
            "n_annotated": ["all" if counted else n_annotated],
            "reference": run.method,
        },
    }


def _is_counted(spec: Mapping[str, Any]) -> bool:
    """Return whether the number of images of a dataset is known before it is prepared."""
    try:
        return count_in_advance(spec) is not None
    except InputError:  # its folder is relative to another one
        return True


def _continued(config: Mapping[str, Any], model: TrainedModel, folder: Path) -> dict[str, Any]:
    """Return the definition of the method that goes on from a model."""
    values = as_dict(model.recipe)
    recipes = {
        key: Recipe(**{field: value for field, value in each.items() if field != "finetune"})
        for key, each in config["recipes"].items()
    }
    recipe = next((key for key, each in recipes.items() if as_dict(each) == values), None)
    if recipe is None:
        raise InputError(
            f"the recipe that method '{model.method.name}' was trained by is not in the config any "
            "more; run the study again, or choose another method by --method"
        )
    written = _as_written(model.method) | {"init": str(folder / "model.pt"), "recipe": recipe}
    if model.recipe.rehearses(model.method, n_annotated=1):
        written["rehearse"] = model.method.rehearsed
    return written


def _as_written(method: Method) -> dict[str, Any]:
    """Return the definition of a method in a config, without defaults."""
    default = as_dict(Method(name=method.name))
    return {key: value for key, value in as_dict(method).items() if value != default[key]}


def _instructions(study: Path, folder: Path) -> str:
    """Return what to do next, as a comment in YAML."""
    lines = [
        f"What to do next, and the config of the next study ({folder / NEXT}).",
        "",
        f"1. Open each image of {folder / 'images'} with the mask of the same name in",
        f"   {folder / 'masks'}, in napari, Fiji or QuPath. Correct the mask (0 is background,",
        "   every object has its own number) and save it as tif under the same name. Delete image",
        "   and mask if you do not correct them: every mask that is left counts as annotation.",
        "2. Train again, in the folder in which you ran the last study, with its config if you",
        "   have one, by the first command in a clone and by the second elsewhere:",
        "",
        f"     snakemake --cores all --configfile YOUR_CONFIG.yaml {folder / NEXT}",
        f"     denoiseg-flow run --configfile config.yaml {folder / NEXT}",
        "",
        f"3. Look at {study / 'report.html'}. If it is not good enough yet, ask for more:",
        "",
        f"     denoiseg-flow annotate-next {study} --out ANOTHER_FOLDER",
        "",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
