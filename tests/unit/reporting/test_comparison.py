"""The tables of a study, by name."""

import pandas as pd
import pytest

from denoiseg_flow.evaluation.scoring import METRICS_COLUMNS
from denoiseg_flow.reporting.tables.comparison import comparison_tables
from denoiseg_flow.reporting.tables.layout import Table

PUBLISHED = "config/published/denoiseg.csv"


@pytest.fixture
def metrics():
    rows = []
    for seed in (1, 2):
        for image in ("a", "b", "c"):
            for method, ap, psnr in (("denoiseg", 0.6, 30.0), ("baseline", 0.5, None)):
                row = ("cells", "n10", method, 10, seed, f"{image}.tif", image)
                rows.append((*row, "AP", ap + 0.01 * seed))
                if psnr:
                    rows += [(*row, "PSNR", psnr), (*row, "PSNR_noisy", 20.0)]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def study(*tables, **changes):
    return {
        "tables": list(tables),
        "methods": ["baseline", "denoiseg"],
        "noises": {"n10": "gaussian, sigma 10"},
        "noise_sigmas": {},
        "paper": None,
        "untrained": [],
        "grouped": [],
        "reference": "denoiseg",
        "published_datasets": {},
        "published_methods": {},
    } | changes


@pytest.mark.parametrize(
    "names",
    [["segmentation"], ["paired", "denoising"], ["segmentation", "denoising", "paired"], []],
)
def test_makes_the_tables_that_are_named(metrics, names):
    tables = comparison_tables(metrics, study(*names), published=None)
    assert list(tables) == names
    for table in tables.values():
        assert isinstance(table, Table)
        assert table.panels


def test_published_numbers_stand_beside_ours(metrics, root):
    wanted = study(
        "segmentation",
        "published",
        published_datasets={"cells": "dsb"},
        published_methods={"denoiseg": "denoiseg_alpha0.5", "baseline": "baseline"},
    )
    tables = comparison_tables(metrics, wanted, root / PUBLISHED)
    assert list(tables) == ["segmentation", "published"]
    rows = [headers for panel in tables["published"].panels for headers, _ in panel.rows]
    assert rows


def test_tables_of_denoisers(metrics, root):
    """In the shape of the paper that is asked for, with the numbers of the papers on denoising."""
    row = ("cells", "n25", "n2s", 0, 1, "a.tif", "a")
    rows = [(*row, metric, 30.0) for metric in ("PSNR", "PSNR_noisy")]
    rows.append((*row, "loss_self_supervised", 400.0))
    metrics = pd.concat([metrics, pd.DataFrame(rows, columns=METRICS_COLUMNS)])
    changes = {
        "noises": {"n10": "gaussian, sigma 10", "n25": "gaussian, sigma 25"},
        "published_datasets": {"cells": "hanzi"},
        "published_methods": {"n2s": "n2s_unet"},
    }
    numbers = root / "config/published/denoisers.csv"
    tables = {
        paper: comparison_tables(
            metrics, study("self_supervision", "paper", paper=paper, **changes), None, numbers
        )
        for paper in ("noise2void", "noise2self")
    }
    for paper, found in tables.items():
        assert list(found) == ["self_supervision", "paper"]
        assert found["self_supervision"].panels[0].rows[0][1][0].text == "400.000"
        assert found["paper"].panels[0].row_names[0] == (
            "method" if paper == "noise2void" else "data"
        )


def test_same_input_same_tables(metrics):
    """The bootstrap of the paired table draws from a fixed seed."""
    first, second = (comparison_tables(metrics, study("paired"), None)["paired"] for _ in range(2))
    assert repr(first.panels) == repr(second.panels)


def test_reference_decides_what_is_compared(metrics):
    tables = [
        comparison_tables(metrics, study("paired", reference=name), None)["paired"]
        for name in ("denoiseg", "baseline")
    ]
    assert repr(tables[0].panels) != repr(tables[1].panels)


def test_tables_say_what_is_over_groups(metrics):
    names = "segmentation", "denoising", "paired"
    plain = comparison_tables(metrics, study(*names), None)
    grouped = comparison_tables(metrics, study(*names, grouped=["cells", "others"]), None)
    for name, table in grouped.items():
        assert table.caption == (
            f"{plain[name].caption} In cells, groups of images take the place of files: means and "
            "intervals are over groups."
        )
        assert table.panels == plain[name].panels
    assert comparison_tables(metrics, study(*names, grouped=["others"]), None).keys() == set(names)
    others = comparison_tables(metrics, study("paired", grouped=["others"]), None)
    assert others["paired"].caption == plain["paired"].caption
