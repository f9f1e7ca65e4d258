"""Convert a dataset to the canonical format."""

from pathlib import Path

from denoiseg_flow.data.prepare import prepare
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        raw = snakemake.input.get("raw")
        prepare(
            snakemake.params.dataset,
            raw=Path(raw) if raw else None,
            folder=Path(snakemake.output.prepared),
            prepared_parts=snakemake.input.get("parts", []),
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
