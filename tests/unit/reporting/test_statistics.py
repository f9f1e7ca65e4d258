"""Reading, means, error bars and paired differences."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from denoiseg_flow.errors import InputError
from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS, write_metrics
from denoiseg_flow.reporting.tables.statistics import (
    noisy_input,
    paired_differences,
    read_metrics,
    summarise,
    write_metrics_csv,
)


def tidy(*rows):
    """Rows of (method, n_annotated, seed, image, metric, value) on one dataset and noise level.

    Every image is of a file of its own, or of the one that is written before a slash.
    """
    rows = [("d", "n20", *row[:3], row[3].split("/")[0], *row[3:]) for row in rows]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def test_read_metrics_keeps_text_and_sorts(tmp_path):
    frame = tidy(("b", 2, 1, "010", "AP", 0.1), ("b", 2, 1, "002", "AP", np.nan))
    other = tidy(("a", 10, 1, 'NA "x', "PSNR", np.inf)).assign(noise="1e3")
    write_metrics(frame, tmp_path / "one.tsv")
    write_metrics(other, tmp_path / "two.tsv")
    write_metrics(frame.iloc[:0], tmp_path / "empty.tsv")
    paths = [tmp_path / name for name in ("one.tsv", "two.tsv", "empty.tsv")]
    found = read_metrics(paths)
    assert found["image"].tolist() == ['NA "x', "002", "010"]
    assert found["noise"].tolist() == ["1e3", "n20", "n20"]
    assert found["value"].tolist()[::2] == [np.inf, 0.1] and np.isnan(found["value"][1])
    pd.testing.assert_frame_equal(found, read_metrics(paths[::-1]))
    assert read_metrics(paths[2:]).empty


def test_read_metrics_refuses_foreign_repeated_and_missing_files(tmp_path):
    frame = tidy(("b", 2, 1, "x", "AP", 0.1))
    write_metrics(frame, tmp_path / "one.tsv")
    write_metrics(frame, tmp_path / "again.tsv")
    write_metrics(frame.rename(columns={"value": "score"}), tmp_path / "other.tsv")
    (tmp_path / "zero.tsv").touch()
    for name in ("other.tsv", "zero.tsv", "absent.tsv"):
        with pytest.raises(InputError, match=name):
            read_metrics([tmp_path / "one.tsv", tmp_path / name])
    with pytest.raises(InputError, match="same row"):
        read_metrics([tmp_path / "one.tsv", tmp_path / "again.tsv"])


def test_mean_over_images_then_sem_over_seeds():
    # Run means 2, 4 and 9 with unequal numbers of images: mean 5, SEM sqrt(13 / 3).
    frame = tidy(
        *[("m", 2, 1, image, "AP", value) for image, value in (("a", 1.0), ("b", 3.0))],
        ("m", 2, 2, "a", "AP", 4.0),
        ("m", 2, 2, "b", "AP", np.nan),
        *[("m", 2, 3, image, "AP", 9.0) for image in "abc"],
        ("m", 5, 1, "a", "AP", 7.0),
    )
    first, second = summarise(frame).itertuples()
    assert (first.mean, first.n_seeds, first.n_images) == (5, 3, 3)
    assert first.sem == pytest.approx(np.sqrt(13 / 3))
    assert (second.n_annotated, second.mean, second.n_seeds) == (5, 7, 1)
    assert np.isnan(second.sem)


def test_infinite_psnr_stays_infinite():
    frame = tidy(("m", 0, 1, "a", "PSNR", np.inf), ("m", 0, 2, "a", "PSNR", 30.0))
    assert summarise(frame)["mean"].tolist() == [np.inf]


def test_noisy_input_counts_every_image_once_per_seed():
    frame = tidy(
        *[(m, 0, s, "a", "PSNR_noisy", 20.0) for m in "xy" for s in (1, 2)],
        ("x", 0, 1, "a", "PSNR", 30.0),
    )
    found = noisy_input(frame)
    assert (
        found[["method", "metric", "value"]].to_numpy().tolist()
        == [["noisy input", "PSNR", 20.0]] * 2
    )


def test_constant_difference_has_an_interval_of_zero_width():
    random = np.random.default_rng(0)
    rows = []
    for seed in (1, 2, 3):
        for image in "abcdefg":
            value = random.uniform()
            rows += [("r", 2, seed, image, "AP", value), ("m", 2, seed, image, "AP", value + 0.1)]
    (row,) = paired_differences(tidy(*rows), "r", ("AP",)).itertuples()
    assert (row.method, row.n_annotated, row.n_seeds, row.n_images) == ("m", 2, 3, 7)
    assert row.difference == pytest.approx(0.1)
    assert row.low == pytest.approx(0.1, abs=1e-12) and row.high == pytest.approx(0.1, abs=1e-12)


def test_pairs_only_equal_images_and_seeds():
    frame = tidy(
        ("r", 2, 1, "a", "AP", 0.5),
        ("r", 2, 1, "b", "AP", 0.0),
        ("r", 2, 2, "a", "AP", 0.25),
        ("m", 2, 1, "a", "AP", 0.75),
        ("m", 2, 2, "c", "AP", 1.0),
        ("m", 5, 1, "a", "AP", 1.0),
        ("m", 2, 1, "a", "SEG", 1.0),
    )
    (row,) = paired_differences(frame, "r", ("AP", "SEG")).itertuples()
    assert (row.difference, row.n_seeds, row.n_images) == (0.25, 1, 1)
    assert np.isnan(row.low) and np.isnan(row.high)  # one pair says nothing about its spread


def test_methods_without_labels_pair_with_every_label_count():
    rows = [("r", n, 1, "a", "PSNR", 30.0 + n) for n in (2, 5)]
    found = paired_differences(tidy(*rows, ("n2v", 0, 1, "a", "PSNR", 33.0)), "r", ("PSNR",))
    assert found[["n_annotated", "difference"]].to_numpy().tolist() == [[2, 1], [5, -2]]
    turned = paired_differences(tidy(*rows, ("n2v", 0, 1, "a", "PSNR", 33.0)), "n2v", ("PSNR",))
    assert turned[["n_annotated", "difference"]].to_numpy().tolist() == [[2, -1], [5, 2]]


def test_methods_with_and_without_labels_pair_with_equal_label_counts():
    """A pretrained network without annotated images is not compared with others that have some."""
    rows = [("r", n, 1, "a", "AP", 0.1 * n) for n in (0, 2)]
    rows += [("m", 0, 1, "a", "AP", 0.5), ("m", 2, 1, "a", "AP", 0.6), ("q", 2, 1, "a", "AP", 1.0)]
    for reference, expected in (("r", [["m", 0, 0.5], ["m", 2, 0.4], ["q", 2, 0.8]]),
                                ("q", [["m", 2, -0.4], ["r", 2, -0.8]])):  # fmt: skip
        found = paired_differences(tidy(*rows), reference, ("AP",))
        found = found[["method", "n_annotated", "difference"]].astype({"method": str})
        assert found.round(9).to_numpy().tolist() == expected


def paired(table, name="{:02}"):
    """The paired difference of a method whose values are the table (seed, image), and of 0."""
    rows = []
    for seed, values in enumerate(table):
        for number, value in enumerate(values):
            image = name.format(number)
            rows += [("r", 2, seed, image, "AP", 0.0), ("m", 2, seed, image, "AP", value)]
    (row,) = paired_differences(tidy(*rows), "r", ("AP",)).itertuples()
    return row


def test_images_of_a_file_count_once():
    """Means over files, then over seeds, whatever the numbers of their planes."""
    files = np.random.default_rng(0).normal(size=(3, 5))
    alone = paired(files)
    stacks = paired(np.repeat(files, 4, axis=1), "file")
    assert (stacks.n_sources, stacks.n_images) == (1, 1) and np.isnan(stacks.low)
    rows = []
    for seed, values in enumerate(files):
        for number, value in enumerate(values):
            for plane in range(1 + 3 * number):
                image = f"{number:02}/plane{plane}"
                shift = plane - (3 * number) / 2
                rows += [
                    ("r", 2, seed, image, "AP", 0.0), ("m", 2, seed, image, "AP", value + shift)
                ]  # fmt: skip
    (found,) = paired_differences(tidy(*rows), "r", ("AP",)).itertuples()
    assert (found.n_sources, found.n_images) == (5, 35)
    assert found.difference == pytest.approx(alone.difference)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    summary = summarise(tidy(*rows)).set_index("method").loc["m"]
    assert summary["mean"] == pytest.approx(files.mean())
    assert (summary["n_sources"], summary["n_images"]) == (5, 35)


def test_p_values_are_adjusted_for_the_methods_of_a_column():
    random = np.random.default_rng(1)
    rows = []
    for seed in range(3):
        for image in "abcdef":
            rows += [("r", count, seed, image, "AP", 0.0) for count in (2, 5)]
            rows += [(m, 2, seed, image, "AP", 0.2 + random.normal(0, 0.1)) for m in "xyz"]
            rows += [("x", 5, seed, image, "AP", 0.2 + random.normal(0, 0.1))]
    found = paired_differences(tidy(*rows), "r", ("AP",))
    column = found[found["n_annotated"] == 2]
    assert column["p_adjusted"].min() == pytest.approx(3 * column["p"].min())
    assert (column["p_adjusted"] >= column["p"]).all()
    (alone,) = found[found["n_annotated"] == 5].itertuples()
    assert alone.p_adjusted == alone.p


def test_one_seed_is_enough_only_for_what_no_seed_changes():
    values = np.random.default_rng(0).normal(1, 1, 8)
    rows = [("r", 0, 1, f"{k}", "AP", 0.0) for k in range(8)]
    rows += [("m", 0, 1, f"{k}", "AP", value) for k, value in enumerate(values)]
    (trained,) = paired_differences(tidy(*rows), "r", ("AP",), ["r"]).itertuples()
    (fixed,) = paired_differences(tidy(*rows), "r", ("AP",), ["r", "m"]).itertuples()
    assert np.isnan(trained.low) and trained.difference == fixed.difference
    assert (fixed.low, fixed.high) == pytest.approx(
        stats.t.interval(0.95, 7, values.mean(), stats.sem(values)), abs=1e-4
    )


def test_differences_that_are_not_finite_are_left_out():
    frame = tidy(("r", 2, 1, "a", "PSNR", np.inf), ("m", 2, 1, "a", "PSNR", np.inf))
    assert paired_differences(frame, "r", ("PSNR",)).empty


def test_csv_is_that_of_pandas(tmp_path):
    """With names that need quotes, and values of every kind."""
    values = [0.1, float("nan"), float("inf"), 1e-7, 1 / 3, 2.0]
    rows = [
        ["d", "n0", 'm "1", or 2', 4, 1, "a, b", f"image, {number}", "AP", value]
        for number, value in enumerate(values)
    ]
    frame = pd.DataFrame(rows, columns=METRICS_COLUMNS)
    write_metrics_csv(frame, tmp_path / "metrics.csv")
    expected = frame.to_csv(index=False, lineterminator="\n")
    assert (tmp_path / "metrics.csv").read_text() == expected
