"""Figures of residuals, diagnostics, precision, and of the images to annotate next."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from denoiseg_flow.evaluation.noise_structure import REACH, NoiseStructure
from denoiseg_flow.evaluation.residuals import WINDOW, Residual
from denoiseg_flow.evaluation.trust import BINS, Reliability, Trust
from denoiseg_flow.reporting.figures.panels import FALSE, MAX_SIDE, MISSED
from denoiseg_flow.reporting.figures.precision import precision_curves
from denoiseg_flow.reporting.figures.style import save
from denoiseg_flow.reporting.figures.suggestions import thumbnails
from denoiseg_flow.reporting.figures.trust import ResidualExample, diagnostics, residual_panel

ALONG = np.linspace(0.4, 0, REACH)
WHITE = NoiseStructure(np.zeros(REACH), np.zeros(REACH), "independent")


def example(shape, smoothed=(), invented=()):
    """An image of those windows, (row, column) of which are suspicious."""
    marks = []
    for places in (smoothed, invented):
        mark = np.zeros([size // WINDOW for size in shape], bool)
        for place in places:
            mark[place] = True
        marks.append(mark)
    image = np.random.default_rng(0).normal(0, 1, shape)
    return ResidualExample("cell", image, 0 * image, Residual(image, *marks, 1.0, ALONG, ALONG))


def frames(axis):
    found = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return [(patch.get_edgecolor(), patch.get_bbox()) for patch in found]


def test_suspicious_windows_are_framed_where_they_are():
    row = example((4 * WINDOW, 6 * WINDOW), smoothed=[(1, 2)], invented=[(3, 5)])
    figure = residual_panel([row])
    axes = figure.axes
    assert [axis.get_title() for axis in axes] == ["noisy input", "denoised", "residual"]
    assert axes[0].get_ylabel() == "cell"
    (smoothed, box), (invented, other) = frames(axes[2])
    assert smoothed != invented
    assert WINDOW < box.y0 < box.y1 < 2 * WINDOW and 2 * WINDOW < box.x0 < box.x1 < 3 * WINDOW
    assert other.y0 > 3 * WINDOW and other.x0 > 5 * WINDOW
    assert [text.get_text() for text in figure.legends[0].texts] == ["oversmoothed", "hallucinated"]
    colours = [patch.get_edgecolor() for patch in figure.legends[0].get_patches()]
    assert colours == [smoothed, invented] and MISSED != FALSE


def test_frames_follow_the_cut_out_of_a_large_image():
    side = MAX_SIDE + 4 * WINDOW
    row = example((side, side), smoothed=[(2, 3)])
    axis = residual_panel([row]).axes[2]
    ((_, box),) = frames(axis)
    assert 0 < box.y0 < box.y1 < WINDOW and WINDOW < box.x0 < box.x1 < 2 * WINDOW
    assert axis.get_xlim() == (-0.5, MAX_SIDE - 0.5)
    assert axis.get_ylim() == (MAX_SIDE - 0.5, -0.5)


def trust(calibration=None, along=ALONG):
    return Trust(pd.DataFrame(), along, along, WHITE, calibration, pd.DataFrame(), [])


def calibration(*bins):
    counts = np.zeros(BINS, int)
    counts[list(bins)] = 10
    probability = np.where(counts, (np.arange(BINS) + 0.5) / BINS, np.nan)
    return Reliability(probability, probability**2, counts, 3)


def test_diagnostics_draw_what_was_measured():
    left, right = diagnostics(trust(calibration(1, 8))).axes
    x = next(line for line in left.lines if line.get_marker() == "o")
    assert np.array_equal(x.get_ydata(), ALONG) and x.get_xdata()[0] == 1
    points = next(line for line in right.lines if line.get_marker() == "o")
    assert points.get_xdata() == pytest.approx([0.15, 0.85])
    assert points.get_ydata() == pytest.approx([0.15**2, 0.85**2])
    assert right.get_title() == "calibration, 3 images"


def test_diagnostics_leave_out_what_is_missing():
    (alone,) = diagnostics(trust()).axes
    assert alone.get_title() == "residual"
    (alone,) = diagnostics(trust(calibration(8), along=None)).axes
    assert alone.get_title() == "calibration, 3 images"
    left, _ = diagnostics(trust(calibration(8), along=np.full(REACH, np.nan))).axes
    assert left.texts[0].get_text() == "the residual is zero"
    for figure in (diagnostics(trust(along=None)), residual_panel([]), thumbnails([])):
        assert not figure.axes and len(figure.texts) == 1


def test_thumbnails_in_order_with_orange_where_unsure():
    image = np.linspace(0, 1, 40 * 40).reshape(40, 40)
    unsure = np.zeros((40, 40))
    unsure[:20] = 1
    figure = thumbnails([(name, image, unsure) for name in "abcde"])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["1. a", "2. b", "3. c", "4. d", "5. e", "", "", ""]
    picture = figure.axes[0].images[0].get_array()
    assert (np.ptp(picture[30], axis=-1) == 0).all(), "grey"
    assert (picture[10, :, 0] > picture[10, :, 2] + 0.3).all(), "orange"


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    rows = [example((2 * WINDOW, 2 * WINDOW), smoothed=[(0, 1)])]
    image = rows[0].noisy
    for make in (
        lambda: residual_panel(rows),
        lambda: diagnostics(trust(calibration(2, 9))),
        lambda: thumbnails([("a", image, np.abs(image))]),
    ):
        written = [
            [path.read_bytes() for path in save(make(), tmp_path / str(n))] for n in range(2)
        ]
        assert written[0] == written[1]


def described(method, n_annotated, n_objects=200, noise="n10"):
    """The description of a model whose objects of confidence 0.8 are mostly correct."""
    curve = {
        "confidence": [0.2, 0.8],
        "precision": [0.3, 0.9],
        "lower": [0.2, 0.7],
        "upper": [0.5, 0.95],
        "n_objects": n_objects,
        "n_images": 4,
    }
    identity = {"dataset": "nuclei", "noise": noise, "method": method, "seed": 1}
    return {"identity": identity | {"n_annotated": n_annotated}, "precision": curve}


def test_precision_is_drawn_by_method_and_number_of_annotated_images(tmp_path):
    models = [
        described("baseline", 4), described("denoiseg", 4), described("denoiseg", 10, n_objects=60),
        {"identity": {}, "precision": None}, {"identity": {}},
    ]  # fmt: skip
    noises = {"n0": "none", "n10": "Gaussian, sigma 10"}
    figure = precision_curves(models, ["n2v", "baseline", "denoiseg"], noises)
    few, many = figure.axes
    assert few.get_title() == "4 annotated images, noise: Gaussian, sigma 10"
    assert many.get_title() == "10 annotated images, noise: Gaussian, sigma 10"
    assert len(few.containers) == 2 and len(many.containers) == 1
    line, _, (bars,) = few.containers[0].lines
    assert line.get_xydata() == pytest.approx(np.array([[0.2, 0.3], [0.8, 0.9]]))
    ends = np.array([path[:, 1] for path in bars.get_segments()])
    assert ends == pytest.approx(np.array([[0.2, 0.5], [0.7, 0.95]]))
    assert many.containers[0].lines[0].get_linestyle() != line.get_linestyle()
    assert few.texts[0].get_text() == (
        "baseline: 200 objects, 4 images\ndenoiseg: 200 objects, 4 images"
    )
    told = [text.get_text() for text in figure.legends[0].texts]
    assert told == ["baseline", "denoiseg", "fewer than 100 objects"]
    save(figure, tmp_path / "precision")


def test_precision_that_was_not_measured():
    (text,) = precision_curves([{"identity": {}}], ["n2v"], {"n0": "none"}).texts
    assert "too few annotated objects" in text.get_text()
