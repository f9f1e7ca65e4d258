"""The config, checked, and the few functions that turn the grid into files."""

import re

import yaml

from denoiseg_flow import configuration
from denoiseg_flow.datasets import check_sources
from denoiseg_flow.errors import InputError
from denoiseg_flow.grid import Grid, Run
from denoiseg_flow.methods import REVISION, as_dict
from snakemake.exceptions import WorkflowError

with open(workflow.source_path("../schemas/config.schema.yaml")) as file:
    SCHEMA = yaml.safe_load(file)

try:
    configuration.read_numbers(config, SCHEMA)
    configuration.check(config, SCHEMA)
    configuration.fill_defaults(config, SCHEMA)
    GRID = Grid(config)
    check_sources(config)
except InputError as error:
    raise WorkflowError(str(error)) from None


def either(names):
    """Regular expression of the given values; it matches nothing if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def from_source(source):
    """Names of the datasets that come from the given kind of source."""
    return [
        name for name, spec in config["datasets"].items() if spec["source"] == source
    ]


wildcard_constraints:
    dataset=either(config["datasets"]),
    noise=either(config["noises"]),
    method=either(config["methods"]),
    n_labelled=r"\d+",
    seed=r"\d+",


RUN = "<results>/runs/{dataset}/{noise}/{method}/gt{n_labelled}/seed{seed}"


def run_path(run, name):
    """The file or folder of that name that a run makes; nothing for no run."""
    return f"{RUN}/{name}".format(**run.as_dict()) if run else []


def run_of(wildcards):
    """The run that the wildcards of a job describe."""
    axes = dict(wildcards.items())
    return Run(**axes | {"n_labelled": int(axes["n_labelled"]), "seed": int(axes["seed"])})
