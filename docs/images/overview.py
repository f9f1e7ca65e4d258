"""Draw docs/images/overview.jpg from the study that the notebook of the tutorials leaves behind.

python docs/images/overview.py FOLDER_OF_THE_STUDY
"""

import sys
from pathlib import Path

import numpy as np
import skimage as ski
from matplotlib.figure import Figure

SHOWN, SIDE = (1, 6, 5), 160
RUN = "results/runs/my_images/n0/denoiseg_pretrained/annotated2/seed1/predictions"


def coloured(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (y, x, 3) with the objects in the colours of their numbers, from 0 to 1."""
    grey = ski.exposure.rescale_intensity(image.astype(float), "image", (0, 1))[..., np.newaxis]
    colours = np.random.default_rng(3).uniform(0.2, 1, (labels.max() + 1, 3))
    return np.where(labels[..., np.newaxis] > 0, 0.5 * grey + 0.5 * colours[labels], grey)


def numbered_alike(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Give each object the number of the annotated one below most of it, for the same colour."""
    numbers = np.zeros(labels.max() + 1, int)
    for number in np.unique(labels)[1:]:
        below = np.bincount(truth[labels == number], minlength=2)[1:]
        numbers[number] = 1 + below.argmax() if below.any() else truth.max() + number
    return numbers[labels]


def main(study: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(8, 6.3), layout="constrained")
    for row, number in zip(figure.subplots(len(SHOWN), 4), SHOWN, strict=True):
        name = f"nuclei_{number}"
        image, denoised, labels, mask = (
            ski.io.imread(study / file)
            for file in (
                f"images/{name}.tif",
                f"{RUN}/denoised/{name}.tif",
                f"{RUN}/labels/{name}.tif",
                f"withheld_masks/{name}.png",
            )
        )
        pictures = {
            "image": image,
            "denoised": denoised,
            "nuclei found": coloured(denoised, numbered_alike(labels, mask)),
            "annotated by hand": coloured(denoised, mask),
        }
        for axis, (title, picture) in zip(row, pictures.items(), strict=True):
            low, high = np.percentile(picture, (0.5, 99.8))
            axis.imshow(picture[:SIDE, :SIDE], cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
            if number == SHOWN[0]:
                axis.set_title(title)
    figure.savefig(Path(__file__).with_suffix(".jpg"), dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
