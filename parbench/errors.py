"""parbench's errors. The text of each says what is wrong and what to do; the command line maps them to exit codes."""

from collections.abc import Sequence
from dataclasses import dataclass


class ParbenchError(Exception):
    """Base of the errors that a user can do something about; the text says what."""


class UsageError(ParbenchError):
    """A command cannot be carried out with these arguments."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a scenario: the file or option, the line and the dotted path where it stands, and what to do."""

    source: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ScenarioError(UsageError):
    """A scenario, or another file that people may edit, has mistakes. The error holds all of them, in their order."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: (mistake.source, mistake.line or 0))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class PluginError(ParbenchError):
    """A plug-in could not be imported, or its name belongs to another one."""


class Unsupported(ParbenchError):  # noqa: N818 - plug-ins raise it under this name
    """A strategy cannot lay this workload out over these devices, or a model cannot be built as it is written.

    `field` names the field of the workload, of its model, or of the strategy's options (`options.NAME`) that is the
    reason, if there is one.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.field = field


class ResultsError(UsageError):
    """Stored results cannot be read, or their folder cannot be written."""


class UnwrittenError(ResultsError):
    """Results cannot be written, for example to a full disk. Those that were written before stay."""


class OutputError(ParbenchError):
    """A command's output cannot be written to stdout."""


class BaselineError(ParbenchError):
    """There is no baseline to compare with, or it cannot be trusted."""


class NothingMeasuredError(ParbenchError):
    """There is no measurement to store, compare or draw."""


class LostNodeError(ParbenchError):
    """Node 0, which leads the campaign, no longer answers."""


class LaunchError(ParbenchError):
    """Processes could not be started."""


class MeterError(ParbenchError):
    """A meter has no value here, such as of energy or of a clock. The text is a clause that says why."""


def first_words(error: BaseException) -> str:
    """An error's type and the first line of its text (with the second if it ends in a colon), cut to 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    opening = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {opening[:300]}"
