"""Draw docs/images/rounds.jpg from the study that the notebook of the tutorials leaves behind.

python docs/images/rounds.py FOLDER_OF_THE_STUDY
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import skimage as ski
from matplotlib.figure import Figure

PREDICTED, CORRECTED = (1, 0.85, 0), (0, 0.9, 0.4)  # colours of outlines


def main(study: Path) -> None:
    """Write the picture: suggested crops, the masks to start from, and the corrected ones."""
    crops = pd.read_csv(study / "round1/suggestions.csv")
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    rows = figure.subplots(len(crops), 3)
    for row, crop in zip(rows, crops.itertuples(), strict=True):
        image, predicted = (
            ski.io.imread(study / f"round1/{kind}/{crop.file}.tif") for kind in ("images", "masks")
        )
        height, width = image.shape
        annotated = ski.io.imread(study / f"withheld_masks/{crop.image}.png")
        corrected = annotated[crop.y : crop.y + height, crop.x : crop.x + width]
        grey = np.clip(image / np.percentile(image, 99.8), 0, 1)
        pictures = {
            f"round1/images/{crop.file}.tif": np.dstack([grey] * 3),
            "its mask to start from": _outlined(grey, predicted, PREDICTED),
            "its mask, corrected": _outlined(grey, corrected, CORRECTED),
        }
        for axis, (title, picture) in zip(row, pictures.items(), strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
            axis.set_title(title, fontsize=8)
    figure.savefig(Path(__file__).with_suffix(".jpg"), dpi=110, pil_kwargs={"quality": 85})


def _outlined(image: np.ndarray, labels: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    return ski.segmentation.mark_boundaries(image, labels, color=colour, mode="inner")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
