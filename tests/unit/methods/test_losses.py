"""Both halves of the loss, by hand."""

import numpy as np
import pytest
import torch

from denoiseg_flow.methods.classes import IGNORE
from denoiseg_flow.methods.losses import (
    CLASS_WEIGHTS,
    consistency_loss,
    denoising_loss,
    segmentation_loss,
)

NORMALISATIONS = ["annotated_pixels", "all_pixels"]


@pytest.fixture(params=[(4, 5), (2, 2, 5)], ids=["planes", "volumes"])
def batch(request):
    """Logits (2, 3, ...) and classes (2, ...) of 40 pixels, a third of them ignored."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 3, *request.param))
    classes = rng.integers(0, 3, (2, *request.param))
    classes[rng.random(classes.shape) < 1 / 3] = IGNORE
    return torch.from_numpy(logits), torch.from_numpy(classes)


def weighted_cross_entropy(logits, classes):
    """Sum over the annotated pixels, written out."""
    total = 0.0
    for sample, *place in np.argwhere(classes != IGNORE):
        values = logits[sample, :, *place]
        code = classes[sample, *place]
        log_probability = values[code] - np.log(np.exp(values).sum())
        total -= (1.0, 1.0, 5.0)[code] * log_probability
    return total


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_segmentation_loss_by_hand(batch, normalisation):
    logits, classes = batch
    count = {"annotated_pixels": int((classes != IGNORE).sum()), "all_pixels": 40}[normalisation]
    assert 0 < count <= 40
    expected = weighted_cross_entropy(logits.numpy(), classes.numpy()) / count
    found = segmentation_loss(logits, classes, normalisation)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("code, weight", list(enumerate(CLASS_WEIGHTS)))
def test_equal_logits_cost_the_weight_times_log_three(code, weight):
    logits, classes = torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), code)
    for normalisation in NORMALISATIONS:
        found = segmentation_loss(logits, classes, normalisation).item()
        assert found == pytest.approx(weight * np.log(3), rel=1e-6)


def test_only_one_normalisation_feels_unannotated_patches(batch):
    """Nine unannotated patches beside each annotated one divide the papers' loss by ten."""
    logits, classes = batch
    more = torch.cat([logits, torch.randn(18, *logits.shape[1:])])
    unannotated = torch.cat([classes, torch.full((18, *classes.shape[1:]), IGNORE)])
    ratios = {
        name: (
            segmentation_loss(more, unannotated, name) / segmentation_loss(logits, classes, name)
        ).item()
        for name in NORMALISATIONS
    }
    assert ratios == pytest.approx({"annotated_pixels": 1.0, "all_pixels": 0.1})


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_nothing_labelled_costs_nothing(batch, normalisation):
    logits = batch[0].requires_grad_()
    loss = segmentation_loss(logits, torch.full_like(batch[1], IGNORE), normalisation)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_ignored_pixels_have_no_gradient(batch, normalisation):
    logits, classes = batch
    logits.requires_grad_()
    segmentation_loss(logits, classes, normalisation).backward()
    size = logits.grad.abs().sum(dim=1)  # (batch, [z,] y, x)
    assert (size[classes == IGNORE] == 0).all()
    assert (size[classes != IGNORE] > 0).all()


def test_denoising_loss_by_hand():
    denoised = torch.tensor([[[1.0, 5.0], [2.0, 100.0]]])
    target = torch.tensor([[[2.0, 2.0], [2.0, 0.0]]])
    mask = torch.tensor([[[True, True], [True, False]]])
    assert denoising_loss(denoised, target, mask).item() == pytest.approx((1 + 9 + 0) / 3)


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_denoising_loss_sees_masked_pixels_only(shape):
    """Of every channel, in planes and volumes."""
    rng = torch.Generator().manual_seed(0)
    denoised = torch.randn(shape, generator=rng, requires_grad=True)
    target = torch.randn(shape, generator=rng)
    mask = torch.rand(shape, generator=rng) < 0.2
    loss = denoising_loss(denoised, target, mask)
    assert loss.item() == pytest.approx((denoised - target)[mask].square().mean().item(), rel=1e-6)
    loss.backward()
    expected = 2 * (denoised - target) / mask.sum()
    torch.testing.assert_close(denoised.grad, torch.where(mask, expected, 0).detach())


def test_no_masked_pixel_costs_nothing():
    """Small batches of small patches may hide no pixel at all."""
    denoised = torch.ones(1, 4, 4, requires_grad=True)
    loss = denoising_loss(denoised, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(denoised.grad, torch.zeros(1, 4, 4))


# Pseudo-labels


@pytest.mark.parametrize("sides", [(4, 5), (2, 4, 5)])
def test_consistency_is_least_where_both_agree(sides):
    """The gradient vanishes there: imitating a teacher that is right changes nothing."""
    logits = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    teacher = logits.softmax(dim=1)
    student = logits.clone().requires_grad_()
    loss = consistency_loss(student, teacher)
    entropy = -(teacher * teacher.log()).sum(dim=1).mean()
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-5)
    loss.backward()
    assert student.grad.abs().max() < 1e-6
    assert consistency_loss(torch.zeros_like(logits), teacher) > loss


def test_no_class_feeds_on_itself():
    """With the class weights, imitation alone would end in nothing but border."""
    certain = torch.eye(3)[:, :, None, None].expand(3, 3, 2, 2)  # one patch of each class
    for teacher in certain.split(1):
        assert consistency_loss(torch.zeros(1, 3, 2, 2), teacher) == pytest.approx(np.log(3))
