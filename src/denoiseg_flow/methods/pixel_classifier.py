"""Classify pixels by a bank of filters and a random forest (like ilastik, Berg et al. 2019).

For each channel and each scale of ``SCALES``, the filters are the Gaussian, the magnitude of its
gradient, and the eigenvalues of its Hessian and of its structure tensor, largest first; one more is
the image itself. Noise in the class probabilities would divide objects, so a Gaussian of
``SMOOTHED`` is applied to them. Distances are in widths of a pixel along every axis, z included.

The forest (Breiman 2001) is that of scikit-learn, stored as the arrays of complete binary trees and
computed by PyTorch, so a file of it holds numbers only and is read without trust.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from denoiseg_flow.methods.classes import CLASSES
from denoiseg_flow.methods.networks.layers import convolve
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.networks.network import Network

SCALES = (1.5, 3.0, 6.0, 12.0)  # standard deviations of the Gaussians in widths of a pixel
SMOOTHED = 1.0  # standard deviation, likewise
TRUNCATED = 3.0  # radius of the Gaussians, in their standard deviations

# The forest: number and depth of its trees, and the fewest samples in a leaf.
TREES, DEPTH, LEAF = 50, 12, 5
AT_ONCE = 2**14  # pixels that a tree classifies at once, to stay in the caches


class PixelClassifier(Network):
    """Filters and a forest in place of a network; it yields logits, and zeros for denoised images.

    Parameters
    ----------
    layout
        Layout of its images.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.plane_by_plane = layout.plane_by_plane
        dimensions = 2 if layout.plane_by_plane else layout.dimensions
        self.steps = (layout.z_step, 1.0, 1.0)[-dimensions:]
        self.forest = Forest(count_features(dimensions, layout.channels))
        self.stride = (1,) * layout.dimensions
        # Twice the largest Gaussian, the differences that follow each, and the last Gaussian.
        halo = [
            2 * (_radius(SCALES[-1] / step) + 1) + _radius(SMOOTHED / step) for step in self.steps
        ]
        apart = [0] * (layout.dimensions - dimensions)
        self.halo = (*apart, *halo)
        self.smoothed = [*apart, *(SMOOTHED / step for step in self.steps)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channel, [z,] y, x) to their features (batch, feature, ...)."""
        if not self.plane_by_plane:
            return self._features(x)
        planes = x.transpose(1, 2)
        found = self._features(planes.flatten(0, 1))
        return found.unflatten(0, planes.shape[:2]).transpose(1, 2)

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for scale in SCALES:
            sigmas = [scale / step for step in self.steps]
            blurred = blur(x, sigmas)
            slopes = gradient(blurred, self.steps)
            found += [blurred, torch.stack(slopes).square().sum(dim=0).sqrt()]
            # The second differences along each pair of axes, and the products of slopes.
            curved = [gradient(slope, self.steps) for slope in slopes]
            pairs = [(i, j) for i in range(len(slopes)) for j in range(i, len(slopes))]
            found += eigenvalues([curved[i][j] for i, j in pairs])
            found += eigenvalues([blur(slopes[i] * slopes[j], sigmas) for i, j in pairs])
        return torch.cat(found, dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, ...) to (batch, channel + 3, ...)."""
        probabilities = blur(self.forest(self.features(x.contiguous())), self.smoothed)
        return torch.cat([torch.zeros_like(x), probabilities.log()], dim=1)


class Forest(nn.Module):
    """A random forest for three classes.

    Attributes
    ----------
    feature, threshold
        (tree, 2**depth - 1): for each inner node, the feature it looks at, int16, and the largest
        value, float32, for which its left child follows. The children of node n are 2n + 1 and
        2n + 2.
    leaves
        (tree, 2**depth, 3): the class probabilities of each leaf, float32.

    Parameters
    ----------
    n_features
        Number of features; thresholds start at infinity, and probabilities at a third.
    """

    feature: torch.Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        nodes = 2**DEPTH - 1
        self.register_buffer("feature", torch.zeros(TREES, nodes, dtype=torch.int16))
        leaves = torch.full((TREES, nodes + 1, len(CLASSES)), 1 / len(CLASSES))
        self.threshold = nn.Parameter(torch.full((TREES, nodes), math.inf), requires_grad=False)
        self.leaves = nn.Parameter(leaves, requires_grad=False)

    def take(self, tree: int, nodes: Any, classes: Sequence[int]) -> None:
        """Take over a tree of scikit-learn.

        Parameters
        ----------
        nodes
            ``tree_`` of a decision tree, no deeper than ``DEPTH``.
        classes
            Class of each column of its values.
        """
        waiting = [(0, 0, 0)]  # node there, and here its number and depth
        probabilities = nodes.value[:, 0] / nodes.value[:, 0].sum(axis=1, keepdims=True)
        while waiting:
            node, number, depth = waiting.pop()
            if nodes.children_left[node] == nodes.children_right[node]:  # both -1: a leaf
                # Thresholds below are infinite, and lead to the leftmost leaf.
                place = (number + 1) * 2 ** (DEPTH - depth) - 2**DEPTH
                self.leaves[tree, place] = 0
                for column, kind in enumerate(classes):
                    self.leaves[tree, place, kind] = probabilities[node, column]
                continue
            self.feature[tree, number] = int(nodes.feature[node])
            self.threshold[tree, number] = _float_below(nodes.threshold[node])
            waiting.append((nodes.children_left[node], 2 * number + 1, depth + 1))
            waiting.append((nodes.children_right[node], 2 * number + 2, depth + 1))

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (feature, pixel) to class probabilities (pixel, 3)."""
        # 32-bit indices and index_select take a fifth of the time of other ways to look up.
        flat, n_pixels, device = features.flatten(), features.shape[1], features.device
        pixels = torch.arange(n_pixels, dtype=torch.int32, device=device)
        total = torch.zeros(n_pixels, len(CLASSES), device=device)
        trees = zip(self.feature.int() * n_pixels, self.threshold, self.leaves, strict=True)
        for starts, threshold, leaves in trees:  # starts of the features' pixels in `flat`
            node = torch.zeros_like(pixels)
            for _ in range(DEPTH):
                value = flat.index_select(0, starts.index_select(0, node).add_(pixels))
                right = value > threshold.index_select(0, node)
                node.mul_(2).add_(1).add_(right)
            total += leaves.index_select(0, node - len(threshold))
        return total / len(self.leaves)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (batch, feature, ...) to class probabilities (batch, 3, ...)."""
        batch, _, *sizes = features.shape
        parts = features.transpose(0, 1).flatten(1).split(AT_ONCE, dim=1)
        found = torch.cat([self.probabilities(part.contiguous()) for part in parts])
        return found.view(batch, *sizes, -1).movedim(-1, 1)


def count_features(dimensions: int, channels: int) -> int:
    """Return the number of features of a pixel."""
    return channels * (1 + len(SCALES) * (2 + 2 * dimensions))


def fit_forest(
    forest: Forest,
    features: NDArray[np.float32],
    classes: NDArray[np.int8],
    weights: NDArray[np.float64],
    seed: int,
) -> None:
    """Fit a forest to samples.

    Parameters
    ----------
    features
        (sample, feature).
    classes, weights
        Class of each sample, and how many pixels it stands for.
    seed
        Seed of the forest.
    """
    from sklearn.ensemble import RandomForestClassifier  # slow to import

    found = RandomForestClassifier(
        TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=seed
    ).fit(features, classes, weights)
    for number, tree in enumerate(found.estimators_):
        forest.take(number, tree.tree_, found.classes_)


def blur(x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Return images (batch, channel, [z,] y, x) after a Gaussian filter, borders repeated."""
    batch, channels, *sizes = x.shape
    x = x.reshape(batch * channels, 1, *sizes)
    for axis, sigma in enumerate(sigmas, start=2):
        radius = _radius(sigma)
        if radius == 0:
            continue
        away = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-0.5 * (away / sigma) ** 2)
        kernel = (kernel / kernel.sum()).view(
            [-1 if axis == each else 1 for each in range(x.dim())]
        )
        x = convolve(_repeat_border(x, axis, radius), kernel)
    return x.view(batch, channels, *sizes)


def gradient(x: torch.Tensor, steps: Sequence[float]) -> list[torch.Tensor]:
    """Return the central differences of images (batch, channel, ...) along each spatial axis."""
    found = []
    for axis, step in enumerate(steps, start=2):
        wide, size = _repeat_border(x, axis, 1), x.shape[axis]
        found.append((wide.narrow(axis, 2, size) - wide.narrow(axis, 0, size)) / (2 * step))
    return found


def eigenvalues(matrix: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the eigenvalues, largest first, of symmetric 2x2 or 3x3 matrices in every pixel.

    Parameters
    ----------
    matrix
        The upper triangle, row by row: three or six images.
    """
    if len(matrix) == 3:
        a, b, c = matrix
        mean, half = (a + c) / 2, torch.hypot((a - c) / 2, b)
        return [mean + half, mean - half]
    # The trigonometric solution (Smith 1961).
    a, b, c, d, e, f = matrix
    mean = (a + d + f) / 3
    a, d, f = a - mean, d - mean, f - mean
    scale = ((a * a + d * d + f * f) / 6 + (b * b + c * c + e * e) / 3).sqrt()
    safe = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    a, b, c, d, e, f = (each / safe for each in (a, b, c, d, e, f))
    determinant = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
    angle = torch.acos((determinant / 2).clamp(-1, 1)) / 3
    turns = (0, -2 * math.pi / 3, 2 * math.pi / 3)
    return [mean + 2 * scale * torch.cos(angle + turn) for turn in turns]


def _radius(sigma: float) -> int:
    return round(TRUNCATED * sigma)


def _repeat_border(x: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """Repeat the first and last pixels along an axis."""
    pads = [0] * (2 * (x.dim() - 2))
    place = 2 * (x.dim() - 1 - axis)
    pads[place : place + 2] = count, count
    return functional.pad(x, pads, mode="replicate")


def _float_below(value: float) -> float:
    """Return the largest float32 up to a value: the same float32 features are not above it."""
    near = np.float32(value)
    return float(near if near <= value else np.nextafter(near, np.float32(-np.inf)))
