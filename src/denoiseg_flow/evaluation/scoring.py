"""Score the predictions of one run on its test images, with one tidy row per image and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from denoiseg_flow.data.layout import Predictions, PreparedData, image_file
from denoiseg_flow.data.manifest import TESTED, units
from denoiseg_flow.data.store import open_image, open_labels, open_repeats
from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation import metrics
from denoiseg_flow.evaluation.overlap import object_overlap
from denoiseg_flow.jobs import checksums
from denoiseg_flow.study.grid import Run

#: Columns of metrics.tsv that identify a run.
RUN_COLUMNS = ["dataset", "noise", "method", "n_annotated", "seed"]


#: Columns of metrics.tsv. Images of one source, a file or a group, are similar.
METRICS_COLUMNS = [*RUN_COLUMNS, "source", "image", "metric", "value"]


def segmentation_scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return AP at every threshold, AP_mean and SEG; empty if the truth has no objects.

    ``truth`` and ``prediction`` are label images as for :func:`object_overlap`.
    """
    overlap = object_overlap(truth, prediction)
    if not len(overlap.truth_sizes):
        return {}
    precisions = {
        "AP" if iou == 0.5 else f"AP_{iou}": overlap.counts(iou).average_precision
        for iou in metrics.AP_THRESHOLDS
    }
    return {
        **precisions,
        "AP_mean": float(np.mean(list(precisions.values()))),
        "SEG": overlap.seg_score(),
    }


def denoising_scores(
    truth: np.ndarray, prediction: np.ndarray, noisy: np.ndarray
) -> dict[str, float]:
    """Return all denoising metrics of a denoised image, and PSNR and SSIM of the noisy input."""
    return {
        "PSNR": metrics.psnr(truth, prediction),
        "PSNR_255": metrics.psnr_255(truth, prediction),
        "PSNR_scale_invariant": metrics.psnr_scale_invariant(truth, prediction),
        "SSIM": metrics.ssim(truth, prediction),
        "MSE": metrics.mse(truth, prediction),
        "checkerboard": metrics.checkerboard(truth, prediction),
        "PSNR_noisy": metrics.psnr(truth, noisy),
        "SSIM_noisy": metrics.ssim(truth, noisy),
    }


def repeat_scores(
    repeats: np.ndarray, prediction: np.ndarray, noisy: np.ndarray, first: np.ndarray
) -> dict[str, float]:
    """Return the metrics of a denoised image, and of its noisy input, against other acquisitions.

    Parameters are (acquisition, [z,] y, x) and ([z,] y, x); ``first`` is the image as acquired.
    """
    return {
        "PSNR_mean_of_repeats": metrics.psnr_mean_of_repeats(repeats, first, prediction),
        "PSNR_mean_of_repeats_noisy": metrics.psnr_mean_of_repeats(repeats, first, noisy),
    }


def j_invariant_scores(
    truth: np.ndarray | None, prediction: np.ndarray, noisy: np.ndarray
) -> dict[str, float]:
    """Return the metrics of a J-invariant prediction: only the loss if there is no truth."""
    scores = {"loss_self_supervised": metrics.mse(noisy, prediction)}
    if truth is not None:
        scores["PSNR_j_invariant"] = metrics.psnr(truth, prediction)
        scores["SSIM_j_invariant"] = metrics.ssim(truth, prediction)
        scores["MSE_j_invariant"] = metrics.mse(truth, prediction)
    return scores


def score_run(
    run: Run,
    split: pd.DataFrame,
    prepared: PreparedData,
    noisy: Path,
    predictions: Predictions,
) -> pd.DataFrame:
    """Score one run on the test images of its split.

    Parameters
    ----------
    split
        Columns image, subset, annotated (0/1), clean (0/1) and source, and group if there are
        groups; only the subsets "test" and "cross" are scored.
    noisy
        Folder with the noisy inputs.

    Returns
    -------
    pandas.DataFrame
        :data:`METRICS_COLUMNS`, one row per image and metric, in the order of the split; empty if
        there are neither masks, clean images nor further acquisitions. Images without annotated
        objects have no AP and SEG.

    Raises
    ------
    InputError
        If a file is missing, or the shape of a prediction differs from that of the mask or clean
        image.
    """
    rows = []
    kinds = predictions.kinds()
    losses = {}
    if predictions.losses_file.exists():
        checksums.verify(predictions.losses_file)
        table = pd.read_csv(predictions.losses_file, sep="\t", dtype={"image": str})
        losses = dict(zip(table["image"], table["loss"], strict=True))
    tested = split.assign(unit=units(split))[split["subset"].isin(TESTED)]
    for row in tested.itertuples():
        scores: dict[str, float] = {}
        if "labels" in kinds and int(row.annotated):
            path = predictions.file("labels", row.image)
            labels = open_labels(path)
            with _naming(path):
                scores |= segmentation_scores(open_labels(prepared.mask(row.image)), labels)
        truth = open_image(prepared.clean(row.image)) if int(row.clean) else None
        if "denoised" in kinds and prepared.repeats(row.image).exists():
            path = predictions.file("denoised", row.image)
            files = path, image_file(noisy, row.image), prepared.image(row.image)
            repeats = open_repeats(prepared.repeats(row.image)).swapaxes(0, 1)
            with _naming(path):
                scores |= _over_channels(repeat_scores, repeats, *map(open_image, files))
        for kind, measure in (("denoised", denoising_scores), ("j_invariant", j_invariant_scores)):
            if kind not in kinds or (kind == "denoised" and truth is None):
                continue
            path = predictions.file(kind, row.image)
            denoised, noisy_image = open_image(path), open_image(image_file(noisy, row.image))
            with _naming(path):
                scores |= _over_channels(measure, truth, denoised, noisy_image)
        if row.image in losses:
            scores["loss_self_supervised"] = losses[row.image]
        rows += [
            {
                **run.as_dict(),
                "source": row.unit,
                "image": row.image,
                "metric": metric,
                "value": value,
            }
            for metric, value in scores.items()
        ]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def _over_channels(
    scores: Callable[..., dict[str, float]], truth: np.ndarray | None, *images: np.ndarray
) -> dict[str, float]:
    """Return the scores of images (channel, [z,] y, x), averaged over their channels."""
    each = zip([None] * len(images[0]) if truth is None else truth, *images, strict=True)
    return pd.DataFrame([scores(*channel) for channel in each]).mean(skipna=False).to_dict()


def write_metrics(frame: pd.DataFrame, path: Path) -> None:
    """Write rows of :func:`score_run` as tab-separated text, with floats in full precision."""
    frame.to_csv(path, sep="\t", index=False, na_rep="nan", lineterminator="\n")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn a ValueError of a metric into an InputError that names the prediction."""
    try:
        yield
    except ValueError as error:
        raise InputError(
            f"cannot score {path}: {error}; delete the file and predict again"
        ) from error
