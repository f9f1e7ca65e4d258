"""Sum up the benchmark files of all runs."""

from pathlib import Path

from denoiseg_flow.costs import costs_table
from denoiseg_flow.grid import Grid
from denoiseg_flow.logs import job_log
from denoiseg_flow.table_files import write_table


def main(snakemake):
    with job_log(snakemake.log[0]):
        # The benchmark files lie beside the table, under the name of their rule.
        folder = Path(snakemake.output[0]).parent
        records = [
            {
                "rule": rule,
                **run.as_dict(),
                "path": folder
                / rule
                / f"{run.dataset}/{run.noise}/{run.method}/gt{run.n_labelled}/seed{run.seed}.tsv",
            }
            for rule in ("train", "predict")
            for run in Grid(snakemake.config).runs
        ]
        write_table(costs_table(records), folder / "costs")


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
