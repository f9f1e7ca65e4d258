"""All comparison tables of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from denoiseg_flow.tables.layout import Table
from denoiseg_flow.tables.papers import paper_table
from denoiseg_flow.tables.published import published_table
from denoiseg_flow.tables.quality import (
    denoising_table,
    paired_table,
    segmentation_table,
    self_supervision_table,
)

BOOTSTRAP_SEED = 0


def comparison_tables(
    metrics: pd.DataFrame,
    study: Mapping[str, Any],
    published: Path | None = None,
    published_denoisers: Path | None = None,
) -> dict[str, Table]:
    """Make the tables that a study names.

    Parameters
    ----------
    metrics
        Tidy metrics of all runs.
    study
        See :attr:`denoiseg_flow.grid.Grid.comparison`.
    published, published_denoisers
        The csv files of published numbers, where the study compares with them: those of the
        DenoiSeg paper, and those of the papers on denoising.
    """
    order = {"methods": study["methods"], "noises": study["noises"]}
    names = study["published_datasets"], study["published_methods"]
    make = {
        "segmentation": lambda: segmentation_table(metrics, **order),
        "denoising": lambda: denoising_table(metrics, study["noise_sigmas"], **order),
        "self_supervision": lambda: self_supervision_table(metrics, **order),
        "paired": lambda: paired_table(metrics, study["reference"], BOOTSTRAP_SEED, **order),
        "paper": lambda: paper_table(
            metrics, study["paper"], pd.read_csv(published_denoisers), *names, **order
        ),
        "published": lambda: published_table(metrics, pd.read_csv(published), *names, **order),
    }
    return {name: make[name]() for name in study["tables"]}
