"""A table as people read it: a part for each workload, with a title, and below it what its columns mean."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.export.cells import Column, fold_name
from parbench.text import plain

if TYPE_CHECKING:
    import pandas as pd

NAME_WIDTH = 29
"""Characters of a line of the first column, in which strategies are named."""


def print_grouped(
    table: "pd.DataFrame",
    console: Console,
    *,
    title: str,
    columns_of: Callable[["pd.DataFrame"], dict[str, Column]],
    explain: Callable[["pd.DataFrame"], Iterable[str]],
) -> None:
    """Prints the rows of each workload and scaling; the first column is its strategies' names, the others numbers."""
    for (workload, scaling), rows in table.groupby(["workload", "scaling"], sort=False):
        console.print(Text(f"{plain(workload)}: {scaling} scaling, {title}", style="bold"), soft_wrap=True)
        columns = columns_of(rows)
        frame = box.SIMPLE_HEAD if console.is_terminal else None
        view = Table(box=frame, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(columns):
            view.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number > 0)
        for row in rows.to_dict(orient="records"):
            name, *values = (plain(column(row)) for column in columns.values())
            view.add_row(Text(fold_name(name, NAME_WIDTH)), *map(Text, values))
        console.print(view)
        for line in explain(rows):
            console.print(Text(line, style="dim"), soft_wrap=True)
        console.print()
