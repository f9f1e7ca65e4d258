"""Resources that jobs request, estimated from their work."""

from denoiseg_flow.study.costs import Estimates

ESTIMATES = Estimates(GRID, RESULTS / "data")


def on_gpu(rule):
    """Return whether config and profile allow the jobs of a rule to use a GPU."""
    profile = workflow.resource_settings.overwrite_resources.get(rule, {})
    return config["device"] != "cpu" and not (
        "gpu" in profile and profile["gpu"].raw == 0
    )


def gpu(needed):
    """Return 1 GPU for a job that can use it, or 0 if the config key 'device' is 'cpu'."""
    return int(needed and config["device"] != "cpu")


def gpu_of_method(wildcards):
    """Return 1 GPU for the jobs of methods with a network."""
    return gpu(GRID.methods[wildcards.method].has_network)


def memory(rule, estimate, of=Run.of):
    """Return a function for the memory of a rule's jobs in MB, from their estimated cost."""

    def mem_mb(wildcards, attempt):
        return attempt * estimate(of(wildcards)).asked_mb(on_gpu(rule))

    return mem_mb


def memory_for_scores(wildcards, attempt):
    """Return the memory in MB for jobs that read the scores of all runs."""
    return attempt * ESTIMATES.gathering().asked_mb(on_gpu=False)


def minutes(rule, estimate, of=Run.of):
    """Return a function for the run time of a rule's jobs in minutes."""

    def runtime(wildcards, attempt):
        return attempt * estimate(of(wildcards)).asked_minutes(on_gpu(rule))

    return runtime


def dataset_of(wildcards):
    """Return the dataset of a job."""
    return wildcards.dataset
