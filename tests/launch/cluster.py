"""A SLURM of its own on this machine: Debian's daemons with two node names, every file and socket below one folder."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

import psutil

from tests.support.debian import require
from tests.support.waiting import PATIENCE_S, wait_for

PACKAGES = ["munge", "slurmctld", "slurmd", "slurm-client"]
PROGRAMS = ["munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scancel"]
NODES = ["n1", "n2"]
CPUS_PER_NODE = 2
ENDING_S = 60.0
"""How long jobs and daemons have to end in order, before they are killed."""

# Nothing below SLURM's own minute-grained waits is left at its default: tests would wait for them. What SLURM gives up
# waiting for is there, only late, where the machine is slow.
CONFIGURATION = """
ClusterName=parbench-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=300
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=600
UnkillableStepTimeout=600
CompleteWait=0
SlurmdTimeout=0
EpilogMsgTime=0
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=normal Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=2 PreemptMode=OFF State=UP
"""


def require_slurm() -> None:
    """Installs Debian's packages where they are missing. Raises `LookupError` where SLURM cannot be had here."""
    if os.geteuid() != 0:
        raise LookupError("only root can run SLURM's daemons")
    require(PROGRAMS, PACKAGES)


class Cluster:
    """Two nodes, `n1` and `n2`, that both have this machine's cores. Its commands need the variables in `environment`.

    What lies below `hidden` is not to be seen on `n2`, which has an empty folder of its own there.
    """

    def __init__(self, folder: Path, hidden: Path) -> None:
        self.folder, self.hidden = folder, hidden
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all jobs, then the daemons, the controller before those that it would wait for; then what they left."""
        with contextlib.suppress(subprocess.SubprocessError, AssertionError):
            self.run("scancel", "--user=root", "--signal=KILL", "--full", timeout=ENDING_S)
            self.run("scancel", "--user=root", timeout=ENDING_S)
            wait_for(lambda: not self.processes(), "the end of all steps", patience_s=ENDING_S)
        left = self.processes()
        for daemon in [*self._daemons[1:], *self._daemons[:1]]:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def clear(self) -> None:
        """Ends all jobs and what is left of them, and has nodes that SLURM took out of service back.

        After a test that failed its jobs would hold the nodes, and all tests that follow would wait for these.
        """
        self.run("scancel", "--user=root", "--signal=KILL", "--full")
        self.run("scancel", "--user=root")
        wait_for(lambda: not self.jobs() and not self.processes(), "the end of all jobs", ended=self._ended)
        for node, state in zip(NODES, self.states(), strict=True):
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        wait_for(self._idle, "idle nodes", ended=self._ended)

    def salloc(self, options: str, *command: object) -> list[str]:
        """A command in an allocation of its own."""
        return ["salloc", "--quiet", *options.split(), *map(str, command)]

    def run(self, *command: str, timeout: float = PATIENCE_S) -> str:
        """What a command prints."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=timeout
        ).stdout

    def states(self) -> list[str]:
        """The state of each node, in the order of their names."""
        return self.run("sinfo", "--noheader", "--Node", "--format=%T", "--partition=normal").split()

    def jobs(self) -> list[str]:
        """The ids of the jobs that are not over."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def state(self, job: str) -> str:
        """A job's state: COMPLETING for as long as anything of it is still being taken down, and then nothing."""
        states = dict(line.split() for line in self.run("squeue", "--noheader", "--format=%i %T").splitlines())
        return states.get(job, "")

    def processes(self) -> list[psutil.Process]:
        """What runs on the nodes: the daemons' step managers, and all that came from tasks, however far it went off."""
        slurmds = [daemon for daemon in self._daemons if "slurmd" in list(daemon.args)]
        found = {process.pid: process for slurmd in slurmds for process in _children(slurmd.pid)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                if variables.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURM_STEP_ID" in variables:
                    found[process.pid] = process
        return list(found.values())

    def _start(self) -> None:
        self._configure()
        key, sock = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder / f'munge.{name}'}" for name in ("key", "log", "pid", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={sock}", *files)
        wait_for(sock.exists, "munged's socket", ended=self._ended)
        self._daemon("slurmctld", "-D")
        apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.hidden)]
        for node, wrapped in zip(NODES, ([], apart), strict=True):
            self._daemon(*wrapped, "slurmd", "-D", "-N", node)
        wait_for(self._idle, "idle nodes", ended=self._ended)

    def _configure(self) -> None:
        ports = _free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS_PER_NODE} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        text = CONFIGURATION.format(host=host, controller_port=ports[0], folder=self.folder, nodes="\n".join(nodes))
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(text)

    def _daemon(self, *command: str) -> None:
        """Started so that even `kill -9` of the tests ends it."""
        with (self.folder / f"{len(self._daemons)}.out").open("wb") as output:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
        self._daemons.append(daemon)

    def _idle(self) -> bool:
        try:
            return self.states() == ["idle"] * len(NODES)
        except subprocess.CalledProcessError:
            return False

    def _ended(self) -> None:
        """Raises `LookupError` once a daemon has ended, with what all of them have logged."""
        if ended := [daemon for daemon in self._daemons if daemon.poll() is not None]:
            logs = [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.[lo][ou][gt]")]
            raise LookupError(f"{ended[0].args} ended with {ended[0].returncode}: {' '.join(logs)}")


def _children(pid: int) -> list[psutil.Process]:
    try:
        return [
            child for child in psutil.Process(pid).children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE
        ]
    except psutil.NoSuchProcess:
        return []


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
