"""Several runs compared: what their environments differ in, and the speed of each cell in each run."""

from collections.abc import Sequence

from parbench.figures.definitions import FIGURES
from parbench.report.panels import CellView, RunView
from parbench.report.provenance import context, environment
from parbench.text import plain


def compare_environments(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    """The fields in which the environments differ, each with its value in every run."""
    environments = [environment(view.run) | {"parbench": context(view.run).get("parbench", "–")} for view in runs]
    names = dict.fromkeys(name for fields in environments for name in fields)
    values = {name: [fields.get(name, "–") for fields in environments] for name in names}
    return [(name, each) for name, each in values.items() if len(set(each)) > 1]


def compare_speeds(runs: Sequence[RunView]) -> list[list[str]]:
    """A row for each cell that two runs or more have: its speed in each, and its ratio to the first run's in each."""
    cells_by_run = [{_identity(cell): cell for cell in view.cells} for view in runs]
    identities = dict.fromkeys(identity for cells in cells_by_run for identity in cells)
    shared = [identity for identity in identities if sum(identity in cells for cells in cells_by_run) > 1]
    first, *others = cells_by_run
    return [
        [
            *map(plain, identity),
            *(_speed(cells.get(identity)) for cells in cells_by_run),
            *(_speed_ratio(first.get(identity), cells.get(identity)) for cells in others),
        ]
        for identity in shared
    ]


def _identity(cell: CellView) -> tuple[str, ...]:
    """What makes cells of two runs the same row of the comparison."""
    record = cell.record
    return record.workload, record.scaling, record.label, str(record.devices)


def _speed(cell: CellView | None) -> str:
    return "–" if cell is None else FIGURES["tokens_per_s"].with_interval(cell.row)


def _speed_ratio(before: CellView | None, after: CellView | None) -> str:
    """A cell's speed over that of the first run, where both did the same work and are comparable."""
    if before is None or after is None:
        return "–"
    if before.record.key != after.record.key:
        return "other work"
    if not (before.comparable and after.comparable):
        return "not comparable"
    old, new = before.value("tokens_per_s"), after.value("tokens_per_s")
    old_interval, new_interval = before.interval("tokens_per_s"), after.interval("tokens_per_s")
    if old is None or new is None:
        return "–"
    if old_interval is None or new_interval is None:
        return f"{new / old:.2f}× (one round: unknown)"
    is_tie = old_interval[0] <= new_interval[1] and new_interval[0] <= old_interval[1]
    outcome = "tie" if is_tie else "faster" if new > old else "slower"
    return f"{new / old:.2f}× ({outcome})"
