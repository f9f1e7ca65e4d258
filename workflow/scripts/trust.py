"""Examine the predictions of a run: how far can they be trusted?"""

from pathlib import Path

import numpy as np
import pandas as pd

from denoiseg_flow import findings
from denoiseg_flow.data import checksums, manifest
from denoiseg_flow.data.images import open_plane
from denoiseg_flow.devices import select_device
from denoiseg_flow.figures.style import save
from denoiseg_flow.figures.trust import ResidualExample, diagnostics, residual_panel
from denoiseg_flow.logs import job_log
from denoiseg_flow.models import load_model
from denoiseg_flow.residuals import load_residual
from denoiseg_flow.trust import examine_run, find_denoised

N_SHOWN = 4


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, output, params = snakemake.input, snakemake.output, snakemake.params
        noisy, images = Path(inputs.noisy), Path(inputs.images)
        predictions = Path(inputs.predictions)
        checksums.verify(inputs.metrics)
        trust = examine_run(
            split=manifest.read(Path(inputs.split)),
            masks=Path(inputs.prepared) / "masks",
            noisy=noisy,
            images=images,
            predictions=predictions,
            metrics=pd.read_csv(inputs.metrics, sep="\t", dtype={"image": str}),
            model=load_model(
                Path(inputs.model),
                select_device(params.device, snakemake.threads, snakemake.resources),
            ),
        )
        findings.log(trust.findings, params.about)
        findings.write(trust.findings, Path(output.json))
        trust.images.to_csv(output.csv, index=False, lineterminator="\n")
        save(diagnostics(trust), Path(output.diagnostics[0]).with_suffix(""))
        denoised = find_denoised(images, predictions)
        suspicious = trust.images["smoothed"] + trust.images["invented"]
        order = suspicious.dropna().sort_values(ascending=False, kind="stable").index
        shown = trust.images.loc[order[:N_SHOWN], "image"]
        rows = [
            ResidualExample(
                name,
                np.asarray(open_plane(noisy / f"{name}.tif")),
                np.asarray(open_plane(denoised / f"{name}.tif")),
                load_residual(name, noisy, denoised, trust.noise),
            )
            for name in shown
        ]
        save(residual_panel(rows), Path(output.residuals[0]).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
