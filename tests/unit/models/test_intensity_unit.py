"""Images in another unit give the same results in that unit: grey levels of 1e-9 or of 1e12."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.store import write_array
from denoiseg_flow.deployment.objects import measure_objects
from denoiseg_flow.evaluation import metrics
from denoiseg_flow.evaluation.noise_structure import noise_structure
from denoiseg_flow.evaluation.residuals import judge_residual
from denoiseg_flow.methods.classical import DENOISERS, calibrate, denoise, is_available, noise_level
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.predict_run import predict_folder, self_supervised_losses
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.job import TrainingJob
from denoiseg_flow.training.trainer import train
from denoiseg_flow.training.training_images import Target, TrainingImages

CPU = torch.device("cpu")
SCALES = st.integers(-40, 40).map(lambda exponent: 2.0**exponent)  # exact, of 1e-12 to 1e12
FEW = settings(max_examples=4)
JOINT = Method("joint", target="blind_spot", alpha=0.5)
GRID = Method("grid", target="blind_spot", masking="grid_interpolate", alpha=1)
DAE = Method("dae", target="clean", network="autoencoder", alpha=1)


@pytest.fixture(scope="module")
def blobs(make_blobs):
    """Three noisy images, their labels, and the first without noise."""
    pairs = [make_blobs(48, seed=seed, sigma=20.0) for seed in range(3)]
    images = [image.astype(np.float32) for image, _ in pairs]
    labels = [labels for _, labels in pairs]
    return images, labels, 100 + 80.0 * (labels[0] > 0)


@pytest.fixture(scope="module")
def results(blobs, make_recipe, tmp_path_factory):
    """Train on images times a number, and return what the model yields of the last of them."""

    @cache
    def results(method, scale):
        folder = tmp_path_factory.mktemp("unit")
        for number, (image, mask) in enumerate(zip(*blobs[:2], strict=True)):
            write_array(folder / "images" / f"{number}.tif", scale * image)
            write_array(folder / "masks" / f"{number}.tif", mask)
        files = [[folder / kind / f"{k}.tif" for k in range(3)] for kind in ("images", "masks")]
        masks = files[1] if method.segments else [None] * 3
        chosen = TrainingImages(files[0][:2], masks[:2], files[0][2:], masks[2:])
        if method.target == "clean":
            chosen = replace(chosen, target=Target(lambda name: scale * blobs[0][0][None]))
        checkpoints = Checkpoints(folder / "checkpoint.pt", 60)
        recipe = make_recipe(depth=2)
        job = TrainingJob(Run("d", "n", "m", 2, seed=1), method, recipe, checkpoints, CPU)
        model, _ = train(job, chosen)
        predict_folder(model, folder / "images", ["2"], folder / "predictions", True)
        found = {
            path.parent.name: tifffile.imread(path) for path in (folder / "predictions").glob("*/*")
        }
        found["loss"] = self_supervised_losses(model, folder / "images", ["2"])["loss"][0]
        return found

    return results


@pytest.mark.parametrize("method", [JOINT, GRID, DAE], ids=lambda method: method.name)
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_training_and_prediction(results, method, scale):
    """To the last bit, though the weights are the same only if all normalised pixels are."""
    usual, other = results(method, 1.0), results(method, scale)
    assert usual.keys() == other.keys()
    for kind, image in usual.items():
        unit = {"loss": scale**2, "probabilities": 1, "labels": 1}.get(kind, scale)
        assert np.array_equal(other[kind], unit * image), kind


@FEW
@given(SCALES)
def test_classical_denoisers(blobs, scale):
    image = blobs[0][0]
    assert noise_level(scale * image) == scale * noise_level(image)
    for name, denoiser in DENOISERS.items():
        if not is_available(name):
            continue
        value = denoiser.candidates[0] if denoiser.parameter else None
        found = denoise(name, scale * image, value)
        np.testing.assert_allclose(found, scale * denoise(name, image, value), rtol=1e-6)


@FEW
@given(SCALES)
def test_calibration(blobs, scale):
    usual, other = (calibrate("wavelet", (0.8, 2), [unit * blobs[0][0]]) for unit in (1.0, scale))
    for loss in ("loss_self_supervised", "loss_plain"):
        np.testing.assert_allclose(other[loss], scale**2 * usual[loss], rtol=1e-6)


@FEW
@given(SCALES)
def test_metrics(blobs, scale):
    noisy, clean = blobs[0][0], blobs[2]
    for metric in (metrics.psnr, metrics.psnr_scale_invariant, metrics.ssim, metrics.checkerboard):
        assert metric(scale * clean, scale * noisy) == pytest.approx(metric(clean, noisy))
    assert metrics.mse(scale * clean, scale * noisy) == scale**2 * metrics.mse(clean, noisy)


@FEW
@given(SCALES)
def test_tables_of_objects(blobs, scale):
    image, labels = blobs[0][0], blobs[1][0]
    usual, other = (
        next(iter(measure_objects("a", labels, unit * image, Metadata("YX"))))
        for unit in (1.0, scale)
    )
    for column, values in usual.items():
        if column.startswith("intensity"):
            np.testing.assert_allclose(other[column], scale * values, rtol=1e-6)
        else:
            assert other[column].equals(values)


@FEW
@given(SCALES)
def test_noise_and_residuals(blobs, scale):
    image, clean = blobs[0][0], blobs[2]
    usual, other = (noise_structure([unit * image]) for unit in (1.0, scale))
    assert usual.kind == other.kind
    assert np.array_equal(usual.along_x, other.along_x)
    first, second = (judge_residual(unit * image, unit * clean, usual) for unit in (1.0, scale))
    assert np.array_equal(first.smoothed, second.smoothed)
    assert np.array_equal(first.invented, second.invented)
    assert first.removed == pytest.approx(second.removed, nan_ok=True)
