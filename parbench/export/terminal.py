"""A run's table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.export.cells import columns_of, name_of
from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.speed import SCALING_EFFICIENCY, SPEEDUP, STEP_TIME_S, TOKENS_PER_S
from parbench.results.looks import Look, looks
from parbench.text import plain

if TYPE_CHECKING:
    import pandas as pd

_KEPT = ("strategy", "devices", TOKENS_PER_S.title, SPEEDUP.title, "parity", "status")
"""Columns that a terminal always shows."""

_SECONDARY = (STEP_TIME_S.title, SCALING_EFFICIENCY.title, "models", PEAK_MEMORY_BYTES.title)
"""Columns that are left out after all others, the first first."""

_LABEL, _GAP = 26, 2
"""Characters in which a strategy can still be read, over several lines, and those between two columns."""


def print_table(table: "pd.DataFrame", console: Console) -> None:
    """The table for people: a row a cell, and below it the reasons of those that were not measured well.

    In a terminal it is fitted to the width; elsewhere it is text without frames.
    """
    look = looks(zip(table["strategy"], table["label"], strict=True))
    for (workload, scaling), rows in table.groupby(["workload", "scaling"], sort=False):
        first = rows.iloc[0]
        batch = (
            f"{first['global_batch'] // first['devices']} per device" if scaling == "weak" else first["global_batch"]
        )
        title = f"{plain(workload)}: {scaling} scaling, global batch {batch} × {first['seq_len']} tokens"
        console.print(Text(title, style="bold"), soft_wrap=True)
        records = rows.to_dict(orient="records")
        columns = {name: [plain(column(row)) for row in records] for name, column in columns_of(rows).items()}
        visible = _fit(columns, console.width) if console.is_terminal else columns
        console.print(_draw(visible, [(row, look[row["label"]]) for row in records], framed=console.is_terminal))
        if absent := [name for name in columns if name not in visible]:
            note = f"No room for {', '.join(absent)}: widen the terminal, or parbench table --format csv."
            console.print(Text(note, style="dim"), soft_wrap=True)
        console.print()
    for row in table.to_dict(orient="records"):
        if isinstance(row["reason"], str):
            console.print(
                Text(f"{name_of(row)} on {row['devices']}: {row['status']}: {plain(row['reason'])}"), soft_wrap=True
            )


def _draw(
    columns: Mapping[str, Sequence[str]], rows: Sequence[tuple[Mapping[Any, Any], Look]], *, framed: bool
) -> Table:
    """Only the strategy may be broken: a number that is cut says something else."""
    # Without a frame there is no divider between two columns.
    gap = _GAP - 1 if framed else _GAP
    view = Table(
        box=box.SIMPLE_HEAD if framed else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap, 0, 0),
        header_style="bold",
    )
    strategy, *others = columns
    view.add_column(strategy, overflow="fold")
    for name in others:
        view.add_column(name, justify="right", no_wrap=True, min_width=_widest(name, columns[name]))
    for (row, mark), (name, *fields) in zip(rows, zip(*columns.values(), strict=True), strict=True):
        style = "" if row["status"] == "ok" and row["parity"] != "failed" else "dim"
        view.add_row(Text.assemble((mark.glyph, mark.hex), " ", name), *map(Text, fields), style=style)
    return view


def _fit(columns: Mapping[str, Sequence[str]], width: int) -> Mapping[str, Sequence[str]]:
    """What there is room for: intervals and options on a second line, and then without what matters least."""
    if _width(columns) <= width:
        return columns
    narrow = {name: [text.replace(" [", "\n[") for text in texts] for name, texts in columns.items()}
    narrow["strategy"] = [
        text if cell_len(text) < _LABEL else text.replace("(", "\n(", 1) for text in columns["strategy"]
    ]
    for name in _dispensable(columns):
        if _width(narrow) <= width:
            break
        del narrow[name]
    return narrow


def _dispensable(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """What a narrow terminal can do without, first what says the same of every cell."""
    others = [name for name in reversed([*columns]) if name not in (*_KEPT, *_SECONDARY)]
    order = [*others, *(name for name in _SECONDARY if name in columns)]
    return sorted(order, key=lambda name: len(set(columns[name])) > 1)


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    widest = {name: _widest(name, texts) for name, texts in columns.items()}
    widest["strategy"] = min(_LABEL, widest["strategy"] + len("● "))
    return sum(widest.values()) + _GAP * (len(columns) - 1)


def _widest(name: str, texts: Sequence[str]) -> int:
    return max(cell_len(line) for text in (name, *texts) for line in text.split("\n"))
