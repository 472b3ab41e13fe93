"""Judged cells into pandas tables: a row a cell, whatever became of it, with every figure that tables show."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from parbench.figures.base import Figure
from parbench.figures.definitions import FIGURES
from parbench.figures.statistics import deviation_between_sessions
from parbench.figures.steadiness import are_steady
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run

CELL_COLUMNS = (
    "workload", "scaling", "strategy", "label", "device_kind", "devices", "nodes", "models", "global_batch", "seq_len",
    "precision", "phase", "status", "parity", "reason", "rounds",
)  # fmt: skip
"""What a row begins with: which cell it is, and what became of it."""

FIRST_FIGURES = (
    "tokens_per_s", "speedup", "scaling_efficiency", "peak_memory_bytes", "step_time_s", "validation_perplexity",
    "parity_deviation", "differing_sequences", "parity_power", "verified_steps",
)  # fmt: skip
"""Figures whose columns come first, because programs read them by position. The others follow as they are defined."""

NOTE_COLUMNS = (
    "layout", "emulated", "oversubscribed", "emulated_hosts", "steady", "launches", "sessions", "between_sessions",
)  # fmt: skip
"""What a row ends with: how the cell was laid out and measured.

`between_sessions` is the standard deviation between sessions of the logarithm of tokens/s; NaN of one session.
"""


def columns() -> tuple[str, ...]:
    """The columns of the table, in order."""
    return (*CELL_COLUMNS, *(column for figure in _figures() for column in figure.columns), *NOTE_COLUMNS)


def cells_table(run: Run) -> pd.DataFrame:
    """A row for every cell of the run, as `table_of` makes it."""
    return table_of(judge_cells(run), emulated_nodes=run.record.emulated_nodes)


def table_of(cells: Sequence[JudgedCell], *, emulated_nodes: bool = False) -> pd.DataFrame:
    """A row for every cell, with the columns of `columns()`; figures that are unknown are NaN.

    `emulated_nodes` says that the run's nodes are parts of one machine.
    """
    rows = [{**_row(cell), "emulated_hosts": emulated_nodes and cell.record.nodes > 1} for cell in cells]
    return pd.DataFrame(rows, columns=list(columns()))


def _figures() -> list[Figure]:
    first = [FIGURES[name] for name in FIRST_FIGURES]
    return [*first, *(figure for figure in FIGURES.values() if "table" in figure.shown_in and figure not in first)]


def _row(cell: JudgedCell) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for figure in _figures():
        typical, low, high = figure.summarise(cell.launches)
        values |= {figure.name: typical, f"{figure.name}_ci_low": low, f"{figure.name}_ci_high": high}
        if figure.tag_column:
            values[figure.tag_column] = figure.tags(cell.launches)
    return {
        **values,
        **cell.record.model_dump(include=set(columns()) - {"reason"}),
        "status": cell.status,
        "parity": cell.parity.word,
        "reason": cell.reason,
        "rounds": len(cell.rounds),
        "launches": len(cell.trials),
        "sessions": len({number.session for number in cell.rounds}),
        "between_sessions": deviation_between_sessions(cell.values_by_round(FIGURES["tokens_per_s"])),
        "parity_deviation": cell.parity.deviation,
        "differing_sequences": cell.parity.differing,
        "parity_power": cell.parity.power,
        "verified_steps": cell.parity.verified_steps,
        "steady": are_steady(cell.trials),
    }
