"""Score the predictions of one run."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.evaluation.scoring import score_run, write_metrics
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.study.grid import Run


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs = snakemake.input
        metrics = score_run(
            run=Run.of(snakemake.wildcards),
            split=manifest.read(inputs.split),
            prepared=PreparedData(Path(inputs.prepared)),
            noisy=Path(inputs.noisy),
            predictions=Predictions(Path(inputs.predictions)),
        )
        write_metrics(metrics, Path(snakemake.output.metrics))
        checksums.write(snakemake.output.metrics)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
