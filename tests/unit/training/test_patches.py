"""Patches: right pixels, right classes, fair draws."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from denoiseg_flow.methods.classes import IGNORE
from denoiseg_flow.training import patches
from denoiseg_flow.training.patches import ImageBank, PatchSampler, validation_patches

SHAPES = [(20, 31), (12, 12), (40, 17)]
STACKS = [(6, 12, 15), (4, 9, 9), (9, 8, 13)]
ANNOTATED = [True, False, True]
PATCHES = {2: (8, 8), 3: (4, 8, 8)}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[SHAPES, STACKS], ids=["planes", "volumes"])
def shapes(request):
    return request.param


def patch_of(shapes):
    return PATCHES[len(shapes[0])]


def numbered(shapes):
    """Images whose every value tells image and place: 10,000 * image + number of the pixel."""
    return [
        10_000 * number + np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
        for number, shape in enumerate(shapes)
    ]


def code(image):
    """A class that can be told from the pixel."""
    return (image.astype(int) % 3).astype(np.int8)


def target_of(image):
    """A target that can be told from the pixel."""
    return 3 * image + 7


def make_bank(shapes=SHAPES, annotated=ANNOTATED, targets=False):
    images = numbered(shapes)
    classes = [
        [torch.from_numpy(code(image))] if known else None
        for image, known in zip(images, annotated, strict=True)
    ]
    others = map(target_of, images) if targets else None
    return ImageBank.load(iter(images), iter(classes), shapes, torch.device("cpu"), others)


def draw(bank, rng, patch=PATCHES[2]):
    """Random patches, and those of validation."""
    return PatchSampler(bank, patch, 100, 0).draw(rng), validation_patches(bank, patch, 99, rng)


def place(patch, shapes=SHAPES):
    """Image, and position along each axis, that the values of a patch come from."""
    number, rest = np.divmod(patch.astype(int), 10_000)
    assert (number == number.flat[0]).all()
    number = int(number.flat[0])
    return number, *np.unravel_index(rest, shapes[number])


def symmetry(patch, image):
    """Which of the symmetries turns the slice of the image into the patch, or None.

    The eight of the square, and in volumes those upside down; never one that turns planes.
    """
    corner = np.argwhere(image == patch.min())[0]
    along = zip(corner, patch.shape, strict=True)
    crop = image[tuple(slice(start, start + length) for start, length in along)]
    variants = [
        np.rot90(side, turns, (-2, -1))
        for way in ([crop, crop[::-1]] if crop.ndim == 3 else [crop])
        for side in (way, way.swapaxes(-2, -1))
        for turns in range(4)
    ]
    return next((n for n, variant in enumerate(variants) if np.array_equal(patch, variant)), None)


@pytest.mark.parametrize(
    "shapes, shape",
    [(SHAPES, (8, 8)), (STACKS, (4, 8, 8)), (STACKS, (4, 4, 4)), (STACKS, (1, 8, 8))],
)
def test_patches_are_slices_under_the_eight_symmetries(rng, shapes, shape):
    """And in volumes up or down, each as often."""
    count = 1600 if shape[:-2] > (1,) else 800
    images, sampler = numbered(shapes), PatchSampler(make_bank(shapes), shape, count, 0)
    patches = sampler.draw(rng).patches[:, 0]
    assert patches.shape == (count, *shape)
    found = [symmetry(patch, images[int(patch.flat[0]) // 10_000][0]) for patch in patches.numpy()]
    assert None not in found
    counts = np.bincount(found, minlength=count // 100)
    assert len(counts) == count // 100
    assert np.abs(counts - 100).max() < 5 * 100**0.5


def test_classes_lie_on_their_pixels(rng, shapes):
    sampler = PatchSampler(make_bank(shapes), patch_of(shapes), 200, 0)
    patches, classes, *_ = sampler.draw(rng)
    patches = patches[:, 0]
    assert (classes.shape, classes.dtype) == (patches.shape, torch.int64)
    for patch, codes in zip(patches.numpy(), classes.numpy(), strict=True):
        number, *_ = place(patch, shapes)
        expected = code(patch) if ANNOTATED[number] else np.full(patch.shape, IGNORE)
        assert np.array_equal(codes, expected)


@pytest.mark.parametrize("length", [1, 7, 100, 10_000])
def test_classes_may_come_in_parts(shapes, length):
    """Parts follow each other in memory."""
    whole = make_bank(shapes)
    parts = [
        iter(torch.from_numpy(code(image).ravel()).split(length)) if known else None
        for image, known in zip(numbered(shapes), ANNOTATED, strict=True)
    ]
    bank = ImageBank.load(numbered(shapes), parts, shapes, torch.device("cpu"))
    assert torch.equal(bank.classes, whole.classes)
    assert torch.equal(bank.annotated, whole.annotated)


def test_every_pixel_tells_where_it_lies_in_its_image(rng, shapes):
    for batch in draw(make_bank(shapes), rng, patch_of(shapes)):
        assert batch.place.dtype == torch.int64
        for patch, found in zip(batch.patches[:, 0].numpy(), batch.place.numpy(), strict=True):
            _, *expected = place(patch, shapes)
            assert np.array_equal(found, expected)


def test_targets_are_cut_at_the_places_of_the_patches(rng, shapes):
    for batch in draw(make_bank(shapes, targets=True), rng, patch_of(shapes)):
        assert torch.equal(batch.targets, target_of(batch.patches))
    for batch in draw(make_bank(shapes), rng, patch_of(shapes)):
        assert batch.targets is None


# Channels


def red_of(image):
    """A further channel that can be told from the first."""
    return 100_000 - 5 * image


def colourful(shapes, targets=True):
    """A bank of images of two channels, green and red."""
    green = numbered(shapes)
    images = [np.concatenate([image, red_of(image)]) for image in green]
    others = [target_of(image) for image in images]
    for other, image in zip(others, green, strict=True):
        other[1] = red_of(target_of(image[0]))
    classes = [[torch.from_numpy(code(image))] for image in green]
    device = torch.device("cpu")
    return ImageBank.load(images, classes, shapes, device, others if targets else None, channels=2)


def test_channels_stay_together(rng, shapes):
    bank = colourful(shapes)
    assert bank.channels == 2
    for batch in draw(bank, rng, patch_of(shapes)):
        green, red = batch.patches.unbind(dim=1)
        assert torch.equal(red, red_of(green))
        assert torch.equal(batch.targets[:, 0], target_of(green))
        assert torch.equal(batch.targets[:, 1], red_of(target_of(green)))
        assert np.array_equal(batch.classes, code(green.numpy()))
        for patch, found in zip(green.numpy(), batch.place.numpy(), strict=True):
            assert np.array_equal(found, place(patch, shapes)[1:])


def test_a_channel_more_moves_no_patch(shapes):
    one, two = (
        PatchSampler(bank, patch_of(shapes), 50, 0).draw(torch.Generator().manual_seed(0))
        for bank in (make_bank(shapes), colourful(shapes))
    )
    assert torch.equal(one.patches, two.patches[:, :1])
    assert torch.equal(one.place, two.place)


def test_every_channel_has_a_normalisation_of_its_own(shapes):
    bank = colourful(shapes)
    pixels, targets = bank.pixels.clone(), bank.targets.clone()
    scale = bank.measure()
    assert scale.mean == pytest.approx(pixels.double().mean(dim=1).tolist(), rel=1e-9)
    assert scale.std == pytest.approx(pixels.double().std(dim=1, correction=0).tolist(), rel=1e-6)
    bank.normalise(scale)
    mean, std = scale.scale(1)
    assert torch.equal(bank.pixels, (pixels - mean) / std)
    assert torch.equal(bank.targets, (targets - mean) / std)
    assert bank.pixels.mean(dim=1).numpy() == pytest.approx(0, abs=1e-4)
    assert bank.pixels.std(dim=1).numpy() == pytest.approx(1, rel=1e-3)


def test_the_normalisation_of_a_channel_does_not_depend_on_others(shapes):
    """It is that of a bank of this channel alone."""
    both, alone = colourful(shapes), make_bank(shapes, targets=True)
    for measured in (ImageBank.measure, ImageBank.measure_range):
        scale, first = measured(both), measured(alone)
        assert (scale.mean[:1], scale.std[:1]) == (first.mean, first.std)
        assert scale.mean[1] != scale.mean[0]


@pytest.mark.parametrize("targets", [True, False])
def test_every_channel_has_a_range_of_its_own(shapes, targets):
    bank = colourful(shapes, targets)
    scaled = bank.targets if targets else bank.pixels
    assert bank.mean_target() == pytest.approx(scaled.double().mean().item(), rel=1e-9)
    bank.normalise(bank.measure_range())
    assert scaled.amin(dim=1).tolist() == [0, 0]
    assert scaled.amax(dim=1).tolist() == [1, 1]


def test_images_must_have_the_channels_that_were_named():
    images, device = numbered(SHAPES), torch.device("cpu")
    for channels in (2, 20):  # the first image is as high as the second number
        with pytest.raises(ValueError):
            ImageBank.load(images, [None] * 3, SHAPES, device, channels=channels)
    with pytest.raises(ValueError, match=r"\(2, 20, 31\) does not fit 1 channels"):
        pair = [np.concatenate([image, image]) for image in images]
        ImageBank.load(pair, [None] * 3, SHAPES, device)


# Normalisation


def test_targets_are_normalised_like_the_patches(rng):
    bank = make_bank(targets=True)
    pixels, targets = bank.pixels.clone(), bank.targets.clone()
    scale = bank.measure()
    assert scale.mean == pytest.approx((pixels.mean().item(),), rel=1e-5)
    bank.normalise(scale)
    mean, std = scale.scale(1)
    assert torch.equal(bank.pixels, (pixels - mean) / std)
    assert torch.equal(bank.targets, (targets - mean) / std)


@pytest.mark.parametrize("targets", [True, False])
def test_the_range_of_the_targets_becomes_that_from_0_to_1(targets):
    """Of the images themselves, where there are no targets."""
    bank = make_bank(targets=targets)
    scaled = bank.targets if targets else bank.pixels
    low, high = scaled.min().item(), scaled.max().item()
    scale = bank.measure_range()
    assert (scale.mean, scale.std) == ((low,), (high - low,))
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
    bank = ImageBank.load([np.full((1, 8, 8), 5, "f4")], [None], [(8, 8)], torch.device("cpu"))
    bank.normalise(bank.measure_range())
    assert not bank.pixels.any()


@pytest.mark.parametrize("annotated, targets", [([False] * 3, False), (ANNOTATED, True)])
def test_part_of_a_batch(rng, shapes, annotated, targets):
    bank = make_bank(shapes, annotated=annotated, targets=targets)
    batch, _ = draw(bank, rng, patch_of(shapes))
    part = batch.part(slice(10, 30))
    for values, some in zip(batch, part, strict=True):
        assert some is None if values is None else torch.equal(some, values[10:30])
    assert (part.classes is not None, part.targets is not None) == (any(annotated), targets)


@pytest.mark.parametrize("count", [20, 10, 40, 0])
def test_annotated_patches_come_first(rng, shapes, count):
    """The first part of a batch is annotated for certain, the rest is drawn from all images."""
    sampler = PatchSampler(make_bank(shapes), patch_of(shapes), 40, count)
    drawn = np.array(
        [[place(patch, shapes)[0] for patch in sampler.draw(rng)[0].numpy()] for _ in range(60)]
    )
    assert drawn.shape == (60, 40)
    assert not (drawn[:, :count] == 1).any()
    if count < 40:
        rest = (drawn[:, count:] == 1).mean()
        expected = np.prod(shapes[1]) / sum(np.prod(shape) for shape in shapes)
        assert rest == pytest.approx(expected, abs=4 * (expected / drawn[:, count:].size) ** 0.5)


def test_images_are_drawn_by_size(rng, shapes):
    """By the area of planes, and by the volume of volumes."""
    sampler = PatchSampler(make_bank(shapes), patch_of(shapes), 6000, 0)
    drawn = np.bincount(sampler.draw(rng)[0].flatten(1)[:, 0].numpy().astype(int) // 10_000)
    sizes = np.array([np.prod(shape) for shape in shapes])
    expected = 6000 * sizes / sizes.sum()
    assert (np.abs(drawn - expected) < 4 * expected**0.5).all()


@pytest.mark.parametrize("shape, patch", [((11, 14), (8, 8)), ((4, 7, 6), (2, 4, 4))])
def test_every_position_is_reached_equally_often(rng, shape, patch):
    sampler = PatchSampler(make_bank([shape], [False]), patch, 20_000, 0)
    corners = sampler.draw(rng)[0].flatten(1).amin(dim=1).numpy().astype(int)
    counts = np.zeros(shape, int)
    np.add.at(counts, np.unravel_index(corners, shape), 1)
    fitting = tuple(slice(0, n - side + 1) for n, side in zip(shape, patch, strict=True))
    assert counts[fitting].sum() == 20_000
    expected = 20_000 / counts[fitting].size
    assert np.abs(counts[fitting] - expected).max() < 5 * expected**0.5


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_a_patch_may_be_the_whole_image(rng, shape):
    patches = PatchSampler(make_bank([shape], [False]), shape, 50, 0).draw(rng).patches
    found = patches.flatten(1).sort(dim=1).values
    assert torch.equal(found, torch.arange(float(np.prod(shape))).expand(50, -1))


def test_large_images_lie_in_a_file_that_leaves_no_trace(monkeypatch, tmp_path):
    """The same pixels, targets and classes, whether in memory or not."""
    resident = make_bank(targets=True)
    monkeypatch.setattr(patches, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mapped = make_bank(targets=True)
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps")  # Linux
    assert not maps.exists() or str(tmp_path) in maps.read_text()
    for field in ("pixels", "targets", "classes", "annotated"):
        assert torch.equal(getattr(resident, field), getattr(mapped, field))


def test_no_classes_without_annotated_images(rng):
    bank = make_bank(annotated=[False] * 3)
    assert bank.classes is None
    assert PatchSampler(bank, PATCHES[2], 4, 0).draw(rng)[1] is None
    assert validation_patches(bank, PATCHES[2], 4, rng)[1] is None


def test_same_generator_same_batches():
    sampler = PatchSampler(make_bank(), PATCHES[2], 30, 15)
    first, again, other = (
        [sampler.draw(generator)[0] for _ in range(3)]
        for generator in (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_the_bank_copies_what_it_reads(rng):
    """Images come as read-only, possibly non-contiguous maps."""
    (image,) = numbered([(12, 16)])
    view = image.swapaxes(1, 2)
    view.flags.writeable = False
    bank = ImageBank.load(
        [view], [[torch.from_numpy(code(view))]], [view.shape[1:]], torch.device("cpu")
    )
    expected = view.copy()
    image[:] = -1
    assert np.array_equal(bank.pixels.reshape(1, 16, 12).numpy(), expected)
    assert np.array_equal(bank.classes.reshape(1, 16, 12).numpy(), code(expected))


def test_images_classes_and_targets_must_match():
    images, device = numbered(SHAPES), torch.device("cpu")
    with pytest.raises(ValueError):
        ImageBank.load(images, [None], SHAPES, device)
    with pytest.raises(ValueError, match="does not fit"):
        ImageBank.load(images[::-1], [None] * 3, SHAPES, device)
    with pytest.raises(ValueError):
        ImageBank.load(images, [None] * 3, SHAPES, device, images[:2])


def test_validation_cuts_every_image_into_a_grid(rng, shapes):
    sides = patch_of(shapes)
    patches, classes, *_ = validation_patches(make_bank(shapes), sides, 1000, rng)
    corners = set()
    for patch, codes in zip(patches[:, 0].numpy(), classes.numpy(), strict=True):
        number, *along = place(patch, shapes)
        corner = [int(position.flat[0]) for position in along]
        for position, start, ramp in zip(along, corner, np.indices(sides), strict=True):
            assert np.array_equal(position, start + ramp)
        expected = code(patch) if ANNOTATED[number] else np.full(sides, IGNORE)
        assert np.array_equal(codes, expected)
        corners.add((number, *corner))
    assert len(corners) == len(patches)
    assert corners == {
        (number, *(side * step for side, step in zip(sides, steps, strict=True)))
        for number, shape in enumerate(shapes)
        for steps in np.ndindex(*(n // side for n, side in zip(shape, sides, strict=True)))
    }


def test_validation_is_limited_and_fixed():
    bank = make_bank()
    first, again, other = (
        validation_patches(bank, PATCHES[2], 5, torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert len(first) == 5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    everything = validation_patches(bank, PATCHES[2], 99, torch.Generator().manual_seed(1))[0]
    assert {patch.numpy().tobytes() for patch in first} < {
        patch.numpy().tobytes() for patch in everything
    }


@pytest.mark.parametrize("exchangeable", [True, False])
def test_patches_and_targets_show_different_repeats_at_random(shapes, rng, exchangeable):
    """Every pair of different acquisitions of a field, equally often; of the same place."""
    further = [2, 1, 4]
    images = list(numbered(shapes))
    targets = (
        np.concatenate([image + 0.1 * k for k in range(1, n + 1)])
        for image, n in zip(images, further, strict=True)
    )
    bank = ImageBank.load(
        images, [None] * 3, shapes, torch.device("cpu"), targets, n_targets=further
    )
    bank.exchangeable = exchangeable
    seen = Counter()
    for _ in range(20):
        batch, validation = draw(bank, rng, patch_of(shapes))
        for patch, target in zip(batch.patches, batch.targets, strict=True):
            shown, wanted = ((each % 1).round(decimals=1) for each in (patch, target))
            assert shown.unique().numel() == wanted.unique().numel() == 1
            assert torch.equal(patch.floor(), target.floor())
            number = int(patch.flatten()[0] // 10_000)
            seen[number, round(10 * float(shown.max())), round(10 * float(wanted.max()))] += 1
    for number, n in enumerate(further):
        pairs = {key[1:]: count for key, count in seen.items() if key[0] == number}
        first = range(n + 1) if exchangeable else [0]
        assert set(pairs) == {(a, b) for a in first for b in range(n + 1) if a != b}
        mean = sum(pairs.values()) / len(pairs)
        assert all(abs(count - mean) < 5 * np.sqrt(mean) for count in pairs.values())
    assert ((validation.targets - validation.patches - 0.1).abs() < 0.01).all()


def test_acquisitions_are_exchanged_as_a_whole_in_half_of_the_patches(shapes, rng):
    bank = make_bank(shapes, targets=True)
    bank.exchangeable = True
    batch, validation = draw(bank, rng, patch_of(shapes))
    pixels, targets = batch.patches, batch.targets
    straight, turned = (
        (other == target_of(one)).flatten(1).all(dim=1)
        for one, other in ((pixels, targets), (targets, pixels))
    )
    assert (straight ^ turned).all()
    assert 30 < int(turned.sum()) < 70  # four standard errors of 100 draws
    first = torch.where(turned.view(-1, *[1] * (pixels.dim() - 1)), targets, pixels)[:, 0]
    known = batch.classes != IGNORE
    assert known.any() and torch.equal(batch.classes[known], first[known].long() % 3)
    assert torch.equal(validation.targets, target_of(validation.patches))
