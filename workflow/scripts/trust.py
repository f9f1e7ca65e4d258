"""Examine the labels and denoised images that came out best: how far can they be trusted?"""

from pathlib import Path

from denoiseg_flow import findings
from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.evaluation.trust import Denoised, Segmented, examine_results
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.reporting.figures.style import save
from denoiseg_flow.reporting.figures.trust import diagnostics, residual_panel, suspicious_examples
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import best_run
from denoiseg_flow.study.grid import DENOISED, LABELS, PURPOSES, Run


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, output, params = snakemake.input, snakemake.output, snakemake.params
        metrics, noisy = read_metrics_csv(inputs.metrics), Path(inputs.noisy)
        runs = {purpose: [Run(**axes) for axes in params[purpose]] for purpose in PURPOSES}
        segmented = denoised = None
        if run := best_run(metrics, runs[LABELS], LABELS):
            place = runs[LABELS].index(run)
            device = select_device(params.device, snakemake.threads, snakemake.resources)
            segmented = Segmented(
                run,
                load_model(Path(inputs.models[place]), device),
                Path(inputs.images[place]),
                Predictions(Path(inputs.labels[place])),
            )
        if run := best_run(metrics, runs[DENOISED], DENOISED):
            folder = Path(inputs.denoised[runs[DENOISED].index(run)])
            denoised = Denoised(run, Predictions(folder))
        trust = examine_results(
            split=manifest.read(Path(inputs.split)),
            prepared=PreparedData(Path(inputs.prepared)),
            noisy=noisy,
            metrics=metrics,
            segmented=segmented,
            denoised=denoised,
        )
        findings.log(trust.findings, params.about)
        findings.write(trust.findings, Path(output.json))
        trust.images.to_csv(output.csv, index=False, lineterminator="\n")
        trust.objects.to_csv(output.objects, index=False, lineterminator="\n")
        save(diagnostics(trust), Path(output.diagnostics[0]).with_suffix(""))
        rows = suspicious_examples(trust, noisy, denoised.predictions) if denoised else []
        save(residual_panel(rows), Path(output.residuals[0]).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
