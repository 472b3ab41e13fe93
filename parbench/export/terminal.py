"""A run's table on the terminal, with as many columns as there is room for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.export.cells import columns_of, name_of
from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.speed import MEAN_STEP_S, SCALING_EFFICIENCY, SPEEDUP, TOKENS_PER_S
from parbench.results.looks import Look, looks
from parbench.text import plain

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, Sequence[str]]

_KEPT = ("strategy", "devices", TOKENS_PER_S.title, SPEEDUP.title)
"""Columns that are always shown."""

_WORDS = ("parity", "status")
"""Columns that are shown unless they say the same of every cell."""

IMPORTANT = (PEAK_MEMORY_BYTES.title, "models", SCALING_EFFICIENCY.title, MEAN_STEP_S.title)
"""Columns that are left out after all others, the last first. Of the others, figures that are defined last go first."""

_LABELS, _GAP = (32, 26), 2
"""Characters in which a strategy can be read on two lines, and over several; and those between two columns."""


def print_table(table: "pd.DataFrame", console: Console) -> None:
    """The table for people: a row a cell, and below it the reasons of those that were not measured well.

    It is fitted to the console's width. In a terminal it has a frame; elsewhere it is text alone.
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
        visible = _fit(columns, console.width)
        console.print(_draw(visible, [(row, look[row["label"]]) for row in records], framed=console.is_terminal))
        if absent := [_with_common_value(name, columns[name]) for name in columns if name not in visible]:
            note = f"No room for {', '.join(absent)}: parbench table --wide shows all."
            console.print(Text(note, style="dim"))
        console.print()
    for row in table.to_dict(orient="records"):
        if isinstance(row["reason"], str):
            console.print(
                Text(f"{name_of(row)} on {row['devices']}: {row['status']}: {plain(row['reason'])}"), soft_wrap=True
            )


def _draw(columns: Columns, rows: Sequence[tuple[Mapping[Any, Any], Look]], *, framed: bool) -> Table:
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


def _fit(columns: Columns, width: int) -> Columns:
    """What there is room for: all on one line each, else names on two lines, else intervals on a second line, too.

    Whatever the lines, columns that matter least are left out until the rest fits.
    """
    if _width(columns) <= width:
        return columns
    roomy, narrow = (_narrowed(columns, label) for label in _LABELS)
    narrow |= {name: [text.replace(" [", "\n[") for text in narrow[name]] for name in columns if name != "strategy"}
    kept = {name: roomy[name] for name in columns if name in (*_KEPT, *_telling(columns, (*_WORDS, *IMPORTANT[:1])))}
    visible = roomy if _width(kept, _LABELS[0]) <= width else narrow
    label = _LABELS[0] if visible is roomy else _LABELS[1]
    for name in _dispensable(columns):
        if _width(visible, label) <= width:
            break
        del visible[name]
    return visible


def _narrowed(columns: Columns, label: int) -> dict[str, Sequence[str]]:
    """The same columns, with the options of long names on a second line."""
    names = [text if cell_len(text) < label else text.replace("(", "\n(", 1) for text in columns["strategy"]]
    return {**columns, "strategy": names}


def _dispensable(columns: Columns) -> list[str]:
    """What a narrow table can do without: first what says the same of every cell, then what matters least."""
    others = [name for name in reversed([*columns]) if name not in (*_KEPT, *_WORDS, *IMPORTANT)]
    order = [*_WORDS, *others, *(name for name in reversed(IMPORTANT) if name in columns)]
    telling = set(_telling(columns, order))
    return [
        name for name in sorted(order, key=lambda name: name in telling) if name not in _WORDS or name not in telling
    ]


def _telling(columns: Columns, names: Sequence[str]) -> Iterator[str]:
    """Those of the columns that do not say the same of every cell."""
    return (name for name in names if name in columns and len(set(columns[name])) > 1)


def _with_common_value(name: str, texts: Sequence[str]) -> str:
    """A column's name, with what it says of every cell if that is one thing."""
    return f"{name} ({texts[0]} in all)" if len(set(texts)) == 1 else name


def _width(columns: Columns, label: int | None = None) -> int:
    """The table's width, where a strategy's lines are no longer than `label`."""
    widest = {name: _widest(name, texts) for name, texts in columns.items()}
    widest["strategy"] += len("● ")
    if label is not None:
        widest["strategy"] = min(label, widest["strategy"])
    return sum(widest.values()) + _GAP * (len(columns) - 1)


def _widest(name: str, texts: Sequence[str]) -> int:
    return max(cell_len(line) for text in (name, *texts) for line in text.split("\n"))
