"""Titles and captions of what studies show."""

import re

from denoiseg_flow.reporting import captions


def test_every_figure_that_a_rule_makes_has_its_caption(root):
    """And no caption is left over."""
    text = "".join(path.read_text() for path in root.glob("workflow/rules/*.smk"))
    (curves,) = re.findall(r'figure="([\w|]+)"', text)
    kinds = re.findall(r'figure\(\s*"<results>/figures/\{dataset\}/(\w+)_\{noise\}"', text)
    assert len(kinds) == 4
    assert {*curves.split("|"), *kinds} == captions.FIGURES.keys()
