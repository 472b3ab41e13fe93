"""The parts that nodes have in one trial, as node 0 sees them: its own, and those that others report on."""

import time
from multiprocessing import connection
from pathlib import Path

from parbench.launch.base import Outcome
from parbench.launch.rank_process import TERMINATION_GRACE_S, VICTIMS_GRACE_S
from parbench.launch.torchrun.agent import Agent, ranks_of
from parbench.launch.torchrun.leader import Leader
from parbench.launch.torchrun.messages import End, Order, Report
from parbench.launch.trial_folder import write_new
from parbench.system.files import writing

LATE_REPORTS_S = TERMINATION_GRACE_S + 3.0


class Parts:
    """Waits for all nodes of a trial, and ends what is left."""

    def __init__(self, agent: Agent, order: Order, leader: Leader | None) -> None:
        self._agent = agent
        self._order = order
        self._leader = leader
        self._reports: dict[int, Report] = {}
        self._lost: list[str] = []

    def wait(self, deadline: float) -> bool:
        """Returns once all have ended; once one has failed the others get a moment. False: too late."""
        until = deadline
        while waiting := self._waiting():
            ready = connection.wait(list(waiting), timeout=max(0.0, until - time.monotonic()))
            if not ready:
                return until < deadline
            for at, node in waiting.items():
                if at in ready and not self._hear(node):
                    until = min(until, time.monotonic() + VICTIMS_GRACE_S)
        return True

    def end(self) -> None:
        """Has all that still run end, and hears what they have to say of it."""
        for node in list(self._waiting().values()):
            if node and self._leader:
                self._leader.send(node, End())
        if 0 not in self._reports:
            self._hear(0)
        late = time.monotonic() + LATE_REPORTS_S
        while waiting := self._waiting():
            left = late - time.monotonic()
            ready = connection.wait(list(waiting), timeout=max(0.0, left))
            for at, node in waiting.items():
                if at in ready:
                    self._hear(node)
            if left <= 0:
                break

    def outcome(self, folder: Path, wall_s: float, *, timed_out: bool) -> Outcome:
        """What became of the trial, with the records and logs of all nodes in `folder`."""
        for node, report in self._reports.items():
            if node:
                keep(report, folder, ranks_of(node, self._order.processes))
        every = range(self._order.assignment.nodes * self._order.processes)
        codes = {rank: code for report in self._reports.values() for rank, code in report.exit_codes.items()}
        return Outcome(
            exit_codes=tuple(codes.get(rank) for rank in every),
            wall_s=wall_s,
            timed_out=timed_out,
            reason="; ".join(self._lost) or self._agents_reason(),
        )

    def _waiting(self) -> dict[int, int]:
        """Whom there is still to hear of, by what to wait at; a node that was lost has nothing more to say."""
        waiting = {} if 0 in self._reports else {self._agent.fileno(): 0}
        for node in range(1, self._order.assignment.nodes):
            if node in self._reports or self._leader is None:
                continue
            if node in self._leader.links:
                waiting[self._leader.links[node].fileno()] = node
            else:
                self._reports[node] = Report(run_id=self._order.run_id, exit_codes={})
                self._lost.append(self._leader.told(node))
        return waiting

    def _hear(self, node: int) -> bool:
        """Whether all is well so far at a node that has something to say."""
        if node == 0:
            report: Report | None = self._agent.report()
        else:
            report = self._leader.report(node, self._order.run_id) if self._leader else None
        if report is None:
            return self._leader is None or node in self._leader.links
        self._reports[node] = report
        return report.fine

    def _agents_reason(self) -> str | None:
        """What an agent failed of, where no rank tells of anything: agents also fail of each other's end."""
        reports = self._reports.values()
        if any(record.failure for report in reports for record in report.ranks.values()):
            return None
        if any(code for report in reports for code in report.exit_codes.values()):
            return None
        return next((report.reason for report in reports if report.reason), None)


def keep(report: Report, folder: Path, ranks: range) -> None:
    """Puts what another node sent of its own ranks where the launcher's caller looks for it."""
    left = {f"rank{rank}.json": report.ranks[rank].model_dump_json() for rank in ranks if rank in report.ranks}
    left |= {f"rank{rank}.log": report.logs[rank] for rank in ranks if report.logs.get(rank)}
    with writing(folder):
        for name, text in left.items():
            write_new(folder / name, text.encode())
