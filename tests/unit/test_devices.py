"""Which device computes."""

import logging

import pytest
import torch

from denoiseg_flow.devices import select_device
from denoiseg_flow.errors import InputError


@pytest.fixture(autouse=True)
def restored():
    """Leave PyTorch as it was for the tests that follow."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(params=[True, False], ids=["with a GPU", "without a GPU"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_cuda_needs_a_gpu(gpu):
    if gpu:
        assert select_device("cuda", 1) == torch.device("cuda")
        return
    with pytest.raises(InputError) as caught:
        select_device("cuda", 1)
    assert str(caught.value) == (
        "config key 'device' is 'cuda', but PyTorch finds no usable GPU here; write "
        "'device: auto', or install a CUDA build of torch"
    )


def test_auto_takes_a_gpu_if_there_is_one(gpu):
    assert select_device("auto", 1).type == ("cuda" if gpu else "cpu")


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_log_says_what_is_used(gpu, name, caplog):
    """And that it is not what one may have hoped for."""
    caplog.set_level(logging.INFO)
    device = select_device(name, 1)
    missed = name == "auto" and not gpu
    start = "no usable GPU found: computing" if missed else "computing"
    assert caplog.messages == [f"{start} on {device.type} with 1 CPU thread(s)"]


def test_cpu_is_cpu(gpu):
    assert select_device("cpu", 1).type == "cpu"


def test_cpu_results_are_reproducible():
    torch.use_deterministic_algorithms(False)
    select_device("cpu", 1)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("threads", [1, 2])
def test_takes_the_threads_of_the_job(threads):
    select_device("cpu", threads)
    assert torch.get_num_threads() == threads
