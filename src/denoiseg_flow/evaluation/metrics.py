r"""Segmentation and denoising metrics, with their definitions and sources.

Segmentation (per image; truth and prediction are label images, 0 is background):

AP
    "Average precision" of the 2018 Data Science Bowl as used by StarDist and DenoiSeg (Buchholz,
    Prakash et al. 2020): TP / (TP + FP + FN) at one IoU threshold. It is *not* the area under a
    precision-recall curve. A truth and a predicted object match if their IoU is strictly greater
    than the threshold. ``AP`` alone is at IoU > 0.5; ``AP_0.6`` ... ``AP_0.9`` are stricter;
    ``AP_mean`` is the mean over 0.5, 0.6, 0.7, 0.8, 0.9. (The reference DenoiSeg code takes a
    threshold as an argument, but always uses 0.5.)
SEG
    Segmentation accuracy of the Cell Tracking Challenge (Maska et al. 2014): mean over truth
    objects of the IoU with the predicted object that covers strictly more than half of the truth
    object's pixels, 0 where there is none. False positives do not lower it.

Objects are defined by label value, connected or not, as in the reference. Pixels with a negative
truth label are ignored: they are removed from both images before anything is counted, so predicted
objects that lie entirely in ignored pixels vanish. Without any object in either image, AP is
undefined (NaN); with predicted objects only it is 0; SEG without truth objects is NaN.

Denoising (per image, against the clean truth; all in float64):

PSNR
    10 log10(range^2 / MSE) in dB, range = max - min of the clean truth itself. This is the
    definition behind DenoiSeg's tables.
PSNR_255
    The same with range 255, for 8-bit intensities, as in the BSD68 numbers of Noise2Void.
PSNR_scale_invariant
    The prediction is first mapped by the affine function a * x + b that fits the truth best (least
    squares), then PSNR with the truth's range: for methods that do not preserve the intensity
    scale. From CARE (Weigert et al. 2018) and the evaluation of N2V2 (Hoeck et al. 2022).
SSIM
    Structural similarity (Wang et al. 2004) as scikit-image computes it by default: uniform 7 x 7
    window, K1 = 0.01, K2 = 0.03, sample covariance; data range = range of the truth. NaN for
    images smaller than the window. Of volumes: mean over planes, with the range of the volume.
MSE
    Mean squared error, in squared grey levels.
checkerboard
    Strength of alternating pixels in the residual (prediction - truth): its mean power near the
    Nyquist frequency (1/2 per pixel, to within a sixteenth, along y or x) divided by its mean power
    at all frequencies. 1 for white noise; checkerboard artefacts of Noise2Void (Hoeck et al. 2022)
    increase it compared with the same network without them. NaN for a residual of zero.

``PSNR_noisy`` and ``SSIM_noisy`` are PSNR and SSIM of the noisy input instead of a prediction.

Without a clean truth, further acquisitions of the field are an imperfect one:

PSNR_mean_of_repeats
    PSNR against the mean of the other acquisitions, with its range. For noise that is independent
    between acquisitions, the MSE against a mean of n - 1 of them exceeds the true one by
    variance / (n - 1), whatever the prediction. This is subtracted, with the variance between all
    n acquisitions. What is left is at least its own standard error. Only the noise in the range,
    max - min of the mean, is not corrected: it makes the value too high, equally for all methods.
    ``PSNR_mean_of_repeats_noisy`` is that of the noisy input.

J-invariant inference (Batson & Royer 2019) predicts every pixel while it is masked. Its metric
``loss_self_supervised`` is the mean squared difference between that prediction and the noisy image,
and needs no truth: if the noise is independent between pixels, it exceeds the true error,
``MSE_j_invariant``, by the variance of the noise. ``PSNR_j_invariant`` and ``SSIM_j_invariant`` are
PSNR and SSIM of that prediction. Without clean images, such a loss is measured for every denoiser
in its usual form, at a quarter of the pixels, see
:func:`~denoiseg_flow.methods.classical.masked_pixel_loss`.
"""

from __future__ import annotations

import numpy as np
import skimage as ski

from denoiseg_flow.data.store import planes_of
from denoiseg_flow.evaluation.overlap import object_overlap

#: IoU thresholds of the metrics AP, AP_0.6, ..., AP_0.9; AP_mean is the mean over all of them.
AP_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

#: One sentence per metric, for captions and documentation.
DEFINITIONS = {
    "AP": "AP is TP / (TP + FP + FN) at IoU > 0.5, mean over images that have objects",
    **{
        f"AP_{iou}": f"AP_{iou} is TP / (TP + FP + FN) at IoU > {iou}"
        for iou in AP_THRESHOLDS
        if iou > 0.5
    },
    "AP_mean": "AP_mean is the mean of AP over the IoU thresholds 0.5, 0.6, 0.7, 0.8, 0.9",
    "SEG": "SEG is the mean over annotated objects of the IoU with the predicted object that "
    "covers more than half of the annotated one, 0 if there is none",
    "PSNR": "PSNR (dB) uses the range (max - min) of the clean image",
    "PSNR_255": "PSNR_255 (dB) uses the range 255",
    "PSNR_scale_invariant": "PSNR_scale_invariant (dB) is PSNR after the best affine fit of the "
    "prediction to the clean image",
    "PSNR_mean_of_repeats": "PSNR_mean_of_repeats (dB) is PSNR against the mean of the other "
    "acquisitions of the field, an imperfect truth, without the error that the noise of that mean "
    "adds; its range (max - min) contains noise, above all with only one other acquisition, so "
    "compare it between methods, not with PSNR",
    "SSIM": "SSIM uses a uniform 7 x 7 window and the range of the clean image",
    "PSNR_j_invariant": "PSNR_j_invariant (dB) is PSNR with each pixel predicted while masked",
    "SSIM_j_invariant": "SSIM_j_invariant is SSIM with each pixel predicted while masked",
    "MSE": "MSE is the mean squared error",
    "MSE_j_invariant": "MSE_j_invariant is MSE with each pixel predicted while masked",
    "loss_self_supervised": "loss_self_supervised is the mean squared difference between such a "
    "prediction and the noisy image: true error plus variance of the noise",
    "checkerboard": "checkerboard is the power of the residual at the Nyquist frequency divided by "
    "its mean power: 1 for white noise, larger for checkerboard artefacts",
}

_SSIM_WINDOW = 7
_NYQUIST = 7 / 16  # 1 / pixels; frequencies above it count as alternating


def average_precision(truth: np.ndarray, prediction: np.ndarray, iou: float = 0.5) -> float:
    """Return AP = TP / (TP + FP + FN) with matches at IoU > ``iou`` (0.5 <= iou < 1).

    NaN if neither image has objects. See the module docstring for source and conventions and
    :func:`~denoiseg_flow.evaluation.overlap.object_overlap` for the inputs.
    """
    return object_overlap(truth, prediction).counts(iou).average_precision


def seg_score(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return SEG, the segmentation accuracy of the Cell Tracking Challenge; NaN without truth."""
    return object_overlap(truth, prediction).seg_score()


def psnr(truth: np.ndarray, prediction: np.ndarray, data_range: float | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB.

    Parameters
    ----------
    truth, prediction
        Images of the same shape and intensity scale.
    data_range
        The peak; by default max - min of the truth.

    Returns
    -------
    float
        inf for identical images; NaN if the peak is 0, e.g. for a constant truth.
    """
    truth, prediction = _as_float(truth, prediction)
    if data_range is None:
        data_range = float(np.ptp(truth))
    if data_range == 0:
        return float("nan")
    error = float(np.mean((truth - prediction) ** 2))
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def psnr_mean_of_repeats(repeats: np.ndarray, first: np.ndarray, prediction: np.ndarray) -> float:
    """Return the PSNR in dB against the mean of further acquisitions, corrected for its noise.

    Parameters
    ----------
    repeats
        Further acquisitions of the field (acquisition, [z,] y, x).
    first
        The acquisition that was denoised, before the workflow added any noise.
    prediction
        The denoised image; nothing in it may come from ``repeats``.

    Returns
    -------
    float
        See above; NaN if the mean is constant.
    """
    repeats = np.asarray(repeats, np.float64)
    mean = repeats.mean(axis=0)
    first, prediction = _as_float(first, prediction)
    variance = np.var([first, *repeats], axis=0, ddof=1)
    errors = (prediction - mean) ** 2 - variance / len(repeats)
    error = max(float(errors.mean()), float(errors.std()) / np.sqrt(errors.size))
    data_range = float(np.ptp(mean))
    if data_range == 0:
        return float("nan")
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def psnr_255(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return :func:`psnr` in dB with range 255, for intensities on an 8-bit scale."""
    return psnr(truth, prediction, data_range=255.0)


def psnr_scale_invariant(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return :func:`psnr` in dB after the least-squares affine fit of the prediction to the truth.

    A constant prediction is mapped to the mean of the truth. Source: CARE, N2V2 (see above).
    """
    truth, prediction = _as_float(truth, prediction)
    centred, centred_truth = prediction - prediction.mean(), truth - truth.mean()
    variance = float(np.sum(centred**2))
    slope = float(np.sum(centred * centred_truth)) / variance if variance > 0 else 0.0
    return psnr(centred_truth, slope * centred, data_range=float(np.ptp(truth)))


def ssim(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the structural similarity (scikit-image defaults, range of the truth).

    NaN for images smaller than the 7 x 7 window and for a constant truth (range 0).
    """
    truth, prediction = _as_float(truth, prediction)
    data_range = float(np.ptp(truth))
    if min(truth.shape[-2:]) < _SSIM_WINDOW or not data_range > 0:
        return float("nan")
    values = [
        ski.metrics.structural_similarity(*pair, win_size=_SSIM_WINDOW, data_range=data_range)
        for pair in zip(planes_of(truth), planes_of(prediction), strict=True)
    ]
    return float(np.mean(values))


def mse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean squared error, in squared grey levels."""
    truth, prediction = _as_float(truth, prediction)
    return float(np.mean((truth - prediction) ** 2))


def checkerboard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the strength of checkerboard artefacts in the residual; see above.

    A Hann window is applied to the residual first: the jump from one border to the opposite one
    must not count as a high frequency.
    """
    truth, prediction = _as_float(truth, prediction)
    height, width = truth.shape[-2:]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    power = np.abs(np.fft.fft2(planes_of(prediction - truth) * window)) ** 2
    nyquist = (np.abs(np.fft.fftfreq(height)) > _NYQUIST)[:, None] | (
        np.abs(np.fft.fftfreq(width)) > _NYQUIST
    )
    return float(power[:, nyquist].mean() / power.mean()) if power.any() else float("nan")


def _as_float(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes differ: truth {truth.shape}, prediction {prediction.shape}")
    if not truth.size:
        raise ValueError("the images are empty")
    return truth, prediction
