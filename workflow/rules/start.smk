"""What is done before the first job."""

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
    """Start jobs as soon as they can, instead of up to 100 a second, Snakemake's default.

    To keep that limit, which no study comes near, each job that ends adds a timer that looks every
    second for jobs to start, as long as some wait: after 100 jobs, a hundred times a second.
    """
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


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
