"""Draw docs/images/simulated.jpg: varied simulated images, beside real ones.

    python docs/images/simulated.py FOLDER_OF_REAL_IMAGES

The real images in the picture are from BBBC038 (Data Science Bowl 2018, public domain).
"""

import sys
from pathlib import Path

import numpy as np
import skimage as ski

from denoiseg_flow.data.simulated.simulator import simulate

SIDE, COLUMNS, GAP = 128, 8, 4
ROWS = ("nuclei", "blobs", "rods", "membranes")


def grey(image: np.ndarray) -> np.ndarray:
    """Return (y, x) with its grey levels between 0 and 255, uint8."""
    low, high = np.percentile(image, (0.5, 99.8))
    return np.uint8(255 * np.clip((image - low) / (high - low), 0, 1) ** 0.8)


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (y, x, 3) with the outlines of objects in yellow."""
    colours = np.stack([grey(image)] * 3, axis=-1)
    colours[ski.segmentation.find_boundaries(labels, mode="inner")] = (255, 200, 0)
    return colours


def row(tiles: list[np.ndarray]) -> np.ndarray:
    """Return tiles beside each other."""
    padded = [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles]
    return np.hstack(padded)


def real_row(folder: Path) -> np.ndarray:
    """Return the centres of eight images of a folder."""
    files = sorted(folder.iterdir())
    tiles = []
    for path in files[:: len(files) // COLUMNS][:COLUMNS]:
        image = ski.io.imread(path)
        top, left = ((length - SIDE) // 2 for length in image.shape)
        part = image[top : top + SIDE, left : left + SIDE]
        tiles.append(outlined(part, np.zeros(part.shape, int)))
    return row(tiles)


def main(folder: Path) -> None:
    """Write the picture."""
    rows = [real_row(folder)]
    for structure in ROWS:
        items = simulate(COLUMNS, SIDE, structure=structure, varied=True, seed=7)
        rows.append(row([outlined(item.image, item.mask) for item in items]))
    ski.io.imsave(Path(__file__).with_suffix(".jpg"), np.vstack(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
