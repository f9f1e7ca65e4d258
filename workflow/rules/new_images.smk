"""New images for a trained model to predict, divided into chunks."""

from functools import cache

from denoiseg_flow.deployment.output_folder import (
    check_source,
    check_targets,
    own_folder,
)
from denoiseg_flow.deployment.chunks import count_chunks, divide, fingerprint
from denoiseg_flow.data.files.plates import is_plate
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.deployment.ledger import results_in


def name_of_results():
    """Return the name of the folder in <results>/predicted for the results on new images."""
    if config["predict"]["name"] or config["predict"]["images"] is None:
        return config["predict"]["name"] or "images"
    images = Path(config["predict"]["images"])
    name = images.resolve().stem if is_plate(images) else images.resolve().name
    folder = RESULTS / "predicted" / name
    own = own_folder(images, folder)
    if own != folder and workflow.is_main_process:
        logger.info(
            f"{folder} has results of another folder; those of {images} go to {own} "
            "('predict: {name: ...}' chooses another name)"
        )
    return own.name


PREDICTED = name_of_results()

# The file that marks a chunk as finished.
CHUNK = f"<results>/predicted/{PREDICTED}/.chunks/{{chunks}}/{{chunk}}.finished"


def new_images_folder(wildcards):
    """Return the folder of new images to predict."""
    if config["predict"]["images"] is None:
        raise WorkflowError(
            "config key 'predict.images' is missing: set it to the folder of new images, e.g. "
            "--config 'predict={images: /data/new}'"
        )
    return local(config["predict"]["images"])


def new_images_model(wildcards):
    """Return the model file for new images: the user's file, or the model of a run."""
    file = config["predict"]["model"]
    return local(file) if file else model_of(GRID.new_images_run)


@cache
def new_images():
    """Return the new images by name."""
    try:
        return find_images([new_images_folder(None)])
    except InputError as error:
        raise WorkflowError(str(error)) from None


def check_output():
    """Check that the results may be written to the output folder, before any job starts."""
    folder = RESULTS / "predicted" / PREDICTED
    try:
        check_source(Path(new_images_folder(None)), folder)
        check_targets(new_images(), folder, results_in(config["predict"]["format"]))
    except InputError as error:
        raise WorkflowError(str(error)) from None


@cache
def chunks_of_new_images(count):
    """Return the new images by number of their chunk."""
    return divide(new_images(), count)


def finished_chunks(wildcards):
    """Return the files that mark all chunks as finished."""
    if workflow.is_main_process:
        check_output()
    count = count_chunks(len(new_images()), config["predict"]["chunk"])
    return local(expand(CHUNK, chunks=count, chunk=chunks_of_new_images(count)))


def state_of_chunk(wildcards):
    """Return a fingerprint of the images of a chunk; if it changes, the job runs again."""
    chunks = chunks_of_new_images(int(wildcards.chunks))
    return fingerprint(chunks.get(int(wildcards.chunk), {}))
