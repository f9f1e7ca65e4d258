"""Titles and captions of what studies show."""

import re

from denoiseg_flow.reporting import captions
from denoiseg_flow.study import contents
from denoiseg_flow.study.grid import Grid


def test_every_figure_that_a_rule_makes_has_its_caption(root):
    """And no caption is left over."""
    text = "".join(path.read_text() for path in root.glob("workflow/rules/*.smk"))
    (curves,) = re.findall(r'figure="([\w|]+)"', text)
    kinds = re.findall(r'figure\(\s*"<results>/figures/\{dataset\}/(\w+)_\{noise\}"', text)
    assert len(kinds) == 4
    assert {*curves.split("|"), *kinds} == captions.FIGURES.keys()


def test_every_table_of_a_study_has_its_caption(config):
    """And, beside that of the costs, no caption is left over."""
    config["datasets"]["nuclei"]["published"] = "dsb"
    config["methods"]["n2s"] = {
        "target": "blind_spot", "masking": "grid_interpolate", "alpha": 1,
    }  # fmt: skip
    config["grid"]["methods"].append("n2s")
    tables = contents.tables(Grid(config | {"paper": "noise2self"}))
    assert {*tables, "costs"} == captions.TABLES.keys()
