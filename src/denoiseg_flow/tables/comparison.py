"""All comparison tables of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from denoiseg_flow.tables.layout import Table
from denoiseg_flow.tables.published import published_table
from denoiseg_flow.tables.quality import denoising_table, paired_table, segmentation_table

BOOTSTRAP_SEED = 0


def comparison_tables(
    metrics: pd.DataFrame, study: Mapping[str, Any], published: Path | None
) -> dict[str, Table]:
    """Make the tables that a study names.

    Parameters
    ----------
    metrics
        Tidy metrics of all runs.
    study
        See :attr:`denoiseg_flow.grid.Grid.comparison`.
    published
        The csv file of published numbers, where the study compares with them.
    """
    order = {"methods": study["methods"], "noises": study["noises"]}
    make = {
        "segmentation": lambda: segmentation_table(metrics, **order),
        "denoising": lambda: denoising_table(metrics, **order),
        "paired": lambda: paired_table(metrics, study["reference"], BOOTSTRAP_SEED, **order),
        "published": lambda: published_table(
            metrics,
            pd.read_csv(published),
            study["published_datasets"],
            study["published_methods"],
            **order,
        ),
    }
    return {name: make[name]() for name in study["tables"]}
