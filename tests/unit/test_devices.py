"""Which device computes."""

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from denoiseg_flow.devices import mixed_precision, select_device
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
        "'device' is 'cuda', but PyTorch finds no usable GPU here; choose 'auto', or install a "
        "CUDA build of torch"
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


@pytest.fixture
def shares(monkeypatch):
    """The ``jobs_per_gpu`` of every slot that is asked for."""
    asked = []
    monkeypatch.setattr("denoiseg_flow.devices.take_slot", asked.append)
    return asked


@pytest.mark.parametrize(
    "name, resources, expected",
    [
        ("auto", None, [1]),  # not a job: the command denoiseg-flow
        ("auto", {"gpu": 1}, [1]),
        ("auto", {"gpu": 1, "jobs_per_gpu": 3}, [3]),
        ("auto", {"gpu": 0, "jobs_per_gpu": 3}, []),  # a classical denoiser
        ("cpu", {"gpu": 1}, []),
    ],
)
def test_jobs_on_a_gpu_take_a_slot(gpu, shares, name, resources, expected):
    select_device(name, 1, resources)
    assert shares == expected


def test_slot_is_taken_before_cuda_is_asked(shares, monkeypatch):
    """CUDA reads CUDA_VISIBLE_DEVICES once."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(shares.append("CUDA")))
    select_device("auto", 1)
    assert shares == [1, "CUDA"]


def test_cpu_results_are_reproducible():
    torch.use_deterministic_algorithms(False)
    select_device("cpu", 1)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("threads", [1, 2])
def test_takes_the_threads_of_the_job(threads):
    select_device("cpu", threads)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("major, expected", [(7, False), (8, True)])
def test_bfloat16_only_where_a_gpu_computes_in_it(monkeypatch, major, expected):
    """Compute capability 7 and below has none, but PyTorch would emulate it."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major, minor=0)
    )
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True, raising=False)
    context = mixed_precision(torch.device("cuda"))
    assert isinstance(context, torch.autocast) == expected
    if expected:
        assert context.fast_dtype == torch.bfloat16


def test_cpu_trains_in_float32():
    assert isinstance(mixed_precision(torch.device("cpu")), nullcontext)
