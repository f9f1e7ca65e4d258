"""Gather the metrics of all runs into the comparison tables."""

from pathlib import Path

import pandas as pd

from denoiseg_flow import tables
from denoiseg_flow.logs import job_log
from denoiseg_flow.statistics import read_metrics
from denoiseg_flow.table_files import write_table


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        metrics = read_metrics(snakemake.input.metrics)
        metrics.to_csv(snakemake.output.metrics, index=False, lineterminator="\n")
        order = {"methods": params.methods, "noises": params.noises}
        make = {
            "segmentation": lambda: tables.segmentation_table(metrics, **order),
            "denoising": lambda: tables.denoising_table(metrics, **order),
            "paired": lambda: tables.paired_table(metrics, params.reference, seed=0, **order),
            "published": lambda: tables.published_table(
                metrics,
                pd.read_csv(snakemake.input.published),
                params.published_datasets,
                params.published_methods,
                **order,
            ),
        }
        for name in params.tables:
            write_table(make[name](), Path(snakemake.output.metrics).with_name(name))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
