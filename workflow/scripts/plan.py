"""Print the remaining jobs of the study and their estimated cost."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.study.costs import Estimates
from denoiseg_flow.study.dry_run import find_pending
from denoiseg_flow.study.grid import Grid
from denoiseg_flow.study.plan import make_plan, show


def main(snakemake):
    with job_log(snakemake.log[0]):
        params, config = snakemake.params, snakemake.config
        folders = {name: Path(folder) for name, folder in params.folders.items()}
        grid = Grid(config)
        plan = make_plan(
            grid,
            Estimates(grid, folders["results"] / "data"),
            find_pending(params.snakefile, params.folders, params.triggers, config),
            folders["benchmarks"],
            folders["logs"],
        )
        print(show(plan, config["title"]), flush=True)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
