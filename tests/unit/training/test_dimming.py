"""Patches with less contrast and the same noise."""

import numpy as np
import pytest
import torch

from denoiseg_flow.methods.classes import BACKGROUND, BORDER, FOREGROUND, IGNORE
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.training.dimming import LOWEST, dim, measure_noise
from denoiseg_flow.training.patches import Batch, ImageBank

SIDE = 96


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(*planes, channels=1):
    """Patches of a bright square on a dark background, at the levels (background, object)."""
    classes = torch.full((SIDE, SIDE), BACKGROUND)
    classes[24:72, 24:72] = FOREGROUND
    classes[24, 24:72] = BORDER
    classes[:8] = IGNORE
    values = [torch.where(classes > BACKGROUND, bright, dark).float() for dark, bright in planes]
    patches = torch.stack(values)[:, None].repeat(1, channels, 1, 1)
    patches[:, :, :8] = 1e3  # what is not annotated says nothing of the background
    every = classes.expand(len(planes), -1, -1)
    return Batch(patches, every, None, torch.zeros(len(planes), 2, SIDE, SIDE))


def contrast(patch, classes):
    return (patch[..., classes > 0].mean() - patch[..., classes == 0].mean()).item()


def test_contrasts_are_log_uniform_and_backgrounds_stay():
    batch = batch_of(*[(5.0, 7.0)] * 400)
    found = dim(batch, 400, 1.0, torch.zeros(1), generator())
    background = batch.classes[0] == BACKGROUND
    assert torch.allclose(found.patches[:, 0, background], torch.tensor(5.0), atol=1e-4)
    factors = np.array([contrast(patch[0], batch.classes[0]) / 2 for patch in found.patches])
    assert (factors > LOWEST - 1e-4).all() and (factors < 1 + 1e-4).all()
    assert np.log(factors).mean() == pytest.approx(np.log(LOWEST) / 2, abs=0.05)
    assert found.classes is batch.classes


def test_the_noise_stays_as_strong_as_it_was():
    noise = torch.tensor([0.5, 2.0])
    batch = batch_of(*[(0.0, 3.0)] * 40, channels=2)
    white = torch.randn(batch.patches.shape, generator=generator(9))
    batch.patches.add_(noise.view(1, 2, 1, 1) * white)
    found = dim(batch, 40, 1.0, noise, generator()).patches
    background = batch.classes[0] == BACKGROUND
    deviations = found[:, :, background].std(dim=-1).mean(dim=0)
    assert torch.allclose(deviations, noise, rtol=0.02)
    # New noise is not that of the image, nor that of another channel.
    assert not torch.allclose(found[:, 0] / 0.5, found[:, 1] / 2, atol=0.1)


def test_only_the_first_patches_are_dimmed_and_only_a_share_of_them():
    batch = batch_of(*[(1.0, 2.0)] * 300)
    found = dim(batch, 200, 0.25, torch.ones(1), generator()).patches
    same = (found == batch.patches).flatten(1).all(dim=1)
    assert same[200:].all()
    assert (~same[:200]).float().mean() == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("known", [None, IGNORE, FOREGROUND])
def test_without_annotated_background_nothing_is_dimmed(known):
    batch = batch_of((0.0, 1.0))
    classes = None if known is None else torch.full_like(batch.classes, known)
    batch = batch._replace(classes=classes)
    found = dim(batch, 1, 1.0, torch.ones(1), generator())
    assert torch.equal(found.patches, batch.patches)


def test_the_noise_is_the_median_of_the_real_images():
    random = np.random.default_rng(0)
    sigmas = [3.0, 1.0, 2.0, 9.0, 9.0]
    images = [random.normal(0, sigma, (2, 64, 80)).astype(np.float32) for sigma in sigmas]
    images = [image * np.float32([1, 10])[:, None, None] for image in images]
    bank = ImageBank.load(
        images, [None] * 5, [(64, 80)] * 5, torch.device("cpu"), channels=2, n_simulated=2
    )
    assert measure_noise(bank).tolist() == pytest.approx([2, 20], rel=0.1)
    assert torch.equal(bank.centre(1, 50), torch.from_numpy(images[1][:, 7:57, 15:65]))


def test_which_patches_can_be_dimmed(make_recipe):
    recipe = make_recipe(batch_size=12, annotated_share=0.5, dimming=0.5, rehearsal=0.5)
    baseline = Method("baseline")
    joint = Method("denoiseg", target="blind_spot", alpha=0.5)
    started = Method("pretrained", init="simulated_objects")
    assert [recipe.dimmed_patches(each, 2) for each in (baseline, joint, started)] == [12, 6, 6]
    assert recipe.dimmed_patches(started, 0) == 0
    shares = [make_recipe(dimming=1.0).dimmed_share(count) for count in (1, 2, 10)]
    assert shares == [0.5, 0.5, 0.1]
    # Their targets show the contrast that they have.
    for target in ("clean", "second_noisy"):
        assert recipe.dimmed_patches(Method("m", target=target, alpha=0.5), 2) == 0
    assert make_recipe().dimmed_patches(baseline, 2) == 0


def test_volumes_are_dimmed_as_a_whole():
    classes = torch.full((2, 4, 8, 8), BACKGROUND)
    classes[:, 1:3, 2:6, 2:6] = FOREGROUND
    patches = torch.where(classes > BACKGROUND, 7.0, 5.0)[:, None]
    batch = Batch(patches, classes, None, torch.zeros(2, 3, 4, 8, 8))
    found = dim(batch, 2, 1.0, torch.zeros(1), generator()).patches
    assert torch.allclose(found[:, 0][classes == BACKGROUND], torch.tensor(5.0))
    for patch, mask in zip(found[:, 0], classes > BACKGROUND, strict=True):
        assert patch[mask].std() < 1e-5
        assert 5 < patch[mask].mean() < 7
