"""Simulate images that pretrained networks keep training on."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.training.rehearsal import simulate_rehearsal, write_rehearsal


def main(snakemake):
    with job_log(snakemake.log[0]):
        pretrained = PRETRAINED[snakemake.wildcards.pretrained]
        simulated = simulate_rehearsal(pretrained, snakemake.params.patch_shape)
        write_rehearsal(Path(snakemake.output.images), simulated)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
