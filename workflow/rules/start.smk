"""Before the first job: check the cluster, and record what the results are made from."""

from collections import defaultdict

from denoiseg_flow.jobs.logs import sentence
from denoiseg_flow.jobs.slurm import check_requests
from denoiseg_flow.study.provenance import record_study


onstart:
    lift_default_rate()
    check_cluster()
    if any(job.output for job in workflow.dag.needrun_jobs()):
        record_start()


def lift_default_rate():
    """Remove Snakemake's default limit of 100 started jobs per second.

    No study comes near it, but it is costly: every finished job adds a timer that selects jobs
    once per second while any are waiting. After 100 jobs, that is a hundred times per second.
    """
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def check_cluster():
    """Raise WorkflowError if jobs request resources that the SLURM cluster does not have."""
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
    """Record the study in its results; raise WorkflowError if they cannot be written."""
    try:
        rules_of = {run: GRID.rules_of(run) for run in GRID.runs}
        record_study(RESULTS, DEFINITIONS, config, rules_of)
    except OSError as error:
        raise WorkflowError(sentence(error)) from None
