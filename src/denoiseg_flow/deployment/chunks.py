"""Which of many images one job predicts: a chunk.

A checksum of its name puts an image into a chunk, so that the others stay where they are when
images come and go. The number of chunks is a power of two: it changes only when the number of
images has doubled.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from denoiseg_flow.deployment.ledger import SHARDS, shard, state


def count_chunks(n_images: int, size: int) -> int:
    """Return how many chunks of about ``size`` images or less are needed: 1, 2, 4 ... 1024."""
    least = -(-n_images // size)
    return min(1 << (least - 1).bit_length(), SHARDS)


def divide(images: Mapping[str, Path], count: int) -> dict[int, dict[str, Path]]:
    """Return the images of each of ``count`` chunks by its number, but for those without any."""
    chunks: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for name, path in images.items():
        chunks[shard(name) % count][name] = path
    return dict(sorted(chunks.items()))


def fingerprint(images: Mapping[str, Path]) -> str:
    """Return a text that changes when an image is added, removed or changed."""
    states = [(name, str(path), *state(path)) for name, path in images.items()]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]
