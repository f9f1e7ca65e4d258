"""Patches: right pixels, right classes, fair draws."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from denoiseg_flow import sampling
from denoiseg_flow.labels import IGNORE
from denoiseg_flow.sampling import ImageBank, PatchSampler, validation_patches

SHAPES = [(20, 31), (12, 12), (40, 17)]
LABELLED = [True, False, True]
SIZE = 8
PATCH = (SIZE, SIZE)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def numbered(shapes):
    """Images whose every value tells image, row and column: 10,000 * image + y * W + x."""
    return [
        10_000 * number + np.arange(height * width, dtype=np.float32).reshape(height, width)
        for number, (height, width) in enumerate(shapes)
    ]


def code(image):
    """A class that can be told from the pixel."""
    return (image.astype(int) % 3).astype(np.int8)


def target_of(image):
    """A target that can be told from the pixel."""
    return 3 * image + 7


def make_bank(shapes=SHAPES, labelled=LABELLED, targets=False):
    images = numbered(shapes)
    classes = [
        [torch.from_numpy(code(image))] if known else None
        for image, known in zip(images, labelled, strict=True)
    ]
    others = map(target_of, images) if targets else None
    return ImageBank.load(iter(images), iter(classes), shapes, torch.device("cpu"), others)


def draw(bank, rng):
    """Random patches, and those of validation."""
    return PatchSampler(bank, PATCH, 100, 0).draw(rng), validation_patches(bank, PATCH, 99, rng)


def place(patch, shapes=SHAPES):
    """Image, row and column that the values of a patch come from."""
    number, rest = np.divmod(patch.astype(int), 10_000)
    assert (number == number.flat[0]).all()
    number = int(number.flat[0])
    return number, *np.divmod(rest, shapes[number][1])


def symmetry(patch, image, width):
    """Which of the eight symmetries turns the slice of the image into the patch, or None."""
    top, left = divmod(int(patch.min()) % 10_000, width)
    crop = image[top : top + patch.shape[0], left : left + patch.shape[1]]
    variants = [np.rot90(side, turns) for side in (crop, crop.T) for turns in range(4)]
    return next((n for n, variant in enumerate(variants) if np.array_equal(patch, variant)), None)


def test_patches_are_slices_under_the_eight_symmetries(rng):
    images, sampler = numbered(SHAPES), PatchSampler(make_bank(), PATCH, 300, 0)
    patches = sampler.draw(rng).patches
    assert patches.shape == (300, SIZE, SIZE)
    found = [
        symmetry(
            patch, images[int(patch.flat[0]) // 10_000], SHAPES[int(patch.flat[0]) // 10_000][1]
        )
        for patch in patches.numpy()
    ]
    assert None not in found
    counts = np.bincount(found, minlength=8)
    assert len(counts) == 8
    assert np.abs(counts - 300 / 8).max() < 5 * (300 / 8) ** 0.5


def test_classes_lie_on_their_pixels(rng):
    sampler = PatchSampler(make_bank(), PATCH, 200, 0)
    patches, classes, *_ = sampler.draw(rng)
    assert (classes.shape, classes.dtype) == (patches.shape, torch.int64)
    for patch, codes in zip(patches.numpy(), classes.numpy(), strict=True):
        number, _, _ = place(patch)
        expected = code(patch) if LABELLED[number] else np.full((SIZE, SIZE), IGNORE)
        assert np.array_equal(codes, expected)


def test_every_pixel_tells_where_it_lies_in_its_image(rng):
    for batch in draw(make_bank(), rng):
        assert batch.place.dtype == torch.int64
        for patch, found in zip(batch.patches.numpy(), batch.place.numpy(), strict=True):
            _, *expected = place(patch)
            assert np.array_equal(found, expected)


def test_targets_are_cut_at_the_places_of_the_patches(rng):
    for batch in draw(make_bank(targets=True), rng):
        assert torch.equal(batch.targets, target_of(batch.patches))
    for batch in draw(make_bank(), rng):
        assert batch.targets is None


def test_targets_are_normalised_like_the_patches(rng):
    bank = make_bank(targets=True)
    pixels, targets = bank.pixels.clone(), bank.targets.clone()
    scale = bank.measure()
    assert scale.mean == pytest.approx(pixels.mean().item(), rel=1e-5)
    bank.normalise(scale)
    assert np.array_equal(bank.pixels, scale.apply(pixels.numpy()))
    assert np.array_equal(bank.targets, scale.apply(targets.numpy()))


@pytest.mark.parametrize("targets", [True, False])
def test_the_range_of_the_targets_becomes_that_from_0_to_1(targets):
    """Of the images themselves, where there are no targets."""
    bank = make_bank(targets=targets)
    scaled = bank.targets if targets else bank.pixels
    low, high = scaled.min().item(), scaled.max().item()
    scale = bank.measure_range()
    assert (scale.mean, scale.std) == (low, high - low)
    bank.normalise(scale)
    assert (scaled.min().item(), scaled.max().item()) == (0, 1)
    if targets:
        assert bank.pixels.max() < 1 / 2


@pytest.mark.parametrize("targets", [True, False])
def test_the_mean_of_the_targets(targets):
    bank = make_bank(targets=targets)
    values = bank.targets if targets else bank.pixels
    assert bank.mean_target() == pytest.approx(values.numpy().astype(float).mean(), rel=1e-12)


def test_the_range_of_a_constant_image_does_not_divide_by_zero():
    bank = ImageBank.load([np.full((8, 8), 5, "f4")], [None], [(8, 8)], torch.device("cpu"))
    bank.normalise(bank.measure_range())
    assert not bank.pixels.any()


@pytest.mark.parametrize("labelled, targets", [([False] * 3, False), (LABELLED, True)])
def test_part_of_a_batch(rng, labelled, targets):
    batch, _ = draw(make_bank(labelled=labelled, targets=targets), rng)
    part = batch.part(slice(10, 30))
    for values, some in zip(batch, part, strict=True):
        assert some is None if values is None else torch.equal(some, values[10:30])
    assert (part.classes is not None, part.targets is not None) == (any(labelled), targets)


@pytest.mark.parametrize("count", [20, 10, 40, 0])
def test_labelled_patches_come_first(rng, count):
    """The first part of a batch is labelled for certain, the rest is drawn from all images."""
    sampler = PatchSampler(make_bank(), PATCH, 40, count)
    drawn = np.array(
        [[place(patch)[0] for patch in sampler.draw(rng)[0].numpy()] for _ in range(60)]
    )
    assert drawn.shape == (60, 40)
    assert not (drawn[:, :count] == 1).any()
    if count < 40:
        rest = (drawn[:, count:] == 1).mean()
        expected = 144 / (20 * 31 + 144 + 40 * 17)
        assert rest == pytest.approx(expected, abs=4 * (expected / drawn[:, count:].size) ** 0.5)


def test_images_are_drawn_by_area(rng):
    sampler = PatchSampler(make_bank(), PATCH, 6000, 0)
    drawn = np.bincount(sampler.draw(rng)[0][:, 0, 0].numpy().astype(int) // 10_000)
    areas = np.array([height * width for height, width in SHAPES])
    expected = 6000 * areas / areas.sum()
    assert (np.abs(drawn - expected) < 4 * expected**0.5).all()


def test_every_position_is_reached_equally_often(rng):
    shape = (11, 14)
    sampler = PatchSampler(make_bank([shape], [False]), PATCH, 20_000, 0)
    corners = sampler.draw(rng)[0].amin(dim=(1, 2)).numpy().astype(int)
    counts = np.zeros(shape, int)
    np.add.at(counts, np.divmod(corners, shape[1]), 1)
    assert not counts[4:].any() and not counts[:, 7:].any()
    expected = 20_000 / (4 * 7)
    assert np.abs(counts[:4, :7] - expected).max() < 5 * expected**0.5


def test_a_patch_may_be_the_whole_image(rng):
    patches = PatchSampler(make_bank([(8, 8)], [False]), PATCH, 50, 0).draw(rng).patches
    assert (patches.sort(dim=-1).values.sum(dim=(1, 2)) == np.arange(64).sum()).all()


def test_large_images_lie_in_a_file_that_leaves_no_trace(monkeypatch, tmp_path):
    """The same pixels, targets and classes, whether in memory or not."""
    resident = make_bank(targets=True)
    monkeypatch.setattr(sampling, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mapped = make_bank(targets=True)
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps")  # Linux
    assert not maps.exists() or str(tmp_path) in maps.read_text()
    for field in ("pixels", "targets", "classes", "labelled"):
        assert torch.equal(getattr(resident, field), getattr(mapped, field))


def test_no_classes_without_annotated_images(rng):
    bank = make_bank(labelled=[False] * 3)
    assert bank.classes is None
    assert PatchSampler(bank, PATCH, 4, 0).draw(rng)[1] is None
    assert validation_patches(bank, PATCH, 4, rng)[1] is None


def test_same_generator_same_batches():
    sampler = PatchSampler(make_bank(), PATCH, 30, 15)
    first, again, other = (
        [sampler.draw(generator)[0] for _ in range(3)]
        for generator in (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_the_bank_copies_what_it_reads(rng):
    """Images come as read-only, possibly non-contiguous maps."""
    image = numbered([(12, 16)])[0]
    view = image.T
    view.flags.writeable = False
    bank = ImageBank.load(
        [view], [[torch.from_numpy(code(view))]], [view.shape], torch.device("cpu")
    )
    expected = view.copy()
    image[:] = -1
    assert np.array_equal(bank.pixels.reshape(16, 12).numpy(), expected)
    assert np.array_equal(bank.classes.reshape(16, 12).numpy(), code(expected))


def test_images_classes_and_targets_must_match():
    images, device = numbered(SHAPES), torch.device("cpu")
    with pytest.raises(ValueError):
        ImageBank.load(images, [None], SHAPES, device)
    with pytest.raises(ValueError):
        ImageBank.load(images, [None] * 3, SHAPES, device, images[:2])


def test_validation_cuts_every_image_into_a_grid(rng):
    patches, classes, *_ = validation_patches(make_bank(), PATCH, 1000, rng)
    corners = set()
    for patch, codes in zip(patches.numpy(), classes.numpy(), strict=True):
        number, y, x = place(patch)
        top, left = int(y[0, 0]), int(x[0, 0])
        assert np.array_equal(y, top + np.mgrid[:SIZE, :SIZE][0])
        assert np.array_equal(x, left + np.mgrid[:SIZE, :SIZE][1])
        expected = code(patch) if LABELLED[number] else np.full((SIZE, SIZE), IGNORE)
        assert np.array_equal(codes, expected)
        corners.add((number, top, left))
    assert len(corners) == len(patches)
    assert corners == {
        (number, top, left)
        for number, (height, width) in enumerate(SHAPES)
        for top in range(0, height - SIZE + 1, SIZE)
        for left in range(0, width - SIZE + 1, SIZE)
    }


def test_validation_is_limited_and_fixed():
    bank = make_bank()
    first, again, other = (
        validation_patches(bank, PATCH, 5, torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert len(first) == 5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    everything = validation_patches(bank, PATCH, 99, torch.Generator().manual_seed(1))[0]
    assert {patch.numpy().tobytes() for patch in first} < {
        patch.numpy().tobytes() for patch in everything
    }
