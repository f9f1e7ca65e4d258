"""Suggest which images to annotate next."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import image_file, input_folder
from denoiseg_flow.data.store import middle_plane, open_image, open_picture
from denoiseg_flow.evaluation.annotate_next import entropy, suggest
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.prediction import predict_probabilities
from denoiseg_flow.reporting.figures.style import save
from denoiseg_flow.reporting.figures.suggestions import thumbnails
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import best_run
from denoiseg_flow.study.grid import LABELS, Run

N_SHOWN = 8


def main(snakemake):
    with job_log(snakemake.log[0]):
        inputs, output = snakemake.input, snakemake.output
        params = snakemake.params
        device = select_device(params.device, snakemake.threads, snakemake.resources)
        runs = [Run(**axes) for axes in params.runs]
        place = runs.index(best_run(read_metrics_csv(inputs.metrics), runs, LABELS))
        model = load_model(Path(inputs.models[place]), device)
        images, noisy = input_folder(Path(inputs.images[place])), Path(inputs.noisy)
        split = manifest.read(Path(inputs.split))
        annotated = split["annotated"] == 1
        table = suggest(
            model, images, list(split.loc[annotated, "image"]), list(split.loc[~annotated, "image"])
        )
        table = table[["rank", "image", "confidence"]].merge(split[["image", "source"]], how="left")
        table.to_csv(output.csv, index=False, lineterminator="\n")
        shown = [
            (
                name,
                open_picture(image_file(noisy, name)),
                middle_plane(
                    entropy(predict_probabilities(model, open_image(image_file(images, name))))
                ),
            )
            for name in table["image"].head(N_SHOWN)
        ]
        save(thumbnails(shown), Path(output.figure[0]).with_suffix(""))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
