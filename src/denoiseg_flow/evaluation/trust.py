"""Assess how reliable results are, mostly without ground truth.

Denoised images are assessed by their residuals, see :mod:`residuals`, and labels by the confidence
of the network, see :mod:`confidence`. The probabilities of a segmentation are compared with
annotated images that were not used for training: of all pixels with a foreground probability of
80%, 80% should be foreground. So is the expected precision of objects, see :mod:`object_precision`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch
from numpy.typing import NDArray

from denoiseg_flow.data.layout import Predictions, PreparedData, image_file, input_folder
from denoiseg_flow.data.manifest import TESTED
from denoiseg_flow.data.store import open_image, open_labels
from denoiseg_flow.evaluation.confidence import (
    LOW,
    confidence,
    object_confidences,
    of_labels,
    with_confidence,
)
from denoiseg_flow.evaluation.noise_structure import NoiseStructure, noise_of_files
from denoiseg_flow.evaluation.object_precision import are_correct, design_effect, wilson
from denoiseg_flow.evaluation.residuals import load_residual
from denoiseg_flow.findings import Finding, count, in_order
from denoiseg_flow.methods.classes import FOREGROUND, IGNORE, encode_classes
from denoiseg_flow.models.model import AnyModel, TrainedModel
from denoiseg_flow.models.precision_curve import FEW
from denoiseg_flow.models.prediction import predict_maps_of_files
from denoiseg_flow.study.grid import Run

# Thresholds of warnings: shares of oversmoothed and hallucinated windows, and of removed noise.
MANY_SMOOTHED, MANY_INVENTED = 0.05, 0.01
TOO_LITTLE = 0.7
# The correlation of neighbours may be larger in the residual than in the noise by this much.
TOO_ALIKE = 0.2

BINS = 10  # of probability
OFF = 0.05  # difference between probability and frequency
NAMED = 20  # images named by a finding at most
FEW_IMAGES = 8  # with fewer scored images, the scores are unreliable
CALIBRATED = 50  # annotated images to compare probabilities on at most

SCORES = ["AP", "PSNR"]
FOUND = ["objects", "confidence"]
MEASURED = ["smoothed", "invented", "removed"]
COLUMNS = ["image", "subset", *SCORES, *FOUND, *MEASURED]


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: the fraction of foreground pixels by predicted probability.

    Attributes
    ----------
    probability, frequency
        Mean predicted probability and fraction of foreground pixels in each bin of probability;
        NaN in empty bins.
    n_pixels
        Number of pixels in each bin.
    n_images
        Number of compared images.
    """

    probability: NDArray[np.float64]
    frequency: NDArray[np.float64]
    n_pixels: NDArray[np.int64]
    n_images: int

    @property
    def excess(self) -> float:
        """Mean probability minus frequency over pixels with a probability of at least 0.5."""
        upper = np.arange(BINS) >= BINS // 2
        known = upper & (self.n_pixels > 0)
        if not known.any():
            return float("nan")
        gap = self.probability[known] - self.frequency[known]
        return float(np.average(gap, weights=self.n_pixels[known]))


@dataclass(frozen=True)
class Trust:
    """Assessment of the best results of a study on one dataset and noise level.

    Attributes
    ----------
    images
        One row per predicted image, the worst first: image, subset, AP and PSNR (as far as they
        are known); for labels, objects (their number) and confidence, see
        :mod:`~denoiseg_flow.evaluation.confidence`; and, for denoised images, smoothed and
        invented (shares of windows) and removed, see
        :class:`~denoiseg_flow.evaluation.residuals.Residual`.
    along_x, along_y
        Mean autocorrelation of the residuals; None without denoised images.
    noise
        The correlation of the noise of the dataset.
    calibration
        Calibration of the segmentation; None without annotated test images, or without class
        probabilities.
    objects
        One row per predicted object, the least confident first: image, label (its number), place of
        its centre ([z,] y, x) and size (area or volume) in pixels; confidence and expected
        precision as far as they are known; and, in annotated images that are scored, whether it is
        correct (0 or 1).
    findings
        Problems first, then warnings, then notes.
    """

    images: pd.DataFrame
    along_x: NDArray[np.float64] | None
    along_y: NDArray[np.float64] | None
    noise: NoiseStructure
    calibration: Reliability | None
    objects: pd.DataFrame
    findings: list[Finding]


@dataclass(frozen=True)
class Segmented:
    """A run whose labels are examined.

    Attributes
    ----------
    run, model
        The run and its trained model.
    images
        Input of the model: folder of noisy images, or of the predictions of another run.
    predictions
        The predictions of the run.
    """

    run: Run
    model: AnyModel
    images: Path
    predictions: Predictions


@dataclass(frozen=True)
class Denoised:
    """A run whose denoised images are examined, and its predictions."""

    run: Run
    predictions: Predictions


def examine_results(
    split: pd.DataFrame,
    prepared: PreparedData,
    noisy: Path,
    metrics: pd.DataFrame,
    segmented: Segmented | None,
    denoised: Denoised | None,
) -> Trust:
    """Examine labels and denoised images, with one image in memory at a time.

    Parameters
    ----------
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`.
    noisy
        Folder of the noisy images.
    metrics
        Tidy metrics of the study.
    segmented, denoised
        The runs to examine; they may be the same run, and one may be None.
    """
    examined = [each for each in (segmented, denoised) if each]
    predicted = {name for each in examined for name in each.predictions.images()}
    names = [name for name in split["image"] if name in predicted]
    noise = noise_of_files([image_file(noisy, name) for name in names])
    rows, along, parts = [], [], []
    scored = split["subset"].isin(TESTED) & (split["annotated"] == 1)
    with_truth = set(split.loc[scored, "image"])
    for name in names:
        row: dict[str, object] = {"image": name}
        if segmented and (file := segmented.predictions.file("labels", name)).exists():
            truth = open_labels(prepared.mask(name)) if name in with_truth else None
            objects = _judge(segmented, name, open_labels(file), truth)
            row["objects"] = len(objects)
            if "confidence" in objects:
                known = objects["confidence"].dropna().to_numpy()
                row["confidence"] = confidence(known, len(objects))
            parts.append(objects)
        if denoised and (file := denoised.predictions.file("denoised", name)).exists():
            residual = load_residual(image_file(noisy, name), file, noise)
            along.append((residual.along_x, residual.along_y))
            row |= {
                "smoothed": residual.smoothed.mean(),
                "invented": residual.invented.mean(),
                "removed": residual.removed,
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=["image", *FOUND, *MEASURED])
    table = table.merge(split[["image", "subset"]])
    for score, results in (("AP", segmented), ("PSNR", denoised)):
        table[score] = table["image"].map(_scores(metrics, results.run, score) if results else {})
    known = {"objects": "Int64", "confidence": float}
    table = table[COLUMNS].astype(dict.fromkeys(SCORES, float) | known)
    table = table.sort_values(
        ["AP", "confidence", "PSNR", "smoothed", "image"], ascending=[True, True, True, False, True]
    )
    calibration = _calibration(split, prepared, segmented) if segmented else None
    x = y = nearest = None
    if along:
        x, y = np.nanmean(along, axis=0)
        # The axis with the larger difference.
        pairs = (float(x[0]), float(noise.along_x[0])), (float(y[0]), float(noise.along_y[0]))
        nearest = max(pairs, key=lambda pair: np.nan_to_num(pair[0] - pair[1], nan=-1.0))
    findings = find_doubts(table, calibration, nearest)
    filled = [each for each in parts if len(each)] or parts[:1] or [pd.DataFrame({"image": []})]
    objects = pd.concat(filled, ignore_index=True)
    if "confidence" in objects:
        objects = objects.sort_values(["confidence", "image", "label"], kind="stable")
    if segmented:
        tested = objects["image"].isin(split.loc[split["subset"] == "test", "image"])
        more = (*about_precision(objects[tested]), *about_size(segmented.model))
        findings = in_order([*findings, *more])
    return Trust(table, x, y, noise, calibration, objects, findings)


def _judge(
    segmented: Segmented, name: str, labels: np.ndarray, truth: np.ndarray | None
) -> pd.DataFrame:
    """Return the objects of an image, see :attr:`Trust.objects`."""
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    centres = np.reshape(
        scipy.ndimage.center_of_mass(labels > 0, labels, numbers), (-1, labels.ndim)
    )
    axes = ("z", "y", "x")[-labels.ndim :]
    table = pd.DataFrame({"image": name, "label": numbers})
    for axis, values in zip(axes, centres.T, strict=True):
        table[axis] = values.round(1)
    table["area" if labels.ndim == 2 else "volume"] = counts
    if segmented.model.method.learns_segmentation:  # a threshold has no probabilities
        model = segmented.model.for_image(name)
        assert isinstance(model, TrainedModel)
        image = open_image(image_file(input_folder(segmented.images), name))
        found = of_labels(labels, object_confidences(model, image, labels))
        table = with_confidence(table, found, model.precision)
    if truth is not None:
        table["correct"] = table["label"].map(are_correct(truth, labels)).astype("Int64")
    return table


def _scores(metrics: pd.DataFrame, run: Run, metric: str) -> dict[str, float]:
    """Return a score of each image of a run."""
    rows = metrics[metrics["metric"] == metric].merge(pd.DataFrame([run.as_dict()]))
    return dict(zip(rows["image"], rows["value"], strict=True))


def _calibration(
    split: pd.DataFrame, prepared: PreparedData, segmented: Segmented
) -> Reliability | None:
    """Return the calibration on annotated images that were not used for training, if any."""
    if not segmented.model.method.learns_segmentation:
        return None  # a threshold has no probabilities
    source = input_folder(segmented.images)
    annotated = split["subset"].isin(TESTED) & (split["annotated"] == 1)
    # Spread over the dataset, because similar images are often side by side.
    compared = split.loc[annotated, "image"][:: -(-annotated.sum() // CALIBRATED) or 1]
    files = (image_file(source, name) for name in compared)
    truths = (open_labels(prepared.mask(name)) for name in compared)
    maps = predict_maps_of_files(segmented.model, files)
    return reliability(zip(maps, truths, strict=True))


def reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Reliability | None:
    """Compare predicted foreground probabilities with masks; None without any pair.

    Parameters
    ----------
    pairs
        Class probabilities (3, y, x) and mask (y, x) of each image; pixels with negative labels are
        ignored.
    """
    sums, hits, counts = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS, np.int64)
    n_images = 0
    for probabilities, mask in pairs:
        classes = encode_classes(torch.from_numpy(mask.astype(np.int32))).numpy()
        known = classes != IGNORE
        probability = probabilities[FOREGROUND][known]
        true = classes[known] == FOREGROUND
        index = np.minimum((probability * BINS).astype(int), BINS - 1)
        counts += np.bincount(index, minlength=BINS)
        sums += np.bincount(index, probability, minlength=BINS)
        hits += np.bincount(index, true, minlength=BINS)
        n_images += 1
    if not n_images:
        return None
    with np.errstate(invalid="ignore"):
        return Reliability(sums / counts, hits / counts, counts, n_images)


def find_doubts(
    images: pd.DataFrame,
    calibration: Reliability | None,
    nearest: tuple[float, float] | None = None,
) -> list[Finding]:
    """Return the findings about the scores, calibration and residuals of a result.

    Parameters
    ----------
    images
        One row per predicted image: image, AP (NaN without score), objects and confidence (NaN
        without network), smoothed and invented (shares of windows) and removed (NaN without
        denoised image).
    calibration
        Calibration of the segmentation, if there is one.
    nearest
        Correlation of neighbouring pixels in the residual, and in the noise.
    """
    found = [
        *_about_segmentation(images),
        *_about_confidence(images.dropna(subset="confidence")),
        *_about_probabilities(calibration),
    ]
    denoised = images[images["smoothed"].notna()]
    if len(denoised):
        found += _about_residuals(denoised, nearest)
    return in_order(found)


def _about_residuals(
    images: pd.DataFrame, nearest: tuple[float, float] | None
) -> Iterator[Finding]:
    smoothed, invented = images["smoothed"].mean(), images["invented"].mean()
    removed = images["removed"].median()
    if smoothed > MANY_SMOOTHED:
        yield Finding(
            "warning",
            "oversmoothing",
            f"The denoised images are oversmoothed: in {smoothed:.0%} of all windows, the residual "
            "(noisy minus denoised) contains structure of the image, not only noise. Measure "
            "intensities and textures on the original images, or train longer.",
            _most(images, "smoothed"),
        )
    if invented > MANY_INVENTED:
        yield Finding(
            "warning",
            "hallucinated structure",
            f"In {invented:.1%} of all windows, the denoised image shows structure that is not in "
            "the noisy image (hallucinated). Do not interpret details there.",
            _most(images, "invented"),
        )
    if np.isnan(removed):
        yield Finding(
            "note",
            "remaining noise",
            "The share of removed noise is unknown: in the flat parts, the images are constant or "
            "neighbouring pixels are correlated, so noise cannot be separated from structure.",
        )
    if removed < TOO_LITTLE:
        yield Finding(
            "warning",
            "remaining noise",
            f"Only {removed:.0%} of the standard deviation of the noise was removed (measured in "
            "the flat parts of the images).",
        )
    alike = nearest is not None and nearest[0] - nearest[1] > TOO_ALIKE
    if nearest is not None and alike:
        yield Finding(
            "warning",
            "residual",
            f"Neighbouring pixels of the residual are correlated (correlation {nearest[0]:.2f}, in "
            f"the noise {nearest[1]:.2f}): edges or texture were removed together with the noise, "
            "mostly where they are strong.",
        )
    doubted = smoothed > MANY_SMOOTHED or invented > MANY_INVENTED or removed < TOO_LITTLE
    if not (alike or doubted):
        yield Finding(
            "note",
            "residual",
            f"In {1 - smoothed - invented:.1%} of all windows, the residual looks like noise; "
            f"{smoothed:.1%} are oversmoothed and {invented:.1%} contain hallucinated structure.",
        )


def about_precision(objects: pd.DataFrame) -> Iterator[Finding]:
    """Yield a finding on the expected precision of objects, if it can be compared with masks.

    Parameters
    ----------
    objects
        See :attr:`Trust.objects`; those of images on which the precision was not measured.
    """
    if not {"expected_precision", "correct"} <= set(objects):
        return
    objects = objects.dropna(subset=["expected_precision", "correct"])
    if objects.empty:
        return
    expected, correct = objects["expected_precision"].mean(), objects["correct"].mean()
    residuals = objects["correct"].astype(float) - objects["expected_precision"]
    effect = design_effect(residuals, objects["expected_precision"].to_numpy(), objects["image"])
    low, high = wilson(correct, len(objects) / effect)
    off = abs(expected - correct) > OFF and not low <= expected <= high
    images = count(objects["image"].nunique(), "test image")
    few = "; too few objects for a reliable estimate" if len(objects) < FEW else ""
    yield Finding(
        "warning" if off else "note",
        "expected precision",
        f"Of {count(len(objects), 'object')} in {images}, {correct:.0%} are correct (IoU > 0.5; "
        f"95% interval {low:.0%} to {high:.0%}); {expected:.0%} were expected by their confidence"
        f"{few}.{' Do not rely on the expected precision of single objects.' if off else ''}",
    )


def about_size(model: AnyModel) -> Iterator[Finding]:
    """Yield a note if the network of a model reads images of another size."""
    if isinstance(model, TrainedModel) and model.layout.downscale != 1:
        large = model.layout.downscale > 1
        denoised = (
            f" Its denoised images lack details finer than {model.layout.downscale} pixels: to "
            "keep them, denoise by a method without 'init', such as 'n2v'."
        )
        yield Finding(
            "note",
            "size",
            f"The network reads images {model.layout.size_read}, because their objects are "
            f"{'large in pixels, or blurred' if large else 'small in pixels'}."
            f"{denoised if large and model.method.denoises else ''}",
        )


def _about_segmentation(images: pd.DataFrame) -> Iterator[Finding]:
    scores = images["AP"].dropna()
    if not len(scores):
        return
    worst = images.loc[scores.idxmin(), "image"]
    yield Finding(
        "warning" if len(scores) < FEW_IMAGES else "note",
        "scores",
        f"AP of {count(len(scores), 'test image')}: {scores.min():.2f} ({worst}) to "
        f"{scores.max():.2f}"
        + ("; too few images for a reliable estimate." if len(scores) < FEW_IMAGES else "."),
    )


def _about_confidence(images: pd.DataFrame) -> Iterator[Finding]:
    if images.empty:
        return
    images = images.sort_values("confidence", kind="stable")
    doubtful = images[images["confidence"] < LOW]
    if doubtful.empty:
        least, most = images.iloc[0], images.iloc[-1]
        yield Finding(
            "note",
            "confidence",
            f"The confidence in the labels of {count(len(images), 'image')} is "
            f"{least['confidence']:.2f} ({least['image']}) to {most['confidence']:.2f}; below "
            f"{LOW} it would be low.",
        )
        return
    n_empty = int((doubtful["objects"] == 0).sum())
    empty = f"; without any object: {n_empty}" if n_empty else ""
    yield Finding(
        "warning",
        "confidence",
        f"The labels of {len(doubtful)} of {count(len(images), 'image')} are doubtful (confidence "
        f"below {LOW}{empty}). Compare them with the images, the first ones first, and annotate "
        "some of them (see Annotate next); leave out images of another kind.",
        tuple(doubtful["image"].head(NAMED)),
    )


def _about_probabilities(calibration: Reliability | None) -> Iterator[Finding]:
    if calibration is None or np.isnan(calibration.excess):
        return
    excess = calibration.excess
    images = count(calibration.n_images, "test image")
    if abs(excess) > OFF:
        direction = "overestimated" if excess > 0 else "underestimated"
        yield Finding(
            "warning",
            "calibration",
            f"Probabilities are miscalibrated: foreground is {direction} by {abs(excess):.2f} on "
            f"average ({images}). Do not use them as a measure of confidence.",
        )
    else:
        yield Finding(
            "note",
            "calibration",
            f"Probabilities are calibrated: the foreground probability is off by only "
            f"{abs(excess):.2f} on average ({images}).",
        )


def _most(images: pd.DataFrame, column: str) -> tuple[str, ...]:
    """Return the names of the most affected images."""
    ordered = images[images[column] > 0].sort_values(column, ascending=False, kind="stable")
    return tuple(ordered["image"].head(NAMED))
