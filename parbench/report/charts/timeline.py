"""One step of each strategy, rank by rank: when it computes, exchanges and waits."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parbench.figures.account import PART_MEANINGS
from parbench.records.account import AccountRecord, Part
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import speed_of
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, draw_rows
from parbench.report.drawing.step_parts import NAMES, STYLES, make_patch
from parbench.report.panels import CellView, Panel, group_by
from parbench.text import with_unit

MAX_CELLS, MAX_RANKS = 16, 8
LEGEND_COLUMNS, LEGEND_ROW = 3, 0.17


class _Lane(NamedTuple):
    """The step of a rank."""

    rank: int
    account: AccountRecord


class Timeline(PanelChart):
    """A line of time for each rank of the fastest cell of every label, on the most devices that it has."""

    name = "timeline"
    order = 32

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose steps were accounted for."""
        steps = {cell.anchor: _steps_of(cell) for cell in panel.cells}
        cells = _choose([cell for cell in panel.cells if steps[cell.anchor]])
        present = {span.part for cell in cells for lane in steps[cell.anchor] for span in lane.account.timeline}
        parts: list[Part] = [part for part in PART_MEANINGS if part in present]

        def row_height(cell: CellView) -> float:
            return max(1.0, 0.6 * len(steps[cell.anchor]) + 0.4)

        def draw_lines(ax: Axes, placed: PlacedCells) -> None:
            for y, cell in placed:
                for part in parts:
                    corners = _corners(steps[cell.anchor], y, part)
                    if corners:
                        style = {"edgecolor": "none", "linewidth": 0.0, **STYLES[part]}
                        ax.add_collection(mark(PolyCollection(corners, **style), cell))
            lengths = [lane.account.timeline[-1].end_s for cell in cells for lane in steps[cell.anchor]]
            ax.set_xlim(0, 1000 * max(lengths))
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("time since the rank's step began, ms")
            handles = [make_patch(part) for part in parts]
            place_below(cast("Figure", ax.figure), handles, [_name(part) for part in parts], LEGEND_COLUMNS)

        yield from draw_rows(
            panel,
            cells,
            draw_lines,
            id=f"{prefix}-{cls.name}",
            name="One step, rank by rank",
            caption="A line for each rank, from rank 0 at the top; one step of the last round, under torch's profiler. "
            "Each rank's line begins where its own step began: clocks of two ranks are not compared.",
            alt="The step of each rank as a line, cut into what it does when.",
            header=("strategy", "devices", "rank", "step", *(_name(part) for part in parts)),
            table_rows=lambda cell: [
                [
                    cell.name,
                    cell.devices,
                    str(lane.rank),
                    with_unit(lane.account.profiled_s, "s"),
                    *(with_unit(lane.account.parts.get(part, 0.0), "s") for part in parts),
                ]
                for lane in steps[cell.anchor]
            ],
            row_height=row_height,
            footer=LEGEND_ROW * -(-len(parts) // LEGEND_COLUMNS),
        )


def _steps_of(cell: CellView) -> list[_Lane]:
    """The accounts of the cell's ranks in its last round that has any; of many ranks, the first."""
    for trial in reversed(cell.trials):
        lanes = [_Lane(rank.rank, rank.account) for rank in trial.ranks if rank.account and rank.account.timeline]
        if lanes:
            return lanes[:MAX_RANKS]
    return []


def _choose(cells: Sequence[CellView]) -> list[CellView]:
    """Of each label the cell on the most devices; of many labels, those of the fastest."""
    largest = [
        max(group, key=lambda cell: (cell.record.devices, speed_of(cell)))
        for group in group_by(cells, lambda cell: cell.record.label)
    ]
    return sorted(largest, key=speed_of, reverse=True)[:MAX_CELLS]


def _corners(lanes: Sequence[_Lane], y: float, part: Part) -> list[list[tuple[float, float]]]:
    corners = []
    for number, lane in enumerate(lanes):
        middle = y + 0.6 * (number - (len(lanes) - 1) / 2)
        above, below = middle - 0.25, middle + 0.25
        for span in lane.account.timeline:
            if span.part == part:
                left, right = 1000 * span.start_s, 1000 * span.end_s
                corners.append([(left, above), (right, above), (right, below), (left, below)])
    return corners


def _name(part: Part) -> str:
    """The name of a part on one rank, where waiting for another rank shows as communication."""
    return "communication" if part == "communication" else NAMES[part]
