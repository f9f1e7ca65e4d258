"""Divide many new images into chunks, one for each job.

A checksum of the image name decides the chunk, so adding or removing images does not move others
to another chunk. The number of chunks is a power of two and changes only when the number of images
doubles or halves.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from denoiseg_flow.deployment.ledger import SHARDS, shard, state


def count_chunks(n_images: int, size: int) -> int:
    """Return the number of chunks of about ``size`` images or fewer: 1, 2, 4 ... 1024."""
    least = -(-n_images // size)
    return min(1 << (least - 1).bit_length(), SHARDS)


def divide(images: Mapping[str, Path], count: int) -> dict[int, dict[str, Path]]:
    """Return the images of each non-empty chunk by its number, out of ``count`` chunks."""
    chunks: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for name, path in images.items():
        chunks[shard(name) % count][name] = path
    return dict(sorted(chunks.items()))


def fingerprint(images: Mapping[str, Path]) -> str:
    """Return a string that changes when an image is added, removed or modified."""
    states = [(name, str(path), *state(path)) for name, path in images.items()]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]
