"""The config, checked, and the few functions that turn the grid into files."""

import re
from collections import defaultdict
from pathlib import Path

import yaml

from denoiseg_flow.reporting import captions
from denoiseg_flow.study import configuration
from denoiseg_flow.data.combined import parts
from denoiseg_flow.data.sources import check_intensities, check_sources, split_of
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.gpu_slots import check_limit
from denoiseg_flow.study.grid import Grid, Run
from denoiseg_flow.jobs.logs import sentence
from denoiseg_flow.methods.definition import REVISION, as_dict
from denoiseg_flow.study.provenance import check_results, record_study
from denoiseg_flow.jobs.slurm import check_requests
from snakemake.exceptions import WorkflowError

with open(workflow.source_path("../schemas/config.schema.yaml")) as file:
    SCHEMA = yaml.safe_load(file)

try:
    configuration.read_numbers(config, SCHEMA)
    configuration.check(config, SCHEMA)
    configuration.fill_defaults(config, SCHEMA)
    GRID = Grid(config)
    check_sources(config, GRID.n_annotated)
    RESULTS = Path(workflow.pathvars.apply("<results>"))
    DEFINITIONS = {run.method: as_dict(GRID.methods[run.method]) for run in GRID.runs}
    if workflow.is_main_process:  # not once more in every job: it may read all images
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


def check_cluster():
    """Whether the cluster has what the jobs ask for, if they are given to one."""
    if workflow.executor_plugin.name != "slurm":
        return
    requests = defaultdict(list)
    for job in sorted(workflow.dag.needrun_jobs(), key=lambda job: job.rule.name):
        if not job.is_local:
            requests[job.rule.name].append(dict(job.resources.items()))
    try:
        check_requests(requests)
    except InputError as error:
        raise WorkflowError(str(error)) from None


def record_start():
    """Write down what the results come of; or say, before any job, why nothing can be written."""
    try:
        record_study(RESULTS, DEFINITIONS)
    except OSError as error:
        raise WorkflowError(sentence(error)) from None


def lift_default_rate():
    """Start jobs as soon as they can, instead of up to 100 a second, Snakemake's default.

    To keep that limit, which no study comes near, each job that ends adds a timer that looks every
    second for jobs to start, as long as some wait: after 100 jobs, a hundred times a second.
    """
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


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
    n_annotated=r"\d+",
    seed=r"\d+",


# The folder of a run; rules write <run>.
RUN = "<results>/runs/{dataset}/{noise}/{method}/annotated{n_annotated}/seed{seed}"


def run_path(run, name):
    """The file or folder of that name that a run makes; nothing for no run."""
    return f"{RUN}/{name}".format(**run.as_dict()) if run else []


def source_folders(wildcards):
    """What a dataset is prepared from: the user's folders, or what another job made."""
    spec = config["datasets"][wildcards.dataset]
    if spec["source"] == "combine":
        names = parts(config["datasets"], wildcards.dataset)
        return {"parts": [f"<results>/data/{name}/prepared" for name in names]}
    if spec["source"] != "folder":
        return {"raw": f"<results>/data/{wildcards.dataset}/raw"}
    folders = [key for key in ("images", "masks", "clean") if spec.get(key)]
    return {key: local(spec[key]) for key in folders}


def archive_in_storage(wildcards):
    """An archive that a storage plugin of Snakemake brings; the script downloads others itself."""
    url = config["datasets"][wildcards.dataset]["url"]
    return {} if url.startswith("http") else {"stored": storage.s3(url)}


def recipe(name):
    """The recipe that a method is trained by; nothing for one that is not trained."""
    method = GRID.methods[name]
    return None if method.classical else as_dict(GRID.recipe_of(method))


def model_of(run):
    """The model of a run."""
    return run_path(run, "model.pt")


def predictions_of(run):
    """The predictions of a run."""
    return run_path(run, "predictions")


def images_read_by(run):
    """Noisy images, or the images that another method denoised."""
    noisy = f"<results>/data/{run.dataset}/noisy/{run.noise}"
    return run_path(GRID.input_run(run), "predictions") or noisy


def input_images(wildcards):
    """The images that the run of a job reads."""
    return images_read_by(Run.of(wildcards))


def table(name):
    """The files of one table; snakemake --report shows the html one, which has its caption."""
    stem = f"<results>/tables/{name}"
    html = report(f"{stem}.html", category="Tables")
    return [html, f"{stem}.csv", f"{stem}.md", f"{stem}.tex"]


def published(table, name):
    """The numbers of the papers that a table needs, if the study makes that table."""
    file = f"../../config/published/{name}.csv"
    return workflow.source_path(file) if table in GRID.tables else []


PUBLISHED = {
    "published": published("published", "denoiseg"),
    "published_denoisers": published("paper", "denoisers"),
}


def figure(path, caption="figure"):
    """The png and svg file of a figure; snakemake --report shows the png.

    The caption is that in ``params.caption`` of its rule, or where a rule makes several figures,
    in ``params.captions``.
    """
    caption = f"../report/{caption}.rst"
    return [report(f"{path}.png", category="Figures", caption=caption), f"{path}.svg"]


def caption(figure):
    """What stands below a kind of figure."""
    return captions.FIGURES[figure][1]


def figures(dataset):
    """All figures of a dataset. Noise does not compress: panels are pictures, not drawings."""
    folder = f"<results>/figures/{dataset}"
    curves = [f"{folder}/{name}.svg" for name in GRID.figures(dataset)]
    return curves + [
        f"{folder}/panel_{noise}.png" for noise in config["grid"]["noises"]
    ]


FIGURES = [path for dataset in config["grid"]["datasets"] for path in figures(dataset)]


# What is checked, examined and shown.
SETTINGS = [
    {"dataset": dataset, "noise": noise}
    for dataset in config["grid"]["datasets"]
    for noise in config["grid"]["noises"]
]
SEGMENTED = [setting for setting in SETTINGS if GRID.segments(**setting)]


def in_settings(path, settings=SETTINGS):
    """The file of every dataset and noise level."""
    return [path.format(**setting) for setting in settings]


def candidates(purpose):
    """The runs of which one is examined: which one, only their scores can tell."""

    def runs(wildcards):
        return GRID.candidates(wildcards.dataset, wildcards.noise, purpose)

    return runs


def of_candidates(purpose, what):
    """What each of them has, such as a file, in the same order."""
    return lambda wildcards: [what(run) for run in candidates(purpose)(wildcards)]


def examined(wildcards):
    """All of them."""
    return GRID.examined(wildcards.dataset, wildcards.noise)


# What is checked, and what the runs that the report shows were trained on.
FIRST_SPLIT = f"<results>/data/{{dataset}}/split/seed{config['grid']['seeds'][0]}.tsv"


def example_predictions(wildcards):
    """Predictions of one run of every method."""
    runs = GRID.example_runs(wildcards.dataset, wildcards.noise)
    return [run_path(run, "predictions") for run in runs]
