"""The nodes' parts in one trial, as node 0 sees them: its own agent, and the reports of the other nodes."""

import time
from multiprocessing import connection
from pathlib import Path

from parbench.launch.base import Outcome
from parbench.launch.rank_process import PEERS_GRACE_S, TERMINATION_GRACE_S
from parbench.launch.torchrun.agent import Agent, ranks_of
from parbench.launch.torchrun.leader import Leader
from parbench.launch.torchrun.messages import End, Order, TrialReport
from parbench.launch.trial_folder import write_new
from parbench.system.files import writing

REPORTS_S = TERMINATION_GRACE_S + 3.0
"""How long node 0 waits for the reports of nodes that it has told to end."""


class Parts:
    """Waits for the reports of all nodes of a trial, and ends the parts that still run."""

    def __init__(self, agent: Agent, order: Order, leader: Leader | None) -> None:
        self._agent = agent
        self._order = order
        self._leader = leader
        self._reports: dict[int, TrialReport] = {}
        self._losses: list[str] = []

    def wait(self, deadline: float) -> bool:
        """Waits for all reports, or for `PEERS_GRACE_S` once one has a failure. False if `deadline` came first.

        `deadline` is a time of the monotonic clock.
        """
        until = deadline
        while pending := self._pending():
            ready = connection.wait(list(pending), timeout=max(0.0, until - time.monotonic()))
            if not ready:
                return until < deadline
            for descriptor, node in pending.items():
                if descriptor in ready and not self._receive(node):
                    until = min(until, time.monotonic() + PEERS_GRACE_S)
        return True

    def end(self) -> None:
        """Ends all parts that still run, and collects their reports."""
        for node in list(self._pending().values()):
            if node and self._leader:
                self._leader.send(node, End())
        if 0 not in self._reports:
            self._receive(0)
        until = time.monotonic() + REPORTS_S
        while pending := self._pending():
            left = until - time.monotonic()
            ready = connection.wait(list(pending), timeout=max(0.0, left))
            for descriptor, node in pending.items():
                if descriptor in ready:
                    self._receive(node)
            if left <= 0:
                break

    def outcome(self, folder: Path, wall_s: float, *, timed_out: bool) -> Outcome:
        """The outcome of the trial; writes the records and logs of the other nodes into `folder`."""
        for node, report in self._reports.items():
            if node:
                write_report(report, folder, ranks_of(node, self._order.processes))
        ranks = range(self._order.assignment.nodes * self._order.processes)
        codes = {rank: code for report in self._reports.values() for rank, code in report.exit_codes.items()}
        return Outcome(
            exit_codes=tuple(codes.get(rank) for rank in ranks),
            wall_s=wall_s,
            timed_out=timed_out,
            reason="; ".join(self._losses) or self._agent_failure(),
        )

    def _pending(self) -> dict[int, int]:
        """The nodes that have not reported yet, by the file descriptor that their report makes readable.

        A lost node cannot report any more: it gets an empty report, and the reason of its loss is kept.
        """
        pending = {} if 0 in self._reports else {self._agent.fileno(): 0}
        for node in range(1, self._order.assignment.nodes):
            if node in self._reports or self._leader is None:
                continue
            if node in self._leader.links:
                pending[self._leader.links[node].fileno()] = node
            else:
                self._reports[node] = TrialReport(run_id=self._order.run_id, exit_codes={})
                self._losses.append(self._leader.explain_loss(node))
        return pending

    def _receive(self, node: int) -> bool:
        """Takes a report that has arrived. False if it has a failure, or the node is lost."""
        if node == 0:
            report: TrialReport | None = self._agent.report()
        else:
            report = self._leader.receive_report(node, self._order.run_id) if self._leader else None
        if report is None:
            return self._leader is None or node in self._leader.links
        self._reports[node] = report
        return report.ok

    def _agent_failure(self) -> str | None:
        """Why an agent failed, unless a rank has an error: an agent also fails because of another node's ranks."""
        reports = self._reports.values()
        if any(record.failure for report in reports for record in report.ranks.values()):
            return None
        if any(code for report in reports for code in report.exit_codes.values()):
            return None
        return next((report.reason for report in reports if report.reason), None)


def write_report(report: TrialReport, folder: Path, ranks: range) -> None:
    """Writes the records and logs that another node sent of its own ranks into the trial's folder.

    Records and logs of other ranks than `ranks` are ignored. Raises `UnwrittenError`.
    """
    files = {f"rank{rank}.json": report.ranks[rank].model_dump_json() for rank in ranks if rank in report.ranks}
    files |= {f"rank{rank}.log": report.logs[rank] for rank in ranks if report.logs.get(rank)}
    with writing(folder):
        for name, text in files.items():
            write_new(folder / name, text.encode())
