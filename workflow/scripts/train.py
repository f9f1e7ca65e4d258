"""Make the model of one run: train it, or calibrate a classical denoiser."""

from pathlib import Path

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.logs import job_log
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.models.model_file import load_model, save_model
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.checkpoints import Checkpoints
from denoiseg_flow.training.fitting import RunData, fit
from denoiseg_flow.training.job import TrainingJob


def main(snakemake):
    with job_log(snakemake.log[0]) as lock:
        inputs, params = snakemake.input, snakemake.params
        output = Path(snakemake.output.model)
        # Not among the declared outputs, which Snakemake deletes before it repeats a job.
        checkpoints = Checkpoints(
            output.with_name("checkpoint.pt"), snakemake.config["checkpoint_seconds"]
        )
        # No output either, so that the option repeats no training.
        events = output.with_name("tensorboard") if snakemake.config["tensorboard"] else None
        job = TrainingJob(
            run=Run.of(snakemake.wildcards),
            method=Method(**params.method),
            recipe=Recipe(**params.recipe) if params.recipe else None,
            checkpoints=checkpoints,
            device=select_device(params.device, snakemake.threads, snakemake.resources),
            events=events,
        )
        data = RunData(
            split=manifest.read(Path(inputs.split)),
            prepared=PreparedData(Path(inputs.prepared)),
            images=Path(inputs.images),
            level=params.level,
            init=Path(inputs.init) if inputs.get("init") else None,
            rehearsal=Path(inputs.rehearsal) if inputs.get("rehearsal") else None,
            own_subsets=params.subsets,
        )
        model, history = fit(job, data)
        if inputs.get("input_model"):
            model.input = load_model(Path(inputs.input_model))
        history.assign(**job.identity).to_csv(snakemake.output.history, sep="\t", index=False)
        checksums.write(snakemake.output.history)
        save_model(model, output)
        # A process that waits to repeat the training reads from the checkpoint that it is finished.
        if not lock.awaited():
            checkpoints.remove()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
