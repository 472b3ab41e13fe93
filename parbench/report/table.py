"""The page's table: a row for every cell, also for those that failed or were skipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parbench.figures import parity
from parbench.figures.definitions import FIGURES
from parbench.report.panels import CellView, RunView, shared_figures
from parbench.text import plain

PARITY_FIGURES = tuple(figure.name for figure in parity.FIGURES)
"""What the parity gate measured. It stands beside the cell's parity and has no columns of its own."""


@dataclass(frozen=True)
class Column:
    """A column: `text` is what a cell's field says, `number` what it is sorted by; None where it is sorted by text."""

    key: str
    title: str
    meaning: str
    text: Callable[[CellView], str]
    number: Callable[[CellView], float | None] | None = None


@dataclass(frozen=True)
class Field:
    """A row's field in a column: its text, the value that it is sorted by, and the length of the bar behind it.

    `share` is the bar's length, as a share of the largest value in the panel; None where there is no bar.
    """

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


def make_columns(runs: Sequence[RunView]) -> list[Column]:
    """The columns that these runs need: without those that are the same for all cells, and figures that none has."""
    cells = [cell for view in runs for cell in view.cells]
    varying = {
        "workload": len({cell.record.workload for cell in cells}) > 1,
        "scaling": len({cell.record.scaling for cell in cells}) > 1,
        "phase": len({cell.record.phase for cell in cells}) > 1,
        "nodes": any(cell.record.nodes > 1 for cell in cells),
        "models": any(cell.record.models > 1 for cell in cells),
    }
    # Identity, status and parity come first, because a narrow window may cut off the figures.
    columns = [
        Column("workload", "workload", "", lambda cell: plain(cell.record.workload)),
        Column("phase", "phase", "", lambda cell: cell.record.phase),
        Column("scaling", "scaling", "", lambda cell: cell.record.scaling),
        Column("strategy", "strategy", "", lambda cell: cell.label),
        _count_column("devices"),
        _count_column("nodes"),
        Column("status", "status", "", lambda cell: plain(cell.row["status"]).replace("_", " ")),
        Column("parity", "parity", "", _parity),
        _count_column("models"),
    ]
    return [
        *(column for column in columns if varying.get(column.key, True)),
        *(_figure_column(name) for name in shared_figures(cells) if name not in PARITY_FIGURES),
    ]


def make_rows(runs: Sequence[RunView], columns: Sequence[Column]) -> list[Row]:
    """A row for every cell of every run."""
    top_speeds = {
        cell.anchor: max((other.value("tokens_per_s") or 0 for other in panel.cells), default=0)
        for view in runs
        for panel in view.panels
        for cell in panel.cells
    }
    return [
        Row(cell, view.name, [_make_field(column, cell, top_speeds[cell.anchor]) for column in columns])
        for view in runs
        for cell in view.cells
    ]


def filter_choices(runs: Sequence[RunView]) -> dict[str, list[str]]:
    """The values by which the table can be filtered: of each property that has more than one."""
    cells = [cell for view in runs for cell in view.cells]
    values = {
        "run": [view.name for view in runs],
        "workload": [plain(cell.record.workload) for cell in cells],
        "strategy": [plain(cell.record.strategy) for cell in cells],
        "devices": [str(count) for count in sorted({cell.record.devices for cell in cells})],
        "status": [str(cell.row["status"]) for cell in cells],
    }
    return {key: choices for key, each in values.items() if len(choices := list(dict.fromkeys(each))) > 1}


def describe_parity(cell: CellView) -> str:
    """What the parity gate measured of a cell, without zeros and unknown values."""
    values = ((FIGURES[name], cell.value(name)) for name in PARITY_FIGURES)
    return ", ".join(f"{figure.title} {figure.text(value)}" for figure, value in values if value)


def _parity(cell: CellView) -> str:
    return plain(cell.row["parity"]) if isinstance(cell.row["parity"], str) else "–"


def _count_column(name: str) -> Column:
    return Column(name, name, "", lambda cell: str(getattr(cell.record, name)), lambda cell: getattr(cell.record, name))


def _figure_column(name: str) -> Column:
    figure = FIGURES[name]
    return Column(
        name, figure.title, figure.meaning, lambda cell: figure.with_interval(cell.row), lambda cell: cell.value(name)
    )


def _make_field(column: Column, cell: CellView, top_speed: float) -> Field:
    text = column.text(cell)
    if column.number is None:
        return Field(column, text, text)
    value = column.number(cell)
    share = value / top_speed if column.key == "tokens_per_s" and value is not None and top_speed else None
    return Field(column, text, "" if value is None else f"{value:.12g}", share)
