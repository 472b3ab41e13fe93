"""One rank of a trial, from its assignment to its record. Every launcher starts it in every rank.

By hand, in a trial's folder: `torchrun --nproc-per-node N -m parbench.measure.worker .`
"""

import gc
import socket
import sys
import time
from pathlib import Path

from torch import distributed

from parbench.measure.job import Job, Queue, make_batches
from parbench.measure.journal import Journal
from parbench.measure.probes.average import Average
from parbench.measure.probes.compile_time import use_fresh_caches
from parbench.measure.probes.matmul import measure_matmul_flops
from parbench.measure.probes.window import WindowProbes
from parbench.measure.rank import run_as_rank
from parbench.measure.team import Role, Teams, form_teams
from parbench.measure.twins import follow_twin
from parbench.measure.validation import compute_mean_losses
from parbench.records.assignment import Assignment
from parbench.records.trial import JobRecord
from parbench.scenario.specs import Options
from parbench.strategies.base import Strategy
from parbench.system.malloc import set_malloc_policy
from parbench.training.workload import Workload


def work(folder: Path, listener: socket.socket | None = None) -> int:
    """Runs the trial that `folder/cell.json` assigns, as the rank that torchrun's environment variables name.

    Returns the exit code, as `run_as_rank` does.
    """
    return run_as_rank(folder, lambda journal: _run_trial(folder, listener, journal))


def _run_trial(folder: Path, listener: socket.socket | None, journal: Journal) -> None:
    assignment = Assignment.model_validate_json((folder / "cell.json").read_text())
    set_malloc_policy(assignment.malloc)
    if assignment.compile_cache == "fresh":
        use_fresh_caches(folder, journal.record.rank)
    role = Role.of(assignment, journal.record.rank, journal.record.local_rank)
    role.pin()
    role.require_service()
    journal.write(lane=role.lane, shard=role.shard, threads=assignment.threads, cores=role.cpus)
    journal.enter("join")
    teams = form_teams(role, listener)
    journal.write(met_at=time.monotonic())
    Worker(role, teams, journal).run()
    teams.world.meet()
    distributed.destroy_process_group()


class Worker:
    """The models of one rank: it sets up and measures one after another, and keeps their records."""

    def __init__(self, role: Role, teams: Teams, journal: Journal) -> None:
        self.role = role
        self.teams = teams
        self.journal = journal
        self.workload = Workload(role.spec, role.assignment.corpus, seed=role.assignment.seed, device=role.device)
        self.context = role.context(teams.lane.group)

    def run(self) -> None:
        """Measures this rank's models, then what is left to know once nothing is timed any more."""
        self._measure_reference()
        probes = WindowProbes(self.role.cpus, self.role.devices, self.role.node_devices)
        average = Average() if self.role.layout.averaged else None
        try:
            job = self._run_jobs(probes, average)
        finally:
            # Also in a rank that has run out of memory: its peaks tell how far it came.
            self.journal.write(**probes.read())
        if job is not None:
            if self.role.is_timed:
                self.journal.write(routing=job.count_routing())
            if self.context.ranks > 1 and self.role.is_timed:
                self.journal.write(traffic=job.count_traffic())
            if self.role.assignment.account:
                self.journal.write(account=job.account(self.teams.lane))
            if self.role.assignment.account_memory:
                self.journal.write(memory_account=job.account_for_memory())
            job.close()
        if average is not None:
            self._validate_average(average)
        self.journal.enter("done")

    def _measure_reference(self) -> None:
        """Measures matrix products and follows twins, where the assignment asks for them; says what rounding may do.

        Comes first, before a model takes the memory.
        """
        assignment = self.role.assignment
        if assignment.matmul and self.role.rank == 0:
            self.journal.write(matmul_flops=measure_matmul_flops(self.role.device, assignment.matmul))
        if assignment.purpose == "reference":
            spec = self.role.spec
            self.journal.write(rounding_jump=spec.model.rounding_jump(spec.global_batch * spec.seq_len))
        twins = [
            follow_twin(twin, self.workload, self._set_up_first, assignment.steps, assignment.quiet_steps)
            for twin in assignment.twins
        ]
        self.journal.write(twins=tuple(twins))

    def _run_jobs(self, probes: WindowProbes, average: Average | None) -> Job | None:
        """Measures model after model, and closes all but the last, which it returns; None where there is no model."""
        queue = Queue(self.role.spec, self.role.layout, self.role.lane, self.teams.store)
        records: list[JobRecord] = []
        job: Job | None = None
        # All lanes start their first model together; later ones start when their lane is free.
        team = self.teams.world
        for number in queue:
            if job is not None:
                job.close()
                # A wrapped model may hold itself in a cycle, and the next one is not to be measured on top of it.
                job = None
                gc.collect()
                team = self.teams.lane
            job = Job(number, self.role, self.workload, self.context, self.journal)
            records += job.time(queue, team, probes) if self.role.is_timed else job.follow()
            if average is not None:
                average.add(job.strategy.model)
            self.journal.write(jobs=tuple(records))
        return job

    def _set_up_first(self, workload: Workload) -> Strategy[Options]:
        """The strategy with the first model of a workload, which may vary this rank's."""
        strategy = self.role.make_strategy()
        strategy.setup(workload, 0, self.context)
        return strategy

    def _validate_average(self, average: Average) -> None:
        """Every lane contributes to the average; the first one validates it, on the text of the first model."""
        strategy = self._set_up_first(self.workload)
        average.load_into(strategy.model)
        losses = compute_mean_losses(self.role, strategy, make_batches(self.workload, 0, self.role.layout.stacked))
        strategy.close()
        if losses and self.role.lane == 0:
            self.journal.write(averaged_validation_loss=losses[0])


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
