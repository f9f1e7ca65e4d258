"""The tables: what stands where, what is bold, and the four files."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.scoring import METRICS_COLUMNS
from denoiseg_flow.tables.costs import costs_table
from denoiseg_flow.tables.files import to_csv, write_table
from denoiseg_flow.tables.layout import format_mean, format_number
from denoiseg_flow.tables.published import published_table
from denoiseg_flow.tables.quality import (
    denoising_table,
    paired_table,
    segmentation_table,
)

PUBLISHED = Path(__file__).parents[2] / "config" / "published" / "denoiseg.csv"
MINUS = "\N{MINUS SIGN}"
ORDER = (["denoiseg", "baseline", "n2v"], ["n20", "n10"])


@pytest.fixture
def metrics():
    """Two noise levels, two seeds, two images; n10 is 1 dB better, seed 2 is 0.2 better in AP."""
    rows = []
    for noise, gain in (("n10", 1.0), ("n20", 0.0)):
        for seed in (1, 2):
            for image in ("a", "b"):
                for count in (10, 19):
                    for method, ap in (("denoiseg", 0.5), ("baseline", 0.4)):
                        ap += 0.2 * (seed - 1)
                        row = ("cells", noise, method, count, seed, image)
                        rows += [(*row, "AP", ap), (*row, "AP_0.9", ap / 2), (*row, "SEG", 0.7)]
                for method, count, psnr in (("denoiseg", 10, 30), ("n2v", 0, 31)):
                    row = ("cells", noise, method, count, seed, image)
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
    assert first.columns == ("10 labelled", "19 labelled")
    assert [headers for headers, _ in first.rows] == [("denoiseg",), ("baseline",)]
    best, worse = (cells[0] for _, cells in first.rows)
    assert (best.text, best.bold) == ("0.600 ± 0.100", True)
    assert (worse.text, worse.bold) == ("0.500 ± 0.100", False)
    assert all(cell.bold for cell in grid(table.panels[2]).values())  # a tie has no single winner
    assert set(table.data["metric"]) == {"AP", "AP_0.9", "SEG"}
    assert "IoU > 0.5" in table.caption and "n = 2 seeds" in table.caption


def test_denoising_table(metrics):
    (panel,) = denoising_table(metrics, *ORDER).panels
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
    (panel,) = denoising_table(alone, *ORDER).panels
    assert not any(cell.bold for cell in grid(panel).values())


def test_one_seed_has_no_error_bar(metrics):
    table = segmentation_table(metrics[metrics["seed"] == 1], *ORDER)
    assert table.panels[0].rows[0][1][0].text == "0.500"
    assert "a single seed, so no error bar" in table.caption


def test_paired_table(metrics):
    table = paired_table(metrics, "denoiseg", 0, *ORDER)
    panels = {panel.heading: grid(panel) for panel in table.panels}
    cell = panels["AP, cells, n20, minus denoiseg"][("baseline",), "19 labelled"]
    assert (cell.text, cell.bold) == (f"{MINUS}0.100 [{MINUS}0.100, {MINUS}0.100]", True)
    cell = panels["SEG, cells, n20, minus denoiseg"][("baseline",), "10 labelled"]
    assert (cell.text, cell.bold) == ("+0.000 [+0.000, +0.000]", False)
    cell = panels["PSNR, cells, n10, minus denoiseg"][("n2v",), "10 labelled"]
    assert cell.text == "+1.00 [+1.00, +1.00]"


def test_published_table(metrics):
    published = pd.read_csv(PUBLISHED)
    names = {"denoiseg": "denoiseg_alpha0.5", "baseline": "baseline", "n2v": "n2v"}
    table = published_table(metrics, published, {"cells": "dsb"}, names, *ORDER)
    cells = grid(table.panels[0])
    assert cells[("denoiseg", "ours"), "10 labelled"].text == "0.600 ± 0.100"
    assert cells[("denoiseg", "published"), "10 labelled"].text == "0.678"
    assert cells[("denoiseg", "difference"), "10 labelled"].text == f"{MINUS}0.078"
    assert cells[("denoiseg", "oracle (alpha chosen on test)"), "10 labelled"].text == "0.690"
    assert ("baseline", "oracle (alpha chosen on test)") not in {row for row, _ in cells}
    assert set(table.data["n_labelled"]) == {0, 10, 19}  # only what was run here
    psnr = grid(table.panels[-1])
    assert psnr[("denoiseg", "published"), "10 labelled"].text == "37.57 ± 0.07"
    oracle = table.data["published_method"] == "denoiseg_alpha_best_on_test"
    assert oracle.any() and table.data["difference"].isna().equals(oracle)


def test_empty_selections_say_so(metrics):
    none = metrics.iloc[:0]
    published = pd.read_csv(PUBLISHED)
    for table in (
        segmentation_table(none, *ORDER),
        denoising_table(none, *ORDER),
        paired_table(metrics, "absent", 0, *ORDER),
        published_table(metrics, published, {"cells": "x"}, {"n2v": "n2v"}, *ORDER),
    ):
        assert table.caption.startswith("Nothing to show: no ")
        assert table.panels == ()
        assert to_csv(table).count("\n") == 1  # the header alone
    with pytest.raises(InputError, match="no "):
        costs_table([])


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
    with pytest.raises(InputError, match=re.escape(str(path))):
        costs_table(records)


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
    table = segmentation_table(renamed, ["denoiseg", hostile], ORDER[1])
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
        denoising_table,
        lambda frame, *order: paired_table(frame, "denoiseg", 3, *order),
    ):
        one = write_table(build(metrics, *ORDER), tmp_path / "one")
        two = write_table(build(shuffled, *ORDER), tmp_path / "two")
        for first, second in zip(one, two, strict=True):
            assert first.read_bytes() == second.read_bytes()
