"""What a campaign reports while it runs: sentences as plain text, and events. How they look is up to a view."""

import contextlib
import statistics
from collections.abc import Iterator, Sequence

from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial

RECENT_TRIALS = 20
"""The number of trials that the time left is estimated from."""


class Progress:
    """Receives a campaign's events and counts its trials. It shows nothing: a view overrides the methods `show_…`."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self.wall_s: list[float] = []

    @contextlib.contextmanager
    def campaign(self, trials: int, *, already: int, notes: Sequence[str] = ()) -> Iterator[None]:
        """Lasts as long as a campaign of `trials` launches; `already` trials were measured before it.

        `notes` are sentences on what a resumed run cannot use.
        """
        self.total, self.finished, self.wall_s = trials, 0, []
        for note in notes:
            self.show_sentence(note)
        self.show_plan(already)
        yield

    def add_trial(self) -> None:
        """The campaign needs one more launch than it was planned with."""
        self.total += 1

    def start_trial(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """A trial of round `number` is about to be launched."""
        self.show_start(cell, purpose, number)

    def end_trial(self, cell: CellRecord, trial: Trial) -> None:
        """A trial has ended and is stored."""
        self.finished += 1
        self.wall_s.append(trial.wall_s)
        self.show_trial(cell, trial)

    def time_left(self) -> str:
        """How long the remaining trials take if they are as long as recent ones."""
        if not self.wall_s:
            return "time left unknown"
        seconds = statistics.fmean(self.wall_s[-RECENT_TRIALS:]) * (self.total - self.finished)
        minutes, seconds = divmod(round(seconds), 60)
        return f"about {minutes} min {seconds:02d} s left" if minutes else f"about {seconds} s left"

    def show_sentence(self, text: str) -> None:
        """Shows a sentence, before a campaign or at its start. It may hold control characters."""

    def show_plan(self, already: int) -> None:
        """Shows how many trials are to be launched, and how many were measured already."""

    def show_start(self, cell: CellRecord, purpose: Purpose, number: int) -> None:
        """Shows what is launched now."""

    def show_trial(self, cell: CellRecord, trial: Trial) -> None:
        """Shows the trial that has just ended."""
