"""Figures: the numbers drawn are the numbers given, and the same figure gives the same bytes."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from denoiseg_flow.data import painting
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.evaluation.overlap import match_objects
from denoiseg_flow.methods.classical import DENOISERS
from denoiseg_flow.reporting.figures import curves, panels
from denoiseg_flow.reporting.figures.calibration import calibration_curves
from denoiseg_flow.reporting.figures.examples import Example
from denoiseg_flow.reporting.figures.style import GREY, method_styles
from denoiseg_flow.reporting.figures.suggestions import thumbnails

METHODS = ["baseline", "denoiseg", "n2v"]


def tidy(values, dataset="data", noise="n20"):
    """Rows of (method, n_annotated, seed, image, metric, value)."""
    frame = pd.DataFrame(
        values, columns=["method", "n_annotated", "seed", "image", "metric", "value"]
    )
    return frame.assign(dataset=dataset, noise=noise, source=frame["image"] + ".tif")


def grid(counts=(2, 8), seeds=(0, 1)):
    return tidy(
        [
            (method, count, seed, image, metric, 0.1 * seed + count / 100 + 0.01 * (method > "c"))
            for method, count, seed, image, metric in product(
                ["baseline", "denoiseg"], counts, seeds, "ab", ["AP", "SEG"]
            )
        ]
    )


def history(**changes):
    columns = {
        "step": np.arange(1, 301),
        "loss_denoise": np.nan,
        "loss_segment": np.linspace(1, 0.1, 300),
        "val_loss": np.nan,
        "dataset": "data",
        "noise": "n20",
        "method": "baseline",
        "n_annotated": 2,
        "seed": 0,
    }
    return pd.DataFrame(columns | changes)


def lines(axis):
    return [line for line in axis.lines if len(line.get_xdata()) > 1]


def test_label_curves_draw_the_mean_over_images_then_seeds():
    rows = [("baseline", 2, 0, "a", "AP", 0.2), ("baseline", 2, 0, "b", "AP", 0.4)]
    rows += [("baseline", 2, 1, "a", "AP", 0.7), ("baseline", 8, 0, "a", "AP", 0.9)]
    figure = curves.label_curves(tidy(rows), METHODS, ["n20"])
    (line,) = lines(figure.axes[0])
    assert line.get_xdata() == pytest.approx([2, 8])
    assert line.get_ydata() == pytest.approx([0.5, 0.9])  # not the mean of all three, 0.433
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.3) and np.nanmax(band) == pytest.approx(0.7)


def test_label_curves_have_rows_of_metrics_columns_of_noise_and_real_counts_as_ticks():
    metrics = pd.concat([grid(), grid().assign(noise="n10")])
    figure = curves.label_curves(metrics, METHODS, ["n10", "n20"])
    assert [axis.get_title() for axis in figure.axes] == ["noise: n10", "noise: n20", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["AP (IoU > 0.5)", "", "SEG", ""]
    assert figure.axes[2].get_xticks() == pytest.approx([2, 8])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", "denoiseg"]


def test_label_curves_have_psnr_if_it_depends_on_the_annotated_images():
    once = tidy([("denoiseg", 2, 0, "a", "PSNR", 27.0), ("n2v", 0, 0, "a", "PSNR", 28.0)])
    twice = pd.concat([once, tidy([("denoiseg", 8, 0, "a", "PSNR", 29.0)])])
    few, more = (
        curves.label_curves(pd.concat([grid(), psnr]), [*METHODS, "n2v"], ["n20"])
        for psnr in (once, twice)
    )
    assert [axis.get_ylabel() for axis in few.axes] == ["AP (IoU > 0.5)", "SEG"]
    assert [axis.get_ylabel() for axis in more.axes] == ["AP (IoU > 0.5)", "SEG", "PSNR [dB]"]
    (line,) = lines(more.axes[2])
    assert line.get_xdata() == pytest.approx([2, 8])
    assert line.get_ydata() == pytest.approx([27, 29])
    (legend,) = more.legends
    assert "n2v" not in [text.get_text() for text in legend.get_texts()]


def test_one_label_count_keeps_methods_apart():
    figure = curves.label_curves(grid(counts=(10,)), METHODS, ["n20"])
    places = sorted(
        float(container.lines[0].get_xdata()[0]) for container in figure.axes[0].containers
    )
    assert len(places) == 2 and places[0] < 10 < places[1]
    assert figure.axes[0].get_xticks() == pytest.approx([10])


def test_methods_without_annotated_images_are_horizontal_lines():
    rows = [("otsu", 0, seed, "a", "AP", 0.6 + 0.2 * seed) for seed in (0, 1)]
    figure = curves.label_curves(pd.concat([grid(), tidy(rows)]), [*METHODS, "otsu"], ["n20"])
    axis = figure.axes[0]
    assert axis.get_xticks() == pytest.approx([2, 8])
    (level,) = [line for line in lines(axis) if len(set(line.get_ydata())) == 1]
    assert level.get_ydata() == pytest.approx([0.7, 0.7])
    assert level.get_transform() == axis.get_yaxis_transform()  # across the whole axis
    figure = curves.label_curves(tidy(rows), ["otsu"], ["n20"])  # there is no axis to cross
    assert figure.axes[0].get_xticks() == pytest.approx([0])


def test_methods_look_the_same_whatever_else_is_drawn():
    styles = method_styles(METHODS)
    assert styles["baseline"].colour == GREY
    assert len(set(method_styles([f"m{i}" for i in range(20)]).values())) == 20
    figure = curves.label_curves(grid(), METHODS, ["n20"])
    colours = {to_hex(line.get_color()).upper() for line in lines(figure.axes[0])}
    assert colours == {GREY, styles["denoiseg"].colour}


def test_denoising_levels_show_psnr_and_leave_out_infinite_input():
    rows = [("n2v", 0, seed, "a", "PSNR", 30.0 + seed) for seed in (0, 2)]
    rows += [("denoiseg", count, 0, "a", "PSNR", 25.0 + count) for count in (2, 8)]
    clean = tidy([*rows, ("n2v", 0, 0, "a", "PSNR_noisy", np.inf)], noise="n0")
    noisy = tidy([*rows, ("n2v", 0, 0, "a", "PSNR_noisy", 20.0)])
    figure = curves.denoising_levels(pd.concat([clean, noisy]), METHODS, ["n0", "n20"])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["denoiseg", "n2v"]
    dashed = [[line.get_xdata()[0] for line in lines(axis)] for axis in figure.axes]
    assert dashed == [[], [20.0]]
    points = {float(box.lines[0].get_xdata()[0]) for box in figure.axes[1].containers}
    assert points == {27.0, 33.0, 31.0}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["noisy input", "2 annotated", "8 annotated"]


def test_training_curves_have_a_line_per_run_and_no_row_for_a_missing_loss():
    runs = pd.concat([history(), history(seed=1), history(method="denoiseg", loss_denoise=0.5)])
    figure = curves.training_curves(runs, METHODS)
    assert [axis.get_ylabel() for axis in figure.axes] == ["denoising loss", "segmentation loss"]
    drawn = [line for line in figure.axes[1].lines if len(line.get_xdata())]
    assert len(drawn) == 3
    assert len(drawn[0].get_xdata()) == 100  # bins of three steps, at most 120
    assert drawn[0].get_xdata()[0] == pytest.approx(2)
    assert drawn[0].get_ydata().mean() == pytest.approx(0.55)


def test_training_curves_pass_over_classical_denoisers():
    """They take no steps; their rows stand in the same table."""
    runs = pd.concat([history(), calibration("median", [1, 2])], ignore_index=True)
    figure = curves.training_curves(runs, ["median", "baseline"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["segmentation loss"]
    assert len(lines(figure.axes[0])) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["baseline"]


# --- calibration ---------------------------------------------------------------------------------

NOISES = {"n20": "gaussian, sigma 20", "n10": "gaussian, sigma 10"}


def calibration(method, values, least=1, gap=400.0, noise="n20", seed=0, known=True):
    """The errors of a denoiser with their minimum at one place of ``values``."""
    error = 10.0 + (np.arange(len(values)) - least) ** 2
    return pd.DataFrame(
        {
            "parameter": DENOISERS[method].parameter,
            "value": values,
            "loss_self_supervised": error + gap + 1,
            # What sees the pixel that it predicts seems best where it changes least.
            "loss_plain": error + gap if DENOISERS[method].j_invariant else values,
            "mse": error if known else np.nan,
            "dataset": "data", "noise": noise, "method": method, "n_annotated": 0, "seed": seed,
        }
    )  # fmt: skip


def drawn(axis):
    """Of each curve its y values and the place of its marked minimum: plain, true, hidden."""
    curves, marks = axis.lines[::2], axis.lines[1::2]
    return [
        (list(curve.get_ydata()), (mark.get_xdata()[0], mark.get_ydata()[0]))
        for curve, mark in zip(curves, marks, strict=True)
    ]


RADII = {"donut_median": "donut_median", "median": "median"}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("donut_median", [([411, 410, 411], (2, 410)), ([11, 10, 11], (2, 10))]),
        (
            "median",
            [([1, 2, 3], (1, 1)), ([11, 10, 11], (2, 10)), ([412, 411, 412], (2, 411))],
        ),
    ],
)
def test_calibration_curves_mark_their_minima(name, expected):
    histories = pd.concat([calibration(each, [1, 2, 3]) for each in RADII])
    (axis,) = calibration_curves(histories, [name], {"n20": ""}, RADII).axes
    assert drawn(axis) == expected
    assert axis.get_xlabel() == "radius [pixels]"
    assert axis.get_ylim()[0] == 0
    # The vertical distance of the minima is the variance of the noise, if the pixel is not seen.
    texts = [(text.get_text(), text.xy) for text in axis.texts]
    assert texts == ([("", (2, 410)), ("400", (2, 210))] if name == "donut_median" else [])


def test_calibration_has_columns_of_noise_rows_of_parameters_and_means_over_seeds():
    runs = [
        calibration(name, [1, 2, 3], noise=noise, seed=seed, gap=100.0 * seed)
        for name in ("donut_median", "gaussian") for noise in NOISES for seed in (1, 2)
    ]  # fmt: skip
    methods = ["gaussian", "n2v", "donut_median"]
    denoisers = {"gaussian": "gaussian", "donut_median": "donut_median"}
    figure = calibration_curves(pd.concat([*runs, history()]), methods, NOISES, denoisers)
    assert [axis.get_title() for axis in figure.axes] == ["noise: n20", "noise: n10", "", ""]
    found = [axis.get_xlabel() for axis in figure.axes]
    assert found == ["sigma [pixels]"] * 2 + ["radius [pixels]"] * 2
    assert drawn(figure.axes[1])[2][0] == [162, 161, 162]
    assert drawn(figure.axes[2])[0][0] == [161, 160, 161]
    styles = method_styles(methods)
    for place, name in ((0, "gaussian"), (2, "donut_median")):
        colours = {to_hex(line.get_color()).upper() for line in figure.axes[place].lines}
        assert colours == {styles[name].colour}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "gaussian", "donut_median", "against the noisy image",
        "against masked pixels of the noisy image",
        "against the clean image",
    ]  # fmt: skip


def test_denoisers_with_the_same_parameter_share_a_row():
    """The strengths of both are multiples of the noise; a radius in pixels is something else."""
    names = ["median", "nlm", "donut_median"]
    histories = pd.concat([calibration(name, [1, 2, 3]) for name in names])
    figure = calibration_curves(histories, names, {"n20": ""}, {name: name for name in names})
    found = {axis.get_xlabel(): len(axis.lines) for axis in figure.axes}
    assert found == {"radius [pixels]": 2 * (3 + 2), "h [noise sigma]": 2 * 3}


def test_calibration_without_clean_images_shows_what_is_known():
    figure = calibration_curves(
        calibration("donut_median", [1, 2, 3], known=False), ["donut_median"], {"n20": ""}, RADII
    )
    assert [values for values, _ in drawn(figure.axes[0])] == [[411, 410, 411]]
    assert not figure.axes[0].texts


@pytest.mark.parametrize("denoisers", [{}, {"median": "median"}])
def test_without_calibrated_methods_there_is_no_calibration(denoisers):
    figure = calibration_curves(history(), ["baseline", "median"], NOISES, denoisers)
    assert not figure.axes
    assert figure.texts[0].get_text() == "No classical denoiser was calibrated."


# --- what does not apply -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [
        (curves.training_curves, (calibration("median", [1, 2]), ["median"])),
        (curves.label_curves, (tidy([("n2v", 0, 0, "a", "PSNR", 3.0)]), METHODS, ["n20"])),
        (curves.denoising_levels, (grid(), METHODS, ["n20"])),
        (curves.training_curves, (history(loss_segment=np.nan), METHODS)),
    ],
)
def test_a_figure_that_does_not_apply_says_so(draw, arguments):
    figure = draw(*arguments)
    assert not figure.axes and figure.texts[0].get_text().startswith("No ")


def test_two_datasets_are_refused():
    both = pd.concat([grid(), grid().assign(dataset="other")])
    with pytest.raises(ValueError, match="data, other"):
        curves.label_curves(both, METHODS, ["n20"])


def test_saved_figures_are_reproducible_and_keep_dots_in_names(tmp_path):
    names = ["$a_b$ <i>", "baseline"]
    first, second = (
        curves.save(
            curves.label_curves(grid().replace("denoiseg", names[0]), names, ["n20"]),
            tmp_path / f"curve{index}.n0.5",
        )
        for index in (1, 2)
    )
    assert [path.name for path in first] == ["curve1.n0.5.svg", "curve1.n0.5.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert "<dc:date>" not in first[0].read_text()


def test_matching_agrees_with_the_metric_and_names_the_objects():
    truth = np.zeros((20, 20), int)
    truth[1:6, 1:6], truth[10:15, 10:15], truth[18:, :] = 3, 7, -1
    prediction = np.zeros((20, 20), int)
    prediction[1:6, 1:5], prediction[1:3, 10:12], prediction[19, :] = 9, 4, 2
    matching = match_objects(truth, prediction)
    assert (matching.pairs, matching.missed, matching.false) == ({9: 3}, [7], [4])
    assert matching.average_precision == average_precision(truth, prediction, 0.5)
    assert matching.average_precision == pytest.approx(1 / 3)


def test_instance_colours_are_stable_distinct_and_clear_in_the_background():
    labels = np.repeat(np.arange(-1, 12), 4).reshape(13, 4)
    painted = painting.instance_colours(labels)
    assert painted.shape == (13, 4, 4)
    assert not painted[:2, :, 3].any() and (painted[2:, :, 3] > 0).all()
    assert len(np.unique(painted[2:, 0, :3], axis=0)) == 11
    alone = painting.instance_colours(np.where(labels == 5, 5, 0))
    assert alone[6, 1, :3] == pytest.approx(painted[6, 1, :3])


def test_centre_crop_and_window():
    image = np.arange(100.0).reshape(10, 10)
    assert panels.centre_crop(image, 4).tolist() == image[3:7, 3:7].tolist()
    assert panels.centre_crop(image, 40).shape == (10, 10)
    assert painting.intensity_window(np.zeros((4, 4))) == (0.0, 1.0)


def test_panel_without_instances_shows_the_clean_image_and_the_difference():
    """Middle grey where there is none, white a quarter of the intensity window above it."""
    noisy = np.tile(np.linspace(0.0, 100.0, 32), (32, 1))
    clean = np.full((32, 32), 50.0)
    denoised = clean.copy()
    low, high = painting.intensity_window(noisy)
    denoised[3, 3] += (high - low) / 4
    rows = [Example("a", noisy, denoised, clean=clean), Example("b", noisy, clean=clean)]
    figure = panels.qualitative_panel(rows)
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        *("noisy input", "denoised", "clean", "denoised - clean"),
    ]
    shown = [bool(axis.images) for axis in figure.axes]
    assert shown == [True, True, True, True, True, False, True, False]
    difference = figure.axes[3].images[0].get_array()
    assert np.allclose(difference[3, 3], 1)
    assert np.allclose(difference[0, 0], 0.5)
    alone = panels.qualitative_panel([Example("a", noisy, denoised)])
    assert [axis.get_title() for axis in alone.axes] == ["noisy input", "denoised"]


def test_panels_and_thumbnails_keep_colours():
    """Black and white point are those of all colours together, which keeps hues."""
    truth = np.zeros((32, 40), int)
    truth[4:12, 4:12] = 1
    stained = np.full((32, 40, 3), 240.0)
    stained[4:12, 4:12] = 120, 60, 180
    window = painting.intensity_window(stained)
    assert window == (60, 240)
    rows = [Example("a", stained, stained, truth, truth), Example("b", stained, None, None, truth)]
    for figure in (
        panels.qualitative_panel(rows),
        panels.qualitative_panel([Example("a", stained, stained, clean=stained)]),
        thumbnails([("a", stained, np.zeros((32, 40)))]),
    ):
        picture = np.asarray(figure.axes[0].images[0].get_array())
        np.testing.assert_allclose(picture[5, 5], [1 / 3, 0, 2 / 3])
        np.testing.assert_allclose(picture[20, 20], 1)
    assert painting.overlay(stained, truth)[20, 20].tolist() == [255, 255, 255]


def test_qualitative_panel_scores_each_row_and_leaves_gaps():
    truth = np.zeros((32, 32), int)
    truth[4:12, 4:12] = 1
    noisy = np.random.default_rng(0).normal(size=(32, 32))
    rows = [
        Example("perfect", noisy, noisy, truth * 5, truth),
        Example("empty", noisy, None, truth * 0, truth),
        Example("denoiser", noisy, noisy, None, None),
    ]
    figure = panels.qualitative_panel(rows)
    labels = [axis.get_ylabel() for axis in figure.axes[::5]]
    assert labels == ["perfect\nAP 1.00", "empty\nAP 0.00", "denoiser"]
    shown = np.array([bool(axis.images) for axis in figure.axes]).reshape(3, 5)
    assert shown.sum(axis=1).tolist() == [5, 4, 2]
    # A matched object has the colour of its truth.
    predicted, annotated = (figure.axes[place].images[0].get_array() for place in (2, 3))
    assert np.allclose(predicted, annotated)
