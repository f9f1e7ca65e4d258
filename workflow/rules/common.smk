"""The checked config, and the files of runs."""

import re
from pathlib import Path

import yaml

from denoiseg_flow.data.sources import check_intensities, check_sources, split_of
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.gpu_slots import check_limit
from denoiseg_flow.methods.definition import REVISION, as_dict
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.study import configuration, contents
from denoiseg_flow.study.feasibility import check_feasible, check_subsets
from denoiseg_flow.study.grid import Grid, Run
from denoiseg_flow.study.provenance import check_results
from snakemake.exceptions import WorkflowError

with open(
    workflow.source_path("../schemas/config.schema.yaml"), encoding="utf-8"
) as file:
    SCHEMA = yaml.safe_load(file)

try:
    configuration.read_numbers(config, SCHEMA)
    configuration.check(config, SCHEMA)
    configuration.fill_defaults(config, SCHEMA)
    GRID = Grid(config)
    check_feasible(GRID)
    check_sources(config, GRID.n_annotated)
    check_subsets(GRID)
    RESULTS = Path(workflow.pathvars.apply("<results>"))
    DEFINITIONS = {run.method: as_dict(GRID.methods[run.method]) for run in GRID.runs}
    if workflow.is_main_process:  # not again in every job: it may read all images
        check_results(RESULTS, DEFINITIONS)
        check_intensities(config)
        if workflow.nodes is None:  # all jobs run on this machine
            shares = [
                resources["jobs_per_gpu"].raw
                for resources in workflow.resource_settings.overwrite_resources.values()
                if "jobs_per_gpu" in resources
            ]
            check_limit(workflow.global_resources.get("gpu").value, shares)
except InputError as error:
    raise WorkflowError(str(error)) from None


def either(names):
    """Return a regular expression for the given values; without values, it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset=either(config["datasets"]),
    noise=either(config["noises"]),
    method=either(config["methods"]),
    n_annotated=r"\d+",
    seed=r"\d+",


# What identifies a run, and its folder; rules write <run>.
AXES = "{dataset}/{noise}/{method}/annotated{n_annotated}/seed{seed}"
RUN = f"<results>/runs/{AXES}"

# The split that is checked, and that the runs in the report were trained on.
FIRST_SPLIT = f"<results>/data/{{dataset}}/split/seed{config['grid']['seeds'][0]}.tsv"


def run_path(run, name):
    """Return a file or folder of a run; an empty list for no run."""
    return f"{RUN}/{name}".format(**run.as_dict()) if run else []


def model_of(run):
    """Return the model file of a run; an empty list for no run."""
    return run_path(run, "model.pt")


def init_of(wildcards):
    """Return the model that a training starts from; an empty list for random weights."""
    run = Run.of(wildcards)
    file = GRID.methods[run.method].init_file
    # Snakemake warns of paths that begin with "./".
    return local(str(Path(file))) if file else model_of(GRID.init_run(run))


def init_checksum(wildcards):
    """Return the checksum of a model from elsewhere; a changed one repeats the training."""
    model = GRID.initial_model(wildcards.method)
    return model.sha256 if model else None


def predictions_of(run):
    """Return the folder of predictions of a run; an empty list for no run."""
    return run_path(run, "predictions")


def images_read_by(run):
    """Return the folder with the input images of a run: noisy, or denoised by another method."""
    noisy = f"<results>/data/{run.dataset}/noisy/{run.noise}"
    return predictions_of(GRID.input_run(run)) or noisy


def input_images(wildcards):
    """Return the folder with the input images of a job."""
    return images_read_by(Run.of(wildcards))


def rehearsal_of(wildcards):
    """Return the simulated images that a training reads; an empty list for most trainings."""
    run = Run.of(wildcards)
    rehearsal = f"<results>/data/rehearsal/{GRID.methods[run.method].rehearsed}.npz"
    return rehearsal if GRID.rehearses(run) else []


def recipe(name):
    """Return the recipe of a method; None for methods without training."""
    method = GRID.methods[name]
    return as_dict(GRID.recipe_of(method)) if method.trained else None
