"""Teams of fresh ranks that take steps when told to and sleep in between, so that several take turns on the same cores.

A team has processes and a process group of its own: whatever one arm sets for its whole process, no other arm sees.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.waiting import PATIENCE_S

FORK_SERVER = get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["parbench.measure.preload", "tests.benchmarks.arms"])

Step = Callable[[int], object]
Build = Callable[[int, int], Step]
"""Builds the step of a rank, from its number and how many there are."""


class Turn(NamedTuple):
    """Seconds of the slowest rank, CPU seconds of all, and the largest growth of memory, in bytes."""

    wall_s: float
    cpu_s: float
    memory: int


class Team:
    """`count` ranks, forked from a server that has torch imported: a thread each, gloo between.

    Rank r is pinned to core r, or r modulo the number of cores; unless `pinned`, ranks run on any core. Raises
    `RuntimeError` with the traceback of a rank that fails.
    """

    def __init__(self, count: int, build: Build, *, pinned: bool) -> None:
        self.count, self.build, self.pinned = count, build, pinned

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        self._pipes, self._ranks = [], []
        for rank in range(self.count):
            pipe, theirs = FORK_SERVER.Pipe()
            process = FORK_SERVER.Process(
                target=_serve, args=(theirs, rank, self.count, store, self.pinned, self.build), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._ranks.append(process)
        try:
            self._hear()
        except BaseException:
            self.__exit__()
            raise
        return self

    def take(self, steps: range) -> Turn:
        """Has all ranks take these steps, which they start together."""
        for pipe in self._pipes:
            pipe.send(steps)
        turns = self._hear()
        return Turn(max(each.wall_s for each in turns), sum(each.cpu_s for each in turns), max(e.memory for e in turns))

    def _hear(self) -> list[Turn]:
        """What each rank reports; whoever fails is heard first."""
        reports, pending = list[Turn](), list(self._pipes)
        while pending:
            ready = wait(pending, PATIENCE_S)
            if not ready:
                raise RuntimeError("ranks have not answered in time")
            for pipe in ready:
                pending.remove(pipe)
                try:
                    report = pipe.recv()
                except EOFError:
                    raise RuntimeError("a rank has ended without a word") from None
                if isinstance(report, str):
                    raise RuntimeError(f"a rank has failed\n{report}")
                reports.append(report)
        return reports

    def __exit__(self, *_: object) -> None:
        for process in self._ranks:
            process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._folder.cleanup()


def _serve(pipe: Connection, rank: int, count: int, store: Path, pinned: bool, build: Build) -> None:
    import torch
    from torch import distributed

    from parbench.measure.probes.memory import MemoryProbe

    try:
        if pinned:
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, [cores[rank % len(cores)]])
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        patience = timedelta(seconds=PATIENCE_S)
        distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=patience
        )
        memory = MemoryProbe(())
        step = build(rank, count)
        pipe.send(Turn(0.0, 0.0, 0))
        while True:
            steps = pipe.recv()
            distributed.barrier()
            started, used = time.perf_counter(), time.process_time()
            for index in steps:
                step(index)
            wall_s, cpu_s = time.perf_counter() - started, time.process_time() - used
            pipe.send(Turn(wall_s, cpu_s, memory.read().resident_growth or 0))
    except EOFError:
        return
    except BaseException:  # noqa: BLE001 - whatever a strategy raises, its team's owner is told
        pipe.send(traceback.format_exc())
        # Its end would be the failure of its peers, who might be heard first.
        pipe.poll(None)
