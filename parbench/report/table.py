"""The page's table: every cell a row, whatever became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parbench.figures import parity
from parbench.figures.definitions import FIGURES
from parbench.report.panels import CellView, RunView, shared_figures
from parbench.text import plain

Text = Callable[[CellView], str]

PARITY = tuple(figure.name for figure in parity.FIGURES)
"""What the parity gate saw: said beside its verdict, not in a column of its own."""


@dataclass(frozen=True)
class Column:
    """A column: what it is called, what a cell says in it, and the number that it is sorted by, if it is one."""

    key: str
    title: str
    meaning: str
    text: Text
    number: Callable[[CellView], float | None] | None = None


def parity_detail(cell: CellView) -> str:
    """What the gate saw, where it saw any difference."""
    seen = ((FIGURES[name], cell.value(name)) for name in PARITY)
    return ", ".join(f"{figure.title} {figure.text(value)}" for figure, value in seen if value)


@dataclass(frozen=True)
class Field:
    """A row's entry in a column; `share` is its part of the largest in the same panel."""

    column: Column
    text: str
    sort: str
    share: float | None = None


@dataclass(frozen=True)
class Row:
    """A cell as a row of the table."""

    cell: CellView
    run: str
    fields: Sequence[Field]


def columns(runs: Sequence[RunView]) -> list[Column]:
    """What the runs need: columns that say the same of every cell are left out, figures nobody has as well."""
    cells = [cell for view in runs for cell in view.cells]
    several = {
        "workload": len({cell.record.workload for cell in cells}) > 1,
        "scaling": len({cell.record.scaling for cell in cells}) > 1,
        "phase": len({cell.record.phase for cell in cells}) > 1,
        "nodes": any(cell.record.nodes > 1 for cell in cells),
        "models": any(cell.record.models > 1 for cell in cells),
    }
    # What a cell is and whether it counts comes first: figures may be beyond the edge of a narrow window.
    found = [
        Column("workload", "workload", "", lambda cell: plain(cell.record.workload)),
        Column("phase", "phase", "", lambda cell: cell.record.phase),
        Column("scaling", "scaling", "", lambda cell: cell.record.scaling),
        Column("strategy", "strategy", "", lambda cell: cell.label),
        _count("devices"),
        _count("nodes"),
        Column("status", "status", "", lambda cell: plain(cell.row["status"]).replace("_", " ")),
        Column("parity", "parity", "", _parity),
        _count("models"),
    ]
    return [
        *(column for column in found if several.get(column.key, True)),
        *(_figure(name) for name in shared_figures(cells) if name not in PARITY),
    ]


def table_rows(runs: Sequence[RunView], shown: Sequence[Column]) -> list[Row]:
    """A row for every cell of every run."""
    largest = {
        cell.anchor: max((other.value("tokens_per_s") or 0 for other in panel.cells), default=0)
        for view in runs
        for panel in view.panels
        for cell in panel.cells
    }
    return [
        Row(cell, view.name, [_field(column, cell, largest[cell.anchor]) for column in shown])
        for view in runs
        for cell in view.cells
    ]


def filters(runs: Sequence[RunView]) -> dict[str, list[str]]:
    """What the table can be narrowed to: the values of each property that has several."""
    cells = [cell for view in runs for cell in view.cells]
    found = {
        "run": [view.name for view in runs],
        "workload": [plain(cell.record.workload) for cell in cells],
        "strategy": [plain(cell.record.strategy) for cell in cells],
        "devices": [str(count) for count in sorted({cell.record.devices for cell in cells})],
        "status": [str(cell.row["status"]) for cell in cells],
    }
    return {key: unique for key, values in found.items() if len(unique := list(dict.fromkeys(values))) > 1}


def _parity(cell: CellView) -> str:
    return plain(cell.row["parity"]) if isinstance(cell.row["parity"], str) else "–"


def _count(name: str) -> Column:
    return Column(name, name, "", lambda cell: str(getattr(cell.record, name)), lambda cell: getattr(cell.record, name))


def _figure(name: str) -> Column:
    figure = FIGURES[name]
    return Column(
        name, figure.title, figure.meaning, lambda cell: figure.with_interval(cell.row), lambda cell: cell.value(name)
    )


def _field(column: Column, cell: CellView, largest: float) -> Field:
    text = column.text(cell)
    if column.number is None:
        return Field(column, text, text)
    value = column.number(cell)
    share = value / largest if column.key == "tokens_per_s" and value is not None and largest else None
    return Field(column, text, "" if value is None else f"{value:.12g}", share)
