"""A small study to be disturbed: run by Snakemake, repaired as a user would, and compared."""

import io
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import write_array

REPO = Path(__file__).parents[2]
SNAKEMAKE = [
    *(sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile")),
    *("--configfile", str(Path(__file__).with_name("config.yaml"))),
]
SECONDS = 600  # no call takes longer

# What the jobs of each rule make, by glob patterns below the results.
OUTPUTS = {
    "fetch": ["data/far/*"],
    "simulate": ["data/nuclei/raw"],
    "prepare": ["data/nuclei/prepared"],
    "split": ["data/nuclei/split"],
    "add_noise": ["data/nuclei/noisy/*"],
    "check": ["checks"],
    "train": ["runs/**/model.pt", "runs/**/history.tsv"],
    "predict_run": ["runs/**/predictions"],
    "score": ["runs/**/metrics.tsv"],
    "aggregate": ["tables"],
    "measure_costs": ["benchmarks/costs.*"],
    "plot": ["figures/nuclei/label_curves.*", "figures/nuclei/training_curves.*"],
    "plot_panel": ["figures/nuclei/panel_*"],
    "trust": ["trust", "figures/nuclei/residuals_*", "figures/nuclei/diagnostics_*"],
    "suggest": ["suggestions", "figures/nuclei/suggestions_*"],
    "report": ["report.html"],
    "predict_chunk": ["predicted/tomorrow"],
    "predict": ["predicted/tomorrow/.finished", "predicted/tomorrow/objects.csv"],
}
FAR = "results/data/far/prepared"
TABLES = "results/tables/metrics.csv"
# What is asked for to have the jobs of a rule run, and no more of those that follow than needed.
TARGETS = {
    "fetch": FAR,
    **dict.fromkeys(["simulate", "prepare", "split", "add_noise"], TABLES),
    **dict.fromkeys(["train", "predict_run", "score", "aggregate"], TABLES),
    **dict.fromkeys(["predict_chunk", "predict"], "predict"),
}
# The rules that read what a rule makes, as far as these files need them.
READ_BY = {
    "simulate": ["prepare"],
    "prepare": ["split", "add_noise"],
    "split": ["train"],
    "add_noise": ["train"],
    "train": ["predict_run"],
    "predict_run": ["score"],
    "score": ["aggregate"],
    "check": ["report"],
    "measure_costs": ["report"],
    "plot": ["report"],
    "plot_panel": ["report"],
    "trust": ["report"],
    "suggest": ["report"],
}


@dataclass(frozen=True)
class Call:
    """What a call of Snakemake came to."""

    status: int
    screen: str

    @property
    def fails_inside(self) -> bool:
        """Whether code of this repository, not of Snakemake, ended in a traceback."""
        inside = r'^ *File ".*(/denoiseg_flow/|/workflow/rules/|/\.snakemake/scripts/)'
        return bool(re.search(inside, self.screen, re.MULTILINE))

    @property
    def sentences(self) -> list[str]:
        """What scripts said to the user, each sentence once."""
        said = re.findall(r"^Error: (?!Directory cannot be locked)(.*)$", self.screen, re.MULTILINE)
        return list(dict.fromkeys(said))


class Server:
    """A web server with one archive, which may hang up in the middle of a download."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.hang_up = 0  # in how many requests to come
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.archive)))
                self.end_headers()
                cut = server.hang_up > 0
                server.hang_up -= cut
                with suppress(ConnectionError):  # whoever asked may be killed
                    self.wfile.write(server.archive[: len(server.archive) // 2 if cut else None])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/far.zip"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Study:
    """A folder in which the study ran to its end, and may be disturbed.

    Attributes
    ----------
    server
        Where its second dataset comes from.
    seconds
        How long a job of each rule took.
    targets
        What Snakemake is asked for.
    damaged
        A file of the results that was damaged. It stays so, if no job reads it any more.
    """

    folder: Path
    server: Server
    seconds: dict[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ("all", FAR, "predict")
    damaged: str | None = None

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def copy(self, folder: Path) -> "Study":
        """Return a copy in a new folder."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    # ------------------------------------------------------------ running

    def start(self, *options: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own, as a shell does."""
        command = [*SNAKEMAKE, "--directory", str(self.folder), "--cores", "2", *options]
        address = f"datasets={{far: {{url: '{self.server.url}'}}}}"
        return subprocess.Popen(
            [*command, "--config", address, "--", *self.targets],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=os.environ | {"NO_PROXY": "127.0.0.1"},
        )

    def run(self, *options: str) -> Call:
        """Run Snakemake to its end."""
        return finish(self.start(*options))

    def undo(self, rule: str, method: str = "") -> None:
        """Delete what the jobs of a rule made, and what follows from it, maybe of one method only.

        From now on, Snakemake is asked for no more than these files.
        """
        self.targets = (TARGETS.get(rule, "all"),)
        rules = [rule]
        for each in rules:
            rules += READ_BY.get(each, [])
            for pattern in OUTPUTS[each]:
                for path in self.results.glob(pattern):
                    if method in path.parts or not method or "runs" not in path.parts:
                        remove(path)

    def jobs(self, rule: str | None = None) -> list[tuple[psutil.Process, str]]:
        """Scripts that run now, also those whose Snakemake is gone, and their rules."""
        found = []
        for process in self.members():
            try:
                last = process.cmdline()[-1:]
            except psutil.Error:
                continue
            script = re.search(r"/scripts/\w+\.(\w+)\.py$", *last) if last else None
            if script and (rule is None or script[1] == rule):
                found.append((process, script[1]))
        return found

    def members(self) -> list[psutil.Process]:
        """Everything that works in this folder, Snakemake too."""
        return [process for process in psutil.process_iter() if works_in(process, self.folder)]

    def measure(self, process: subprocess.Popen) -> None:
        """Note how long a job of each rule takes, until that process ends."""
        started: dict[int, float] = {}
        while process.poll() is None:
            for job, rule in self.jobs():
                seconds = time.monotonic() - started.setdefault(job.pid, time.monotonic())
                self.seconds[rule] = max(self.seconds.get(rule, 0), seconds)
            time.sleep(0.1)

    def begin(
        self, rule: str, draw: random.Random
    ) -> tuple[subprocess.Popen, psutil.Process | None]:
        """Undo a rule, start Snakemake, and wait for a random moment of a job of that rule.

        The job is None if Snakemake ends before.
        """
        self.undo(rule)
        process = self.start()
        while process.poll() is None:
            for job, _ in self.jobs(rule):
                time.sleep(draw.uniform(0, self.seconds[rule]))
                return process, job
            time.sleep(0.1)
        return process, None

    # ------------------------------------------------------------ repairing

    def repair(self) -> list[str]:
        """Run Snakemake until it succeeds, doing what it says, and return what it said.

        Raises
        ------
        AssertionError
            If it does not say what to do, or to do so does not help.
        """
        options: list[str] = []
        said: list[str] = []
        for _ in range(6):
            call = self.run(*options)
            if call.status == 0:
                self._wait_for_jobs()
                return said
            assert "Traceback" not in call.screen, call.screen
            said += call.sentences
            if "--unlock" in call.screen:
                assert self.run("--unlock").status == 0
            elif "--rerun-incomplete" in call.screen and not options:
                options = ["--rerun-incomplete"]
            elif "has older modification time" in call.screen:
                self._touch_what_is_of_tomorrow()
            else:
                wanted = [path for sentence in call.sentences if (path := to_delete(sentence))]
                again = any("run the same command again" in each for each in call.sentences)
                assert wanted or again, f"it does not say what to do:\n{call.screen}"
                for path in wanted:
                    remove(self.folder / path)
        raise AssertionError(f"it does not help to do what it says:\n{call.screen}")

    def _touch_what_is_of_tomorrow(self) -> None:
        for path in self.results.rglob("*"):
            if path.stat().st_mtime > time.time():
                os.utime(path)

    def _wait_for_jobs(self) -> None:
        """Until those have ended whose Snakemake was killed."""
        _, alive = psutil.wait_procs(self.members(), timeout=SECONDS)
        assert not alive

    # ------------------------------------------------------------ comparing

    def files(self) -> set[str]:
        """All files of the results."""
        return {
            str(path.relative_to(self.results))
            for path in self.results.rglob("*")
            if path.is_file() or path.is_symlink()
        }

    def numbers(self) -> dict[str, bytes]:
        """Every file of the results that must be the same each time."""
        return {
            name: _without_model(name, (self.results / name).read_bytes())
            for name in sorted(self.files())
            if name.split("/")[0] not in ("logs", "benchmarks", "figures", "checks", "report.html")
            and not name.endswith((".pt", ".snakemake_timestamp", ".zip", ".zip.sha256"))
        }

    def compare(self, undisturbed: "Study") -> None:
        """Check that there are the same files as undisturbed, with the same content."""
        files, expected = self.files(), undisturbed.files()
        assert not files - expected, f"left over: {sorted(files - expected)}"
        assert not expected - files, f"missing: {sorted(expected - files)}"
        numbers, expected_numbers = self.numbers(), undisturbed.numbers()
        different = {name for name in numbers if numbers[name] != expected_numbers[name]}
        different.discard(self.damaged)
        assert not different, f"different: {different}"


def undisturbed_study(folder: Path) -> Study:
    """Run the study in a new folder, once, with nothing in its way."""
    folder.mkdir(parents=True)
    study = Study(folder, Server(b""))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for each in simulate(n_images=6, size=32, n_nuclei=(2, 3)):
            path = folder / "tomorrow" / f"{each.name}.tif"
            write_array(path, each.image)
            file.write(path, f"images/{path.name}")
    study.server.archive = archive.getvalue()
    process = study.start()
    watcher = threading.Thread(target=study.measure, args=[process])
    watcher.start()
    call = finish(process)
    watcher.join()
    assert call.status == 0, call.screen
    assert set(study.seconds) == set(OUTPUTS), "a rule is missing here, or has no job"
    return study


def _without_model(name: str, content: bytes) -> bytes:
    """Leave the model's checksum out of the record: a bit may be flipped where nothing is read."""
    if not name.endswith("/images.tsv"):
        return content
    rows = [line.split(b"\t") for line in content.splitlines()]
    return b"\n".join(b"\t".join([*row[:4], *row[5:]]) for row in rows)


def finish(process: subprocess.Popen) -> Call:
    """Wait until Snakemake ends."""
    screen, _ = process.communicate(timeout=SECONDS)
    return Call(process.returncode, screen)


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process runs in that folder."""
    try:
        return process.cwd() == str(folder.resolve())
    except psutil.Error:
        return False


def to_delete(sentence: str) -> str | None:
    """Return the file or folder that a sentence tells to delete, if it does."""
    asked = re.search(r"\b(?:delete|remove) (it|the file|results/\S+?)(?=[,;:)\s]|$)", sentence)
    named = re.search(r"results/[^\s,;:)]+", sentence)
    if not asked or not named:
        return None
    return asked[1] if asked[1].startswith("results/") else named[0]


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
