"""Check the quality of a dataset before training."""

from pathlib import Path

from denoiseg_flow import findings
from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.evaluation.data_quality import check_dataset
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.reporting.checks_page import checks_page


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, wildcards = snakemake.input, snakemake.wildcards
        checks = check_dataset(
            prepared=PreparedData(Path(inputs.prepared)),
            noisy=Path(inputs.noisy),
            split=manifest.read(Path(inputs.split)),
        )
        findings.log(checks.findings, wildcards.dataset)
        findings.write(checks.findings, Path(snakemake.output.json))
        checks.images.to_csv(snakemake.output.csv, index=False, lineterminator="\n")
        title = f"{wildcards.dataset}, noise {wildcards.noise}"
        Path(snakemake.output.html).write_text(checks_page(checks, title), encoding="utf-8")


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
