"""Train one model."""

from pathlib import Path

from denoiseg_flow.checkpoints import Checkpoints
from denoiseg_flow.data import manifest
from denoiseg_flow.devices import select_device
from denoiseg_flow.grid import Run
from denoiseg_flow.logs import job_log
from denoiseg_flow.methods import Method, Recipe
from denoiseg_flow.models import TrainedModel
from denoiseg_flow.training import train
from denoiseg_flow.training_images import TrainingImages


def main(snakemake):
    with job_log(snakemake.log[0]):
        device = select_device(snakemake.params.device, snakemake.threads)
        method = Method(**snakemake.params.method)
        identity = Run.of(snakemake.wildcards).as_dict()
        init = snakemake.input.get("init")
        output = Path(snakemake.output.model)
        # Beside the declared outputs, which Snakemake deletes before it repeats a job.
        checkpoints = Checkpoints(
            output.with_name("checkpoint.pt"), snakemake.config["checkpoint_seconds"]
        )
        model, history = train(
            method=method,
            recipe=Recipe(**snakemake.params.recipe),
            identity=identity,
            images=TrainingImages.of_split(
                split=manifest.read(Path(snakemake.input.split)),
                images=Path(snakemake.input.images),
                masks=Path(snakemake.input.prepared) / "masks",
                n_labelled=identity["n_labelled"],
                segments=method.segments,
            ),
            device=device,
            init=TrainedModel.load(Path(init), device) if init else None,
            checkpoints=checkpoints,
        )
        history.assign(**identity).to_csv(snakemake.output.history, sep="\t", index=False)
        model.save(output)
        checkpoints.remove()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
