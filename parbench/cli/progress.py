"""What a campaign is doing: live in a terminal, plain lines elsewhere. Nothing is drawn while a trial is measured."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parbench.campaign.progress import Progress
from parbench.figures.speed import tokens_per_s
from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.text import plain


class PlainProgress(Progress):
    """A line for each trial, for logs and pipes."""

    def introduce(self, already: int) -> None:
        """Says how many trials are ahead."""
        kept = f"; {already} measured before are kept" if already else ""
        self._line(f"{self.total} trials to launch{kept}")

    def starts(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """Says nothing: the line comes when there is something to tell."""

    def show(self, cell: CellRecord, trial: Trial) -> None:
        """What was measured, and what is left."""
        self._line(f"[{self.finished}/{self.total}] {describe(cell, trial)}, {self.time_left()}")

    def _line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


class LiveProgress(Progress):
    """A table of cells that fills up, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.speeds: dict[str, list[float]] = {}
        self.current = "starting: torch is imported once"

    @contextlib.contextmanager
    def campaign(self, trials: int, already: int, said: Sequence[str] = ()) -> Iterator[None]:
        """Draws only at the start and the end of trials: a display that redraws itself would take a rank's core."""
        started = time.monotonic()
        with (
            Live(console=self.console, auto_refresh=False, transient=True) as self.live,
            super().campaign(trials, already, said),
        ):
            yield
        self.console.print(Text(f"{self.finished} trials in {time.monotonic() - started:.0f} s"))

    def introduce(self, already: int) -> None:
        """Shows how many trials are ahead; those measured before are done."""
        self.total, self.finished = self.total + already, already
        self._draw()

    def starts(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """Shows what runs now."""
        what = {"reference": "reference losses", "proof": "proof"}.get(purpose, f"round {number + 1}")
        self.current = f"{what}: {plain(cell.id)}"
        self._draw()

    def show(self, cell: CellRecord, trial: Trial) -> None:
        """Adds the trial to its cell's line; a trial that failed is said at once, above the table."""
        ok = trial.status == "ok"
        if trial.warnings or not ok:
            self.live.console.print(Text(describe(cell, trial), style="yellow" if ok else "red"), soft_wrap=True)
        if ok and trial.purpose == "measure":
            self.speeds.setdefault(cell.id, []).append(tokens_per_s(trial, cell))
        self._draw()

    def _draw(self) -> None:
        self.live.update(self._view(), refresh=True)

    def _view(self) -> RenderableType:
        table = Table("cell", box=None, pad_edge=False)
        table.add_column("rounds", justify="right")
        table.add_column("tokens/s so far", justify="right")
        for cell, speeds in self.speeds.items():
            table.add_row(Text(plain(cell)), str(len(speeds)), f"{statistics.geometric_mean(speeds):,.0f}")
        bar = ProgressBar(total=max(1, self.total), completed=self.finished, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(f"{self.finished}/{self.total}  {self.time_left()}  {self.current}"))
        return Group(table, line)


def describe(cell: CellRecord, trial: Trial) -> str:
    """A trial in a line."""
    name = plain(cell.id)
    if trial.status != "ok":
        return f"{name}: {trial.status}: {plain(trial.reason)}"
    if trial.purpose == "reference":
        return f"reference losses of {plain(cell.workload)} (global batch {cell.global_batch})"
    if trial.purpose == "proof":
        return f"proof of {name}"
    disturbed = f" (disturbed: {plain('; '.join(trial.warnings))})" if trial.warnings else ""
    return f"round {trial.round + 1}, {name}: {tokens_per_s(trial, cell):,.0f} tokens/s{disturbed}"


def progress_on(console: Console) -> Progress:
    """Live where there is a terminal, plain elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
