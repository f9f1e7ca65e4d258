"""The workflow on a SLURM cluster: the same numbers, whatever happens to nodes and daemons."""

import shutil
import time

import pytest
from cluster import GPU_NODES

# Trainings of ten seconds or more, with a checkpoint every second.
SLOW = ("recipes={tiny: {steps_per_epoch: 400}}", "checkpoint_seconds=1")
TABLE = "results/tables/metrics.csv"


@pytest.fixture(scope="module")
def one_machine(new_study):
    """One training on one machine, to its end."""
    study = new_study("grid={methods: [n2v]}", *SLOW, targets=[TABLE])
    study.run_locally()
    return study


@pytest.fixture
def training(new_study, one_machine):
    """The same on the cluster, with the images at hand; the training has just begun."""
    study = new_study("grid={methods: [n2v]}", *SLOW, targets=[TABLE])
    for folder in ("raw", "prepared", "noisy"):
        path = f"results/data/nuclei/{folder}"
        shutil.copytree(one_machine.folder / path, study.folder / path)
    study.start()
    study.wait_for(lambda: study.find("checkpoint.pt"))
    return study


def test_a_node_fails(cluster, training, one_machine):
    """GPUs for the training and its predictions, and none for the rest."""
    job, node = cluster.gpu_job()
    cluster.kill_node(node)
    training.wait_for(lambda: cluster.gpu_job() not in (None, (job, node)))
    assert cluster.gpu_job()[0] == job
    training.finish()
    cluster.start_node(node)
    assert training.log("n2v").count("resuming from") == 1
    assert training.tables() == one_machine.tables()
    assert not training.leftovers()
    for job in cluster.jobs():  # a prediction and its scores are one job
        uses_gpu = any(rule in job["Comment"] for rule in ("train", "predict_run"))
        assert ("gres/gpu=1" in job["ReqTRES"]) == uses_gpu, job
        assert (job["NodeList"] in GPU_NODES) == uses_gpu, job


def test_snakemake_is_killed(cluster, training, one_machine):
    """Its job runs on and is submitted again, waits, and finds its work done."""
    (first,) = training.jobs_of("train")
    first.suspend()  # so that it does not end too early
    training.process.kill()
    training.process.wait()
    training.start("--unlock")
    training.finish()
    training.start("--rerun-incomplete")
    training.wait_for(lambda: len(training.jobs_of("train")) == 2)
    first.resume()
    training.finish()
    assert "which ran the same job" in training.log("n2v")
    assert "0 steps in" in training.log("n2v")
    assert training.tables() == one_machine.tables()
    assert not training.leftovers()


@pytest.mark.long
def test_a_node_loses_its_network(cluster, training, one_machine):
    """Its job runs on, and SLURM starts it a second time elsewhere."""
    _, node = cluster.gpu_job()
    cluster.lose_node(node)
    training.finish()
    cluster.start_node(node)
    assert training.tables() == one_machine.tables()
    assert not training.leftovers()


@pytest.mark.long
def test_displaced_cancelled_and_without_controller(cluster, training, one_machine):
    job, node = cluster.gpu_job()
    cluster.ask(
        "sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 9"
    )
    training.wait_for(lambda: "resuming from" in training.log("n2v"))
    assert cluster.gpu_job()[0] == job  # put back into the queue
    cluster.ask("scancel", job)
    training.wait_for(lambda: (cluster.gpu_job() or (job,))[0] != job)
    # In mid-training: SLURM holds a job for ever whose launch it could not follow.
    started = time.time()
    training.wait_for(lambda: training.find("checkpoint.pt")[0].stat().st_mtime > started)
    cluster.kill_controller()
    time.sleep(15)
    cluster.start_controller()
    training.finish()
    assert training.tables() == one_machine.tables()
    assert not training.leftovers()


@pytest.mark.long
def test_new_images(new_study, one_machine):
    """Every job of a chunk fits into a node, and all of them make what one machine makes."""
    there, here = (
        new_study(
            "grid={methods: [n2v]}", *SLOW, "predict={images: new, chunk: 2}", targets=["predict"]
        )
        for _ in range(2)
    )
    for study in (there, here):
        shutil.copytree(one_machine.folder / "results", study.folder / "results")
        shutil.copytree(study.folder / "results/data/nuclei/raw/images", study.folder / "new")
    here.run_locally()
    there.start()
    there.finish()
    made = [path for path in here.find("predicted/**/[a-z]*") if path.is_file()]
    assert {path.name for path in made} >= {"images.tsv", "sim_0000.tif"}
    for path in made:
        assert (there.folder / path.relative_to(here.folder)).read_bytes() == path.read_bytes()
    assert not there.leftovers()


@pytest.mark.long
def test_time_is_up(new_study):
    """No checkpoint but the one that is written when SLURM says that the time is nearly up."""
    config = ("recipes={tiny: {steps_per_epoch: 2500}}", "checkpoint_seconds=3600")
    there, here = (new_study("grid={methods: [n2v]}", *config, targets=[TABLE]) for _ in range(2))
    # Within a minute from its start: SLURM may send the signal up to a minute too early.
    limits = ["train:runtime=2", "train:slurm_extra='--signal=TERM@70'"]
    partitions = [f"{rule}:slurm_partition=gpu" for rule in ("train", "predict_run")]
    there.start("--set-resources", *limits, *partitions)
    there.finish()
    assert "SLURM status is: 'FAILED'" in there.screen
    assert "resuming from" in there.log("n2v")
    here.run_locally()
    assert there.tables() == here.tables()
    assert not there.leftovers()
