"""The workflow on a SLURM cluster: the same numbers, whatever happens to nodes and daemons."""

import signal

import pytest

# One training of half a minute, with a checkpoint every second.
SLOW = [
    "grid={methods: [n2v]}",
    "recipes={tiny: {steps_per_epoch: 800}}",
    "checkpoint_seconds=1",
]
TABLE = ["results/tables/metrics.csv"]


def requests(cluster, since):
    """What the jobs asked for, by the rules that they ran."""
    return {job["Comment"]: job["ReqTRES"] for job in cluster.jobs() if int(job["JobID"]) > since}


def last_job(cluster):
    return max((int(job["JobID"]) for job in cluster.jobs()), default=0)


def test_same_tables_as_on_one_machine(cluster, study):
    """A GPU for trainings and predictions, none for the rest; scores in the job of predictions."""
    methods = "grid={methods: [n2v, sequential]}"
    before = last_job(cluster)
    there, here = study("there", methods), study("here", methods)
    there.start()
    there.finish()
    here.run_locally()
    assert there.tables() == here.tables()
    asked = requests(cluster, before)
    print(asked)


@pytest.fixture
def training(study):
    """A study that was just started, and the checkpoint of its training."""
    there = study("there", *SLOW, targets=TABLE)
    there.start()
    there.wait_for(lambda: list(there.folder.rglob("checkpoint.pt")))
    return there


def running_job(cluster):
    """The training that runs: its number and its node."""
    line = cluster.ask("squeue", "-h", "-t", "R", "-o", "%i %N", "-p", "gpu,urgent").split()
    return line[:2]


def log(there):
    return next(there.folder.rglob("train.log")).read_text()


def test_node(cluster, study, training):
    there = training
    job, node = running_job(cluster)
    cluster.kill_node(node)
    print("killed", job, node)
    there.wait_for(lambda: running_job(cluster) and running_job(cluster)[1] != node)
    print("again", running_job(cluster))
    there.finish()
    print(there.screen, log(there))
    cluster.start_node(node)


def test_preempt(cluster, study, training):
    there = training
    job, node = running_job(cluster)
    cluster.ask(
        "sbatch",
        "-p",
        "urgent",
        "-w",
        node,
        "--exclusive",
        "--output=/dev/null",
        "--wrap",
        "sleep 5",
    )
    there.finish()
    print(there.screen, log(there))


def test_scancel(cluster, study, training):
    there = training
    job, node = running_job(cluster)
    cluster.ask("scancel", job)
    there.finish()
    print(there.screen, log(there))


def test_ctld(cluster, study, training):
    import time

    there = training
    cluster.kill_controller()
    time.sleep(15)
    cluster.start_controller()
    there.finish()
    print(there.screen, log(there))


def test_snakemake_killed(cluster, study, training):
    there = training
    there.process.kill()
    there.process.wait()
    there.start("--unlock")
    there.finish()
    there.start("--rerun-incomplete")
    there.finish()
    print(there.screen, log(there))
