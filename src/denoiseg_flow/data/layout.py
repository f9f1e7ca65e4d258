"""Folders that the jobs of a study exchange, and the files in them.

Images of the workflow are ``{image}.tif``, whatever the format of the user's files.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from denoiseg_flow.data import manifest


def image_file(folder: Path, image: str) -> Path:
    """Return the file of an image in a folder of the workflow."""
    return folder / f"{image}.tif"


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset: a manifest and images, and what is known of these.

    That is masks, clean images and further acquisitions.
    """

    folder: Path

    #: The folders of images, masks, clean images and further acquisitions in it.
    KINDS = ("images", "masks", "clean", "repeats")

    @property
    def manifest_file(self) -> Path:
        """The file of the table of images, see :mod:`~denoiseg_flow.data.manifest`."""
        return self.folder / "manifest.tsv"

    def read_manifest(self) -> pd.DataFrame:
        """Return the table of images; raises like :func:`manifest.read`."""
        return manifest.read(self.manifest_file)

    def image(self, name: str) -> Path:
        """Return the file of an image."""
        return image_file(self.folder / "images", name)

    def mask(self, name: str) -> Path:
        """Return the file of the mask of an image, which exists if the image is annotated."""
        return image_file(self.folder / "masks", name)

    def clean(self, name: str) -> Path:
        """Return the file of the clean image, which exists if it is known."""
        return image_file(self.folder / "clean", name)

    def repeats(self, name: str) -> Path:
        """Return the file of further acquisitions of an image, which exists if there are any."""
        return image_file(self.folder / "repeats", name)

    def is_repeated(self) -> bool:
        """Return whether there are further acquisitions of every image."""
        images = (self.folder / "images").glob("*.tif")
        return all(self.repeats(path.stem).exists() for path in images)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run."""

    folder: Path

    #: Possible folders in it; a method predicts some of these.
    KINDS = ("denoised", "j_invariant", "labels", "probabilities")

    def kinds(self) -> list[str]:
        """Return the kinds of predictions that exist, in the order of :attr:`KINDS`."""
        return [kind for kind in self.KINDS if (self.folder / kind).is_dir()]

    def file(self, kind: str, image: str) -> Path:
        """Return the file of a prediction of an image."""
        return image_file(self.folder / kind, image)

    @property
    def losses_file(self) -> Path:
        """The table of self-supervised losses, which exists if they were measured."""
        return self.folder / "self_supervision.tsv"

    def images(self) -> set[str]:
        """Return the names of the images with predictions."""
        return {path.stem for path in self.folder.glob("*/*.tif")}


def input_folder(path: Path) -> Path:
    """Return the folder of the images to read: ``path``, or the denoised images of a run in it."""
    denoised = path / "denoised"
    return denoised if denoised.is_dir() else path
