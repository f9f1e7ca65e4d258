"""A SLURM cluster on one machine, for tests: real daemons, four nodes, fake GPUs.

Two CPU nodes (cpu1, cpu2) and two nodes with two GPUs each (gpu1, gpu2), a controller, and the
accounting database that `sacct` asks. All of it runs as plain processes of root on the loopback
device, with its files in one folder: no systemd, no cgroups, nothing under /etc. CPUs and memory
are counted, not enforced; GPUs are copies of /dev/null, which SLURM assigns like others.

    apt-get install slurmctld slurmd slurmdbd slurm-client munge mariadb-server
    python tests/slurm/cluster.py      # a cluster to play with, until Ctrl-C
"""

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

CPU_NODES, GPU_NODES = ("cpu1", "cpu2"), ("gpu1", "gpu2")
GPUS = 2  # of each GPU node
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db")
# What users and Snakemake call.
COMMANDS = (
    "sbatch",
    "srun",
    "squeue",
    "sacct",
    "scancel",
    "scontrol",
    "sinfo",
    "sacctmgr",
    "sshare",
)

_SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# Jobs are held for so long when they are put back into the queue.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PriorityType=priority/basic
# Jobs of a partition in a higher tier displace those of a lower one.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
# The nodes together have more CPUs and memory than the machine.
SlurmdParameters=config_overrides
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=10
MessageTimeout=10
KillWait=5
InactiveLimit=0
Waittime=0
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={accounting}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
{nodes}
PartitionName=cpu Nodes={cpu_nodes} Default={default} MaxTime=600 DefaultTime=10 State=UP
PartitionName=gpu Nodes={gpu_nodes} MaxTime=600 DefaultTime=10 State=UP PriorityTier=1
PartitionName=urgent Nodes={gpu_nodes} MaxTime=600 DefaultTime=10 State=UP PriorityTier=2
"""
_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
CommunicationParameters=NoInAddrAny
"""


def obstacle() -> str | None:
    """Say why no cluster can be started here; None if one can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_search_path()) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "only root can make the device files of fake GPUs"
    return None


def _search_path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin"])


class Cluster:
    """The daemons of one cluster, and the faults that can befall them.

    Parameters
    ----------
    folder
        An empty folder with a short path: it holds sockets.
    default_partition
        Whether jobs that name no partition are given to ``cpu``, or refused.
    """

    def __init__(self, folder: Path, default_partition: bool = True) -> None:
        self.folder = folder
        self.default_partition = default_partition
        self.daemons: dict[str, subprocess.Popen] = {}
        host = socket.gethostname().split(".")[0]
        controller, accounting, *self._node_ports = _free_ports(2 + len(self.nodes))
        self._places = {
            "folder": folder, "host": host, "controller": controller, "accounting": accounting,
        }  # fmt: skip
        # srun looks for its configuration in a job whose SLURM_ variables Snakemake took away: a
        # command of that name that sets it, first in the path, helps.
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(folder / "bin"), _search_path()]),
            "MYSQL_UNIX_PORT": str(folder / "mysql.socket"),
        }

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return CPU_NODES + GPU_NODES

    def start(self) -> None:
        """Start everything, and wait until all nodes are idle."""
        self._write_configuration()
        self._spawn(
            "munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key",
            f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed", f"--log-file={self.folder}/log/munged.log",
        )  # fmt: skip
        self._wait(
            "munged", lambda: self.succeeds("munge", "-n", "-S", self.folder / "munge.socket")
        )
        self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self._wait("all nodes", lambda: set(self.states().values()) == {"idle"})

    def stop(self) -> None:
        """End everything, jobs included."""
        for node in self.nodes:
            self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name, signal.SIGTERM)

    # Faults, and what undoes them.

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon alone: SLURM gives its jobs to other nodes, but they run on."""
        self._end(node, signal.SIGKILL)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all jobs on it at once, as a power cut does."""
        self.lose_node(node)
        log = str(self.folder / f"log/{node}.log")
        for step in psutil.process_iter():
            with suppress(psutil.Error):
                # A job's supervisor has nothing to do with its node but for the log.
                if step.name() == "slurmstepd" and log in [each.path for each in step.open_files()]:
                    for process in [step, *step.children(recursive=True)]:
                        process.kill()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self._spawn("slurmd", "-D", "-N", node, name=node)

    def kill_controller(self) -> None:
        """Kill the daemon that all commands ask; jobs run on."""
        self._end("slurmctld", signal.SIGKILL)

    def start_controller(self) -> None:
        """Start that daemon, with the jobs that it knew."""
        self._spawn("slurmctld", "-D")
        self._wait("slurmctld", lambda: self.succeeds("scontrol", "ping"))

    # Questions.

    def ask(self, *command: object) -> str:
        """Return what a command of SLURM prints."""
        result = subprocess.run(
            list(map(str, command)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {result.stderr}")
        return result.stdout

    def succeeds(self, *command: object) -> bool:
        """Return whether a command of SLURM succeeds."""
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            self.ask(*command)
            return True
        return False

    def states(self) -> dict[str, str]:
        """Return the state of every node, such as idle, mixed or down."""
        lines = self.ask("sinfo", "-h", "-N", "-o", "%N %T").split("\n")
        return dict(line.split() for line in lines if line)

    def jobs(self) -> list[dict[str, str]]:
        """Return all jobs of the accounting; those that were put back into the queue twice."""
        fields = ["JobID", "Comment", "State", "NodeList", "ReqTRES", "Partition", "Timelimit"]
        text = self.ask(
            "sacct", "-a", "-n", "-P", "-X", "-D", "-S", "now-1day", "-o", ",".join(fields)
        )
        return [dict(zip(fields, line.split("|"), strict=True)) for line in text.splitlines()]

    def gpu_job(self) -> tuple[str, str] | None:
        """Return number and node of the first job that runs in the partition `gpu`."""
        lines = self.ask("squeue", "-h", "-t", "R", "-o", "%i %N", "-p", "gpu").splitlines()
        return tuple(lines[0].split()) if lines else None

    # How it is made.

    def _write_configuration(self) -> None:
        for name in ("log", "state", "dev", "bin"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        nodes, gpus = [], []
        for node, port in zip(self.nodes, self._node_ports, strict=True):
            devices = f" Gres=gpu:fake:{GPUS}" if node in GPU_NODES else ""
            nodes.append(
                f"NodeName={node} NodeHostname={self._places['host']} NodeAddr=127.0.0.1 "
                f"Port={port} CPUs=4 RealMemory=16000 State=UNKNOWN{devices}"
            )
            if devices:
                files = f"{self.folder}/dev/nvidia[0-{GPUS - 1}]"
                gpus.append(f"NodeName={node} Name=gpu Type=fake File={files}\n")
        for number in range(GPUS):
            os.mknod(self.folder / f"dev/nvidia{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        text = _SLURM_CONF.format(
            **self._places, nodes="\n".join(nodes), cpu_nodes=",".join(CPU_NODES),
            gpu_nodes=",".join(GPU_NODES), default="YES" if self.default_partition else "NO",
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("".join(gpus))
        accounting = self.folder / "slurmdbd.conf"
        accounting.write_text(_SLURMDBD_CONF.format(**self._places))
        accounting.chmod(0o600)
        for name in COMMANDS:
            command = self.folder / "bin" / name
            path = shutil.which(name, path=_search_path())
            command.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {path} "$@"\n')
            command.chmod(0o755)

    def _start_accounting(self) -> None:
        data = self.folder / "mysql"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment,
        )  # fmt: skip
        self._spawn(
            "mariadbd", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-networking",
            f"--socket={self.folder}/mysql.socket", f"--pid-file={self.folder}/mariadbd.pid",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=64M",
            "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        ping = ("mariadb-admin", "--no-defaults", f"--socket={self.folder}/mysql.socket", "ping")
        self._wait("mariadbd", lambda: self.succeeds(*ping))
        self._spawn("slurmdbd", "-D")
        self._wait("slurmdbd", lambda: self.succeeds("sacctmgr", "-n", "-i", "show", "cluster"))
        self.succeeds("sacctmgr", "-n", "-i", "add", "cluster", "test")
        for what in (("account", "testing"), ("user", "root", "account=testing")):
            self.ask("sacctmgr", "-n", "-i", "add", *what)

    def _spawn(self, command: str, *options: str, name: str = "") -> None:
        name = name or command
        with (self.folder / f"log/{name}.out").open("a") as output:
            self.daemons[name] = subprocess.Popen(
                [command, *options],
                env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self.daemons.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, what: str, ready: Callable[[], bool], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(RuntimeError):
                if ready():
                    return
            time.sleep(0.1)
        logs = [path.read_text(errors="replace") for path in (self.folder / "log").iterdir()]
        errors = [line for text in logs for line in text.splitlines() if "error" in line.lower()]
        raise RuntimeError(f"{what} did not come up: {'; '.join(errors[-3:]) or 'no error logged'}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def running_cluster(**settings: bool) -> Iterator[Cluster]:
    """Start a cluster in a folder of its own, and end it."""
    with TemporaryDirectory(prefix="slurm_", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), **settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


if __name__ == "__main__":
    with running_cluster() as cluster:
        for variable in ("SLURM_CONF", "PATH"):
            print(f"export {variable}={cluster.environment[variable]}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
