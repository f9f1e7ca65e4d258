"""What is in a folder of results, and the layers of each image in it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from denoiseg_flow.data.layout import Predictions, PreparedData, image_file
from denoiseg_flow.data.store import read_metadata
from denoiseg_flow.deployment.csv_tables import table_of
from denoiseg_flow.deployment.ledger import Record
from denoiseg_flow.errors import InputError
from denoiseg_flow.napari_plugin.layers import Layer, image_layers, labels_layer
from denoiseg_flow.study.grid import Run, trained_runs
from denoiseg_flow.study.provenance import is_results, read_config, results_in


class Part(Protocol):
    """Images of one kind in a folder of results."""

    name: str

    def images(self) -> list[str]:
        """Return the names of the images."""
        ...

    def runs(self) -> Sequence[str]:
        """Return the names of the finished runs, whose predictions may be shown."""
        ...

    def layers(self, image: str, run: str | None) -> list[Layer]:
        """Return all that there is of an image, with the predictions of a run.

        Raises
        ------
        InputError
            If a file cannot be read.
        """
        ...


def find_parts(folder: Path) -> Sequence[Part]:
    """Return the parts of a folder.

    Parameters
    ----------
    folder
        Folder of a study, its folder of results, or a folder of predicted new images.

    Raises
    ------
    InputError
        If it is none of these, or nothing is in it yet.
    """
    if Record(folder).path.is_file() and Record(folder).is_one():
        return [PredictedImages(folder)]
    results = results_in(folder)
    if not is_results(results):
        raise InputError(
            f"{folder} has no results; choose the folder of a study, its folder 'results', or a "
            "folder that 'denoiseg-flow predict' wrote"
        )
    noisy = sorted(path for path in results.glob("data/*/noisy/*") if path.is_dir())
    if not noisy:
        raise InputError(f"{results} has no prepared images yet; let the study run, then try again")
    return [StudyImages(results, path.parents[1].name, path.name) for path in noisy]


class StudyImages:
    """The images of a dataset at one noise level of a study."""

    def __init__(self, results: Path, dataset: str, noise: str) -> None:
        self.results, self.dataset, self.noise = results, dataset, noise
        self.name = f"{dataset}, {noise}"
        self._prepared = PreparedData(results / "data" / dataset / "prepared")
        self._manifest = self._prepared.read_manifest().set_index("image")

    def images(self) -> list[str]:
        """Return the names of all images of the dataset."""
        return [*self._manifest.index]

    def runs(self) -> list[str]:
        """Return the finished runs on these images, named by their methods if that is enough."""
        return [*self._runs()]

    def layers(self, image: str, run: str | None) -> list[Layer]:
        """Return an image, its noisy and clean version and its mask, and what a run predicted."""
        prepared, colour_type = self._prepared, self._manifest.loc[image, "dtype"]
        pictures = {image: prepared.image(image), f"{image} clean": prepared.clean(image)}
        level = read_config(self.results)["noises"].get(self.noise, {})
        if level.get("kind") != "none":
            noisy = self.results / "data" / self.dataset / "noisy" / self.noise
            pictures[f"{image} {self.noise}"] = image_file(noisy, image)
        masks = {f"{image} mask": prepared.mask(image)}
        if run is not None:
            made = Predictions(self.results / "runs" / self._runs()[run].folder / "predictions")
            pictures[f"{image} {run} denoised"] = made.file("denoised", image)
            masks[f"{image} {run} labels"] = made.file("labels", image)
        shown = [
            layer
            for name, path in pictures.items()
            if path.exists()
            for layer in image_layers(path, name, colour_type=colour_type)
        ]
        return shown + [labels_layer(path, name) for name, path in masks.items() if path.exists()]

    def _runs(self) -> dict[str, Run]:
        """Return the finished runs by name."""
        axes = (self.dataset, self.noise)
        runs = [run for run in trained_runs(self.results) if (run.dataset, run.noise) == axes]
        times = Counter(run.method for run in runs)
        return {
            run.method
            if times[run.method] == 1
            else f"{run.method} annotated{run.n_annotated} seed{run.seed}": run
            for run in runs
        }


class PredictedImages:
    """New images that a model has predicted, see ``denoiseg-flow predict``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.absolute().name
        entries = Record(folder).read()
        self._entries = {name: entry for name, entry in entries.items() if not entry.failed}

    def images(self) -> list[str]:
        """Return the names of the images that were predicted."""
        return sorted(self._entries)

    def runs(self) -> list[str]:
        """Return nothing: one model predicted all."""
        return []

    def layers(self, image: str, run: str | None) -> list[Layer]:
        """Return an image, unless its file has been moved, and its denoised image and labels."""
        entry = self._entries[image]
        made = {path.parent.name: path for path in entry.files(self.folder) if path.exists()}
        known = next(
            (read_metadata(made[kind]) for kind in ("denoised", "labels") if kind in made), None
        )
        shown = []
        if (source := Path(entry.source)).exists():
            shown += image_layers(source, image, like=known)
        if "denoised" in made:
            shown += image_layers(made["denoised"], f"{image} denoised")
        if "labels" in made:
            table = table_of(image, self.folder)
            objects = pd.read_csv(table) if table.exists() else None
            shown.append(labels_layer(made["labels"], f"{image} labels", objects))
        return shown
