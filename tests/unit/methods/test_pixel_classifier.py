"""The filters are those of SciPy, the forest is that of scikit-learn."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from denoiseg_flow.methods import pixel_classifier
from denoiseg_flow.methods.networks import split_output
from denoiseg_flow.methods.networks.layout import Layout
from denoiseg_flow.methods.pixel_classifier import (
    DEPTH,
    LEAF,
    SCALES,
    TREES,
    Forest,
    PixelClassifier,
    blur,
    count_features,
    eigenvalues,
    fit_forest,
    gradient,
)

SHAPES = {2: (21, 26), 3: (7, 15, 18)}


def image_of(dimensions, channels=1):
    values = np.random.default_rng(0).normal(size=(1, channels, *SHAPES[dimensions]))
    return torch.from_numpy(values.astype(np.float32))


# Filters


@pytest.mark.parametrize("sigmas", [(1.5, 3.0), (0.5, 1.0, 2.0), (0.1, 4.0, 4.0)])
def test_blur_is_that_of_another_implementation(sigmas):
    x = image_of(len(sigmas), channels=2)
    expected = [
        ndimage.gaussian_filter(
            each.numpy(), sigmas, mode="nearest", radius=[round(3 * sigma) for sigma in sigmas]
        )
        for each in x[0]
    ]
    assert blur(x, sigmas)[0].numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_gradient_of_a_slope_is_its_slope():
    z, y, x = torch.meshgrid(*map(torch.arange, (5, 6, 7)), indexing="ij")
    slopes = gradient((6.0 * z + 2.0 * y - x)[None, None], (3.0, 1.0, 1.0))
    inside = [slope[0, 0, 1:-1, 1:-1, 1:-1] for slope in slopes]
    for slope, expected in zip(inside, (2.0, 2.0, -1.0), strict=True):
        assert slope.numpy() == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 3])
def test_eigenvalues_are_those_of_another_implementation(size):
    random = np.random.default_rng(1).normal(size=(200, size, size))
    matrices = (random + random.transpose(0, 2, 1)).astype(np.float32)
    matrices[:3] = np.zeros((size, size)), np.eye(size), np.ones((size, size))
    upper = [torch.from_numpy(matrices[:, i, j]) for i in range(size) for j in range(i, size)]
    found = torch.stack(eigenvalues(upper), dim=1).numpy()
    assert found == pytest.approx(np.linalg.eigvalsh(matrices)[:, ::-1], abs=2e-3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("layout", [Layout(), Layout(channels=2), Layout(3, z_step=2.5)])
def test_a_pixel_has_as_many_features_as_the_forest_expects(layout):
    classifier = PixelClassifier(layout)
    found = classifier.features(image_of(layout.dimensions, layout.channels))
    assert found.shape[1] == classifier.forest.n_features
    assert classifier.forest.n_features == count_features(layout.dimensions, layout.channels)
    assert torch.isfinite(found).all()


def test_features_do_not_depend_on_the_orientation():
    classifier, x = PixelClassifier(Layout()), image_of(2)
    turned = classifier.features(torch.rot90(x, 1, (2, 3)))
    assert torch.rot90(turned, -1, (2, 3)).numpy() == pytest.approx(
        classifier.features(x).numpy(), abs=1e-4
    )


@pytest.mark.parametrize("layout", [Layout(), Layout(3, z_step=3.0)], ids=["2D", "3D"])
def test_nothing_beyond_the_halo_is_seen(layout, monkeypatch):
    monkeypatch.setattr(pixel_classifier, "SCALES", (1.0, 2.0))
    classifier = PixelClassifier(layout)
    sides = [2 * reach + 3 for reach in classifier.halo]
    x = torch.zeros(1, 1, *sides)
    centre = tuple(side // 2 for side in sides)
    x[0, 0, *centre] = 1000
    changed = classifier.features(x)[0].abs().amax(dim=0) > 0
    seen = torch.stack(torch.nonzero(changed, as_tuple=True))
    for along, middle, reach in zip(seen, centre, classifier.halo, strict=True):
        assert (along - middle).abs().max() <= reach
    assert changed.sum() > 50


def test_planes_of_a_volume_are_apart_or_not():
    x = image_of(3)
    apart = PixelClassifier(Layout(3, plane_by_plane=True))
    planes = PixelClassifier(Layout()).features(x[0, 0][:, None])
    assert torch.allclose(apart.features(x)[0].transpose(0, 1), planes, atol=1e-6)
    assert apart.halo == (0, *PixelClassifier(Layout()).halo)
    assert not torch.allclose(
        PixelClassifier(Layout(3)).features(x)[0, : 1 + len(SCALES)], apart.features(x)[0, :5]
    )


# Forest


def samples(count=3000, features=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, features)).astype(np.float32)
    x[:, 0] = x[:, 0].round(1)  # thresholds halfway between equal values
    classes = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.int8) + (x[:, 3] > 1)
    return x, classes.astype(np.int8), rng.uniform(0.5, 5, count)


def scikit_learn(x, classes, weights, seed):
    forest = RandomForestClassifier(
        TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=seed
    )
    return forest.fit(x, classes, weights)


def test_probabilities_are_those_of_scikit_learn(monkeypatch):
    x, classes, weights = samples()
    forest = Forest(x.shape[1])
    fit_forest(forest, x, classes, weights, seed=3)
    known = scikit_learn(x, classes, weights, 3)
    new = np.concatenate([x, samples(seed=1)[0]])
    # On the thresholds themselves, and right beside them, the comparison must be the same.
    edges = np.unique(known.estimators_[0].tree_.threshold).astype(np.float32)
    for near in (edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))):
        new = np.concatenate([new, np.repeat(near[:, None], x.shape[1], axis=1)])
    found = forest.probabilities(torch.from_numpy(new.T.copy())).numpy()
    assert found == pytest.approx(known.predict_proba(new), abs=1e-6)
    assert {each.get_depth() for each in known.estimators_} >= {DEPTH}


def test_a_class_without_samples_has_no_probability():
    x, classes, weights = samples()
    forest = Forest(x.shape[1])
    classes[classes == 1] = 0
    fit_forest(forest, x, classes, weights, seed=0)
    found = forest.probabilities(torch.from_numpy(x.T.copy())).numpy()
    known = scikit_learn(x, classes, weights, 0).predict_proba(x)
    assert (found[:, 1] == 0).all()
    assert found[:, [0, 2]] == pytest.approx(known, abs=1e-6)


def test_an_image_is_classified_in_any_parts(monkeypatch):
    classifier, x = PixelClassifier(Layout(channels=2)).eval(), image_of(2, channels=2)
    features = classifier.features(x)[0].flatten(1)
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, features.shape[1]).astype(np.int8)
    fit_forest(classifier.forest, features.T.numpy(), classes, np.ones(len(classes)), 0)
    expected = classifier.forest.probabilities(features).T.reshape(1, 3, *SHAPES[2])
    expected = blur(expected, (1.0, 1.0))[0]
    denoised, logits = split_output(classifier(x), 2)
    assert not denoised.any()
    assert logits.softmax(dim=1)[0].numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    monkeypatch.setattr(pixel_classifier, "AT_ONCE", 100)
    assert torch.equal(split_output(classifier(x), 2)[1], logits)
