"""The verdict on the cells of a run that may be compared: one definition for terminal, page and programs."""

from collections.abc import Sequence
from dataclasses import dataclass

from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run
from parbench.text import plain
from parbench.verdict.candidates import panels_of
from parbench.verdict.lines import Line
from parbench.verdict.sentences import lines_of
from parbench.verdict.standing import Standing, stand


@dataclass(frozen=True)
class Verdict:
    """How cells stand to each other, and that in at most five sentences.

    `title` says which cells: `lstm, strong scaling`.
    """

    title: str
    standing: Standing
    lines: Sequence[Line]

    @property
    def recommended(self) -> JudgedCell | None:
        """The cell to use; None where the data name none.

        It is never emulated, oversubscribed, inexact or of undecided parity.
        """
        return self.standing.recommended


def verdicts_on(run: Run) -> list[Verdict]:
    """The verdict on each workload, phase and scaling of a run."""
    return [
        verdict_on(cells, emulated_hosts=run.record.emulated_nodes and any(cell.record.nodes > 1 for cell in cells))
        for cells in panels_of(judge_cells(run))
    ]


def verdict_on(cells: Sequence[JudgedCell], *, emulated_hosts: bool = False) -> Verdict:
    """The verdict on the cells of one workload, phase and scaling; `emulated_hosts` if several hosts are one machine.

    Hosts do not keep a cell from winning: the others run on the same ones.
    """
    standing = stand(cells)
    return Verdict(_title(cells[0]), standing, tuple(lines_of(standing, emulated_hosts=emulated_hosts)))


def _title(cell: JudgedCell) -> str:
    """Workload, phase and scaling. Training goes without saying."""
    workload, phase = plain(cell.record.workload), cell.record.phase
    note = "" if phase == "train" or phase in workload else f" ({plain(phase)})"
    return f"{workload}{note}, {cell.record.scaling} scaling"
