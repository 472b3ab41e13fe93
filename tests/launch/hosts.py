"""Several hosts on this machine: network namespaces on a switch, each with its own name, link rate, CPUs and folder.

They share a kernel and its cores. What is emulated is the network between them, and that their folders are not shared.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from parbench.launch.secret import VARIABLE
from tests.support.debian import require
from tests.support.waiting import PATIENCE_S, wait_for

PORT = 29400
SECRET = secrets.token_hex(32)
PARBENCH = (sys.executable, "-m", "parbench")
# A name of its own for the host, on its own CPUs, and then whatever is to run there.
ENTER = 'hostname "$1"; shift; exec taskset --cpu-list "$@"'


class Host:
    """One of them."""

    def __init__(self, namespace: str, number: int, folder: Path, cpu: int) -> None:
        self.namespace, self.name, self.address = namespace, f"host{number}", f"10.77.0.{number + 1}"
        self.address6 = f"fd77::{number + 1}"
        self.folder, self.cpu = folder, cpu
        self.environment = {**os.environ, "PARBENCH_CACHE": str(folder / "cache"), VARIABLE: SECRET}
        folder.mkdir()

    def start(self, *command: object, cpus: str | None = None) -> subprocess.Popen[str]:
        """Starts a program there, in the host's own folder and in a session of its own, on `cpus` or its own one."""
        # Even `kill -9` of the tests ends it.
        bound = ["setpriv", "--pdeathsig", "KILL"]
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", ENTER, "sh", self.name]
        return subprocess.Popen(
            [*bound, *enter, cpus or str(self.cpu), *map(str, command)],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def cut(self) -> None:
        """Unplugs its cable."""
        run("ip", "-n", self.namespace, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Plugs it in again."""
        run("ip", "-n", self.namespace, "link", "set", "eth0", "up")

    def processes(self) -> list[int]:
        """The ids of all processes there."""
        return [int(pid) for pid in run("ip", "netns", "pids", self.namespace).split()]


@contextlib.contextmanager
def hosts(count: int, folder: Path, rate: str | None = None) -> Iterator[list[Host]]:
    """So many hosts, whose links let `rate` through, such as `50mbit`. Raises `LookupError` where there can be none."""
    require_iproute2()
    token = f"pb{secrets.token_hex(3)}"
    switch, names = f"{token}-switch", [f"{token}-{number}" for number in range(count)]
    try:
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        cpus = sorted(os.sched_getaffinity(0))
        found = [Host(name, n, folder / f"host{n}", cpus[n % len(cpus)]) for n, name in enumerate(names)]
        for number, host in enumerate(found):
            _plug_in(host, switch, f"port{number}", rate)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        _remove([*names, switch])
        reason = getattr(error, "stderr", "").strip() or error
        raise LookupError(f"this machine does not allow network namespaces: {reason}") from None
    try:
        yield found
    finally:
        _remove([*names, switch])


def together(
    found: Sequence[Host], *arguments: object, cpus: str | None = None, address: str | None = None
) -> list[subprocess.Popen[str]]:
    """Starts the same `parbench` command on all of them; they meet at an address of the first, which is node 0."""
    where = ["--launcher", "torchrun", "--nodes", len(found), "--rendezvous", f"{address or found[0].address}:{PORT}"]
    where += ["--rendezvous-timeout", f"{PATIENCE_S:.0f}"]
    return [
        host.start(*PARBENCH, "run", *arguments, *where, "--node-rank", rank, cpus=cpus)
        for rank, host in enumerate(found)
    ]


def require_iproute2() -> None:
    """Installs it where it is missing. Raises `LookupError` with the reason where it cannot be had or used."""
    if os.geteuid():
        raise LookupError("network namespaces need root")
    require(["ip", "tc"], ["iproute2"])


def restore(found: Sequence[Host]) -> None:
    """Ends all that runs on these hosts, and plugs their cables in: a test that failed may have left both otherwise."""
    for host in found:
        _kill_all(host.namespace)
        host.mend()


def run(*command: object) -> str:
    """What a command prints."""
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def _remove(namespaces: Sequence[str]) -> None:
    """Removes namespaces, with all that still runs there."""
    for name in namespaces:
        _kill_all(name)
        _quietly("ip", "netns", "del", name)


def _kill_all(namespace: str) -> None:
    """Kills what runs in a namespace, until nothing does: what is killed may just have started something."""

    def kill() -> bool:
        pids = _quietly("ip", "netns", "pids", namespace).split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return not pids

    wait_for(kill, f"the end of all processes in {namespace}")


def _plug_in(host: Host, switch: str, port: str, rate: str | None) -> None:
    run("ip", "netns", "add", host.namespace)
    run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
    run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    # Without asking first whether it is somebody else's, which takes a second or two.
    run("ip", "-n", host.namespace, "address", "add", f"{host.address6}/64", "dev", "eth0", "nodad")
    for device in ("lo", "eth0"):
        run("ip", "-n", host.namespace, "link", "set", device, "up")
    if rate:
        tbf = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
        run("ip", "netns", "exec", host.namespace, "tc", "qdisc", "add", "dev", "eth0", "root", *tbf)


def _quietly(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout
