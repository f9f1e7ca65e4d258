"""Measure what a pretrained network finds in images unlike those that it was trained on.

The annotated validation images of a study of the workflow (`--results`) are changed: their size,
their grey levels, their sharpness, their noise. The network that was pretrained on simulated images
segments them without any annotation: at their own size, at the size that `downscale: auto` chooses
from its prediction, and there at two sizes as with `multiscale`.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import record
import scipy
import skimage as ski
import torch
from PIL import Image
from systems import parser

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData, image_file
from denoiseg_flow.data.store import centre_crop, open_image, open_labels, write_array
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods.networks import resized_for
from denoiseg_flow.methods.networks.resized import reduce_image, reduce_labels
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import label_maps, predict_maps
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.training.object_size import find_downscale

SIDE = 768  # pixels: of larger images, the centre is segmented
PATCH = 96  # side of the training patches of the recipe 'finetune'
SIZES = [Fraction(each) for each in ("1/4", "1/3", "1/2", 2, 3, 4, 6)]

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def unit(image: np.ndarray) -> np.ndarray:
    """Return an image with grey levels from 0 to 1."""
    scaled: np.ndarray = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
    return scaled


def white(image: np.ndarray, random: np.random.Generator, sigma: float = 20) -> np.ndarray:
    """Add white noise."""
    return image + random.normal(0, sigma, image.shape)


def correlated(
    image: np.ndarray, random: np.random.Generator, sigma: float, width: float
) -> np.ndarray:
    """Add white noise that was blurred by a Gaussian of a width in pixels."""
    noise = scipy.ndimage.gaussian_filter(random.normal(size=image.shape), width)
    return image + sigma * noise / noise.std()


def rows(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add noise, and an offset to each row, as line scanners and some cameras do."""
    return white(image, random, 10) + random.normal(0, 5, (len(image), 1))


def bright_pixels(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Make one pixel in a hundred as bright as the brightest."""
    return np.where(random.random(image.shape) < 0.01, image.max(), image)


def slope(image: np.ndarray) -> np.ndarray:
    """Add a background that grows from one corner to the other by the range of the image."""
    y, x = np.ogrid[0 : 0.5 : image.shape[0] * 1j, 0 : 0.5 : image.shape[1] * 1j]
    return image + np.ptp(image) * (y + x)


def vignette(image: np.ndarray) -> np.ndarray:
    """Dim the corners to a fifth."""
    y, x = np.ogrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return image * (1 - 0.4 * (y**2 + x**2))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Save an image as a JPEG and read it again."""
    file = io.BytesIO()
    Image.fromarray(np.round(255 * unit(image)).astype(np.uint8)).save(
        file, "JPEG", quality=quality
    )
    return np.array(Image.open(file))


def blurred(image: np.ndarray, width: float) -> np.ndarray:
    """Blur an image by a Gaussian of a width in pixels."""
    soft: np.ndarray = scipy.ndimage.gaussian_filter(image, width)
    return soft


CHANGES: dict[str, Change] = {
    "none": lambda image, _: image,
    "grey levels to the power of 0.5": lambda image, _: np.sqrt(unit(image)),
    "grey levels squared": lambda image, _: unit(image) ** 2,
    "the brightest two thirds of the range saturated": lambda image, _: np.minimum(
        unit(image), 1 / 3
    ),
    "16 grey levels": lambda image, _: np.round(16 * unit(image)),
    "background that grows by the range of the image": lambda image, _: slope(image),
    "corners with a fifth of the light": lambda image, _: vignette(image),
    "blur of 2 pixels": lambda image, _: blurred(image, 2),
    "blur of 3 pixels": lambda image, _: blurred(image, 3),
    "haze of 20 pixels": lambda image, _: image + blurred(image, 20),
    "sharpened": lambda image, _: image + 1.5 * (image - blurred(image, 2)),
    "JPEG of quality 50": lambda image, _: jpeg(image, 50),
    "JPEG of quality 20": lambda image, _: jpeg(image, 20),
    "one bright pixel in a hundred": bright_pixels,
    "10 photons in the brightest pixel": lambda image, random: random.poisson(10 * unit(image)),
    "white noise of 20": white,
    "white noise of 40": partial(white, sigma=40),
    "noise of 20, JPEG of quality 60": lambda image, random: jpeg(white(image, random), 60),
    "noise of 20, mean of two pixels": lambda image, random: scipy.ndimage.uniform_filter(
        white(image, random), (1, 2)
    ),
    "noise of 20, Gaussian filter of 1 pixel": lambda image, random: blurred(
        white(image, random), 1
    ),
    "noise of 20, median filter of 3 x 3": lambda image, random: scipy.ndimage.median_filter(
        white(image, random), 3
    ),
    "noise of 10, rows with offsets of 5": rows,
    "noise of 8, correlated over 1 pixel": partial(correlated, sigma=8, width=1),
    "noise of 20, correlated over 0.5 pixels": partial(correlated, sigma=20, width=0.5),
    "noise of 20, correlated over 1 pixel": partial(correlated, sigma=20, width=1),
    "noise of 20, correlated over 2 pixels": partial(correlated, sigma=20, width=2),
}
"""What is done to an image (y, x), float32; noise in grey levels."""


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--results", type=Path, default=Path("results"), help="of a study")
    options.add_argument("--dataset", default="dsb2018")
    options.add_argument("--noise", default="n0")
    options.add_argument("--seed", type=int, default=1, help="whose validation images are taken")
    options.add_argument("--sizes", type=Fraction, nargs="*", default=SIZES, help="such as 1/3 3")
    options.add_argument("--changes", nargs="*", default=list(CHANGES), choices=CHANGES)
    options.add_argument("--images", type=int, default=20, help="at most")
    options.add_argument("--model", type=Path, help="instead of the one in the package")
    return options.parse_args()


def at_scale(
    image: np.ndarray, labels: np.ndarray, scale: Fraction
) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of an image (y, x) and its labels, ``scale`` times as large.

    ``scale`` or its reciprocal is a whole number.
    """
    if scale < 1:
        blocks = (scale.denominator,) * 2
        return reduce_image(image[None], blocks)[0], reduce_labels(labels, blocks)
    factor = scale.numerator
    shape = [side * factor for side in image.shape]
    larger = ski.transform.resize(image, shape, order=1)
    repeated = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    return centre_crop(larger, SIDE), centre_crop(repeated, SIDE)


def at_size(model: TrainedModel, images: Sequence[np.ndarray], downscale: float) -> TrainedModel:
    """Return the pretrained model for images (1, y, x) that it reads at another size."""
    layout = replace(model.layout, downscale=downscale)
    (levels,) = measure(reduce_image(image, layout.reduction) for image in images)
    own = Normalisation.of_channels([(levels.mean, levels.std)])
    network = resized_for(layout, model.network)
    return replace(model, network=network, layout=layout, normalisation=own)


def score(model: TrainedModel, images: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Return the mean AP on images (1, y, x) with known labels (y, x)."""
    labels = (label_maps(model, maps) for maps in predict_maps(model, images))
    return float(np.nanmean(list(map(average_precision, truths, labels))))


def measure_change(
    model: TrainedModel, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float, float, float]:
    """Return the chosen ``downscale``, and AP on images (y, x): without, with it, multiscale."""
    images, truths = [image[None] for image, _ in pairs], [truth for _, truth in pairs]
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.tif") for number in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_array(file, image)
        chosen = find_downscale(model, files, PATCH)
    both = replace(model, recipe=replace(model.recipe, multiscale=True))
    own, auto, multiscale = (
        score(at_size(each, images, size), images, truths)
        for each, size in ((model, 1), (model, chosen), (both, chosen))
    )
    return chosen, own, auto, multiscale


def main() -> None:
    """Measure and write ``robustness.csv`` and ``robustness.md``."""
    options = read_options()
    torch.set_num_threads(options.threads)
    data = options.results / "data" / options.dataset
    split = manifest.read(data / "split" / f"seed{options.seed}.tsv")
    names = split.loc[(split["subset"] == "val") & (split["annotated"] == 1), "image"]
    names = names[:: -(-len(names) // options.images)]
    prepared, noisy = PreparedData(data / "prepared"), data / "noisy" / options.noise
    originals = [
        (
            open_image(image_file(noisy, name))[0].astype(np.float32),
            open_labels(prepared.mask(name)),
        )
        for name in names
    ]
    model = load_model(options.model) if options.model else load_pretrained("simulated_objects")
    notes = record.machine(options.threads)
    found = []
    for size in options.sizes:
        pairs = [at_scale(*each, size) for each in originals]
        found.append((f"size {size}", *measure_change(model, pairs)))
    for name in options.changes:
        random = np.random.default_rng(0)
        pairs = [
            (CHANGES[name](image, random).astype(np.float32), truth) for image, truth in originals
        ]
        found.append((name, *measure_change(model, pairs)))
    columns = ("change", "downscale", "AP", "AP with downscale: auto", "AP with multiscale as well")
    notes.append(f"{len(names)} validation images of {options.dataset}, {options.noise}.")
    text = [(name, str(chosen), *(f"{ap:.3f}" for ap in aps)) for name, chosen, *aps in found]
    body = record.markdown_table(columns, text)
    table = pd.DataFrame(found, columns=columns)
    record.write(options.out / "robustness", "Images of other kinds", table, body, notes)


if __name__ == "__main__":
    main()
