"""What `plan` prints to stdout."""

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from parbench.cli.console import console
from parbench.plan.cells import Cell, Plan
from parbench.records.cell import CellRecord
from parbench.records.prediction import RehearsalRecord
from parbench.text import plain, with_unit

COLUMNS = ("workload", "scaling", "strategy", "devices", "layout", "global batch", "models", "notes")
PREDICTED = "tensors/rank"


def print_plan(plan: Plan, rehearsals: Mapping[str, RehearsalRecord] | None = None) -> None:
    """Prints the cells of a plan with their layout, and why some are skipped; with `rehearsals`, what memory they take.

    `rehearsals` are by the ids of the cells to measure.
    """
    launches, companions = plan.launches_a_round, [plain(each.record.id) for each in plan.companions]
    total = (sum(launches.values()) + len(companions)) * plan.scenario.measure.rounds
    what = f"{len(plan.runnable)} cells to measure" + f" and {len(companions)} companions" * bool(companions)
    captions = "\n".join(_captions(companions, is_predicted=rehearsals is not None))
    table = Table(
        title=Text(plain(f"{plan.scenario.name}: {what}, {total} launches")),
        title_justify="left",
        caption=Text(captions) if captions else None,
        caption_justify="left",
    )
    for column in COLUMNS:
        table.add_column(column)
    if rehearsals is not None:
        table.add_column(PREDICTED, justify="right")
    # Cells that are one measurement are rehearsed once.
    by_key = {cell.record.key: (rehearsals or {}).get(cell.record.id) for cell in plan.runnable}
    for cell in plan.cells:
        record, rehearsal = cell.record, by_key.get(cell.record.key)
        values = [*_values(record), ", ".join(_notes(cell, launches.get(record.key, 0), rehearsal))]
        if rehearsals is not None:
            peak = rehearsal.prediction.peak if rehearsal and rehearsal.prediction else None
            values.append(with_unit(peak, "bytes"))
        table.add_row(*(Text(plain(value)) for value in values), style="dim" if record.reason else "")
    console().print(table)


def _values(record: CellRecord) -> tuple[object, ...]:
    """What stands in all columns but the last."""
    node_note = f" ({record.nodes} nodes × {record.devices // record.nodes})" if record.nodes > 1 else ""
    return (
        record.workload,
        record.scaling,
        record.label,
        f"{record.devices} {record.device_kind}{node_note}",
        record.layout or "–",
        record.global_batch,
        record.models,
    )


def _notes(cell: Cell, launches: int, rehearsal: RehearsalRecord | None) -> Iterator[str]:
    record = cell.record
    if record.reason:
        yield f"skipped: {record.reason}"
        return
    yield from (note for note in ("emulated", "oversubscribed") if getattr(record, note))
    if launches > 1:
        yield f"{launches} launches a round"
    if rehearsal and rehearsal.unavailable:
        yield f"no prediction: {rehearsal.unavailable}"


def _captions(companions: list[str], *, is_predicted: bool) -> Iterator[str]:
    if companions:
        yield f"Companions, which explain cells, are launched once a round: {'; '.join(companions)}"
    if is_predicted:
        yield (
            f"{PREDICTED}: the most that the tensors of a step take at one moment, on the first rank or the last, by a "
            "rehearsal on fake tensors. What libraries, allocators and a CUDA context take comes on top."
        )
