"""Views of a campaign: a live table in a terminal, plain lines elsewhere. Nothing is drawn during a trial."""

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

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def show_sentence(self, text: str) -> None:
        """Prints the sentence in one line."""
        self.console.print(Text(plain(text)), soft_wrap=True)

    def show_plan(self, already: int) -> None:
        """Prints how many trials are to be launched."""
        note = f"; {already} measured before are kept" if already else ""
        self.show_sentence(f"{self.total} trials to launch{note}")

    def show_trial(self, cell: CellRecord, trial: Trial) -> None:
        """Prints what was measured, and how many trials remain."""
        self.show_sentence(f"[{self.finished}/{self.total}] {trial_line(cell, trial)}, {self.time_left()}")


class LiveProgress(Progress):
    """A table of cells that fills up, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.speeds: dict[str, list[float]] = {}
        self.current = "starting: torch is imported once"

    @contextlib.contextmanager
    def campaign(self, trials: int, *, already: int, notes: Sequence[str] = ()) -> Iterator[None]:
        """Draws only at the start and the end of trials: a display that refreshes itself would take a rank's core."""
        started = time.monotonic()
        with (
            Live(console=self.console, auto_refresh=False, transient=True) as self.live,
            super().campaign(trials, already=already, notes=notes),
        ):
            yield
        self.console.print(Text(f"{self.finished} trials in {time.monotonic() - started:.0f} s"))

    def show_sentence(self, text: str) -> None:
        """Prints the sentence above the table."""
        self.console.print(Text(plain(text)), soft_wrap=True)

    def show_plan(self, already: int) -> None:
        """Draws the bar, in which trials that were measured before count as finished."""
        self.total, self.finished = self.total + already, already
        self._draw()

    def show_start(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """Draws what runs now beside the bar."""
        title = {"reference": "reference losses", "proof": "proof"}.get(purpose, f"round {number + 1}")
        self.current = f"{title}: {plain(cell.id)}"
        self._draw()

    def show_trial(self, cell: CellRecord, trial: Trial) -> None:
        """Adds the trial to its cell's line, and prints one that failed or was disturbed above the table."""
        is_ok = trial.status == "ok"
        if trial.warnings or not is_ok:
            line = Text(trial_line(cell, trial), style="yellow" if is_ok else "red")
            self.live.console.print(line, soft_wrap=True)
        if is_ok and trial.purpose == "measure":
            self.speeds.setdefault(cell.id, []).append(tokens_per_s(trial, cell))
        self._draw()

    def _draw(self) -> None:
        self.live.update(self._table_and_bar(), refresh=True)

    def _table_and_bar(self) -> RenderableType:
        table = Table("cell", box=None, pad_edge=False)
        table.add_column("launches", justify="right")
        table.add_column("tokens/s so far", justify="right")
        for cell, speeds in self.speeds.items():
            table.add_row(Text(plain(cell)), str(len(speeds)), f"{statistics.geometric_mean(speeds):,.0f}")
        bar = ProgressBar(total=max(1, self.total), completed=self.finished, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(f"{self.finished}/{self.total}  {self.time_left()}  {self.current}"))
        return Group(table, line)


def trial_line(cell: CellRecord, trial: Trial) -> str:
    """What came of a trial, in one line without control characters."""
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
    """The view for a console: live in a terminal, plain elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
