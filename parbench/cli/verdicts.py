"""The end of a table: what weakens it, what it says in words, and where its page is."""

import shlex
import textwrap

from rich.console import Console
from rich.text import Text

from parbench.results.judged_cells import judge_cells
from parbench.results.store import Run
from parbench.text import plain
from parbench.verdict.verdict import verdicts_on
from parbench.verdict.warnings import Weakness, warnings_on

_MAX_NAMES = 3


def print_verdicts(run: Run, console: Console) -> None:
    """Prints the warnings on a run and its verdict on each workload, the lines as long as the console is wide."""
    cells = judge_cells(run)
    if any(cell.reason for cell in cells):
        console.print()
    for weakness in warnings_on(cells):
        _print_item(f"Warning: {_weakness_text(weakness, len(cells))}", console, style="yellow")
    for verdict in verdicts_on(run):
        console.print(Text(f"Verdict on {verdict.title}", style="bold"), soft_wrap=True)
        for line in verdict.lines:
            _print_item(f"- {line.text}", console)


def report_advice(run: Run) -> str:
    """Where the run's page is, or how to get it."""
    from parbench.report.place import PAGE, REPORTS, folder_name

    page = REPORTS / folder_name([run]) / PAGE
    command = shlex.join(["parbench", "report", str(run.folder)])
    return f"Its page with charts: {command}, which writes {page}"


def _print_item(text: str, console: Console, style: str = "") -> None:
    """Prints text in lines no wider than the console; all but the first are indented."""
    lines = textwrap.fill(text, console.width, subsequent_indent="  ", break_on_hyphens=False)
    console.print(Text(lines, style=style), soft_wrap=True)


def _weakness_text(weakness: Weakness, total: int) -> str:
    if not weakness.cells:
        return f"{weakness.text}. {weakness.hint}"
    names = [f"{plain(cell.record.label)} on {cell.record.devices}" for cell in weakness.cells]
    where = "; ".join(names) if len(names) <= _MAX_NAMES else f"{len(names)} of {total} cells"
    return f"{weakness.text}: {where}. {weakness.hint}"
