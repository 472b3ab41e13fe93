"""A check on the terminal: a table, or a paragraph for each finding where a table is too wide."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parbench.check.rows import UNKNOWN, columns_and_rows, sentences
from parbench.check.verdicts import Report
from parbench.text import plain

STYLES = {"regressed": "bold red", "failed": "red", "missing": "red", "improved": "green", "inconclusive": "yellow"}

ANY_WIDTH = 10_000


def print_report(report: Report, console: Console, *, strict: bool = False) -> None:
    """The report for people: what got worse first, then why what could not be judged could not."""
    view = _table(report)
    if console.measure(view, options=console.options.update(max_width=ANY_WIDTH)).maximum > console.width:
        _print_one_by_one(report, console)
    else:
        console.print(view)
    for sentence in sentences(report, strict=strict):
        console.print(Text(sentence), soft_wrap=True)


def _table(report: Report) -> Table:
    view = Table(title=Text(plain(report.title)), title_justify="left", header_style="bold")
    columns, rows = columns_and_rows(report)
    for index, title in enumerate(columns):
        view.add_column(title, justify="left" if index < 3 else "right", no_wrap=True)
    for finding, (verdict, *rest) in rows:
        view.add_row(Text(verdict, style=STYLES.get(finding.verdict, "")), *map(Text, map(plain, rest)))
    return view


def _print_one_by_one(report: Report, console: Console) -> None:
    """What is too wide for a table: a paragraph a finding, in which nothing is cut."""
    columns, rows = columns_and_rows(report)
    console.print(Text(plain(report.title), style="bold"))
    for finding, (verdict, cell, metric, *figures) in rows:
        console.print(Text.assemble((verdict, STYLES.get(finding.verdict, "")), plain(f" {cell}, {metric}")))
        texts = [f"{title} {value}" for title, value in zip(columns[3:], figures, strict=True) if value != UNKNOWN]
        if texts:
            console.print(Padding(Text(", ".join(texts)), (0, 0, 0, 4)))
