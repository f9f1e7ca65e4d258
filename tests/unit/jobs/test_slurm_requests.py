"""Requests that a SLURM cluster cannot meet are refused before anything is submitted."""

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.slurm import _count_gpus, check_requests


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Let the cluster have these partitions; a line for each kind of node."""

    def sinfo(text, status=0):
        command = tmp_path / "sinfo"
        command.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return sinfo


def refusal(**requests):
    with pytest.raises(InputError) as caught:
        check_requests({rule: [resources] for rule, resources in requests.items()})
    return str(caught.value)


GPU = {"gpu": 1, "slurm_partition": "gpu"}


def test_what_the_cluster_has(sinfo):
    sinfo("cpu* (null)\ngpu gpu:a100:2(S:0-1)\ngpu (null)")
    check_requests(
        {"prepare": [{}], "train": [GPU, {"gpu": 0}], "score": [{"slurm_partition": "cpu"}]}
    )
    check_requests({"train": [{"gpu": 1, "slurm_partition": "cpu,gpu"}]})


def test_no_partition_and_no_default(sinfo):
    sinfo("cpu (null)\ngpu gpu:2")
    text = refusal(train=GPU, prepare={"gpu": 0})
    assert "no default partition, and rule 'prepare' has none either" in text
    assert "profiles/slurm/profile.yaml" in text
    assert text.endswith("available: cpu, gpu")


def test_unknown_partition(sinfo):
    sinfo("cpu* (null)\ngpu gpu:2")
    assert "partition 'gpus', which does not exist on this cluster" in refusal(
        train={"gpu": 1, "slurm_partition": "gpus"}
    )


def test_gpu_in_a_partition_without(sinfo):
    sinfo("cpu* (null)\ngpu gpu:2")
    text = refusal(train={"gpu": 1})
    assert "rule 'train' requests 1 GPU in partition 'cpu', but it has none" in text
    assert "to one with GPUs (gpu)" in text


def test_cluster_without_gpus(sinfo):
    sinfo("cpu* (null)")
    assert "set 'gpus: false'" in refusal(train={"gpu": 1})


def test_more_gpus_than_a_node_has(sinfo):
    sinfo("gpu* gpu:a100:2\ngpu* gpu:4")
    check_requests({"train": [{"gpu": 4}]})
    assert "requests 5 GPUs in partition 'gpu', but no node has more than 4" in refusal(
        train={"gpu": 5}
    )


@pytest.mark.parametrize("text, status", [("", 0), ("gpu* gpu:2", 1)])
def test_silent_cluster(sinfo, text, status):
    """SLURM will say itself what is wrong."""
    sinfo(text, status)
    check_requests({"train": [{"gpu": 9}]})


@pytest.mark.parametrize(
    "devices, count",
    [
        ("(null)", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1)", 4), ("gpu:a100:2,gpu:v100:1", 3),
        ("shard:8,gpu:h200:1(IDX:0)", 1), ("gpu:1g.5gb:7", 7), ("mygpu:3", 0),
    ],
)  # fmt: skip
def test_counting(devices, count):
    assert _count_gpus(devices) == count
