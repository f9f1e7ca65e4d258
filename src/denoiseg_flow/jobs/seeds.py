"""Reproducible random numbers: each purpose has its own generator, derived from the seed."""

import hashlib

import numpy as np


def seed_sequence(seed: int, *purpose: str | int) -> np.random.SeedSequence:
    """Return the seed sequence for ``purpose`` under ``seed``.

    The purpose is hashed with SHA-256. Draws for one purpose therefore never shift when another
    purpose is added, and are the same on every platform and in every Python process.
    """
    digest = hashlib.sha256("\0".join(str(part) for part in purpose).encode()).digest()
    return np.random.SeedSequence([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a NumPy generator for ``purpose`` under ``seed``; see :func:`seed_sequence`."""
    return np.random.default_rng(seed_sequence(seed, *purpose))


def torch_seed(seed: int, *purpose: str | int) -> int:
    """Return an integer seed of a ``torch.Generator`` for ``purpose`` under ``seed``."""
    return int(seed_sequence(seed, *purpose).generate_state(1, np.uint64)[0] >> 1)
