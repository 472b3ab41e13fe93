"""One tree of errors. Each is a sentence that a user can act on; exit codes live in the command line."""

from collections.abc import Sequence
from dataclasses import dataclass


class ParbenchError(Exception):
    """Something a user can mend; its text says how."""


class UsageError(ParbenchError):
    """A command that cannot be carried out as it was given."""


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a scenario: where it stands and what to do about it."""

    source: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ScenarioError(UsageError):
    """A scenario with mistakes: all of them, in the order in which they stand in the file."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: (mistake.source, mistake.line or 0))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class PluginError(ParbenchError):
    """A strategy or workload that could not be imported, or whose name is taken."""


class Unsupported(ParbenchError):  # noqa: N818 - it is a verdict on a cell, not a failure
    """A strategy cannot lay this workload out over these devices, or a model cannot be built as it is written.

    `field` names the field of the workload, of its model or of the strategy's options that stands in the way, if one
    does.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.field = field


class ResultsError(UsageError):
    """Stored results that cannot be read, or a folder that cannot be written."""


class UnwrittenError(ResultsError):
    """Results that cannot be written, such as to a full disk; what is written already stays."""


class OutputError(ParbenchError):
    """What a command prints cannot be written."""


class BaselineError(ParbenchError):
    """There is no baseline to compare with, or none that can be trusted."""


class NothingMeasuredError(ParbenchError):
    """There is no measurement to keep or to judge."""


class LostNodeError(ParbenchError):
    """Node 0, which leads the campaign, is gone."""


class LaunchError(ParbenchError):
    """Processes could not be started at all."""


def first_words(error: BaseException) -> str:
    """An error's type and what it says first, in one line of bearable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["without a word"]
    words = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {words[:300]}"
