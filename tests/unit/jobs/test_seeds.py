"""Random numbers that depend on the seed and the purpose alone."""

import numpy as np
import pytest
import torch

from denoiseg_flow.jobs.seeds import generator, torch_seed


def test_same_purpose_same_draws():
    first = generator(3, "noise", "image 7").standard_normal(20)
    assert np.array_equal(first, generator(3, "noise", "image 7").standard_normal(20))
    assert torch_seed(3, "noise", 7) == torch_seed(3, "noise", 7)


@pytest.mark.parametrize(
    "seed, purpose",
    [
        (4, ("noise", "image 7")),
        (3, ("noise", "image 8")),
        (3, ("labels", "image 7")),
        (3, ("image 7", "noise")),
        (3, ("noiseimage 7",)),
        (3, ("noise",)),
        (3, ()),
    ],
)
def test_other_seed_or_purpose_other_draws(seed, purpose):
    reference = generator(3, "noise", "image 7").standard_normal(20)
    assert not np.isin(generator(seed, *purpose).standard_normal(20), reference).any()
    assert torch_seed(seed, *purpose) != torch_seed(3, "noise", "image 7")


def test_draws_of_a_purpose_do_not_depend_on_other_generators():
    expected = generator(0, "a").random(3)
    generator(0, "b").random(100)
    np.random.default_rng().random(100)
    assert np.array_equal(generator(0, "a").random(3), expected)


def test_numbers_count_as_their_text():
    assert torch_seed(1, "image", 5) == torch_seed(1, "image", "5")


def test_known_values():
    """The same on every platform: a change would silently change every result."""
    assert generator(1, "noise", "a").integers(0, 10**6, 3).tolist() == [795311, 441074, 804801]
    assert torch_seed(1, "weights") == 4921363956078849879


def test_torch_takes_every_seed():
    seeds = [torch_seed(seed, "weights") for seed in range(200)]
    assert len(set(seeds)) == 200
    assert min(seeds) >= 0 and max(seeds) < 2**63
    torch.Generator().manual_seed(max(seeds))
