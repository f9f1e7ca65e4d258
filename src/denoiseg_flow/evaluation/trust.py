"""How far can a result be trusted? What it tells about itself, mostly without a truth.

What denoising took away is judged in :mod:`residuals`. The probabilities of a segmentation are
compared with the annotation of images that the network was not trained on: of the pixels that are
called foreground with 80 %, 80 % should be.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from denoiseg_flow.data.layout import input_folder
from denoiseg_flow.data.manifest import TESTED
from denoiseg_flow.data.store import open_image
from denoiseg_flow.evaluation.noise_structure import NoiseStructure, noise_of_files
from denoiseg_flow.evaluation.residuals import load_residual
from denoiseg_flow.findings import Finding, count, in_order
from denoiseg_flow.methods.classes import FOREGROUND, IGNORE, encode_classes
from denoiseg_flow.models.model import AnyModel
from denoiseg_flow.models.prediction import predict_probabilities_of_files
from denoiseg_flow.study.grid import Run

# What is worth a word: shares of the windows of all images, and of the noise.
MANY_SMOOTHED, MANY_INVENTED = 0.05, 0.01
TOO_LITTLE = 0.7
# By so much may the correlation of neighbours in what was removed exceed that in the noise.
TOO_ALIKE = 0.2

BINS = 10  # of probability
OFF = 0.05  # difference of probability and frequency
NAMED = 20  # images of a finding, at most
FEW_IMAGES = 8  # scores of fewer are no more than a hint
CALIBRATED = 50  # annotated images, at most, that probabilities are compared on

SCORES = ["AP", "PSNR"]
MEASURED = ["smoothed", "invented", "removed"]
COLUMNS = ["image", "subset", *SCORES, *MEASURED]


@dataclass(frozen=True)
class Reliability:
    """How often pixels are foreground, by the probability that they are said to be.

    Attributes
    ----------
    probability, frequency
        Of each bin of probability, the mean of its pixels, and the share that is foreground; NaN
        where there is no pixel.
    n_pixels
        In each bin.
    n_images
        That were compared.
    """

    probability: NDArray[np.float64]
    frequency: NDArray[np.float64]
    n_pixels: NDArray[np.int64]
    n_images: int

    @property
    def excess(self) -> float:
        """Probability minus frequency, over the pixels that are rather foreground than not."""
        upper = np.arange(BINS) >= BINS // 2
        known = upper & (self.n_pixels > 0)
        if not known.any():
            return float("nan")
        gap = self.probability[known] - self.frequency[known]
        return float(np.average(gap, weights=self.n_pixels[known]))


@dataclass(frozen=True)
class Trust:
    """What was found out about the results of a study for one dataset and noise.

    Attributes
    ----------
    images
        One row per predicted image, the worst first: image, subset, AP and PSNR (as far as they
        are known), and, where there is a denoised image, smoothed and invented (shares of its
        windows) and removed, see :class:`~denoiseg_flow.evaluation.residuals.Residual`.
    along_x, along_y
        Mean correlation of the residuals; None without denoised images.
    noise
        The noise of the dataset.
    calibration
        Of the segmentation; None without annotated test images.
    findings
        Problems first.
    """

    images: pd.DataFrame
    along_x: NDArray[np.float64] | None
    along_y: NDArray[np.float64] | None
    noise: NoiseStructure
    calibration: Reliability | None
    findings: list[Finding]


@dataclass(frozen=True)
class Segmented:
    """The labels of a run.

    Attributes
    ----------
    run, model
        That made them.
    images
        What the model read: noisy images, or the predictions of another run.
    predictions
        Of the run.
    """

    run: Run
    model: AnyModel
    images: Path
    predictions: Path


@dataclass(frozen=True)
class Denoised:
    """The denoised images of a run.

    Attributes
    ----------
    run
        That made them.
    predictions
        Of the run.
    """

    run: Run
    predictions: Path


def examine_results(
    split: pd.DataFrame,
    masks: Path,
    noisy: Path,
    metrics: pd.DataFrame,
    segmented: Segmented | None,
    denoised: Denoised | None,
) -> Trust:
    """Examine labels and denoised images, one image at a time in memory.

    Parameters
    ----------
    split
        Table of :func:`~denoiseg_flow.data.splitting.split`.
    masks, noisy
        Folders of the masks and of the noisy images, ``{image}.tif`` each.
    metrics
        Tidy metrics of the study.
    segmented, denoised
        What to examine: the same run, two of them, or one alone.
    """
    folders = [segmented.predictions / "labels"] if segmented else []
    if denoised:
        folders.append(denoised.predictions / "denoised")
    predicted = {path.stem for folder in folders for path in folder.glob("*.tif")}
    names = [name for name in split["image"] if name in predicted]
    noise = noise_of_files([noisy / f"{name}.tif" for name in names])
    rows, along = [], []
    for name in names:
        row: dict[str, object] = {"image": name}
        if denoised and (folders[-1] / f"{name}.tif").exists():
            residual = load_residual(name, noisy, folders[-1], noise)
            along.append((residual.along_x, residual.along_y))
            row |= {
                "smoothed": residual.smoothed.mean(),
                "invented": residual.invented.mean(),
                "removed": residual.removed,
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=["image", *MEASURED]).merge(split[["image", "subset"]])
    for score, results in (("AP", segmented), ("PSNR", denoised)):
        table[score] = table["image"].map(_scores(metrics, results.run, score) if results else {})
    table = table[COLUMNS].astype(dict.fromkeys(SCORES, float))
    table = table.sort_values([*SCORES, "smoothed", "image"], ascending=[True, True, False, True])
    calibration = _calibration(split, masks, segmented) if segmented else None
    x = y = nearest = None
    if along:
        x, y = np.nanmean(along, axis=0)
        # The axis on which they differ more.
        pairs = (float(x[0]), float(noise.along_x[0])), (float(y[0]), float(noise.along_y[0]))
        nearest = max(pairs, key=lambda pair: np.nan_to_num(pair[0] - pair[1], nan=-1.0))
    return Trust(table, x, y, noise, calibration, find_doubts(table, calibration, nearest))


def _scores(metrics: pd.DataFrame, run: Run, metric: str) -> dict[str, float]:
    """Return a score of the images of a run."""
    rows = metrics[metrics["metric"] == metric].merge(pd.DataFrame([run.as_dict()]))
    return dict(zip(rows["image"], rows["value"], strict=True))


def _calibration(split: pd.DataFrame, masks: Path, segmented: Segmented) -> Reliability | None:
    """Return how right the probabilities are in annotated images that were not trained on."""
    source = input_folder(segmented.images)
    annotated = split["subset"].isin(TESTED) & (split["annotated"] == 1)
    # Spread over the dataset, for images of a kind often lie side by side.
    compared = split.loc[annotated, "image"][:: -(-annotated.sum() // CALIBRATED) or 1]
    files = (source / f"{name}.tif" for name in compared)
    truths = (open_image(masks / f"{name}.tif") for name in compared)
    probabilities = predict_probabilities_of_files(segmented.model, files)
    return reliability(zip(probabilities, truths, strict=True))


def reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Reliability | None:
    """Compare the probability of foreground with how often it is true; None without any pair.

    Parameters
    ----------
    pairs
        Probabilities (3, y, x) of an image and its mask (y, x), of which negative labels are
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
    """Say in sentences what speaks for and against a result.

    Parameters
    ----------
    images
        One row per predicted image: image, AP (NaN where it is not scored), smoothed and invented
        (shares of its windows) and removed, NaN where nothing was denoised.
    calibration
        Of the segmentation, if there is one.
    nearest
        Correlation of neighbouring pixels in what was removed, and in the noise.
    """
    found = [*_about_segmentation(images), *_about_probabilities(calibration)]
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
            "over-smoothing",
            f"In {smoothed:.0%} of all windows, what was removed holds structure of the image, not "
            "only noise: fine detail was smoothed away. Measure intensities and textures on the "
            "original images, or train longer.",
            _most(images, "smoothed"),
        )
    if invented > MANY_INVENTED:
        yield Finding(
            "warning",
            "invented structure",
            f"In {invented:.1%} of all windows, the denoised image shows structure that the noisy "
            "one does not have. Do not interpret detail there.",
            _most(images, "invented"),
        )
    if np.isnan(removed):
        yield Finding(
            "note",
            "noise left",
            "How much of the noise was removed cannot be told: in the flat parts of the images "
            "nothing varies, or neighbouring pixels are alike, so that noise does not stand apart.",
        )
    if removed < TOO_LITTLE:
        yield Finding(
            "warning",
            "noise left",
            f"Only {removed:.0%} of the standard deviation of the noise was removed, as seen in "
            "the flat parts of the images: the rest is still there.",
        )
    alike = nearest is not None and nearest[0] - nearest[1] > TOO_ALIKE
    if nearest is not None and alike:
        yield Finding(
            "warning",
            "residual",
            f"Neighbouring pixels of what was removed are alike (correlation {nearest[0]:.2f}, in "
            f"the noise {nearest[1]:.2f}): edges or texture were removed with the noise, mostly "
            "where they are strong.",
        )
    doubted = smoothed > MANY_SMOOTHED or invented > MANY_INVENTED or removed < TOO_LITTLE
    if not (alike or doubted):
        yield Finding(
            "note",
            "residual",
            f"In {1 - smoothed - invented:.1%} of all windows, what was removed looks like noise; "
            f"in {smoothed:.1%} it holds structure of the image, in {invented:.1%} structure was "
            "invented.",
        )


def _about_segmentation(images: pd.DataFrame) -> Iterator[Finding]:
    scores = images["AP"].dropna()
    if not len(scores):
        return
    worst = images.loc[scores.idxmin(), "image"]
    yield Finding(
        "warning" if len(scores) < FEW_IMAGES else "note",
        "scores",
        f"AP is known of {count(len(scores), 'image')}, from {scores.min():.2f} "
        f"({worst}) to {scores.max():.2f}"
        + (": so few that it is a hint, not a measurement." if len(scores) < FEW_IMAGES else "."),
    )


def _about_probabilities(calibration: Reliability | None) -> Iterator[Finding]:
    if calibration is None or np.isnan(calibration.excess):
        return
    excess = calibration.excess
    of = f"on {count(calibration.n_images, 'image')} not trained on"
    if abs(excess) > OFF:
        word, advice = ("high", "too sure of itself") if excess > 0 else ("low", "too careful")
        yield Finding(
            "warning",
            "probabilities",
            f"The probabilities of the foreground are too {word} by {abs(excess):.2f} on average "
            f"({of}): the network is {advice}. Do not take them for the chance of being right.",
        )
    else:
        yield Finding(
            "note",
            "probabilities",
            f"The probabilities of the foreground are right to within {abs(excess):.2f} on average "
            f"({of}).",
        )


def _most(images: pd.DataFrame, column: str) -> tuple[str, ...]:
    """The images of which the largest shares are affected."""
    ordered = images[images[column] > 0].sort_values(column, ascending=False, kind="stable")
    return tuple(ordered["image"].head(NAMED))
