"""Correct the masks of a round of annotation, see ``denoiseg-flow annotate-next``."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from denoiseg_flow.data.layout import image_file
from denoiseg_flow.data.store import read_metadata, write_labels
from denoiseg_flow.data.validation import check_mask
from denoiseg_flow.deployment.annotation_round import SUGGESTIONS
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.methods.instances import label_type
from denoiseg_flow.napari_plugin.layers import Layer, image_layers, labels_layer

#: Folder beside images and masks, which no config reads: the masks before their correction.
BEFORE = "before_correction"


class Crop:
    """An image or crop of a round, and its mask to correct."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.image = image_file(folder / "images", name)
        self.mask = image_file(folder / "masks", name)
        self.before = image_file(folder / BEFORE, name)
        self._opened: str | None = None

    @property
    def is_corrected(self) -> bool:
        """Whether a mask was saved here, with or without changes."""
        return self.before.exists()

    def layers(self) -> list[Layer]:
        """Return the image and, last, the labels to correct; remember the state of the mask.

        The labels are int32, so that regions to ignore can be painted with a negative number.

        Raises
        ------
        InputError
            If a file cannot be read.
        """
        self._opened = checksums.digest(self.mask)
        labels, arguments, kind = labels_layer(self.mask, f"{self.name} mask")
        mask = check_mask(labels, str(self.mask))
        return [*image_layers(self.image, self.name), (mask, arguments, kind)]

    def save(self, labels: np.ndarray) -> None:
        """Write the corrected mask under the name that the config of the round reads.

        The mask that was there at first is kept in the folder :data:`BEFORE`.

        Parameters
        ----------
        labels
            ([z,] y, x), 0 for background and negative for pixels to ignore.

        Raises
        ------
        InputError
            If the mask has been changed by somebody else since it was opened, or ``labels`` are no
            mask.
        """
        if self.mask.exists() and checksums.digest(self.mask) != self._opened:
            raise InputError(
                f"{self.mask} was changed by another program after it was opened here, and is not "
                "written over; rename it to save the mask that you see, or open the image again"
            )
        checked = check_mask(labels, f"of {self.name}")
        if checked.min() >= 0:
            checked = checked.astype(label_type(int(checked.max())))
        metadata = read_metadata(self.image)
        with TemporaryDirectory(dir=self.folder) as temporary:
            written = Path(temporary, self.mask.name)
            write_labels(written, checked, metadata.only(metadata.spatial_axes))
            if self.mask.exists() and not self.before.exists():
                self.before.parent.mkdir(exist_ok=True)
                shutil.copy2(self.mask, self.before)
            os.replace(written, self.mask)
        self._opened = checksums.digest(self.mask)


def find_crops(folder: Path) -> list[Crop]:
    """Return the images and crops of a round, the one to correct first on top.

    Those whose image or mask has been deleted are left out.

    Raises
    ------
    InputError
        If the folder is not one of ``denoiseg-flow annotate-next``.
    """
    table = folder / SUGGESTIONS
    try:
        names = pd.read_csv(table, dtype=str, keep_default_na=False)["file"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} is no folder of suggestions (it has no readable {SUGGESTIONS}); choose one "
            "that 'denoiseg-flow annotate-next' wrote"
        ) from error
    crops = [Crop(folder, name) for name in names]
    return [crop for crop in crops if crop.image.exists() and crop.mask.exists()]
