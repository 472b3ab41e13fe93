"""Where the time of a step goes in each cell: what is computed, and what is lost to what."""

from collections.abc import Iterator, Mapping
from typing import cast

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parbench.figures.account import PART_MEANINGS, CellPart, disturbance, mean_shares
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, by_strategy, draw_rows
from parbench.report.drawing.step_parts import NAMES, STYLES, make_patch
from parbench.report.panels import CellView, Panel
from parbench.text import with_unit

VISIBLE = 0.002
"""A part that takes a smaller share of every cell's step is not drawn."""

LEGEND_COLUMNS, LEGEND_ROW = 3, 0.17


class StepBreakdown(PanelChart):
    """A bar for each cell, as long as its step and cut into the parts of it."""

    name = "breakdown"
    order = 8

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose steps were accounted for."""
        shares = {cell.anchor: mean_shares(cell.trials) for cell in panel.cells}
        every = [cell for cell in panel.cells if shares[cell.anchor] and cell.value("mean_step_s")]
        cells = choose_cells(every)
        parts = [part for part in PART_MEANINGS if any(shares[cell.anchor][part] >= VISIBLE for cell in cells)]
        legend_rows = -(-len(parts) // LEGEND_COLUMNS)

        def draw_bars(ax: Axes, placed: PlacedCells) -> None:
            for group in by_strategy(placed):
                for part, corners in _stack(group, shares, parts).items():
                    style = {"edgecolor": "none", "linewidth": 0.0, **STYLES[part]}
                    ax.add_collection(mark(PolyCollection(corners, **style), group[0][1]))
            ax.set_xlim(0, max(_step_ms(cell) for _, cell in placed))
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("time of a step, ms")
            handles = [make_patch(part) for part in parts]
            place_below(cast("Figure", ax.figure), handles, [NAMES[part] for part in parts], LEGEND_COLUMNS)

        yield from draw_rows(
            panel,
            cells,
            draw_bars,
            id=f"{prefix}-{cls.name}",
            name="Where the time goes",
            caption="The mean step of the window, cut by the shares that a few steps under torch's profiler had after "
            f"it, the mean over ranks and rounds.{_say_disturbance(cells)} Communication that overlaps with work costs "
            "nothing and is not shown." + say_chosen(len(cells), len(every)),
            alt="Bars of the time of a step in every cell, cut into parts.",
            header=("strategy", "devices", "step", *(NAMES[part] for part in parts)),
            table_rows=lambda cell: [
                [
                    cell.name,
                    cell.devices,
                    with_unit(cell.row["mean_step_s"], "s"),
                    *(with_unit(shares[cell.anchor][part], "%") for part in parts),
                ]
            ],
            value=lambda cell: with_unit(cell.row["mean_step_s"], "s"),
            footer=LEGEND_ROW * legend_rows,
        )


def _stack(
    cells: PlacedCells, shares: Mapping[str, Mapping[CellPart, float]], parts: list[CellPart]
) -> dict[CellPart, list[list[tuple[float, float]]]]:
    """The corners of every bar's pieces, in milliseconds and rows."""
    corners: dict[CellPart, list[list[tuple[float, float]]]] = {part: [] for part in parts}
    for y, cell in cells:
        left = 0.0
        for part in parts:
            right = left + shares[cell.anchor][part] * _step_ms(cell)
            corners[part].append([(left, y - 0.33), (right, y - 0.33), (right, y + 0.33), (left, y + 0.33)])
            left = right
    return corners


def _step_ms(cell: CellView) -> float:
    return 1000 * (cell.value("mean_step_s") or 0.0)


def _say_disturbance(cells: list[CellView]) -> str:
    ratios = [ratio for cell in cells if (ratio := disturbance(cell.trials)) is not None]
    if not ratios:
        return ""
    return f" The profiler made steps {min(ratios):.2f} to {max(ratios):.2f} times as long."
