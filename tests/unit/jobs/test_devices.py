"""Which device computes, and what is said where it cannot."""

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import devices, gpu_slots
from denoiseg_flow.jobs.devices import INSTALL, mixed_precision, out_of_memory_advice, select_device

CUDA = torch.device("cuda")
GB = 10**9


@pytest.fixture(autouse=True)
def restored():
    """Leave PyTorch as it was for the tests that follow."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)  # the usual way imports the compiler


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes PyTorch believe in an invented GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def invent(
        cuda="13.0",
        hip=None,
        error=None,
        start_error=None,
        capability=(8, 0),
        codes=("sm_75", "sm_80", "sm_90", "sm_120"),
        free=0,
        reserved=0,
        allocated=0,
        total=16 * GB,
        fraction=1.0,
    ):
        def failing(error, result=None):
            def call(*_):
                if error:
                    raise error
                return result

            return call

        for name, value in [("cuda", cuda), ("hip", hip), ("__version__", "2.13.0+fake")]:
            monkeypatch.setattr(torch if name == "__version__" else torch.version, name, value)
        for name, function in {
            "init": failing(error),
            "mem_get_info": failing(start_error, (free, total)),
            "get_arch_list": lambda: list(codes),
            "get_device_capability": lambda: capability,
            "get_device_name": lambda: "NVIDIA Invented",
            "memory_reserved": lambda _: reserved,
            "memory_allocated": lambda _: allocated,
            "get_per_process_memory_fraction": lambda _: fraction,
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    return invent


@pytest.fixture(params=[True, False], ids=["with a GPU", "without a GPU"])
def gpu(request, machine):
    machine(error=None if request.param else RuntimeError("No CUDA GPUs are available"))
    return request.param


def refusal(name="cuda", resources=None):
    with pytest.raises(InputError) as caught:
        select_device(name, 1, resources)
    return str(caught.value)


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


# --- a GPU that cannot be used --------------------------------------------------------------------

# As PyTorch's c10/cuda/CUDAFunctions.cpp writes them.
TOO_OLD = RuntimeError(
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU "
    "driver by downloading and installing a new version from the URL: "
    "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to "
    "install a PyTorch version that has been compiled with your version of the CUDA driver."
)
NO_DRIVER = RuntimeError(
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed "
    "a driver from http://www.nvidia.com/Download/index.aspx"
)
BUSY = torch.AcceleratorError(
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be"
)
PROBLEMS = {
    "a build for the CPU": (
        {"cuda": None},
        f"PyTorch 2.13.0+fake is a CPU-only build; install a CUDA build ({INSTALL})",
    ),
    "old driver": (
        {"error": TOO_OLD},
        "the NVIDIA driver is too old for PyTorch 2.13.0+fake: it supports CUDA up to 12.2, not "
        f"13.0; update the driver, or install a build for an older CUDA ({INSTALL})",
    ),
    "no driver": (
        {"error": NO_DRIVER},
        "PyTorch 2.13.0+fake finds no NVIDIA driver; install the driver if there is a GPU",
    ),
    "no GPU": (
        {"error": RuntimeError("No CUDA GPUs are available")},
        "PyTorch 2.13.0+fake finds no GPU; check that 'nvidia-smi' lists one",
    ),
    "no GPU of AMD": (
        {"cuda": None, "hip": "7.0", "error": RuntimeError("No HIP GPUs are available")},
        "PyTorch 2.13.0+fake finds no GPU; check that 'nvidia-smi' lists one",
    ),
    "broken driver": (
        {"error": RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 803: broken")},
        "CUDA does not start (Unexpected error from cudaGetDeviceCount(). Error 803: broken); "
        "check with 'nvidia-smi' that the GPU works",
    ),
    "broken build": (
        {"error": AssertionError("libcudart functions unavailable.")},
        "CUDA does not start (libcudart functions unavailable); check with 'nvidia-smi' that the "
        "GPU works",
    ),
    "GPU that another process keeps to itself": (
        {"start_error": BUSY},
        "CUDA does not start (CUDA error: CUDA-capable device(s) is/are busy or unavailable); "
        "check with 'nvidia-smi' that the GPU works",
    ),
    "old GPU": (
        {"capability": (6, 1)},
        "PyTorch 2.13.0+fake does not support GPU 'NVIDIA Invented' with compute capability 6.1, "
        f"only 7.5, 8.0, 9.0, 12.0; install a build for an older CUDA ({INSTALL})",
    ),
    "new GPU": (
        {"capability": (12, 0), "codes": ["sm_80", "sm_90"]},
        "PyTorch 2.13.0+fake does not support GPU 'NVIDIA Invented' with compute capability 12.0, "
        f"only 8.0, 9.0; install a build for a newer CUDA ({INSTALL})",
    ),
}
problems = pytest.mark.parametrize(("settings", "problem"), PROBLEMS.values(), ids=PROBLEMS)


@problems
def test_cuda_that_cannot_be_used(machine, settings, problem):
    machine(**settings)
    assert refusal() == f"'device' is 'cuda', but {problem}, or set 'device' to 'auto'"


@problems
@pytest.mark.parametrize("seen", [True, False], ids=["GPU is seen", "no GPU is seen"])
def test_auto_computes_on_the_cpu_instead(machine, monkeypatch, caplog, settings, problem, seen):
    """With a warning on the screen where there is a GPU; others have nothing to do about it."""
    machine(**settings)
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(gpu_slots, "take_slot", lambda _: None)
    monkeypatch.setattr(gpu_slots, "visible_gpus", lambda: ["0"] if seen else [])
    assert select_device("auto", 1).type == "cpu"
    warned = [f"not using the GPU: {problem}, or set 'device' to 'cpu'"]
    assert caplog.messages == (warned if seen else [])
    assert torch.are_deterministic_algorithms_enabled()


@problems
def test_cpu_does_not_ask(machine, caplog, settings, problem):
    machine(**settings)
    caplog.set_level(logging.WARNING)
    assert select_device("cpu", 1).type == "cpu"
    assert not caplog.messages


@pytest.mark.parametrize("listed", ["", "GPU-gone"])
def test_gpus_that_the_environment_hides(machine, monkeypatch, listed):
    machine(error=RuntimeError("No CUDA GPUs are available"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert refusal() == (
        "'device' is 'cuda', but PyTorch 2.13.0+fake finds no GPU with "
        f"CUDA_VISIBLE_DEVICES='{listed}'; change or unset this variable, or set 'device' to 'auto'"
    )


@pytest.mark.parametrize(
    ("capability", "codes", "runs"),
    [
        ((7, 5), ["sm_75"], True),
        ((8, 6), ["sm_75", "sm_80"], True),  # the same generation, newer
        ((8, 0), ["sm_75", "sm_86"], False),  # the same generation, older
        ((8, 6), ["sm_75"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),  # compiled by the driver
        ((8, 9), ["sm_80", "compute_90"], True),
        ((7, 5), ["sm_80", "compute_80"], False),
        ((10, 3), ["sm_100"], True),
        ((9, 0), ["sm_90a"], True),
        ((7, 0), [], True),  # PyTorch does not know
        ((9, 0), ["gfx90a", "gfx1100"], True),  # of AMD
    ],
)
def test_gpus_that_a_build_has_code_for(machine, capability, codes, runs):
    machine(capability=capability, codes=codes)
    assert select_device("auto", 1).type == ("cuda" if runs else "cpu")


def test_gpu_of_amd(machine):
    """PyTorch calls it CUDA as well."""
    machine(cuda=None, hip="7.0", capability=(9, 4), codes=["gfx942"])
    assert select_device("cuda", 1) == CUDA


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize("when", ["error", "start_error"])
def test_gpu_whose_memory_others_have(machine, name, when):
    """It may be free again soon: nobody wants half of a study on the CPU without asking."""
    machine(**{when: torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors")})
    assert refusal(name) == (
        "cuda has too little free memory; run fewer jobs at once, stop other programs that use the "
        "GPU, or set 'device' to 'cpu'"
    )


def test_jobs_that_need_no_gpu_take_none_of_its_memory(machine):
    machine(start_error=torch.AcceleratorError("CUDA error: out of memory"))
    select_device("auto", 1, {"gpu": 0})


def test_apple_gpu_is_left_alone(machine, monkeypatch, caplog):
    """And nobody is told to install CUDA, which macOS does not have."""
    machine(cuda=None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "sys", SimpleNamespace(platform="darwin"))
    caplog.set_level(logging.WARNING)
    assert select_device("auto", 1).type == "cpu"
    assert not caplog.messages
    assert refusal() == (
        "'device' is 'cuda', but macOS has no CUDA, and Apple GPUs are not supported; use a "
        "machine with an NVIDIA GPU, or set 'device' to 'auto'"
    )


# --- slots ----------------------------------------------------------------------------------------


@pytest.fixture
def shares(monkeypatch):
    """The ``jobs_per_gpu`` of every slot that is asked for."""
    asked = []
    monkeypatch.setattr(gpu_slots, "take_slot", asked.append)
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


def test_slot_is_taken_before_cuda_is_asked(machine, shares, monkeypatch):
    """CUDA reads CUDA_VISIBLE_DEVICES once."""
    machine()
    monkeypatch.setattr(torch.cuda, "init", lambda: shares.append("CUDA"))
    select_device("auto", 1)
    assert shares == [1, "CUDA"]


# --- settings of PyTorch --------------------------------------------------------------------------


def test_cpu_results_are_reproducible():
    torch.set_deterministic_debug_mode("default")
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
    context = mixed_precision(CUDA)
    assert isinstance(context, torch.autocast) == expected
    if expected:
        assert context.fast_dtype == torch.bfloat16


def test_cpu_trains_in_float32():
    assert isinstance(mixed_precision(torch.device("cpu")), nullcontext)


# --- too little memory ----------------------------------------------------------------------------


def advice(error, device=CUDA, **options):
    with pytest.raises(InputError) as caught, out_of_memory_advice(device, **options):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_whatever_reports_a_lack_of_memory(machine, error):
    machine(free=8 * GB)
    assert advice(error, batch_size=128) == (
        "cuda has too little free memory for batches of 128 patches; set 'batch_size' of the "
        "recipe to 64, or run fewer jobs at once"
    )


PERHAPS = [
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "FIND was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
]


@pytest.mark.parametrize("message", PERHAPS)
def test_what_may_be_a_lack_of_memory_is_one_where_nothing_is_free(machine, message):
    machine(free=GB // 10)
    assert "'batch_size' of the recipe to 4" in advice(RuntimeError(message), batch_size=8)


@pytest.mark.parametrize("message", [*PERHAPS, "CUDA error: device-side assert triggered"])
@pytest.mark.parametrize("broken", [None, RuntimeError("device-side assert triggered")])
def test_other_errors_stay_what_they_are(machine, message, broken):
    machine(free=8 * GB, start_error=broken)
    for device in (CUDA, torch.device("cpu")):
        with pytest.raises(RuntimeError, match=message[:20]), out_of_memory_advice(device, 8):
            raise RuntimeError(message)


OUT = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("memory", "fitting"),
    [
        # 0.9 of the free and the reserved, less what was there before, at 0.1 GB for each patch
        ({"free": 2 * GB, "reserved": 13 * GB}, 128),  # 13.5: 135 patches
        ({"free": 2 * GB, "reserved": 12 * GB}, 64),  # 12.6: 126 patches
        ({"free": 2 * GB, "reserved": 12 * GB, "allocated": 7 * GB}, 32),  # 5.6: 56 patches
        ({"free": 2 * GB, "reserved": 12 * GB, "fraction": 0.25}, 32),  # of 16: 3.6 to be had
        ({"free": GB // 5, "reserved": 0}, 1),  # others have the rest: 0.18
    ],
)
def test_batch_that_fits(machine, memory, fitting):
    machine(**memory)
    said = advice(OUT, batch_size=512, need=lambda size: size * GB / 10)
    assert f"set 'batch_size' of the recipe to {fitting}, or run fewer jobs" in said


def test_half_of_the_batch_at_most(machine):
    """It did not fit, whatever the estimate says."""
    machine(free=15 * GB)
    said = advice(OUT, batch_size=100, need=lambda size: 0)
    assert "set 'batch_size' of the recipe to 50" in said


@pytest.mark.parametrize("size", [1, 64])
def test_no_batch_fits(machine, size):
    machine(free=GB // 20)
    assert advice(OUT, batch_size=size, need=lambda size: size * GB / 10) == (
        f"cuda has too little free memory for batches of {size} patches; decrease 'patch_size' of "
        "the recipe, or run fewer jobs at once"
    )


def test_memory_where_nothing_is_trained(machine):
    machine()
    assert advice(OUT) == (
        "cuda has too little free memory; run fewer jobs at once, stop other programs that use the "
        "GPU, or set 'device' to 'cpu'"
    )
    cpu = torch.device("cpu")
    assert advice(MemoryError(), cpu) == "cpu has too little free memory; run fewer jobs at once"


def test_cpu_has_no_room_to_measure():
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 byte")
    said = advice(error, torch.device("cpu"), batch_size=64, need=lambda size: 10**20)
    assert "set 'batch_size' of the recipe to 32" in said
