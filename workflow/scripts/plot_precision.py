"""Draw the precision of predicted objects by their confidence."""

from pathlib import Path

from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.models.model_file import describe_model
from denoiseg_flow.models.precision_curve import PrecisionCurve
from denoiseg_flow.reporting.figures.precision import precision_curves
from denoiseg_flow.reporting.figures.style import save
from denoiseg_flow.study.grid import Run


def main(snakemake):
    with job_log(snakemake.log[0]):
        params = snakemake.params
        found = {}
        for axes, path in zip(params.runs, snakemake.input.models, strict=True):
            if curve := describe_model(Path(path)).get("precision"):
                found[Run(**axes)] = PrecisionCurve(**curve)
        figure = precision_curves(found, params.methods, params.noises)
        save(figure, Path(snakemake.output[0]).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
