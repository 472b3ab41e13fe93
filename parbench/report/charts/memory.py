"""Peak memory of every rank, which is never summed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from parbench.figures.definitions import FIGURES
from parbench.figures.memory import memory_by_rank
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import INK, MUTED, place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, by_strategy, draw_rows
from parbench.report.panels import CellView, Panel
from parbench.text import MIB, with_unit

MAX_FULL_BARS = 8
"""A row grows with its ranks up to this many; more ranks have thinner bars."""


_KIND_STYLES: tuple[dict[str, Any], ...] = (
    {"alpha": 0.85},
    {"alpha": 0.4, "hatch": "////"},
    {"alpha": 0.2, "hatch": "...."},
)


class Memory(PanelChart):
    """A bar for each rank's peak memory, stacked by kind (such as allocated and reserved) where kinds are measured."""

    name = "memory"
    order = 20

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose memory was measured."""
        ranks = {cell.anchor: _median_by_rank(cell) for cell in panel.cells}
        every = [cell for cell in panel.cells if ranks[cell.anchor]]
        cells = choose_cells(every)
        kinds = list(dict.fromkeys(kind for by_rank in ranks.values() for sizes in by_rank.values() for kind in sizes))
        several_kinds = len(kinds) > 1

        def row_height(cell: CellView) -> float:
            return 1 + 0.25 * (min(len(ranks[cell.anchor]), MAX_FULL_BARS) - 1)

        def draw_bars(ax: Axes, placed: PlacedCells) -> None:
            for group in by_strategy(placed):
                bars = _stack_bars(group, ranks, row_height)
                for kind in kinds:
                    if bars[kind]:
                        style = _KIND_STYLES[min(kinds.index(kind), len(_KIND_STYLES) - 1)]
                        colour = group[0][1].look.hex
                        drawn = PolyCollection(bars[kind], facecolors=colour, edgecolors=INK, linewidths=0.3, **style)
                        ax.add_collection(mark(drawn, group[0][1]))
            ax.set_xlim(
                0, max(sum(sizes.values()) for _, cell in placed for sizes in ranks[cell.anchor].values()) / MIB
            )
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("peak memory of each rank, MiB")
            if several_kinds:
                styles = zip(kinds, _KIND_STYLES, strict=False)
                patches = [Patch(facecolor=MUTED, **style) for _, style in styles]
                place_below(cast("Figure", ax.figure), patches, kinds[: len(patches)], 3)

        yield from draw_rows(
            panel,
            cells,
            draw_bars,
            id=f"{prefix}-{cls.name}",
            name="Peak memory by rank",
            caption="A bar for each rank, from rank 0 at the top; the median over rounds. "
            f"{FIGURES['peak_memory_bytes'].meaning.partition('rounds. ')[2]}" + say_chosen(len(cells), len(every)),
            alt="Bars of the peak memory of every rank.",
            header=("strategy", "devices", "rank", *kinds),
            table_rows=lambda cell: [
                [cell.name, cell.devices, str(rank), *(with_unit(sizes.get(kind), "bytes") for kind in kinds)]
                for rank, sizes in ranks[cell.anchor].items()
            ],
            row_height=row_height,
            value=lambda cell: with_unit(max(sum(sizes.values()) for sizes in ranks[cell.anchor].values()), "bytes"),
            footer=0.2 * several_kinds,
        )


def _stack_bars(
    cells: PlacedCells, ranks: Mapping[str, Mapping[int, Mapping[str, float]]], row_height: Callable[[CellView], float]
) -> Mapping[str, list[list[tuple[float, float]]]]:
    """The corners of every bar, in MiB and rows, by the kind of memory."""
    bars: defaultdict[str, list[list[tuple[float, float]]]] = defaultdict(list)
    for y, cell in cells:
        by_rank = ranks[cell.anchor]
        thickness = (row_height(cell) - 0.25) / len(by_rank)
        for index, sizes in enumerate(by_rank.values()):
            middle, left = y + thickness * (index + 0.5 - len(by_rank) / 2), 0.0
            above, below = middle - thickness * 0.43, middle + thickness * 0.43
            for kind, size in sizes.items():
                right = left + size / MIB
                bars[kind].append([(left, above), (right, above), (right, below), (left, below)])
                left = right
    return bars


def _median_by_rank(cell: CellView) -> dict[int, dict[str, float]]:
    """Of each rank, the bytes of each kind of memory: medians over rounds."""
    rounds = [memory_by_rank(trial) for trial in cell.trials]
    medians: dict[int, dict[str, float]] = {}
    for rank in sorted({rank for by_rank in rounds for rank in by_rank}):
        sizes = [by_rank[rank] for by_rank in rounds if rank in by_rank]
        kinds = dict.fromkeys(kind for each in sizes for kind in each)
        medians[rank] = {kind: float(np.median([each.get(kind, 0) for each in sizes])) for kind in kinds}
    return medians
