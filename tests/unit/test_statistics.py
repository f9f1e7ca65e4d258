"""Reading, means, error bars and the paired bootstrap."""

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.scoring import METRICS_COLUMNS, write_metrics
from denoiseg_flow.tables.statistics import (
    noisy_input,
    paired_differences,
    read_metrics,
    summarise,
    write_metrics_csv,
)


def tidy(*rows):
    """Rows of (method, n_labelled, seed, image, metric, value) on one data set and noise level."""
    return pd.DataFrame([("d", "n20", *row) for row in rows], columns=METRICS_COLUMNS)


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
    assert (second.n_labelled, second.mean, second.n_seeds) == (5, 7, 1)
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
    (row,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    assert (row.method, row.n_labelled, row.n_seeds, row.n_images) == ("m", 2, 3, 7)
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
    (row,) = paired_differences(frame, "r", 0, ("AP", "SEG")).itertuples()
    assert (row.difference, row.n_seeds, row.n_images) == (0.25, 1, 1)
    assert np.isnan(row.low) and np.isnan(row.high)  # one pair says nothing about its spread


def test_methods_without_labels_pair_with_every_label_count():
    rows = [("r", n, 1, "a", "PSNR", 30.0 + n) for n in (2, 5)]
    found = paired_differences(tidy(*rows, ("n2v", 0, 1, "a", "PSNR", 33.0)), "r", 0, ("PSNR",))
    assert found[["n_labelled", "difference"]].to_numpy().tolist() == [[2, 1], [5, -2]]
    turned = paired_differences(tidy(*rows, ("n2v", 0, 1, "a", "PSNR", 33.0)), "n2v", 0, ("PSNR",))
    assert turned[["n_labelled", "difference"]].to_numpy().tolist() == [[2, -1], [5, 2]]


def test_bootstrap_draws_seeds_as_wholes():
    # Only the seeds differ (0, 0, 3): the means of three draws are 0, 1, 2 or 3, with
    # probabilities 8, 12, 6 and 1 of 27, so that the 97.5 % quantile is 3.
    rows = []
    for seed, difference in ((1, 0.0), (2, 0.0), (3, 3.0)):
        for image in "abcdefgh":
            rows += [("r", 2, seed, image, "AP", 0.0), ("m", 2, seed, image, "AP", difference)]
    (row,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    assert row.difference == pytest.approx(1)
    assert row.low == pytest.approx(0, abs=1e-9) and row.high == pytest.approx(3)


def test_bootstrap_over_images_matches_the_normal_interval():
    random = np.random.default_rng(0)
    values = random.normal(1, 2, 400)
    rows = [("m", 2, 1, f"{k}", "AP", value) for k, value in enumerate(values)]
    rows += [("r", 2, 1, f"{k}", "AP", 0.0) for k in range(400)]
    (row,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    half = 1.96 * values.std(ddof=1) / 20
    assert row.low == pytest.approx(values.mean() - half, abs=0.03)
    assert row.high == pytest.approx(values.mean() + half, abs=0.03)
    (again,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    (other,) = paired_differences(tidy(*rows), "r", 1, ("AP",)).itertuples()
    assert (again.low, again.high) == (row.low, row.high) != (other.low, other.high)


def test_images_are_shared_by_all_seeds():
    # The same image effects in every seed do not average out over seeds.
    effects = np.random.default_rng(0).normal(0, 1, 50)
    rows = []
    for seed in range(8):
        for k, effect in enumerate(effects):
            rows += [("r", 2, seed, f"{k}", "AP", 0.0), ("m", 2, seed, f"{k}", "AP", effect)]
    (row,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    assert row.high - row.low == pytest.approx(2 * 1.96 * effects.std() / np.sqrt(50), rel=0.1)


def test_test_sets_that_differ_between_seeds():
    rows = []
    for seed, images in ((1, "ab"), (2, "cd")):
        for image in images:
            rows += [("r", 2, seed, image, "AP", 0.0), ("m", 2, seed, image, "AP", float(seed))]
    (row,) = paired_differences(tidy(*rows), "r", 0, ("AP",)).itertuples()
    assert (row.difference, row.n_images) == (1.5, 4)
    assert (row.low, row.high) == (pytest.approx(1), pytest.approx(2))


def test_differences_that_are_not_finite_are_left_out():
    frame = tidy(("r", 2, 1, "a", "PSNR", np.inf), ("m", 2, 1, "a", "PSNR", np.inf))
    assert paired_differences(frame, "r", 0, ("PSNR",)).empty


def test_csv_is_that_of_pandas(tmp_path):
    """With names that need quotes, and values of every kind."""
    values = [0.1, float("nan"), float("inf"), 1e-7, 1 / 3, 2.0]
    rows = [
        ["d", "n0", 'm "1", or 2', 4, 1, f"image, {number}", "AP", value]
        for number, value in enumerate(values)
    ]
    frame = pd.DataFrame(rows, columns=METRICS_COLUMNS)
    write_metrics_csv(frame, tmp_path / "metrics.csv")
    expected = frame.to_csv(index=False, lineterminator="\n")
    assert (tmp_path / "metrics.csv").read_text() == expected
