"""The only measuring loop. Every launcher starts it in every rank, under torchrun's environment variables.

By hand, in a trial's folder: `torchrun --nproc-per-node N -m parbench.measure.worker .`
"""

import faulthandler
import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from parbench.data.batches import Batches, StackedBatches
from parbench.measure.clock import time_steps
from parbench.measure.failures import failure_of, finite, finite_time
from parbench.measure.journal import EXIT_UNWRITTEN, Journal, JournalError
from parbench.measure.phases import STEPS, Steps
from parbench.measure.probes.average import Average
from parbench.measure.probes.compile_time import compile_seconds, prepare_compiler
from parbench.measure.probes.matmul import matmul_flops
from parbench.measure.probes.memory import MemoryProbe
from parbench.measure.probes.surroundings import Surroundings
from parbench.measure.probes.traffic import count_traffic
from parbench.measure.queue import Queue
from parbench.measure.team import Team, join_process_group
from parbench.measure.twins import follow_twin, quietly
from parbench.measure.validation import Validation
from parbench.measure.warmup import WarmUp, warm_up
from parbench.models.base import FAMILIES
from parbench.records.assignment import PARITY_STEPS, Assignment
from parbench.records.trial import JobRecord, RankRecord, ValidationRecord
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context, Layout, Strategy
from parbench.system.devices import Devices
from parbench.training.workload import Workload


class Worker:
    """One rank of one trial."""

    def __init__(self, assignment: Assignment, journal: Journal, rank: int, local_rank: int) -> None:
        self.assignment = assignment
        self.journal = journal
        self.rank = rank
        model = assignment.workload["model"]
        family = FAMILIES[model["kind"]].model_validate(model, context={"folder": assignment.folder})
        self.spec = WorkloadSpec.model_validate({**assignment.workload, "model": family})
        self.strategy_class = STRATEGIES[assignment.strategy]
        self.options = self.strategy_class.options_type.model_validate(assignment.options)
        devices = Devices(kind=assignment.device_kind, count=assignment.devices, nodes=assignment.nodes)
        self.layout: Layout = self.strategy_class.layout(self.options, self.spec, devices)
        self.lane, self.shard = self.layout.coordinate(rank)
        self.validation = Validation(
            phase=self.spec.phase, layout=self.layout, shard=self.shard, count=assignment.validation_batches
        )
        mine = self.layout.devices_of(local_rank)
        self.cores = assignment.cores[mine.start : mine.stop]
        self.devices = tuple(
            torch.device("cuda", index) if assignment.device_kind == "cuda" else torch.device("cpu") for index in mine
        )
        self.device = self.devices[0]

    def pin(self) -> None:
        """Takes this rank's cores. Before anything starts a thread: threads inherit the cores of their maker."""
        cores = tuple(cpu for device in self.cores for cpu in device)
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(self.assignment.threads)
        prepare_compiler(self.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # fp32 means fp32: cuDNN's recurrent layers would round to TF32 by default.
            torch.backends.cudnn.allow_tf32 = self.spec.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = self.spec.precision == "tf32"
        self.journal.write(lane=self.lane, shard=self.shard, threads=self.assignment.threads, cores=cores)

    def join(self, listener: socket.socket | None) -> None:
        """Meets the other ranks, and finds the group of this rank's lane."""
        self.journal.stage("join")
        # Lanes of one rank have only clocks to compare, and may share a GPU, which NCCL's ranks cannot.
        apart = self.layout.lanes > 1 and self.layout.ranks_per_lane == 1
        device = torch.device("cpu") if apart else self.device
        self.store = join_process_group(device, timedelta(seconds=self.assignment.deadline_s), listener)
        self.world = Team(distributed.group.WORLD, device)
        self.group = distributed.group.WORLD if self.layout.lanes == 1 else self._lane_group()
        self.lane_team = Team(self.group, device)
        self.world.meet()
        self.journal.write(met_at=time.monotonic())

    def _lane_group(self) -> distributed.ProcessGroup | None:
        size = self.layout.ranks_per_lane
        if size == 1:
            return None
        lanes = [list(range(lane * size, (lane + 1) * size)) for lane in range(self.layout.lanes)]
        groups: list[distributed.ProcessGroup] = [distributed.new_group(ranks) for ranks in lanes]
        return groups[self.lane]

    def run(self) -> None:
        """Runs this rank's share of the models, one after another, and records each."""
        workload = Workload(self.spec, self.assignment.corpus, seed=self.assignment.seed, device=self.device)
        context = Context(
            rank=self.rank % self.layout.ranks_per_lane,
            ranks=self.layout.ranks_per_lane,
            devices=self.devices,
            cores=self.cores,
            threads=self.assignment.threads,
            group=self.group,
            stacked=self.layout.stacked,
        )
        self._study_device(workload, context)
        self.memory = MemoryProbe(self.devices)
        self.surroundings = Surroundings(tuple(cpu for device in self.cores for cpu in device), self.devices)
        queue = Queue(self.spec, self.layout, self.lane, self.store)
        average = Average() if self.layout.averaged else None
        try:
            step = self._run_jobs(queue, workload, context, average)
        finally:
            # Also of a rank that ran out of memory one wants to know how far it came.
            self.journal.write(memory=self.memory.read(), surroundings=self.surroundings.read())
        if step is not None:
            self._finish(step, context)
        if average is not None:
            self._validate_average(average, workload, context)
        self.journal.stage("done")

    def _study_device(self, workload: Workload, context: Context) -> None:
        """What the comparison needs to know besides losses, before a model takes the memory."""
        if self.assignment.matmul and self.rank == 0:
            self.journal.write(matmul_flops=matmul_flops(self.device, self.assignment.matmul))

        def set_up(workload: Workload) -> Strategy[Options]:
            strategy = self.strategy_class(self.options)
            strategy.setup(workload, 0, context)
            return strategy

        twins = [
            follow_twin(twin, workload, set_up, self.assignment.steps, self.assignment.quiet_steps)
            for twin in self.assignment.twins
        ]
        self.journal.write(twins=tuple(twins))

    def _run_jobs(self, queue: Queue, workload: Workload, context: Context, average: Average | None) -> Steps | None:
        """Measures model after model. The last one's steps, still to be closed; None where there was no model."""
        records: list[JobRecord] = []
        step: Steps | None = None
        for job in queue:
            if step is not None:
                self._close(step.strategy)
                # A wrapped model may hold itself in a cycle; the next one is not to be measured on top of it.
                step = None
                gc.collect()
            step = self._set_up(workload, job, context)
            records += self._measure(step, workload, job, queue)
            if average is not None:
                average.add(step.strategy.model)
            self.journal.write(jobs=tuple(records))
        return step

    def _set_up(self, workload: Workload, job: int, context: Context) -> Steps:
        self.journal.stage("setup")
        strategy = self.strategy_class(self.options)
        strategy.setup(workload, job, context)
        return self._steps(strategy, workload, job)

    def _finish(self, step: Steps, context: Context) -> None:
        """Once nothing is measured any more: what ranks say to each other in further steps."""
        strategy = step.strategy
        if context.ranks > 1 and self.assignment.purpose == "measure":
            self.journal.stage("traffic")
            self.journal.write(traffic=count_traffic(step, range(step.taken, step.taken + strategy.cycle())))
        self._close(strategy)

    def _close(self, strategy: Strategy[Options]) -> None:
        self.journal.stage("close")
        strategy.close()

    def _measure(self, step: Steps, workload: Workload, job: int, queue: Queue) -> list[JobRecord]:
        """A record for each model that these steps are taken for."""
        # All lanes start their first model together; later ones start when their lane is free.
        team = self.lane_team if queue.taken_before else self.world
        if self.spec.phase != "train":
            step.strategy.model.eval()
        if self.assignment.purpose == "measure":
            return self._time(step, workload, job, queue, team)
        return self._follow(step, workload, job)

    def _follow(self, step: Steps, workload: Workload, job: int) -> list[JobRecord]:
        """Takes steps that nobody times, and validates in between."""
        self.journal.stage("steps")
        validations = []
        batches, steps = self._batches(workload, job), self.assignment.steps
        for taken in quietly(step.strategy, range(steps + 1), self.assignment.quiet_steps):
            if taken in self.assignment.validate_at:
                validations.append((taken, self.validation.mean_losses(step.strategy, batches)))
            if taken < steps:
                step(taken)
        shared = self.validation.shared_loss(step.strategy, batches)
        record = self._record(step, job, warmup_steps=steps, warmup_s=0.0, steady=True, shared_loss=shared)
        return self._by_model(record, step, [(taken, losses) for taken, losses in validations if losses])

    def _time(self, step: Steps, workload: Workload, job: int, queue: Queue, team: Team) -> list[JobRecord]:
        """Warms up, times the window, and validates."""
        self.journal.stage("warm-up")
        compiled_s = compile_seconds()
        first = max(PARITY_STEPS, step.strategy.settling_steps())
        warm = warm_up(step, first, self.assignment.warmup, team, self.device)
        step.read_losses()  # what has diverged by now need not be timed
        record = self._record(step, job, warmup_steps=warm.steps, warmup_s=warm.seconds, steady=warm.steady)
        record = record.model_copy(update={"compile_s": compile_seconds() - compiled_s})
        record = self._window(step, record, warm, team, queue)
        self.journal.stage("validation")
        losses = self.validation.mean_losses(step.strategy, self._batches(workload, job))
        return self._by_model(record, step, [(record.total_steps, losses)] if losses else [])

    def _record(self, step: Steps, job: int, **values: Any) -> JobRecord:
        parameters = sum(parameter.numel() for parameter in step.strategy.model.parameters()) // self.layout.stacked
        return JobRecord(
            job=job, parameters=parameters, stacked=self.layout.stacked, generation=step.generation(), **values
        )

    def _steps(self, strategy: Strategy[Options], workload: Workload, job: int) -> Steps:
        batches = self._batches(workload, job)
        where = (self.shard, self.layout.data_shards)
        return STEPS[self.spec.phase](
            strategy,
            self.spec,
            lambda index: batches.training(index, *where),
            lambda index: batches.validation(index, *where),
            self.assignment.verify_steps if self.assignment.purpose == "measure" else self.assignment.steps,
        )

    def _batches(self, workload: Workload, job: int) -> Batches | StackedBatches:
        each = [workload.batches(job + index) for index in range(self.layout.stacked)]
        return each[0] if len(each) == 1 else StackedBatches(each)

    def _window(self, step: Steps, record: JobRecord, warm: WarmUp, team: Team, queue: Queue) -> JobRecord:
        """The record with what the window adds."""
        self.journal.stage("window")
        strategy = step.strategy
        steps = queue.steps_of(record.job, self.assignment.window_s, warm.step_s, strategy.cycle())
        team.meet()
        step.window_starts()
        compiled_s, computed_s = compile_seconds(), strategy.compute_s()
        self.memory.window_starts()
        self.surroundings.window_starts()
        started_s = time.monotonic()
        timing = time_steps(step, range(warm.steps, warm.steps + steps), self.device)
        stopped_s = time.monotonic()
        self.surroundings.window_ends()
        self.memory.window_ends()
        if compile_seconds() > compiled_s:
            raise RuntimeError("torch.compile compiled again inside the window: more warm-up steps may help")
        if step.latest is not None:
            finite(step.latest, f"the loss of step {warm.steps + steps - 1}")
        computed = strategy.compute_s()
        if computed is not None and computed_s is not None:
            computed = finite_time(computed - computed_s, "the time that the strategy says it computed")
        return record.model_copy(
            update={
                "steps": steps,
                "window_s": timing.total_s,
                "step_times_s": timing.steps_s,
                "cycle": strategy.cycle(),
                "started_s": started_s,
                "stopped_s": stopped_s,
                "compute_s": computed,
                "generation": step.generation(),
            }
        )

    def _by_model(
        self, record: JobRecord, step: Steps, validations: Sequence[tuple[int, list[float]]]
    ) -> list[JobRecord]:
        """A record for each of the models that are stacked, with its losses and its validation losses."""
        losses = step.read_losses()
        return [
            record.model_copy(
                update={
                    "job": record.job + number,
                    "losses": tuple(each[number] for each in losses),
                    "validation_loss": validations[-1][1][number] if validations else None,
                    "validations": tuple(ValidationRecord(steps=at, loss=each[number]) for at, each in validations),
                }
            )
            for number in range(self.layout.stacked)
        ]

    def _validate_average(self, average: Average, workload: Workload, context: Context) -> None:
        """Every lane helps to average; the first validates the result on the text of the first model."""
        strategy = self.strategy_class(self.options)
        strategy.setup(workload, 0, context)
        average.load_into(strategy.model)
        losses = self.validation.mean_losses(strategy, self._batches(workload, 0))
        strategy.close()
        if losses and self.lane == 0:
            self.journal.write(averaged_validation_loss=losses[0])


def work(folder: Path, listener: socket.socket | None = None) -> int:
    """Does what `folder/cell.json` says as the rank that the environment names.

    The exit code: 0 fine, 1 failed, `EXIT_UNWRITTEN` where that cannot be put down.
    """
    try:
        return _work(folder, listener)
    except (JournalError, OSError):  # of the log; what else went wrong is in the record
        return EXIT_UNWRITTEN


def _work(folder: Path, listener: socket.socket | None) -> int:
    faulthandler.enable()
    rank = int(os.environ["RANK"])
    local_rank, node = int(os.environ["LOCAL_RANK"]), int(os.environ.get("GROUP_RANK", "0"))
    record = RankRecord(rank=rank, host=socket.gethostname(), node=node, local_rank=local_rank, pid=os.getpid())
    journal = Journal(folder, record)
    try:
        assignment = Assignment.model_validate_json((folder / "cell.json").read_text())
        worker = Worker(assignment, journal, rank, local_rank)
        worker.pin()
        worker.join(listener)
        worker.run()
        worker.world.meet()
        distributed.destroy_process_group()
    except JournalError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a strategy raises, even SystemExit, is this trial's result
        traceback.print_exc()
        journal.write(failure=failure_of(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
