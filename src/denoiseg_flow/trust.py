"""How far can a result be trusted? What it tells about itself, mostly without a truth.

What a denoiser took away (the *residual*, noisy minus denoised) should look like noise, and like
nothing else. In every window of an image it is asked

- whether the residual is correlated from pixel to pixel more than the noise is: then it holds
  structure of the image, which was *smoothed* away;
- whether the residual is the negative of what the denoised image shows there: then that structure
  is *invented*, for it is not in the noisy image. Where only noise was removed, both are
  uncorrelated, and the test statistic is a standard normal.

Both count only if what was smoothed or invented is strong enough to matter. Structure much fainter
than the noise cannot be told from nothing, by this or by any other means.

The probabilities of a segmentation are compared with the annotation of images that the network was
not trained on: of the pixels that are called foreground with 80 %, 80 % should be.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from denoiseg_flow.classical import noise_level
from denoiseg_flow.data.images import open_image
from denoiseg_flow.data.manifest import TESTED
from denoiseg_flow.findings import Finding, in_order
from denoiseg_flow.labels import FOREGROUND, IGNORE, encode_classes
from denoiseg_flow.models import AnyModel
from denoiseg_flow.noise_structure import NoiseStructure, correlation_along, noise_of_files
from denoiseg_flow.prediction import input_folder, predict_probabilities

WINDOW = 32  # pixels a side

# By how many standard deviations of chance a window must differ from a good one: less than one in
# 100,000 good ones does.
CHANCE = 4.5
# What was invented: at least this share of the structure of the denoised image there.
ABSENT = 0.5
# What counts: structure of this root mean square, as a share of the range of grey levels.
RELEVANT = 0.02

# What is worth a word: shares of the windows of all images, and of the noise.
MANY_SMOOTHED, MANY_INVENTED = 0.05, 0.01
TOO_LITTLE = 0.7

BINS = 10  # of probability
OFF = 0.05  # difference of probability and frequency
FEW_IMAGES = 8  # scores of fewer are no more than a hint
CALIBRATED = 50  # annotated images, at most, that probabilities are compared on

SCORES = ["AP", "PSNR"]
MEASURED = ["smoothed", "invented", "removed"]
COLUMNS = ["image", "subset", *SCORES, *MEASURED]


@dataclass(frozen=True)
class Residual:
    """What a denoiser took away from an image, judged.

    Attributes
    ----------
    image
        (y, x): noisy minus denoised.
    smoothed, invented
        (rows, columns) of windows, bool: where the residual holds structure of the image, and
        where the denoised image shows what the noisy one does not.
    removed
        Standard deviation of the residual over that of the noise, as estimated from the noisy
        image; NaN if it has none.
    along_x, along_y
        Correlation of the residual with itself at distances of 1, 2, ... ``REACH`` pixels, NaN
        beyond the size of the image.
    """

    image: NDArray[np.float64]
    smoothed: NDArray[np.bool_]
    invented: NDArray[np.bool_]
    removed: float
    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]


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
    """What was found out about the results of a run.

    Attributes
    ----------
    images
        One row per predicted image, the worst first: image, subset, AP and PSNR (as far as they
        are known), and, where there is a denoised image, smoothed and invented (shares of its
        windows) and removed, see :class:`Residual`.
    along_x, along_y
        Mean correlation of the residuals, see :class:`Residual`; None without denoised images.
    noise
        The noise of the data set.
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


def examine_run(
    split: pd.DataFrame,
    masks: Path,
    noisy: Path,
    images: Path,
    predictions: Path,
    metrics: pd.DataFrame,
    model: AnyModel,
) -> Trust:
    """Examine the predictions of a run, one image at a time in memory.

    Parameters
    ----------
    split
        Table of :func:`manifest.split`.
    masks, noisy
        Folders of the masks and of the noisy images, ``{image}.tif`` each.
    images
        What the model read: noisy images, or the predictions of another run.
    predictions, metrics, model
        Of the run.
    """
    denoised = find_denoised(images, predictions)
    folders = [folder for folder in (denoised, predictions / "labels") if folder]
    predicted = {path.stem for folder in folders for path in folder.glob("*.tif")}
    names = [name for name in split["image"] if name in predicted]
    noise = noise_of_files([noisy / f"{name}.tif" for name in names])
    rows, along = [], []
    for name in names:
        row: dict[str, object] = {"image": name}
        if denoised is not None and (denoised / f"{name}.tif").exists():
            residual = load_residual(name, noisy, denoised, noise)
            along.append((residual.along_x, residual.along_y))
            row |= {
                "smoothed": residual.smoothed.mean(),
                "invented": residual.invented.mean(),
                "removed": residual.removed,
            }
        rows.append(row)
    scored = metrics[metrics["metric"].isin(SCORES)]
    scores = scored.pivot_table(index="image", columns="metric", values="value")
    table = (
        pd.DataFrame(rows, columns=["image", *MEASURED])
        .merge(split[["image", "subset"]])
        .join(scores, on="image")
    )
    table = table.reindex(columns=COLUMNS)
    table = table.sort_values([*SCORES, "smoothed", "image"], ascending=[True, True, False, True])

    calibration = None
    if model.method.segments:
        source = input_folder(images)
        annotated = split["subset"].isin(TESTED) & (split["annotated"] == 1)
        # Spread over the data set, for images of a kind often lie side by side.
        compared = split.loc[annotated, "image"][:: -(-annotated.sum() // CALIBRATED) or 1]
        calibration = reliability(
            (
                predict_probabilities(model.for_image(name), open_image(source / f"{name}.tif")),
                open_image(masks / f"{name}.tif"),
            )
            for name in compared.iloc[
                :: -(-len(compared) // CALIBRATED) or 1
            ]  # like ones lie close
        )
    x, y = np.nanmean(along, axis=0) if along else (None, None)
    return Trust(table, x, y, noise, calibration, find_doubts(table, noise, calibration))


def find_denoised(images: Path, predictions: Path) -> Path | None:
    """Return the folder of what a run denoised, or of the denoised images that it segmented."""
    for folder in (predictions / "denoised", images / "denoised"):
        if folder.is_dir():
            return folder
    return None


def load_residual(name: str, noisy: Path, denoised: Path, noise: NoiseStructure) -> Residual:
    """Read an image and what became of it, see :func:`judge_residual`."""
    both = (np.asarray(open_image(folder / f"{name}.tif")) for folder in (noisy, denoised))
    return judge_residual(*both, noise)


def judge_residual(noisy: NDArray, denoised: NDArray, noise: NoiseStructure) -> Residual:
    """Judge what a denoiser took away from an image.

    Parameters
    ----------
    noisy, denoised
        (y, x), on the same scale of grey levels.
    noise
        Of the data set: noise that is correlated itself may be removed as it is.
    """
    residual = noisy.astype(np.float64) - denoised
    rest, shown = (_windows(image) for image in (residual, denoised.astype(np.float64)))
    floor = np.finfo(np.float64).eps  # of what varies at all
    variance = (rest**2).mean(axis=(2, 3)) + floor  # of the residual in each window
    structure = (shown**2).mean(axis=(2, 3)) + floor
    covariance = (rest * shown).mean(axis=(2, 3))
    low, high = np.percentile(noisy, (1, 99.8))
    relevant = (RELEVANT * (high - low)) ** 2

    along = np.nan_to_num([noise.along_x, noise.along_y])
    # Pixels of correlated noise say less than as many independent ones (Bartlett's formula).
    n_independent = rest.shape[2] * rest.shape[3] / (1 + 2 * (along**2).sum())
    neighbours = (_beside(rest, axis=3) + _beside(rest, axis=2)) / 2 / variance
    beyond_noise = neighbours - max(along[:, 0].mean(), 0)
    by_chance = CHANCE / np.sqrt(2 * n_independent)
    absent = -covariance / structure
    unlikely = -covariance / np.sqrt(variance * structure / n_independent)
    sigma, spread = noise_level(noisy), residual.std()
    unit = (residual - residual.mean()) / (spread if spread > 0 else np.nan)
    return Residual(
        residual,
        smoothed=(beyond_noise > by_chance) & (beyond_noise * variance > relevant),
        invented=(absent > ABSENT) & (unlikely > CHANCE) & (structure > relevant),
        removed=float(spread / sigma) if sigma > 0 else float("nan"),
        along_x=correlation_along(unit.T),
        along_y=correlation_along(unit),
    )


def _windows(image: NDArray) -> NDArray:
    """Return (rows, columns, y, x), the windows of an image, each of mean 0; the rest is left out.

    An image that is smaller than a window is one.
    """
    sides = [min(WINDOW, size) for size in image.shape]
    counts = [size // side for size, side in zip(image.shape, sides, strict=True)]
    height, width = (count * side for count, side in zip(counts, sides, strict=True))
    cut = image[:height, :width].reshape(counts[0], sides[0], counts[1], sides[1]).swapaxes(1, 2)
    return cut - cut.mean(axis=(2, 3), keepdims=True)


def _beside(windows: NDArray, axis: int) -> NDArray:
    """Return the covariance of neighbours along an axis of each window; 0 if there are none."""
    size = windows.shape[axis]
    if size < 2:
        return np.zeros(windows.shape[:2])
    one, other = (np.take(windows, range(start, start + size - 1), axis) for start in (0, 1))
    return (one * other).mean(axis=(2, 3))


def reliability(pairs: Iterable[tuple[NDArray, NDArray]]) -> Reliability | None:
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
    images: pd.DataFrame, noise: NoiseStructure, calibration: Reliability | None
) -> list[Finding]:
    """Say in sentences what speaks for and against a result.

    Parameters
    ----------
    images
        One row per predicted image: image, AP (NaN where it is not scored), smoothed and invented
        (shares of its windows) and removed, NaN where nothing was denoised.
    noise
        Of the data set.
    calibration
        Of the segmentation, if there is one.
    """
    found = [*_about_segmentation(images), *_about_probabilities(calibration)]
    denoised = images[images["smoothed"].notna()]
    if len(denoised):
        found += _about_residuals(denoised, noise)
    return in_order(found)


def _about_residuals(images: pd.DataFrame, noise: NoiseStructure) -> Iterator[Finding]:
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
    if removed < TOO_LITTLE:
        yield Finding(
            "warning",
            "noise left",
            f"Only {removed:.0%} of the standard deviation of the noise was removed: the rest is "
            "still there.",
        )
    if noise.kind in ("x", "y", "both"):
        yield Finding(
            "warning",
            "noise left",
            "The noise is correlated from pixel to pixel (see the checks), so that a network with "
            "hidden pixels learns to keep a part of it, which looks like structure.",
        )
    if not (smoothed > MANY_SMOOTHED or invented > MANY_INVENTED or removed < TOO_LITTLE):
        yield Finding(
            "note",
            "residual",
            f"What was removed looks like noise: structure of the image in {smoothed:.1%} of all "
            f"windows, invented structure in {invented:.1%}, and {removed:.0%} of the standard "
            "deviation of the noise.",
        )


def _about_segmentation(images: pd.DataFrame) -> Iterator[Finding]:
    scores = images["AP"].dropna()
    if not len(scores):
        return
    worst = images.loc[scores.idxmin(), "image"]
    yield Finding(
        "warning" if len(scores) < FEW_IMAGES else "note",
        "scores",
        f"AP is known of {len(scores)} image{'s' * (len(scores) > 1)}, from {scores.min():.2f} "
        f"({worst}) to {scores.max():.2f}"
        + (": so few that it is a hint, not a measurement." if len(scores) < FEW_IMAGES else "."),
    )


def _about_probabilities(calibration: Reliability | None) -> Iterator[Finding]:
    if calibration is None or np.isnan(calibration.excess):
        return
    excess = calibration.excess
    of = f"on {calibration.n_images} image{'s' * (calibration.n_images > 1)} not trained on"
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


def _most(images: pd.DataFrame, column: str, count: int = 20) -> tuple[str, ...]:
    """The images of which the largest shares are affected."""
    ordered = images[images[column] > 0].sort_values(column, ascending=False, kind="stable")
    return tuple(ordered["image"].head(count))
