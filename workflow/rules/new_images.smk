"""The new images that a trained model is used on, divided into chunks."""

from functools import cache

from denoiseg_flow.deployment.output_folder import check_source, check_targets
from denoiseg_flow.deployment.chunks import count_chunks, divide, fingerprint
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.deployment.ledger import results_in

# The folder in <results>/predicted that the results on new images are written to.
PREDICTED = (
    config["predict"]["name"]
    or Path(config["predict"]["images"] or "images").resolve().name
)

# What the job of a chunk leaves behind.
CHUNK = f"<results>/predicted/{PREDICTED}/.chunks/{{chunks}}/{{chunk}}.finished"


def new_images_folder(wildcards):
    """The folder of new images that a trained model is used on."""
    if config["predict"]["images"] is None:
        raise WorkflowError(
            "config key 'predict.images' is missing: name the folder of new images, such as "
            "--config 'predict={images: /data/new}'"
        )
    return local(config["predict"]["images"])


def new_images_model(wildcards):
    """The model that is used on new images: the user's file, or that of a run of the study."""
    file = config["predict"]["model"]
    return local(file) if file else run_path(GRID.new_images_run, "model.pt")


@cache
def new_images():
    """The new images by name."""
    try:
        return find_images([new_images_folder(None)])
    except InputError as error:
        raise WorkflowError(str(error)) from None


def check_output():
    """Whether the results may be written where they belong, before any of them is made."""
    folder = RESULTS / "predicted" / PREDICTED
    try:
        check_source(Path(new_images_folder(None)), folder)
        check_targets(new_images(), folder, results_in(config["predict"]["format"]))
    except InputError as error:
        raise WorkflowError(str(error)) from None


@cache
def chunks_of_new_images(count):
    """The new images by number of their chunk."""
    return divide(new_images(), count)


def finished_chunks(wildcards):
    """What the jobs of all chunks leave behind."""
    if workflow.is_main_process:
        check_output()
    count = count_chunks(len(new_images()), config["predict"]["chunk"])
    return local(expand(CHUNK, chunks=count, chunk=chunks_of_new_images(count)))


def state_of_chunk(wildcards):
    """Changes when an image of a chunk is added, removed or changed: the job runs again."""
    chunks = chunks_of_new_images(int(wildcards.chunks))
    return fingerprint(chunks.get(int(wildcards.chunk), {}))
