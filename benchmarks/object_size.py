"""Measure what a pretrained network finds in images with larger and larger objects.

The annotated validation images of a study of the workflow (`--results`) are enlarged. The network
that was pretrained on simulated images segments them without any annotation, at their own size and
at the size that `downscale: auto` chooses from its prediction.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
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
from denoiseg_flow.methods.networks import at_reduced_size
from denoiseg_flow.methods.networks.downscaled import reduce_image
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
    options.add_argument("--factors", type=int, nargs="+", default=[1, 2, 3, 4, 6])
    options.add_argument("--images", type=int, default=20, help="at most")
    return options.parse_args()


def enlarged(image: np.ndarray, labels: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of an image (y, x) and its labels, ``factor`` times as large."""
    shape = [side * factor for side in image.shape]
    larger = ski.transform.resize(image.astype(np.float32), shape, order=1)
    repeated = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    return centre_crop(larger, SIDE), centre_crop(repeated, SIDE)


def at_size(model: TrainedModel, images: Sequence[np.ndarray], downscale: int) -> TrainedModel:
    """Return the pretrained model for images (1, y, x) that it reads at a reduced size."""
    layout = replace(model.layout, downscale=downscale)
    (levels,) = measure(reduce_image(image, layout.reduction) for image in images)
    own = Normalisation.of_channels([(levels.mean, levels.std)])
    network = at_reduced_size(model.network, layout)
    return replace(model, network=network, layout=layout, normalisation=own)


def score(
    model: TrainedModel, pairs: Sequence[tuple[np.ndarray, np.ndarray]], downscale: int
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
        pairs = [enlarged(*each, factor) for each in originals]
        with TemporaryDirectory() as folder:
            files = [Path(folder, f"{name}.tif") for name in names]
            for file, (image, _) in zip(files, pairs, strict=True):
                write_array(file, image)
            chosen = find_downscale(model, files, PATCH)
        scores = [score(model, pairs, downscale) for downscale in (1, chosen)]
        rows.append((factor, chosen, *scores))
    columns = ("enlarged", "downscale: auto", "AP at full size", "AP with downscale: auto")
    notes = record.machine(options.threads)
    notes.append(f"{len(names)} validation images of {options.dataset}, {options.noise}.")
    text = [
        (str(factor), str(chosen), *(f"{ap:.3f}" for ap in aps)) for factor, chosen, *aps in rows
    ]
    body = record.markdown_table(columns, text)
    table = pd.DataFrame(rows, columns=columns)
    record.write(options.out / "object_size", "Larger objects", table, body, notes)


if __name__ == "__main__":
    main()
