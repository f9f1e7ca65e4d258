"""The tables: what stands where, what is bold, and the four files."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS
from denoiseg_flow.reporting.tables.costs import costs_table
from denoiseg_flow.reporting.tables.files import to_csv, write_table
from denoiseg_flow.reporting.tables.layout import format_mean, format_number
from denoiseg_flow.reporting.tables.papers import PAPERS, paper_table
from denoiseg_flow.reporting.tables.published import published_table
from denoiseg_flow.reporting.tables.quality import (
    denoising_table,
    paired_table,
    segmentation_table,
    self_supervision_table,
)
from denoiseg_flow.study.benchmarks import read_benchmark

PUBLISHED = Path(__file__).parents[3] / "config" / "published" / "denoiseg.csv"
DENOISERS = PUBLISHED.with_name("denoisers.csv")
MINUS = "\N{MINUS SIGN}"
NOISES = {"n20": "gaussian, sigma 20", "n10": "gaussian, sigma 10"}
ORDER = (["denoiseg", "baseline", "n2v"], NOISES)


@pytest.fixture
def metrics():
    """Two noise levels, two seeds, three images; n10 is 1 dB better, seed 2 is 0.2 better in AP."""
    rows = []
    for noise, gain in (("n10", 1.0), ("n20", 0.0)):
        for seed in (1, 2):
            for image in ("a", "b", "c"):
                for count in (10, 19):
                    for method, ap in (("denoiseg", 0.5), ("baseline", 0.4)):
                        ap += 0.2 * (seed - 1)
                        row = ("cells", noise, method, count, seed, f"{image}.tif", image)
                        rows += [(*row, "AP", ap), (*row, "AP_0.9", ap / 2), (*row, "SEG", 0.7)]
                for method, count, psnr in (("denoiseg", 10, 30), ("n2v", 0, 31)):
                    row = ("cells", noise, method, count, seed, f"{image}.tif", image)
                    rows += [(*row, "PSNR", psnr + gain), (*row, "PSNR_noisy", 20 + gain)]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def grid(panel):
    """Return {(row headers, column): cell}."""
    return {
        (headers, column): cell
        for headers, cells in panel.rows
        for column, cell in zip(panel.columns, cells, strict=True)
    }


def test_segmentation_table(metrics):
    table = segmentation_table(metrics, *ORDER)
    assert [panel.heading for panel in table.panels] == [
        f"{metric}, cells, {noise}" for metric in ("AP", "SEG") for noise in ("n20", "n10")
    ]
    first = table.panels[0]
    assert first.columns == ("10 annotated", "19 annotated")
    assert [headers for headers, _ in first.rows] == [("denoiseg",), ("baseline",)]
    best, worse = (cells[0] for _, cells in first.rows)
    assert (best.text, best.bold) == ("0.600 ± 0.100", True)
    assert (worse.text, worse.bold) == ("0.500 ± 0.100", False)
    assert all(cell.bold for cell in grid(table.panels[2]).values())  # a tie has no single winner
    assert set(table.data["metric"]) == {"AP", "AP_0.9", "SEG"}
    assert "IoU > 0.5" in table.caption and "n = 2 seeds" in table.caption


def test_denoising_table(metrics):
    (panel,) = denoising_table(metrics, {}, *ORDER).panels
    assert panel.columns == ("n20", "n10")
    cells = grid(panel)
    assert [headers for headers, _ in panel.rows] == [
        ("noisy input", "0"),
        ("denoiseg", "10"),
        ("n2v", "0"),
    ]
    assert cells[("noisy input", "0"), "n10"].text == "21.00"
    assert cells[("n2v", "0"), "n20"].text == "31.00 ± 0.00"
    assert [cell.bold for _, (cell, _) in panel.rows] == [False, False, True]


def test_noisy_input_and_single_rows_never_win(metrics):
    alone = metrics[(metrics["method"] == "n2v")]
    (panel,) = denoising_table(alone, {}, *ORDER).panels
    assert not any(cell.bold for cell in grid(panel).values())


def test_tables_tell_the_parameters_of_the_noise(metrics):
    """In the caption, and in a column of the data."""
    for table in (
        segmentation_table(metrics, *ORDER),
        denoising_table(metrics, {}, *ORDER),
        self_supervision_table(masked_grid(), *ORDER),
        paper_table(metrics, "noise2void", pd.read_csv(DENOISERS), {}, {}, *ORDER),
    ):
        assert "Noise levels: n20 is gaussian, sigma 20; n10 is gaussian, sigma 10" in table.caption
        told = table.data.groupby("noise", observed=True)["noise_parameters"].unique()
        assert {noise: list(texts) for noise, texts in told.items()} == {
            noise: [text] for noise, text in NOISES.items()
        }
        assert ",gaussian, sigma 20" in to_csv(table).replace('"', "")


def test_where_the_strength_of_the_noise_is_known_from(metrics):
    sigmas = {"nlm": "known", "tv": "estimated", "bm3d": "known"}
    caption = denoising_table(metrics, sigmas, *ORDER).caption
    assert (
        "The standard deviation of the noise was known from the noise level for nlm, bm3d. The "
        "standard deviation of the noise was estimated from each image for tv. "
    ) in caption
    assert "standard deviation" not in denoising_table(metrics, {}, *ORDER).caption


def test_a_checkerboard_is_shown_but_never_best(metrics):
    """Neither a high nor a low one is better by itself."""
    psnr = metrics[metrics["metric"] == "PSNR"]
    both = pd.concat([metrics, psnr.assign(metric="checkerboard", value=psnr["value"] / 20)])
    first, second = denoising_table(both, {}, *ORDER).panels
    assert [first.heading, second.heading] == ["PSNR, cells", "checkerboard, cells"]
    assert any(cell.bold for cell in grid(first).values())
    assert not any(cell.bold for cell in grid(second).values())
    assert grid(second)[("n2v", "0"), "n10"].text == "1.600 ± 0.000"
    assert "checkerboard is the power" in denoising_table(both, {}, *ORDER).caption


def masked_grid():
    """Two methods with a grid on two noise levels, one without; no truth of the dataset lines."""
    rows = []
    for dataset, noise, seed in [("cells", n, s) for n in NOISES for s in (1, 2)] + [
        ("lines", "n20", 1)
    ]:
        for method, loss in (("n2s", 500.0), ("n2s_dncnn", 450.0)):
            row = (dataset, noise, method, 0, seed, "a.tif", "a")
            rows.append((*row, "loss_self_supervised", loss + 10 * seed))
            if dataset == "cells":
                rows += [(*row, "MSE_j_invariant", loss - 400), (*row, "PSNR_j_invariant", 29.0)]
                rows += [(*row, "PSNR", 30.0), (*row, "SSIM", 0.8), (*row, "MSE", 9.0)]
        rows.append((dataset, noise, "n2v", 0, seed, "a.tif", "a", "PSNR", 33.0))
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def test_self_supervision_table():
    """The loss beside the truth where that is known, for methods that know their loss."""
    table = self_supervision_table(masked_grid(), ["n2s_dncnn", "n2v", "n2s"], NOISES)
    assert [panel.heading for panel in table.panels] == ["cells, n20", "cells, n10", "lines, n20"]
    first, _, blind = table.panels
    measures = ("self-supervised loss", "true error", "PSNR, single pass", "PSNR, J-invariant")
    assert first.columns == (*measures, "SSIM, single pass")
    assert blind.columns == measures[:1]
    for panel in table.panels:
        assert [headers for headers, _ in panel.rows] == [("n2s_dncnn", "0"), ("n2s", "0")]
        assert not any(cell.bold for cell in grid(panel).values())
    texts = [cell.text for cell in first.rows[1][1]]
    assert texts == [
        "515.000 ± 5.000", "100.000 ± 0.000", "30.00 ± 0.00", "29.00 ± 0.00", "0.800 ± 0.000",
    ]  # fmt: skip
    assert [cell.text for cell in blind.rows[0][1]] == ["460.000"]
    assert "differ by the variance of the noise" in table.caption
    assert set(table.data["metric"]) == {
        "loss_self_supervised", "MSE_j_invariant", "PSNR", "PSNR_j_invariant", "SSIM",
    }  # fmt: skip


def test_one_seed_has_no_error_bar(metrics):
    table = segmentation_table(metrics[metrics["seed"] == 1], *ORDER)
    assert table.panels[0].rows[0][1][0].text == "0.500"
    assert "a single seed, without error bar" in table.caption


def test_planes_of_one_file_are_said_to_count_once(metrics):
    assert "Mean over the images, then over seeds" in segmentation_table(metrics, *ORDER).caption
    planes = metrics.assign(source="stack.tif")
    caption = segmentation_table(planes, *ORDER).caption
    assert "Mean over the images of each file, then over the files, then over seeds" in caption


def test_paired_table(metrics):
    table = paired_table(metrics, "denoiseg", [], *ORDER)
    panels = {panel.heading: grid(panel) for panel in table.panels}
    cell = panels["AP, cells, n20, minus denoiseg"][("baseline",), "19 annotated"]
    assert (cell.text, cell.bold) == (f"{MINUS}0.100 [{MINUS}0.100, {MINUS}0.100]", True)
    cell = panels["SEG, cells, n20, minus denoiseg"][("baseline",), "10 annotated"]
    assert (cell.text, cell.bold) == ("+0.000 [+0.000, +0.000]", False)
    cell = panels["PSNR, cells, n10, minus denoiseg"][("n2v",), "10 annotated"]
    assert cell.text == "+1.00 [+1.00, +1.00]"


def test_published_table(metrics):
    published = pd.read_csv(PUBLISHED)
    names = {"denoiseg": "denoiseg_alpha0.5", "baseline": "baseline", "n2v": "n2v"}
    table = published_table(metrics, published, {"cells": "dsb"}, names, *ORDER)
    cells = grid(table.panels[0])
    assert cells[("denoiseg", "ours"), "10 annotated"].text == "0.600 ± 0.100"
    assert cells[("denoiseg", "published"), "10 annotated"].text == "0.678"
    assert cells[("denoiseg", "difference"), "10 annotated"].text == f"{MINUS}0.078"
    oracle = "oracle (alpha chosen on the test set)"
    assert cells[("denoiseg", oracle), "10 annotated"].text == "0.690"
    assert ("baseline", oracle) not in {row for row, _ in cells}
    assert set(table.data["n_annotated"]) == {0, 10, 19}  # only what was run here
    psnr = grid(table.panels[-1])
    assert psnr[("denoiseg", "published"), "10 annotated"].text == "37.57 ± 0.07"
    oracle = table.data["published_method"] == "denoiseg_alpha_best_on_test"
    assert oracle.any() and table.data["difference"].isna().equals(oracle)


# --- in the shape of a paper --------------------------------------------------------------------


def scores(metric):
    """Two datasets, two noise levels and methods, one of which depends on labels; with input."""
    rows = []
    for dataset, noise, seed in (
        (dataset, noise, seed) for dataset in ("b", "a") for noise in NOISES for seed in (1, 2)
    ):
        value = 30 + (dataset == "b") + 2 * (noise == "n10")
        for method, count, gain in (("n2v", 0, 0), ("bm3d", 0, 3), ("denoiseg", 10, 9)):
            row = (dataset, noise, method, count, seed, "x.tif", "x")
            rows += [(*row, metric, value + gain + seed), (*row, f"{metric}_noisy", 20.0)]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def numbers(metric):
    """Numbers of a paper: two of one kind, one of the other, and some that do not belong here."""
    rows = [
        ("bsd68", "n20", "n2v_paper", 27.71, "verified", "source V"),
        ("bsd68", "n20", "n2v_paper", 27.69, "verified", "source W"),
        ("bsd68", "n20", "bm3d_paper", 28.59, "recalled", "source R"),
        ("bsd68", "n20", "raw", 20.5, "verified", "source V"),
        ("bsd68", "n99", "n2v_paper", 1.0, "verified", "source X"),
        ("other", "n20", "n2v_paper", 2.0, "verified", "source Y"),
        ("bsd68", "n20", "denoiseg_paper", 3.0, "verified", "source Z"),
    ]
    table = pd.DataFrame(rows, columns=["dataset", "noise", "method", "mean", "status", "source"])
    return table.assign(n_annotated=0, sem=np.nan, metric=metric)


def paper(name, metric):
    names = {"n2v": "n2v_paper", "bm3d": "bm3d_paper", "denoiseg": "denoiseg_paper"}
    methods = ["bm3d", "n2v", "denoiseg"]
    return paper_table(
        scores(metric), name, numbers(metric), {"a": "bsd68"}, names, methods, NOISES
    )


def shown(panel):
    """Return {row headers: texts}."""
    return {headers: [cell.text for cell in cells] for headers, cells in panel.rows}


def test_methods_by_datasets_as_in_noise2void():
    (panel,) = paper("noise2void", "PSNR").panels
    assert (panel.heading, panel.row_names) == ("PSNR", ("method", "number"))
    assert panel.columns == ("a, n20", "a, n10", "b, n20", "b, n10")
    assert shown(panel) == {
        ("noisy input", "ours"): ["20.00", "20.00", "20.00", "20.00"],
        ("noisy input", "published"): ["20.50", "", "", ""],
        ("bm3d", "ours"): [f"{value}.50 ± 0.50" for value in (34, 36, 35, 37)],
        ("bm3d", "recalled, unverified"): ["28.59", "", "", ""],
        ("n2v", "ours"): [f"{value}.50 ± 0.50" for value in (31, 33, 32, 34)],
        ("n2v", "published"): ["27.71; 27.69", "", "", ""],
    }


def test_datasets_by_methods_as_in_noise2self():
    (panel,) = paper("noise2self", "PSNR").panels
    assert (panel.heading, panel.row_names) == ("PSNR", ("data", "number"))
    assert panel.columns == ("noisy input", "bm3d", "n2v")
    found = shown(panel)
    assert list(found) == [
        ("a, n20", "ours"), ("a, n20", "published"), ("a, n20", "recalled, unverified"),
        ("a, n10", "ours"), ("b, n20", "ours"), ("b, n10", "ours"),
    ]  # fmt: skip
    assert found["a, n20", "ours"] == ["20.00", "34.50 ± 0.50", "31.50 ± 0.50"]
    assert found["a, n20", "published"] == ["20.50", "", "27.71; 27.69"]
    assert found["a, n20", "recalled, unverified"] == ["", "28.59", ""]


def test_methods_by_noise_levels_as_in_the_autoencoder_paper():
    first, second = paper("autoencoder", "SSIM").panels
    assert [first.heading, second.heading] == ["SSIM, a", "SSIM, b"]
    assert first.columns == second.columns == ("n20", "n10")
    assert shown(first)["n2v", "ours"] == ["31.500 ± 0.500", "33.500 ± 0.500"]
    assert shown(first)["bm3d", "recalled, unverified"] == ["28.590", ""]
    assert {number for _, number in shown(second)} == {"ours"}


def test_recalled_numbers_are_never_called_published():
    """Not in a row, not in the caption; the data tell the status and source of each."""
    table = paper("noise2void", "PSNR")
    assert table.caption.endswith(
        "Sources of the published numbers: source V; source W. Recalled numbers were written down "
        "from memory and are unverified; do not quote them: source R."
    )
    theirs = table.data.dropna(subset=["published_mean"])
    found = {(row.method, row.published_mean): row.status for row in theirs.itertuples()}
    assert found == {
        ("n2v", 27.71): "verified", ("n2v", 27.69): "verified",
        ("noisy input", 20.5): "verified", ("bm3d", 28.59): "recalled",
    }  # fmt: skip
    assert "denoiseg" not in set(table.data["method"])  # it depends on labels
    assert not any(cell.bold for cell in grid(table.panels[0]).values())


def test_a_paper_without_numbers_says_so():
    table = paper_table(
        scores("PSNR"), "noise2self", numbers("PSNR"), {}, {"n2v": "n2v_paper"}, ["n2v"], NOISES
    )
    assert "There are no published numbers for these datasets, noise levels" in table.caption
    assert {number for _, number in shown(table.panels[0])} == {"ours"}
    assert table.data["published_mean"].isna().all()


def test_shipped_numbers_of_denoisers_have_a_status_and_a_source(schema):
    numbers = pd.read_csv(DENOISERS)
    assert set(numbers["status"]) == {"verified", "recalled"}
    assert numbers["source"].notna().all()
    assert set(numbers["dataset"]) <= set(schema["$defs"]["published_dataset"]["enum"])
    metrics = {metric for shape in PAPERS.values() for metric in shape.metrics}
    assert set(numbers["metric"]) <= metrics
    assert list(PAPERS) == schema["properties"]["paper"]["enum"][:-1]


def test_empty_selections_say_so(metrics):
    none = metrics.iloc[:0]
    published = pd.read_csv(PUBLISHED)
    for table in (
        self_supervision_table(metrics, *ORDER),
        paper_table(none, "noise2self", pd.read_csv(DENOISERS), {}, {}, *ORDER),
        segmentation_table(none, *ORDER),
        denoising_table(none, {}, *ORDER),
        paired_table(metrics, "absent", [], *ORDER),
        published_table(metrics, published, {"cells": "x"}, {"n2v": "n2v"}, *ORDER),
        costs_table([{"rule": "train", "method": "n2v", "path": "deleted.tsv"}]),
    ):
        assert table.caption.startswith("No results: ")
        assert table.panels == ()
        assert to_csv(table).count("\n") == 1  # the header alone


HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def test_costs_table(tmp_path):
    records = []
    for k, (rule, method, seconds, memory) in enumerate(
        [
            ("train", "n2v", "1800", "100.0"),
            ("train", "n2v", "5400", "300.0"),
            ("prepare", None, "0.5", "-"),
        ]
    ):
        path = tmp_path / f"{k}.tsv"
        path.write_text(f"{HEADER}{seconds}\t0:00:00\t{memory}\t-\t-\t-\t0\t0\t0\t0\n")
        records.append({"rule": rule, "method": method, "path": path})
    panel = costs_table(records).panels[0]
    texts = [(*headers, *(cell.text for cell in cells)) for headers, cells in panel.rows]
    assert texts == [
        ("train", "n2v", "2", "2.00", "3600.0", "300"),
        ("prepare", "\N{EN DASH}", "1", "0.00", "0.5", ""),
    ]
    path.write_text("nothing\n")
    records[0]["path"].unlink()
    table = costs_table(records)
    assert "2 of 3 jobs are not included: their benchmark files" in table.caption
    assert [cell.text for cell in table.panels[0].rows[0][1]] == ["1", "1.50", "5400.0", "300"]


def test_benchmark_files_that_were_cut_off(tmp_path):
    path = tmp_path / "train.tsv"
    whole = f"{HEADER}1.5\t0:00:01\t200.25\t-\t-\t-\t0\t0\t0\t0.75\n"
    last_field = whole.rindex("\t") + 1
    for length in range(last_field):
        path.write_text(whole[:length])
        assert read_benchmark(path) is None
    path.write_text(whole)
    assert read_benchmark(path) == (1.5, 200.25)


def test_numbers():
    assert format_mean(0.6344, 0.0206, "AP") == "0.634 ± 0.021"
    assert format_mean(30.126, np.nan, "PSNR_255") == "30.13"
    assert format_mean(np.nan, np.nan, "SSIM") == ""
    assert format_number(-0.0001, "AP") == "0.000"
    assert format_number(-0.5, "AP", "+") == f"{MINUS}0.500"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_files_escape_what_they_are_given(metrics, tmp_path):
    hostile = "<b>a_b & 5%|\\{x}"
    renamed = metrics.assign(method=metrics["method"].replace("baseline", hostile))
    table = segmentation_table(renamed, ["denoiseg", hostile], NOISES)
    csv, html, md, tex = (
        p.read_text("utf-8") for p in write_table(table, tmp_path / "new" / "t.x")
    )
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "t.x.csv", "t.x.html", "t.x.md", "t.x.tex",
    ]  # fmt: skip
    tags = Tags()
    tags.feed(html)
    assert not tags.open and "b" not in {tag for tag, _ in tags.seen}
    assert "&lt;b&gt;a_b &amp; 5%" in html
    assert all("scope" in attributes for tag, attributes in tags.seen if tag == "th")
    n_tables = sum(tag == "table" for tag, _ in tags.seen)
    assert n_tables == sum(tag == "caption" for tag, _ in tags.seen) == len(table.panels)
    assert "<strong>0.600 ± 0.100</strong>" in html
    assert r"| &lt;b&gt;a\_b &amp; 5%\|\\{x} | 0.500 ± 0.100 |" in md
    assert "| **0.600 ± 0.100** |" in md
    assert r"\textless{}b\textgreater{}a\_b \& 5\%|\textbackslash{}\{x\} & 0.500 $\pm$" in tex
    assert r"\textbf{0.600 $\pm$ 0.100}" in tex
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "new" / "t.x.csv"),
        table.data.astype({"method": object, "noise": object}),
        check_dtype=False,
        rtol=1e-5,
    )
    assert "," in csv and "\r" not in csv + html + md + tex


def test_same_metrics_in_any_order_give_the_same_bytes(metrics, tmp_path):
    shuffled = metrics.sample(frac=1, random_state=0)
    for build in (
        segmentation_table,
        lambda frame, *order: denoising_table(frame, {}, *order),
        lambda frame, *order: paired_table(frame, "denoiseg", [], *order),
        lambda frame, *order: paper_table(
            frame, "noise2void", numbers("PSNR"), {"cells": "bsd68"}, {"n2v": "n2v_paper"}, *order
        ),
    ):
        one = write_table(build(metrics, *ORDER), tmp_path / "one")
        two = write_table(build(shuffled, *ORDER), tmp_path / "two")
        for first, second in zip(one, two, strict=True):
            assert first.read_bytes() == second.read_bytes()
