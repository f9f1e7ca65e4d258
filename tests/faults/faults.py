"""The faults: each disturbs a finished study in its own way, somewhere and at some time by chance.

A fault leaves it to the caller to repair the study and to compare it with the undisturbed one.
"""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from study import OUTPUTS, Call, Study, finish, remove

RULES = [rule for rule in OUTPUTS if rule != "fetch"]


class NotHere(Exception):
    """Why a fault is impossible on this machine."""


# ---------------------------------------------------------------- processes that are ended


def kill_job(study: Study, draw: random.Random) -> str:
    """SIGKILL to one job, as by a system that has run out of memory."""
    rule = draw.choice(list(OUTPUTS))
    process, job = study.begin(rule, draw)
    _signal([job], signal.SIGKILL)
    return _outcome(rule, finish(process))


def kill_everything(study: Study, draw: random.Random) -> str:
    """SIGKILL to Snakemake and all of its jobs at once, as by a power cut."""
    rule = draw.choice(list(OUTPUTS))
    process, _ = study.begin(rule, draw)
    _signal(study.members(), signal.SIGKILL)
    return _outcome(rule, finish(process))


def kill_snakemake(study: Study, draw: random.Random) -> str:
    """SIGKILL to Snakemake, while its jobs run on; a second one submits them again."""
    rule = draw.choice(list(OUTPUTS))
    process, _ = study.begin(rule, draw)
    # Some also end the process in between, which runs the script and would tidy up after it.
    jobs = {job.pid for job, _ in study.jobs()}
    between = draw.random() < 0.5
    _signal(
        [m for m in study.members() if m.pid == process.pid or (between and m.pid not in jobs)],
        signal.SIGKILL,
    )
    process.wait()
    process.stdout.close()  # the terminal is gone, too
    return f"{rule}{', and what runs the job' if between else ''}"


def terminate(study: Study, draw: random.Random) -> str:
    """SIGTERM to Snakemake, as by a scheduler."""
    rule = draw.choice(list(OUTPUTS))
    process, _ = study.begin(rule, draw)
    process.send_signal(signal.SIGTERM)
    return _outcome(rule, finish(process))


def interrupt(study: Study, draw: random.Random) -> str:
    """SIGINT to Snakemake and all of its jobs, as by Ctrl-C."""
    rule = draw.choice(list(OUTPUTS))
    # A shell lets what it starts in the background ignore it, and so would all that follows.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process, _ = study.begin(rule, draw)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    # Snakemake, and Python while it imports, end in a traceback: whoever pressed Ctrl-C knows why.
    return f"{rule}: {'ended well' if finish(process).status == 0 else 'failed'}"


def kill_each_rule(study: Study, draw: random.Random) -> str:
    """SIGKILL to the first job of every rule in one run, which tries nearly all a second time."""
    remove(study.results)
    study.results.mkdir()
    study.targets = Study.targets
    process = study.start("--retries", "1")
    killed: set[str] = set()

    def kill() -> None:
        due: dict[int, float] = {}
        while process.poll() is None:
            for job, rule in study.jobs():
                if rule in killed or rule == "predict":  # the one with `retries: 0`
                    continue
                moment = time.monotonic() + draw.uniform(0, study.seconds[rule])
                if due.setdefault(job.pid, moment) <= time.monotonic():
                    _signal([job], signal.SIGKILL)
                    killed.add(rule)
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    call = finish(process)  # reads all the time: Snakemake would wait at a full pipe
    killer.join()
    assert call.status == 0, call.screen
    return f"{len(killed)} of {len(OUTPUTS) - 1} rules"


# ---------------------------------------------------------------- two at once


def second_snakemake(study: Study, draw: random.Random) -> str:
    """A second Snakemake in the same folder: it must refuse, and leave the first one alone."""
    rule = draw.choice(RULES)
    process, _ = study.begin(rule, draw)
    first_ran = process.poll() is None
    second = study.run()
    refused = "--unlock" in second.screen or "--rerun-incomplete" in second.screen
    assert refused or second.status == 0, second.screen
    first = finish(process)
    assert first.status == 0, first.screen
    return f"{rule}, {'while the first ran' if first_ran else 'after the first'}"


def second_without_lock(study: Study, draw: random.Random) -> str:
    """A second Snakemake in the same folder that is told to ignore the lock."""
    rule = draw.choice(RULES)
    process, _ = study.begin(rule, draw)
    second = study.start("--nolock", "--rerun-incomplete")
    # One may stumble over what the other one deletes, Snakemake itself too.
    calls = [finish(process), finish(second)]
    assert not any(call.fails_inside for call in calls), [call.screen for call in calls]
    return f"{rule}: {_ends(*calls)}"


# ---------------------------------------------------------------- disks


def full_disk(study: Study, draw: random.Random) -> str:
    """The disk is full before the files of a rule are written; later there is space again."""
    rule = draw.choice(RULES)
    used = _mount(study)
    study.undo(rule)
    freed = used - _used(study.results)
    room = draw.uniform(0, freed)
    _remount(study, f"size={_used(study.results) + room:.0f}")
    call = study.run()
    _remount(study, "size=64m")
    return _outcome(f"{rule}, {room / 1024:.0f} of {freed / 1024:.0f} KiB", call)


def read_only(study: Study, draw: random.Random) -> str:
    """The folder of the results is read-only; later it is not."""
    rule = draw.choice(RULES)
    _mount(study)
    study.undo(rule)
    _remount(study, "ro")
    call = study.run()
    assert call.status != 0
    _remount(study, "rw")
    return _outcome(rule, call)


def _mount(study: Study) -> int:
    """Move the results to a small file system of their own; return how much of it they take."""
    if os.geteuid() != 0:
        raise NotHere("needs root to mount a small disk")
    results, aside = study.results, study.folder / "aside"
    results.rename(aside)
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotHere("mounting is not allowed here")
    subprocess.run(["cp", "-a", f"{aside}/.", str(results)], check=True)
    remove(aside)
    return _used(results)


def _remount(study: Study, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(study.results)], check=True)


def unmount(study: Study) -> None:
    """Give back the file system of the results, if they have one of their own."""
    if os.path.ismount(study.results):
        subprocess.run(["umount", "--lazy", str(study.results)], check=True)


def _used(folder: Path) -> int:
    space = os.statvfs(folder)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


# ---------------------------------------------------------------- damaged files

# What is damaged, and a rule that reads it, of one method or of both.
IMAGES = [
    ("data/nuclei/raw/*/*.tif", "prepare"),
    ("data/nuclei/prepared/images/*.tif", "add_noise"),
    ("data/nuclei/prepared/masks/*.tif", "train"),
    ("data/nuclei/prepared/clean/*.tif", "score"),
    ("data/nuclei/prepared/manifest.tsv", "split"),
    ("data/nuclei/noisy/n10/*.tif", "train"),
    ("data/nuclei/noisy/n10/*.tif", "predict_run"),
    ("runs/**/predictions/denoised/*.tif", "score"),
    ("runs/**/n2v/**/predictions/denoised/*.tif", "train", "sequential"),
    ("runs/**/predictions/labels/*.tif", "score"),
]
MODELS = [
    ("runs/**/model.pt", "predict_run"),
    ("runs/**/sequential/**/model.pt", "predict_chunk"),
]
TABLES = [
    ("data/nuclei/split/*.tsv", "train"),
    ("data/nuclei/split/*.tsv", "score"),
    ("runs/**/metrics.tsv", "aggregate"),
    ("runs/**/history.tsv", "plot"),
    ("tables/metrics.csv", "plot"),
    ("benchmarks/**/train/**/*.tsv", "measure_costs"),
    ("predicted/tomorrow/objects/*.csv", "predict"),
]


def damaged_image(study: Study, draw: random.Random) -> str:
    """An image that jobs hand on, or their list, is truncated or has one bit flipped."""
    return _damage(study, draw, draw.choice(IMAGES))


def damaged_model(study: Study, draw: random.Random) -> str:
    """A model is truncated or has one bit flipped."""
    return _damage(study, draw, draw.choice(MODELS))


def damaged_table(study: Study, draw: random.Random) -> str:
    """A table that jobs hand on is truncated."""
    return _damage(study, draw, draw.choice(TABLES), truncated=True)


def damaged_input(study: Study, draw: random.Random) -> str:
    """An image or mask of the user is truncated; the user copies it again, with its time."""
    raw, new = study.results / "data/nuclei/raw", study.folder / "tomorrow"
    path = draw.choice([*sorted(raw.glob("*/*")), *sorted(new.iterdir())])
    whole = shutil.copy2(path, study.folder / "whole")
    what = _spoil(path, draw, truncated=True)
    study.undo("predict_chunk" if path.parent == new else "prepare")
    call = study.run()
    assert call.status != 0 and any(path.name in s for s in call.sentences), call.screen
    os.replace(whole, path)
    return _outcome(f"{path.relative_to(study.folder)} {what}", call)


def damaged_checkpoint(study: Study, draw: random.Random) -> str:
    """The checkpoint of a training that was killed is truncated or has one bit flipped."""
    study.undo("train")
    process = study.start()
    while not list(study.results.glob("runs/**/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.1)
    time.sleep(draw.uniform(0, 0.3))
    _signal(study.members(), signal.SIGKILL)
    finish(process)
    found = sorted(study.results.glob("runs/**/checkpoint.pt*"))
    if not found:
        return "none was left"
    path = draw.choice(found)
    return f"{path.name} {_spoil(path, draw)}"


def _damage(
    study: Study, draw: random.Random, place: Sequence[str], truncated: bool = False
) -> str:
    pattern, reader, *method = place
    path = draw.choice(sorted(study.results.glob(pattern)))
    what = _spoil(path, draw, truncated)
    study.undo(reader, *method)
    study.damaged = str(path.relative_to(study.results))
    return f"{study.damaged} {what}, before {reader}"


def _spoil(path: Path, draw: random.Random, truncated: bool = False) -> str:
    """Damage a file as a disk does: its time stays."""
    content, times = bytearray(path.read_bytes()), path.stat()
    place = draw.randrange(len(content))
    if truncated or draw.random() < 0.3:
        del content[place:]
        what = f"truncated at byte {place}"
    else:
        bit = draw.randrange(8)
        content[place] ^= 1 << bit
        what = f"with bit {bit} of byte {place} flipped"
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return what


# ---------------------------------------------------------------- clocks and networks


def clock_jump(study: Study, draw: random.Random) -> str:
    """The clock was wrong by a day when the files of a rule were written."""
    rule, jump = draw.choice(RULES), draw.choice([-86400, 86400])
    for pattern in OUTPUTS[rule]:
        for path in study.results.glob(pattern):
            for each in (path, *path.rglob("*")):
                then = each.stat().st_mtime + jump
                os.utime(each, (then, then))
    study.targets = ("all",)
    return f"{rule} {jump:+d} s"


def vanished_network(study: Study, draw: random.Random) -> str:
    """The server hangs up in the middle of a download, once or until the workflow gives up."""
    study.server.hang_up = draw.choice([1, 2, 100])
    what = f"{study.server.hang_up} times"
    study.undo("fetch")
    call = study.run()
    study.server.hang_up = 0
    return _outcome(what, call)


def _signal(processes: list[psutil.Process | None], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process:
                process.send_signal(number)


def _outcome(what: str, *calls: Call) -> str:
    """Say what was done, and how that ended."""
    for call in calls:
        assert "Traceback" not in call.screen, call.screen
    return f"{what}: {_ends(*calls)}"


def _ends(*calls: Call) -> str:
    return " and ".join("ended well" if call.status == 0 else "failed" for call in calls)


Fault = Callable[[Study, random.Random], str]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *(kill_job, kill_everything, kill_snakemake, kill_each_rule, terminate, interrupt),
        *(second_snakemake, second_without_lock, full_disk, read_only),
        *(damaged_image, damaged_model, damaged_table, damaged_input, damaged_checkpoint),
        *(clock_jump, vanished_network),
    )
}


def survive(name: str, seed: int, undisturbed: Study, folder: Path) -> str:
    """Inflict a fault on a copy of the study, repair it and compare; return what was done.

    Raises
    ------
    AssertionError
        If the study does not survive.
    NotHere
        If this machine does not allow that fault.
    """
    study = undisturbed.copy(folder)
    try:
        what = FAULTS[name](study, random.Random(f"{name} {seed}"))
        said = study.repair()
        study.compare(undisturbed)
    finally:
        _signal(study.members(), signal.SIGKILL)
        unmount(study)
    return " | ".join([what, *said])
