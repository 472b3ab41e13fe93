"""A soak: many quick trials with one launcher, one in ten killed, and what they leave behind.

    TMPDIR=$(mktemp -d) python -m tests.faults.soak 100

in a folder for temporary files that nobody else uses. Counts, before and after: processes, open files, sockets, shared
memory and temporary files, the parent's threads, and its memory. Shared memory is counted where this process may have
/dev/shm to itself, which takes root: what others leave there is not its own.
"""

import ctypes
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import psutil
from rich.console import Console

from parbench.campaign.run import run_campaign
from parbench.cli.progress import PlainProgress
from parbench.launch.base import Outcome
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.reading import read_plan
from parbench.system.devices import detect
from tests.support.scenarios import TINY_LSTM
from tests.support.waiting import PAUSE_S

SCENARIO = (
    "\nname: soak"
    + TINY_LSTM
    + """strategies: [single, ddp]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 600}
"""
)


SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written
PLACES = [Path(tempfile.gettempdir())]
"""Where programs leave things."""

LEAVING_S = 60.0
"""How long what has ended may take to be gone."""

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000  # unshare(2), mount(2)


@dataclass
class Figures:
    """What `trials` trials left behind, after the first `warm` had filled every cache."""

    trials: int
    failed: int
    left_over: dict[str, int] = field(default_factory=dict)
    descriptors_grown: int = 0
    threads_grown: int = 0
    resident_mib: list[float] = field(default_factory=list)


class Watched(LocalLauncher):
    """The local launcher; every tenth trial's first rank is killed while it starts."""

    def __init__(self, warm: int) -> None:
        super().__init__()
        self.warm, self.count, self.parent = warm, 0, psutil.Process()
        self.resident_mib: list[float] = []
        self.before: Counter[str] = Counter()
        self.descriptors = self.threads = 0

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        if self.count == self.warm:
            self.before, self.descriptors, self.threads = things(), self.parent.num_fds(), self.parent.num_threads()
        self.count += 1
        if self.count % 10 == self.warm % 10 + 1:
            (folder / "cell.json").write_text("{}")
        outcome = super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
        self.resident_mib.append(self.parent.memory_info().rss / 2**20)
        return outcome


def things() -> Counter[str]:
    """Everything of this process's family, and in the places where programs leave things, by kind and name."""
    children = psutil.Process().children(recursive=True)
    found = Counter(f"process {child.pid} ({child.status()})" for child in children)
    for process in [psutil.Process(), *children]:
        found.update(f"socket of {process.pid} {each.laddr}" for each in process.net_connections("inet"))
    for place in PLACES:
        found.update(f"file {each}" for each in place.iterdir())
    return found


def left_over(before: Counter[str]) -> dict[str, int]:
    """What is new and stays: what has ended may take a moment to be gone."""
    until = time.monotonic() + LEAVING_S
    while (new := things() - before) and time.monotonic() < until:
        time.sleep(PAUSE_S)
    return dict(new)


def with_shared_memory_of_its_own() -> bool:
    """Gives this process and its children a /dev/shm that nobody else sees, where that is allowed."""
    libc, shm = ctypes.CDLL(None), str(SHARED_MEMORY).encode()
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None):
        return False
    return libc.mount(b"soak", shm, b"tmpfs", ctypes.c_ulong(0), None) == 0


def soak(trials: int = 100, warm: int = 10) -> Figures:
    """Runs a real campaign of `trials` trials after `warm` others, and counts what is new."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "soak.yaml").write_text(SCENARIO)
        rounds = -(-(trials + warm) // 2)
        plan = read_plan(folder / "soak.yaml", detect(), [f"measure.rounds={rounds}"])
        launcher = Watched(warm)
        launcher.start()
        try:
            progress = PlainProgress(Console(file=StringIO()))
            run = run_campaign(plan, folder / "out", launcher, progress, command=["soak"])
            return Figures(
                trials=launcher.count - warm,
                failed=sum(trial.status != "ok" for trial in run.trials),
                left_over=left_over(launcher.before),
                descriptors_grown=launcher.parent.num_fds() - launcher.descriptors,
                threads_grown=launcher.parent.num_threads() - launcher.threads,
                resident_mib=launcher.resident_mib[warm:],
            )
        finally:
            launcher.close()


if __name__ == "__main__":
    if with_shared_memory_of_its_own():
        PLACES.append(SHARED_MEMORY)
    found = soak(*(int(argument) for argument in sys.argv[1:]))
    memory = found.resident_mib
    print(f"{found.trials} trials, {found.failed} of them made to fail; left over: {found.left_over or 'nothing'}")
    print(f"open files {found.descriptors_grown:+d}, threads {found.threads_grown:+d} in the parent")
    print(f"memory of the parent: {memory[0]:.1f} MiB at first, {memory[-1]:.1f} at last, {max(memory):.1f} at most")
