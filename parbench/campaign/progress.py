"""What a campaign tells whoever watches it."""

import contextlib
import statistics
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.text import plain


class Progress:
    """Hears of every trial's start and end. This one shows nothing but the sentences on what was found."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def campaign(self, trials: int, already: int, said: Sequence[str] = ()) -> Iterator[None]:
        """Lasts as long as the campaign of `trials` launches; `already` trials were measured before.

        `said` are sentences on what was found in the folder.
        """
        self.total, self.finished, self.wall_s = trials, 0, list[float]()
        for sentence in said:
            self.console.print(Text(plain(sentence)), soft_wrap=True)
        self.introduce(already)
        yield

    def introduce(self, already: int) -> None:
        """Says what is ahead."""

    def starts(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """A trial of round `number` is about to start."""

    def ends(self, cell: CellRecord, trial: Trial) -> None:
        """A trial has ended and is kept."""
        self.finished += 1
        self.wall_s.append(trial.wall_s)
        self.show(cell, trial)

    def show(self, cell: CellRecord, trial: Trial) -> None:
        """Shows the trial that has just ended."""

    def time_left(self) -> str:
        """How long the rest takes if it goes on as so far."""
        if not self.wall_s:
            return "time left unknown"
        seconds = statistics.fmean(self.wall_s[-20:]) * (self.total - self.finished)
        minutes, seconds = divmod(round(seconds), 60)
        return f"about {minutes} min {seconds:02d} s left" if minutes else f"about {seconds} s left"
