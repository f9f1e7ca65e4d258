"""Score the predictions of one run."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.evaluation.scoring import score_run, write_metrics
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        prepared = Path(snakemake.input.prepared)
        metrics = score_run(
            split=manifest.read(snakemake.input.split),
            masks=prepared / "masks",
            clean=prepared / "clean",
            predictions=Path(snakemake.input.predictions),
            noisy=Path(snakemake.input.noisy),
            identity=dict(snakemake.wildcards.items()),
        )
        write_metrics(metrics, Path(snakemake.output.metrics))
        checksums.write(snakemake.output.metrics)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
