"""Show annotated objects with less contrast than they have.

A few annotated images show a few contrasts. Networks learn from them how bright objects are beside
the noise, which is alike in all images, and miss dimmer ones: in strong noise, two annotated images
make a pretrained network worse than it was. Some patches of annotated images are therefore dimmed,
and noise is added as far as dimming has reduced it.
"""

import math

import numpy as np
import torch

from denoiseg_flow.methods.classes import BACKGROUND
from denoiseg_flow.methods.classical import noise_level
from denoiseg_flow.training.patches import Batch, ImageBank
from denoiseg_flow.training.training_images import spread

LOWEST = 0.2  # factor of the contrast, log-uniform from here to 1
LEAST_BACKGROUND = 0.01  # of the pixels of a patch, to tell its level
N_IMAGES = 16  # in which the noise is estimated
SIDE = 512  # pixels of their centres


def measure_noise(bank: ImageBank) -> torch.Tensor:
    """Return the standard deviation of the noise (channel,) in real images, their median."""
    n_real = len(bank.sizes) - bank.n_simulated
    levels = [
        [noise_level(channel) for channel in bank.centre(number, SIDE).cpu().numpy()]
        for number in spread(range(n_real), N_IMAGES)
    ]
    return torch.tensor(np.median(levels, axis=0), dtype=torch.float32, device=bank.pixels.device)


def dim(
    batch: Batch, count: int, share: float, noise: torch.Tensor, generator: torch.Generator
) -> Batch:
    """Return a batch in which some of the first patches have less contrast and the same noise.

    Grey levels come closer to the mean of the annotated background of a patch, by a random factor;
    a patch with hardly any stays as it is.

    Parameters
    ----------
    count
        Number of patches, the first ones, that may be dimmed.
    share
        Of them, on average, is dimmed.
    noise
        (channel,), standard deviation.
    """
    if batch.classes is None:
        return batch
    patches = batch.patches[:count]
    axes = tuple(range(2, patches.dim()))
    device, like = patches.device, (count, 1, *(1 for _ in axes))
    background = (batch.classes[:count, None] == BACKGROUND).to(patches.dtype)
    known = background.sum(axes, keepdim=True)
    level = (patches * background).sum(axes, keepdim=True) / known.clamp(min=1)
    chosen, exponent = torch.rand(2, *like, generator=generator, device=device)
    enough = known > LEAST_BACKGROUND * math.prod(patches.shape[2:])
    factor = torch.where((chosen < share) & enough, LOWEST**exponent, 1.0)
    fresh = torch.randn(patches.shape, generator=generator, device=device)
    missing = (1 - factor.square()).sqrt() * noise.view(1, -1, *(1 for _ in axes))
    dimmed = level + factor * (patches - level) + missing * fresh
    return batch._replace(patches=torch.cat([dimmed, batch.patches[count:]]))
