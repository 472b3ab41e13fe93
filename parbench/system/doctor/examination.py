"""Runs all checks and shows their results. Needs no torch."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.system.doctor.check import Check, Level
from parbench.system.doctor.cpus import (
    check_cores,
    check_frequency,
    check_heat,
    check_load,
    check_numa,
    check_other_work,
    check_quota,
    check_steadiness,
)
from parbench.system.doctor.gpus import check_gpus
from parbench.system.doctor.process import (
    check_memory,
    check_open_files,
    check_plug_ins,
    check_space,
    check_torch,
    check_variables,
)

CHECKERS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_torch, check_cores, check_quota, check_other_work, check_load, check_frequency, check_heat, check_memory,
    check_numa, check_variables, check_space, check_open_files, check_gpus, check_steadiness,
)  # fmt: skip
STYLES: Mapping[Level, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def examine(broken: Mapping[str, str], *more: Callable[[], Iterator[Check]]) -> list[Check]:
    """The results of all checks of this machine, and of `more` of them, in a fixed order; takes some seconds.

    `broken` are the plug-ins that could not be imported, each with the reason.
    """
    checks = [check for checker in (*CHECKERS, *more) for check in checker()]
    return checks + list(check_plug_ins(broken))


def render(checks: Iterable[Check], console: Console) -> None:
    """Prints the results as a table."""
    table = Table("", "topic", "found", "advice")
    for check in checks:
        level = Text(check.level, STYLES[check.level])
        table.add_row(level, *map(_plain, (check.topic, check.state, check.advice or "")))
    console.print(table)


def _plain(text: str) -> Text:
    """As `Text`, nothing is markup; what cannot be printed, such as terminal codes, is left out."""
    return Text("".join(filter(str.isprintable, " ".join(text.split()))))
