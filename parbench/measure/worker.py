"""The only measuring loop. Every launcher starts it in every rank, under torchrun's environment variables.

By hand, in a trial's folder: `torchrun --nproc-per-node N -m parbench.measure.worker .`
"""

import faulthandler
import gc
import math
import os
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from parbench.devices import Devices
from parbench.measure.clock import time_steps
from parbench.measure.memory import MemoryProbe
from parbench.measure.team import Team
from parbench.measure.warmup import warm_up
from parbench.results.trial import PARITY_STEPS, Assignment, Failure, JobRecord, RankRecord, Stage
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context, Layout, Strategy
from parbench.training.workload import Workload
from parbench.workloads.base import FAMILIES

MIN_WINDOW_STEPS = 3
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")


class Journal:
    """This rank's record on disk, replaced whole at every change."""

    def __init__(self, folder: Path, record: RankRecord) -> None:
        self._path = folder / f"rank{record.rank}.json"
        self.record = record
        self.write()

    def write(self, **changes: object) -> None:
        """Puts `changes` into the record, and the record on disk."""
        self.record = self.record.model_copy(update=changes)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(self.record.model_dump_json())
        temporary.replace(self._path)

    def stage(self, stage: Stage) -> None:
        """Notes how far this rank has come."""
        self.write(stage=stage)


class Worker:
    """One rank of one trial."""

    def __init__(self, assignment: Assignment, journal: Journal, rank: int, local_rank: int) -> None:
        self.assignment = assignment
        self.journal = journal
        self.rank = rank
        family = FAMILIES[assignment.workload["model"]["kind"]].model_validate(assignment.workload["model"])
        self.spec = WorkloadSpec.model_validate({**assignment.workload, "model": family})
        self.strategy_class = STRATEGIES[assignment.strategy]
        self.options = self.strategy_class.options_type.model_validate(assignment.options)
        self.layout: Layout = self.strategy_class.layout(
            self.options, self.spec, Devices(kind=assignment.device_kind, count=assignment.devices)
        )
        self.lane, self.shard = self.layout.coordinate(rank)
        mine = slice(local_rank * self.layout.devices_per_process, (local_rank + 1) * self.layout.devices_per_process)
        self.cores = assignment.cores[mine]
        self.devices = tuple(
            torch.device("cuda", index) if assignment.device_kind == "cuda" else torch.device("cpu")
            for index in range(mine.start, mine.stop)
        )
        self.device = self.devices[0]

    def pin(self) -> None:
        """Takes this rank's cores. Before anything starts a thread: threads inherit the cores of their maker."""
        cores = tuple(cpu for device in self.cores for cpu in device)
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(self.assignment.threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # fp32 means fp32: cuDNN's recurrent layers would round to TF32 by default.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.journal.write(lane=self.lane, shard=self.shard, threads=self.assignment.threads, cores=cores)

    def join(self, listener: socket.socket | None) -> None:
        """Meets the other ranks, and finds the group of this rank's lane."""
        self.journal.stage("join")
        join_process_group(self.device, timedelta(seconds=self.assignment.deadline_s), listener)
        self.world = Team(distributed.group.WORLD, self.device)
        self.group = distributed.group.WORLD if self.layout.lanes == 1 else self._lane_group()
        self.lane_team = Team(self.group, self.device)

    def _lane_group(self) -> distributed.ProcessGroup | None:
        size = self.layout.ranks_per_lane
        if size == 1:
            return None
        lanes = [list(range(lane * size, (lane + 1) * size)) for lane in range(self.layout.lanes)]
        groups: list[distributed.ProcessGroup] = [distributed.new_group(ranks) for ranks in lanes]
        return groups[self.lane]

    def run(self) -> None:
        """Trains this rank's share of the models, one after another, and records each."""
        workload = Workload(self.spec, self.assignment.corpus, seed=self.assignment.seed, device=self.device)
        context = Context(
            rank=self.rank % self.layout.ranks_per_lane,
            ranks=self.layout.ranks_per_lane,
            devices=self.devices,
            cores=self.cores,
            threads=self.assignment.threads,
            group=self.group,
        )
        self.memory = MemoryProbe(self.devices)
        jobs: list[JobRecord] = []
        models = self.layout.lanes if self.spec.models == "auto" else self.spec.models
        self.jobs_per_lane = math.ceil(models / self.layout.lanes)
        for job in range(models)[self.lane :: self.layout.lanes]:
            self.journal.stage("setup")
            strategy = self.strategy_class(self.options)
            strategy.setup(workload, job, context)
            jobs.append(self._measure(strategy, workload, job, jobs))
            strategy.close()
            self.journal.write(jobs=tuple(jobs), memory=self.memory.read())
            # A wrapped model may hold itself in a cycle; the next one is not to be measured on top of it.
            del strategy
            gc.collect()
        self.journal.stage("done")

    def _measure(self, strategy: Strategy[Options], workload: Workload, job: int, before: list[JobRecord]) -> JobRecord:
        batches = workload.batches(job)
        losses: list[torch.Tensor] = []
        latest: torch.Tensor | None = None
        # All lanes start their first model together; later ones start when their lane is free.
        team = self.lane_team if before else self.world

        def step(index: int) -> None:
            nonlocal latest
            latest = strategy.step(batches.training(index, self.shard, self.layout.data_shards))
            if latest is not None and index < PARITY_STEPS:
                losses.append(latest)

        self.journal.stage("warm-up")
        reference = self.assignment.purpose == "reference"
        warm = warm_up(step, PARITY_STEPS, 0 if reference else self.assignment.warmup, team, self.device)
        record = JobRecord(
            job=job,
            parameters=sum(parameter.numel() for parameter in strategy.model.parameters()),
            warmup_steps=warm.steps,
            warmup_s=warm.seconds,
            steady=warm.steady,
            losses=tuple(finite(loss, f"the loss of step {index}") for index, loss in enumerate(losses)),
        )
        if reference:
            return record
        self.journal.stage("window")
        # Every model takes as many steps as the first, or tokens per second could not be formed of them all.
        steps = before[0].steps if before else self._window_steps(warm.step_s)
        team.meet()
        self.memory.window_starts()
        timing = time_steps(step, range(warm.steps, warm.steps + steps), self.device)
        self.memory.window_ends()
        self.journal.stage("validation")
        if latest is not None:
            finite(latest, f"the loss of step {warm.steps + steps - 1}")
        return record.model_copy(
            update={
                "steps": steps,
                "window_s": timing.total_s,
                "step_times_s": timing.steps_s,
                "validation_loss": self._validate(strategy, workload, job),
            }
        )

    def _window_steps(self, step_s: float) -> int:
        """Enough steps to fill the window with all the models that a lane trains one after another."""
        return max(MIN_WINDOW_STEPS, math.ceil(self.assignment.window_s / self.jobs_per_lane / step_s))

    def _validate(self, strategy: Strategy[Options], workload: Workload, job: int) -> float | None:
        batches = workload.batches(job)
        strategy.model.eval()
        with torch.no_grad():
            losses = [
                strategy.evaluate(batches.validation(index, self.shard, self.layout.data_shards))
                for index in range(self.assignment.validation_batches)
            ]
        known = [loss for loss in losses if loss is not None]
        return finite(torch.stack(known).mean(), "the validation loss") if known else None


def finite(loss: torch.Tensor, what: str) -> float:
    """The value of a loss; raises `FloatingPointError` where it is NaN or infinite."""
    value = float(loss.item())
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is {value}: training diverged; a lower learning rate may help")
    return value


def join_process_group(device: torch.device, timeout: timedelta, listener: socket.socket | None) -> None:
    """Joins under torchrun's variables. With `listener`, rank 0 serves the rendezvous on that open socket.

    The launcher that opened the socket knows its port before any rank starts, so no port is ever guessed or lost.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = device if device.type == "cuda" else None
    if "PARBENCH_LISTENER" not in os.environ:
        distributed.init_process_group(backend, timeout=timeout, device_id=bound)
        return
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size=size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listener.detach() if listener else None,
    )
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=bound)


def work(folder: Path, listener: socket.socket | None = None) -> int:
    """Does what `folder/cell.json` says as the rank that the environment names. The exit code: 0 fine, 1 failed."""
    faulthandler.enable()
    rank = int(os.environ["RANK"])
    journal = Journal(folder, RankRecord(rank=rank, host=socket.gethostname(), pid=os.getpid()))
    try:
        assignment = Assignment.model_validate_json((folder / "cell.json").read_text())
        worker = Worker(assignment, journal, rank, int(os.environ["LOCAL_RANK"]))
        worker.pin()
        worker.join(listener)
        worker.run()
        worker.world.meet()
        distributed.destroy_process_group()
    except BaseException as error:  # noqa: BLE001 - whatever a strategy raises, even SystemExit, is this trial's result
        traceback.print_exc()
        journal.write(failure=failure_of(error))
        return 1
    return 0


def failure_of(error: BaseException) -> Failure:
    """The record of an error; outside its CUDA allocator, torch reports lack of memory as a plain RuntimeError."""
    lacks_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)
    )
    return Failure(
        error=f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)),
        out_of_memory=lacks_memory,
        at=time.monotonic(),
    )


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
