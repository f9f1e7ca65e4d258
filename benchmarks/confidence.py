"""Compare measures of how far the labels of an image can be trusted, without annotation.

A study of the workflow (`--results`) has a model and annotated validation images: how well does a
measure rank them by AP (Spearman correlation)? Photographs of other things, normalised by their own
grey levels, should have lower values: how often has a validation image a higher one, and which cut
divides them best? That of the last row is `confidence.LOW`.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import record
import scipy
import skimage as ski
import torch
from systems import parser

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData, image_file
from denoiseg_flow.data.store import open_image, open_labels
from denoiseg_flow.evaluation.annotate_next import entropy
from denoiseg_flow.evaluation.confidence import confidence, object_confidences
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.evaluation.overlap import object_overlap
from denoiseg_flow.methods.classes import DISTANCE, FOREGROUND
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.models.model import TrainedModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.normalisation import Normalisation
from denoiseg_flow.models.prediction import predict_maps

OTHERS = "other"
# Photographs that come with scikit-image. Its coins are bright objects on dark ground, so they are
# none of these.
PICTURES = (
    "brick", "camera", "cell", "grass", "gravel", "immunohistochemistry", "moon", "page", "retina",
    "text",
)  # fmt: skip
SIDE = 256
LOOSE, STRICT = 0.05, 0.6  # foreground thresholds to compare labels at
NEAR = 3  # pixels around objects
MEASURES = {
    "entropy": "1 - mean entropy / log2(3)",
    "entropy near objects": "the same in objects and 3 pixels around them",
    "foreground": "mean over objects of mean p(foreground)",
    "thresholds": f"mean IoU of objects at thresholds {LOOSE} and {STRICT}",
    "mirrored": "mean IoU of objects of the image and of its mirror image",
    "confidence": "mean over objects of IoU with the mirror image * p(foreground)",
}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--results", type=Path, default=Path("results"), help="of a study")
    options.add_argument("--dataset", default="dsb2018")
    options.add_argument("--noises", nargs="+", default=["n0", "n20"])
    options.add_argument("--run", default="pretrained/annotated0/seed1", help="method and so on")
    return options.parse_args()


def similarity(labels: np.ndarray, others: np.ndarray) -> float:
    """Return the mean over objects of the IoU with the most similar other object; 0 if none."""
    best = object_overlap(labels, others).best_iou()
    return float(best.mean()) if len(best) else 0.0


def measure(model: TrainedModel, image: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return the labels of an image (channel, y, x), and all measures of them."""
    chosen, instances = model.threshold, model.recipe.instances
    assert chosen is not None
    maps, mirrored = predict_maps(model, [image, np.ascontiguousarray(image[..., ::-1])])
    cuts = (chosen.value, LOOSE, STRICT)
    labels, loose, strict = label_instances(maps, cuts, instances, chosen.prominence)
    again = next(label_instances(mirrored, cuts[:1], instances, chosen.prominence))[..., ::-1]
    uncertain = entropy(maps[:DISTANCE]) / np.log2(DISTANCE)
    near = scipy.ndimage.binary_dilation(labels > 0, iterations=NEAR)
    numbers = np.unique(labels[labels > 0])
    means = scipy.ndimage.mean(maps[FOREGROUND], labels, numbers)
    values = (
        1 - uncertain.mean(),
        1 - uncertain[near].mean() if near.any() else 0.0,
        np.mean(means) if len(numbers) else 0.0,
        similarity(loose, strict),
        similarity(labels, again),
        confidence(object_confidences(model, image, labels), len(numbers)),
    )
    return labels, dict(zip(MEASURES, map(float, values), strict=True))


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and centre (1, y, x) of each picture in grey."""
    for name in PICTURES:
        picture = getattr(ski.data, name)()
        grey = ski.color.rgb2gray(picture) if picture.ndim == 3 else picture
        top, left = ((size - min(size, SIDE)) // 2 for size in grey.shape)
        yield name, grey[None, top : top + SIDE, left : left + SIDE].astype(np.float32)


def rows(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield noise level (or :data:`OTHERS`), image, AP and all measures of each image."""
    data = options.results / "data" / options.dataset
    seed = options.run.rpartition("/")[2]
    split = manifest.read(data / "split" / f"{seed}.tsv")
    annotated = (split["subset"] == "val") & (split["annotated"] == 1)
    for noise in options.noises:
        model = load_model(
            options.results / f"runs/{options.dataset}/{noise}/{options.run}/model.pt"
        )
        for name in split.loc[annotated, "image"]:
            truth = open_labels(PreparedData(data / "prepared").mask(name))
            labels, values = measure(model, open_image(image_file(data / "noisy" / noise, name)))
            yield {"noise": noise, "image": name, "AP": average_precision(truth, labels)} | values
    for name, image in pictures():
        own = Normalisation((float(image.mean()),), (float(image.std()),))
        _, values = measure(replace(model, normalisation=own), image)
        yield {"noise": OTHERS, "image": name, "AP": np.nan} | values


def best_cut(known: np.ndarray, others: np.ndarray) -> float:
    """Return the middle of the cuts with the highest share of known above and others below."""
    values = np.unique([*known, *others])
    cuts = (values[1:] + values[:-1]) / 2
    right = [(known > cut).mean() + (others < cut).mean() for cut in cuts]
    return float(np.mean(cuts[np.isclose(right, np.max(right))]))


def compare(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of text for each measure."""
    others = table[table["noise"] == OTHERS]
    known = table[table["AP"].notna()]
    found = []
    for name in MEASURES:
        ranks = [
            f"{part[name].corr(part['AP'], method='spearman'):.2f}"
            for _, part in known.groupby("noise")
        ]
        higher = (known[name].to_numpy()[:, None] > others[name].to_numpy()).mean()
        cut = best_cut(known[name].to_numpy(), others[name].to_numpy())
        quantiles = (known[name].quantile(0.05), others[name].median(), others[name].max())
        numbers = [f"{value:.2f}" for value in (higher, *quantiles, cut)]
        found.append((name, *ranks, *numbers))
    return found


def main() -> None:
    """Measure and write ``confidence.csv`` and ``confidence.md``."""
    options = read_options()
    torch.set_num_threads(options.threads)
    notes = record.machine(options.threads)
    table = pd.DataFrame(rows(options))
    ranks = [f"rank correlation with AP, {noise}" for noise in sorted(options.noises)]
    columns = (
        "measure",
        *ranks,
        "known > other",
        "known, 5%",
        "other, median",
        "other, max",
        "cut",
    )
    notes += [f"{name}: {text}." for name, text in MEASURES.items()]
    notes.append(f"Known: validation images of {options.dataset}. Other: {', '.join(PICTURES)}.")
    body = record.markdown_table(columns, compare(table))
    record.write(options.out / "confidence", "Confidence without annotation", table, body, notes)


if __name__ == "__main__":
    main()
