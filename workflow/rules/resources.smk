"""What jobs ask a scheduler for, derived from the work that they do."""

from denoiseg_flow.study.costs import Estimates

ESTIMATES = Estimates(GRID, RESULTS / "data")


def on_gpu(rule):
    """Whether config and profile leave the jobs of a rule their GPU."""
    profile = workflow.resource_settings.overwrite_resources.get(rule, {})
    return config["device"] != "cpu" and not (
        "gpu" in profile and profile["gpu"].raw == 0
    )


def gpu(needed):
    """A GPU for a job that can use one, unless the config says to do without."""
    return int(needed and config["device"] != "cpu")


def gpu_of_method(wildcards):
    """A GPU for the jobs of a method with a network."""
    return gpu(not GRID.methods[wildcards.method].classical)


def memory(rule, estimate, of=Run.of):
    """MB for the jobs of a rule, from the estimated cost of what they work on."""

    def mem_mb(wildcards, attempt):
        return attempt * estimate(of(wildcards)).asked_mb(on_gpu(rule))

    return mem_mb


def memory_for_scores(wildcards, attempt):
    """MB for jobs that read the scores of all runs."""
    return attempt * ESTIMATES.gathering().asked_mb(on_gpu=False)


def minutes(rule, estimate, of=Run.of):
    """Minutes for them."""

    def runtime(wildcards, attempt):
        return attempt * estimate(of(wildcards)).asked_minutes(on_gpu(rule))

    return runtime


def dataset_of(wildcards):
    """The dataset of a job."""
    return wildcards.dataset
