"""Split a dataset into train, val and test, and rank its annotated training images."""

from pathlib import Path

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.logs import job_log


def main(snakemake):
    with job_log(snakemake.log[0]):
        images = PreparedData(Path(snakemake.input.prepared)).read_manifest()
        how, seed = snakemake.params.split, int(snakemake.wildcards.seed)
        if file := snakemake.input.get("file"):
            how = how | {"file": file}
        table = splitting.split(images, how, seed, snakemake.params.n_train)
        manifest.write(table, snakemake.output.split)
        checksums.write(snakemake.output.split)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
