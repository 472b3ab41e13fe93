"""One model of a rank, from its set-up to its record; and the queue that says which model comes next."""

import math
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch.distributed.distributed_c10d import Store

from parbench.data.batches import Batches, StackedBatches
from parbench.measure.account.probe import Watch, account_for_steps
from parbench.measure.clock import Timing, time_steps
from parbench.measure.failures import require_finite, require_finite_time
from parbench.measure.journal import Journal
from parbench.measure.phases import STEPS
from parbench.measure.probes.compile_time import Compilation, read_compilation
from parbench.measure.probes.expected_memory import expect_memory
from parbench.measure.probes.memory_account import MemoryAccount
from parbench.measure.probes.routing import count_routing
from parbench.measure.probes.traffic import MAX_STEPS, Call, count_calls, sum_up
from parbench.measure.probes.window import WindowProbes
from parbench.measure.team import Role, Team
from parbench.measure.twins import hold_learning_rate
from parbench.measure.validation import compute_mean_losses, compute_shared_loss
from parbench.measure.warmup import WarmUp, warm_up
from parbench.records.account import AccountRecord
from parbench.records.assignment import PARITY_STEPS
from parbench.records.memory_account import MemoryAccountRecord
from parbench.records.routing import RoutingRecord
from parbench.records.trial import JobRecord, TrafficRecord, ValidationRecord
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Context, Layout, StepPart
from parbench.training.workload import Workload

MIN_WINDOW_STEPS = 3
NEXT = "parbench/next"
"""The store's counter of models that lanes have taken from a shared queue."""


class Queue:
    """The models of a lane by number: a fixed share of all, or whichever is next when the lane is free.

    A shared queue goes from the longest model to the shortest. Where models are stacked, numbers are those of the
    first of each stack.
    """

    def __init__(self, spec: WorkloadSpec, layout: Layout, lane: int, store: Store) -> None:
        self._layout = layout
        self._lane = lane
        self._store = store
        models = layout.lanes * layout.stacked if spec.models == "auto" else spec.models
        self._lengths = spec.length_per_model or (1.0,) * models
        self._numbers = list(range(0, models, layout.stacked))
        self._full_length_steps: int | None = None

    def __iter__(self) -> Iterator[int]:
        return self._shared() if self._layout.queued else iter(self._numbers[self._lane :: self._layout.lanes])

    def _shared(self) -> Iterator[int]:
        longest_first = sorted(self._numbers, key=lambda number: -self._lengths[number])
        while (place := self._store.add(NEXT, 1) - 1) < len(longest_first):
            yield longest_first[place]

    def window_steps(self, number: int, window_s: float, step_s: float, cycle: int = 1) -> int:
        """Enough steps to fill the window with all the models of a lane; shorter models take their share of them.

        The first model's time per step (`step_s`, seconds) decides for all, because tokens per second are computed from
        all of them together. Where only one step in a `cycle` does some of the work, steps come in whole cycles.
        """
        if self._full_length_steps is None:
            models_per_lane = math.ceil(len(self._numbers) / self._layout.lanes)
            self._full_length_steps = math.ceil(window_s / models_per_lane / step_s)
        share = self._lengths[number] / max(self._lengths)
        steps = max(MIN_WINDOW_STEPS, round(self._full_length_steps * share))
        return math.ceil(steps / cycle) * cycle


class Job:
    """Model number `number` of the workload, or the stack of models that begins with it, under the rank's strategy.

    Making the object builds the model. It is then either timed or followed, once, and closed.
    """

    def __init__(self, number: int, role: Role, workload: Workload, context: Context, journal: Journal) -> None:
        self.number = number
        self.role = role
        self.journal = journal
        journal.enter("setup")
        self.workload = workload
        self.calls: list[Call] | None = None
        self.memory = MemoryAccount(role.device)
        self.strategy = role.make_strategy()
        self.strategy.setup(workload, number, context)
        self.memory.end_setup(self.strategy)
        self.batches = make_batches(workload, number, role.layout.stacked)
        place = {"shard": role.shard, "shards": role.layout.data_shards}
        self.step = STEPS[role.spec.phase](
            self.strategy,
            role.spec,
            partial(self.batches.training, **place),
            partial(self.batches.validation, **place),
            role.assignment.verify_steps if role.is_timed else role.assignment.steps,
        )
        if role.spec.phase != "train":
            self.strategy.model.eval()

    def time(self, queue: Queue, team: Team, probes: WindowProbes) -> list[JobRecord]:
        """Warms up, times the window and validates. A record for each stacked model; `team` starts together."""
        self.journal.enter("warm-up")
        before = read_compilation()
        first = max(PARITY_STEPS, self.strategy.settling_steps())
        warm = warm_up(self.step, first, self.role.assignment.warmup, team, self.role.device)
        self.step.read_losses()  # raises where training has diverged, before a window is timed in vain
        compiled = read_compilation().since(before)
        self.memory.end_phase("warm_up")

        self.journal.enter("window")
        steps = queue.window_steps(self.number, self.role.assignment.window_s, warm.step_s, cycle=self.strategy.cycle())
        timing, waiting_s = self._time_window(range(warm.steps, warm.steps + steps), team, probes)
        self.memory.end_phase("window")
        record = self._timed_record(warm, compiled, timing, waiting_s, probes)

        self.journal.enter("validation")
        losses = compute_mean_losses(self.role, self.strategy, self.batches)
        return self._split_by_model(record, [(record.total_steps, losses)] if losses else [])

    def follow(self) -> list[JobRecord]:
        """Takes steps without timing them, and validates in between. A record for each stacked model."""
        self.journal.enter("steps")
        if self.role.assignment.purpose == "reference":
            self.step.be_reference()
        validations = []
        steps = self.role.assignment.steps
        for taken in hold_learning_rate(self.strategy, range(steps + 1), self.role.assignment.quiet_steps):
            if taken in self.role.assignment.validate_at:
                validations.append((taken, compute_mean_losses(self.role, self.strategy, self.batches)))
            if taken < steps:
                self.step(taken)
        shared = compute_shared_loss(self.role, self.strategy, self.batches)
        record = self._record(warmup_steps=steps, warmup_s=0.0, steady=True, shared_loss=shared)
        return self._split_by_model(record, [(taken, losses) for taken, losses in validations if losses])

    def count_traffic(self) -> TrafficRecord | None:
        """What this rank exchanges with others in further steps, which nobody times.

        A cycle of steps is taken first: what validation has left gathered, the step after it need not gather.
        """
        self.journal.enter("traffic")
        cycle = self.strategy.cycle()
        if cycle > MAX_STEPS:
            return None
        for index in range(self.step.taken, self.step.taken + cycle):
            self.step(index)
        self.calls = count_calls(self.step, range(self.step.taken, self.step.taken + cycle))
        return sum_up(self.calls, cycle)

    def count_routing(self) -> RoutingRecord | None:
        """Where routers send this rank's tokens in a further step, which nobody times; None for models without any."""
        self.journal.enter("traffic")
        model, compiled = self.strategy.model, self.role.spec.compile
        return count_routing(model, lambda: self.step(self.step.taken), compiled=compiled)

    def account(self, team: Team) -> AccountRecord | None:
        """Where the time of further steps goes, which nobody times; `team` starts them together."""
        self.journal.enter("account")
        dealing = [StepPart(self.step, name, "data") for name in ("training", "validation")]
        watch = Watch(
            step=self.step,
            first=self.step.taken,
            cycle=self.strategy.cycle(),
            parts=[*dealing, *self.strategy.step_parts()],
            calls=self.calls,
            device=self.role.device,
            meet=team.meet,
        )
        return account_for_steps(watch, self.journal.trace_file if self.role.assignment.trace else None)

    def account_for_memory(self) -> MemoryAccountRecord | None:
        """What this rank's memory holds in further steps, which nobody times.

        None where too many steps would be needed, or where a model on its own cannot be watched, as some operators
        refuse. Of several ranks none may be missed by the others.
        """
        self.journal.enter("memory")
        layout, cycle = self.role.layout, self.strategy.cycle()
        if cycle > MAX_STEPS:
            return None
        steps = range(self.step.taken, self.step.taken + 1 + cycle)
        try:
            record = self.memory.take(self.strategy, self.step, steps, compiled=self.role.spec.compile)
        except Exception:  # what was timed before stays good
            if layout.ranks_per_lane > 1:
                raise
            traceback.print_exc()
            return None
        rank = self.role.rank % layout.ranks_per_lane
        expected, whole = expect_memory(self.strategy, self.workload, layout, rank) or (None, None)
        return record.model_copy(update={"expected": expected, "whole": whole})

    def close(self) -> None:
        """Closes the strategy; the model's memory is free once nothing refers to this object."""
        self.journal.enter("close")
        self.strategy.close()

    def _time_window(self, steps: range, team: Team, probes: WindowProbes) -> tuple[Timing, float | None]:
        """Times the steps, which all ranks of `team` start together; also the seconds that it waited for others."""
        probes.prepare_window()
        team.meet()
        self.step.start_window()
        compiled, waited_before_s = read_compilation(), self.strategy.waiting_s()
        probes.start_window()
        timing = time_steps(self.step, steps, self.role.device)
        probes.end_window()
        if read_compilation().seconds > compiled.seconds:
            raise RuntimeError("torch.compile compiled again inside the window: more warm-up steps may help")
        if self.step.latest is not None:
            require_finite(self.step.latest, f"the loss of step {steps[-1]}")
        waited_s = self.strategy.waiting_s()
        if waited_s is not None and waited_before_s is not None:
            waited_s = require_finite_time(waited_s - waited_before_s, "the time that the strategy says it waited")
        return timing, waited_s

    def _timed_record(
        self, warm: WarmUp, compiled: Compilation, timing: Timing, waiting_s: float | None, probes: WindowProbes
    ) -> JobRecord:
        return self._record(
            warmup_steps=warm.steps,
            warmup_s=warm.seconds,
            steady=warm.steady,
            compile_s=compiled.seconds,
            cache_hits=compiled.cache_hits,
            cache_misses=compiled.cache_misses,
            steps=len(timing.steps_s),
            window_s=timing.total_s,
            step_times_s=timing.steps_s,
            cycle=self.strategy.cycle(),
            started_s=probes.started_s,
            stopped_s=probes.stopped_s,
            waiting_s=waiting_s,
        )

    def _record(self, **values: Any) -> JobRecord:
        stacked = self.role.layout.stacked
        parameters = sum(parameter.numel() for parameter in self.strategy.model.parameters()) // stacked
        generation = self.step.read_generation()
        return JobRecord(job=self.number, parameters=parameters, stacked=stacked, generation=generation, **values)

    def _split_by_model(self, record: JobRecord, validations: Sequence[tuple[int, list[float]]]) -> list[JobRecord]:
        """A copy of the record for each stacked model, with its own losses and validation losses."""
        losses = self.step.read_losses()
        return [
            record.model_copy(
                update={
                    "job": record.job + index,
                    "losses": tuple(each[index] for each in losses),
                    "validation_loss": validations[-1][1][index] if validations else None,
                    "validations": tuple(
                        ValidationRecord(steps=taken, loss=each[index]) for taken, each in validations
                    ),
                }
            )
            for index in range(self.role.layout.stacked)
        ]


def make_batches(workload: Workload, number: int, stacked: int) -> Batches | StackedBatches:
    """The batches of model `number`, or of the `stacked` models that begin with it."""
    each = [workload.batches(number + index) for index in range(stacked)]
    return each[0] if len(each) == 1 else StackedBatches(each)
