"""Functions of all workers: read a job, report its result, measure time and memory.

Uses the standard library only, because each system has its own environment.
"""

import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

MIB = 2**20


def main(**tasks: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run the task that the command line names, with the job in the file that it names."""
    job = json.loads(Path(sys.argv[2]).read_text())
    report = tasks[sys.argv[1]](job)
    Path(job["report"]).write_text(json.dumps(report))


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package."""
    return {package: version(package) for package in packages}


def seconds_since_launch(job: dict[str, Any]) -> float:
    """Return the age of this process, the start of the interpreter included."""
    return time.time() - job["launched"]


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage counts the memory of the parent process as well
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def processor_seconds() -> float:
    """Return the processor time of all threads of this process and of its finished children."""
    return sum(os.times()[:4])


CLOCKS = {"wall": time.perf_counter, "processor": processor_seconds}


class OwnMemory:
    """Samples the memory that the system cannot take back: without the pages of mapped files.

    Those count as resident while they are in use, but a system that is short of memory drops them.
    """

    def __init__(self) -> None:
        self.peak_mib = math.nan
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            line = next(
                text for text in status.read_text().splitlines() if text.startswith("RssAnon")
            )
            mib = int(line.split()[1]) / 1024
            self.peak_mib = max(mib, self.peak_mib)  # in this order NaN loses
            if self._stop.wait(0.02):
                break


def share_of_range(tiled: Any, untiled: Any) -> float:
    """Return the largest difference of two arrays as a share of the range of the second."""
    return float(abs(tiled - untiled).max() / (untiled.max() - untiled.min()))


def timed_prediction(job: dict[str, Any], predict: Callable[[str], None]) -> dict[str, float]:
    """Predict a small image, so that everything is loaded, then measure the image of the job."""
    predict(job["small_image"])
    start_up, before = seconds_since_launch(job), peak_memory_mib()
    started = time.perf_counter()
    with OwnMemory() as own:
        predict(job["image"])
    return {
        "seconds": time.perf_counter() - started,
        "start_up_seconds": start_up,
        "start_memory_mib": before,
        "peak_memory_mib": peak_memory_mib(),
        "own_memory_mib": own.peak_mib,
    }
