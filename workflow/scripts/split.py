"""Split a dataset into train, val and test, and rank its annotated training images."""

from pathlib import Path

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        images = PreparedData(Path(snakemake.input.prepared)).read_manifest()
        params, seed = snakemake.params, int(snakemake.wildcards.seed)
        table = splitting.split(images, params.split, seed, params.n_train)
        manifest.write(table, snakemake.output.split)
        checksums.write(snakemake.output.split)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
