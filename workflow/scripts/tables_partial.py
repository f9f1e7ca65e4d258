"""Write the comparison tables of the finished runs."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.tables.partial import write_partial_tables
from denoiseg_flow.study.dry_run import find_pending
from denoiseg_flow.study.grid import Grid


def main(snakemake):
    with job_log(snakemake.log[0]):
        params, config = snakemake.params, snakemake.config
        grid, results = Grid(config), Path(params.folders["results"])
        left = find_pending(params.snakefile, params.folders, params.triggers, config, "aggregate")
        runs = [run for run in grid.scored_runs if run not in left.runs["score"]]
        write_partial_tables(
            [results / "runs" / run.folder / "metrics.tsv" for run in runs],
            len(grid.scored_runs),
            params.comparison,
            results / "tables_partial",
            params.published or None,
            params.published_denoisers or None,
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
