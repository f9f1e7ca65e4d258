"""Measure what a pretrained network finds in images with larger or smaller objects.

The annotated validation images of a study of the workflow (`--results`) are resized, and noise is
added. The network that was pretrained on simulated images segments them without any annotation, at
their own size and at the size that `downscale: auto` chooses from its prediction.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import record
import skimage as ski
import torch
from systems import parser

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData, image_file
from denoiseg_flow.data.store import centre_crop, open_image, open_labels, write_array
from denoiseg_flow.evaluation.grey_levels import measure
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods.networks import resized_for
from denoiseg_flow.methods.networks.resized import reduce_image, reduce_labels
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import label_maps, predict_maps
from denoiseg_flow.models.weights import load_pretrained
from denoiseg_flow.training.object_size import find_downscale

SIDE = 768  # pixels: of larger images, the centre is segmented
PATCH = 96  # side of the training patches of the recipe 'finetune'


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--results", type=Path, default=Path("results"), help="of a study")
    options.add_argument("--dataset", default="dsb2018")
    options.add_argument("--noise", default="n0")
    options.add_argument("--seed", type=int, default=1, help="whose validation images are taken")
    factors = [Fraction(each) for each in ("1/4", "1/3", "1/2", 1, 2, 3, 4, 6)]
    options.add_argument(
        "--factors", type=Fraction, nargs="+", default=factors, help="such as 1/3 or 3"
    )
    options.add_argument("--sigma", type=float, default=0.0, help="of noise after resizing")
    options.add_argument("--images", type=int, default=20, help="at most")
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
    larger = ski.transform.resize(image.astype(np.float32), shape, order=1)
    repeated = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    return centre_crop(larger, SIDE), centre_crop(repeated, SIDE)


def at_size(model: TrainedModel, images: Sequence[np.ndarray], downscale: float) -> TrainedModel:
    """Return the pretrained model for images (1, y, x) that it reads at another size."""
    layout = replace(model.layout, downscale=downscale)
    (levels,) = measure(reduce_image(image, layout.reduction) for image in images)
    own = Normalisation.of_channels([(levels.mean, levels.std)])
    network = resized_for(layout, model.network)
    return replace(model, network=network, layout=layout, normalisation=own)


def score(
    model: TrainedModel, pairs: Sequence[tuple[np.ndarray, np.ndarray]], downscale: float
) -> float:
    """Return the mean AP on pairs of image and labels (y, x)."""
    images = [image[None] for image, _ in pairs]
    sized = at_size(model, images, downscale)
    labels = (label_maps(sized, maps) for maps in predict_maps(sized, images))
    truths = (truth for _, truth in pairs)
    return float(np.nanmean(list(map(average_precision, truths, labels))))


def main() -> None:
    """Measure and write ``object_size.csv`` and ``object_size.md``."""
    options = read_options()
    torch.set_num_threads(options.threads)
    data = options.results / "data" / options.dataset
    split = manifest.read(data / "split" / f"seed{options.seed}.tsv")
    names = split.loc[(split["subset"] == "val") & (split["annotated"] == 1), "image"]
    names = names[:: -(-len(names) // options.images)]
    prepared, noisy = PreparedData(data / "prepared"), data / "noisy" / options.noise
    originals = [
        (open_image(image_file(noisy, name))[0], open_labels(prepared.mask(name))) for name in names
    ]
    model = load_pretrained("simulated_objects")
    rows = []
    for factor in options.factors:
        resized_pairs = (at_scale(*each, factor) for each in originals)
        random = np.random.default_rng(0)
        pairs = [
            (image + random.normal(0, options.sigma, image.shape).astype(np.float32), truth)
            for image, truth in resized_pairs
        ]
        with TemporaryDirectory() as folder:
            files = [Path(folder, f"{name}.tif") for name in names]
            for file, (image, _) in zip(files, pairs, strict=True):
                write_array(file, image)
            chosen = find_downscale(model, files, PATCH)
        scores = [score(model, pairs, downscale) for downscale in (1, chosen)]
        rows.append((factor, chosen, *scores))
    columns = ("scale", "downscale: auto", "AP at their size", "AP with downscale: auto")
    notes = record.machine(options.threads)
    data_of = f"{options.dataset}, {options.noise}, with noise of {options.sigma} added"
    notes.append(f"{len(names)} validation images of {data_of}.")
    text = [
        (str(factor), str(chosen), *(f"{ap:.3f}" for ap in aps)) for factor, chosen, *aps in rows
    ]
    body = record.markdown_table(columns, text)
    table = pd.DataFrame(rows, columns=columns)
    record.write(options.out / "object_size", "Larger and smaller objects", table, body, notes)


if __name__ == "__main__":
    main()
