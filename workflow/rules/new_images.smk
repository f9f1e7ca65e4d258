"""The new images that a trained model is used on, divided into chunks."""

from functools import cache

from denoiseg_flow.deployment.output_folder import check_source, check_targets
from denoiseg_flow.deployment.chunks import count_chunks, divide, fingerprint
from denoiseg_flow.data.folders import find_images
from denoiseg_flow.deployment.ledger import results_in

# The folder in <results>/applied that the results on new images are written to.
APPLIED = (
    config["apply"]["name"]
    or Path(config["apply"]["images"] or "images").resolve().name
)

# What the job of a chunk leaves behind.
CHUNK = f"<results>/applied/{APPLIED}/.chunks/{{chunks}}/{{chunk}}.finished"


def applied_images(wildcards):
    """The folder of new images that a trained model is used on."""
    if config["apply"]["images"] is None:
        raise WorkflowError(
            "config key 'apply.images' is missing: name the folder of new images, such as "
            "--config 'apply={images: /data/tomorrow}'"
        )
    return local(config["apply"]["images"])


def applied_model(wildcards):
    """The model that is used on new images: the user's file, or that of a run of the study."""
    file = config["apply"]["model"]
    return local(file) if file else run_path(GRID.applied_run, "model.pt")


@cache
def new_images():
    """The new images by name."""
    try:
        return find_images([applied_images(None)])
    except InputError as error:
        raise WorkflowError(str(error)) from None


def check_applied():
    """Whether the results may be written where they belong, before any of them is made."""
    folder = RESULTS / "applied" / APPLIED
    try:
        check_source(Path(applied_images(None)), folder)
        check_targets(new_images(), folder, results_in(config["apply"]["format"]))
    except InputError as error:
        raise WorkflowError(str(error)) from None


@cache
def chunks_of_new_images(count):
    """The new images by number of their chunk."""
    return divide(new_images(), count)


def finished_chunks(wildcards):
    """What the jobs of all chunks leave behind."""
    if workflow.is_main_process:
        check_applied()
    count = count_chunks(len(new_images()), config["apply"]["chunk"])
    return local(expand(CHUNK, chunks=count, chunk=chunks_of_new_images(count)))


def state_of_chunk(wildcards):
    """Changes when an image of a chunk is added, removed or changed: the job runs again."""
    chunks = chunks_of_new_images(int(wildcards.chunks))
    return fingerprint(chunks.get(int(wildcards.chunk), {}))
