"""Peak memory of every rank, which is never summed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from parbench.figures.definitions import FIGURES
from parbench.figures.memory import memory_by_rank
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import INK, MUTED
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.rows import PlacedCells, draw_rows
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
        cells = [cell for cell in panel.cells if ranks[cell.anchor]]
        kinds = list(dict.fromkeys(kind for by_rank in ranks.values() for sizes in by_rank.values() for kind in sizes))

        def row_height(cell: CellView) -> float:
            return 1 + 0.22 * (min(len(ranks[cell.anchor]), MAX_FULL_BARS) - 1)

        def draw_bars(ax: Axes, cells: PlacedCells) -> None:
            for y, cell in cells:
                by_rank = ranks[cell.anchor]
                thickness = (row_height(cell) - 0.2) / len(by_rank)
                for index, sizes in enumerate(by_rank.values()):
                    bar_y, left = y + thickness * (index + 0.5 - len(by_rank) / 2), 0.0
                    for kind, size in sizes.items():
                        style = _KIND_STYLES[min(kinds.index(kind), len(_KIND_STYLES) - 1)]
                        edge: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.4 if len(by_rank) < 5 else 0}
                        ax.barh(bar_y, size / MIB, thickness * 0.86, left, color=cell.look.hex, **edge, **style)
                        left += size / MIB
            ax.set_xlabel("peak memory of each rank, MiB")
            if len(kinds) > 1:
                patches = [
                    Patch(facecolor=MUTED, label=kind, **style)
                    for kind, style in zip(kinds, _KIND_STYLES, strict=False)
                ]
                ax.figure.legend(handles=patches, loc="outside lower center", ncols=3)

        yield from draw_rows(
            cells,
            draw_bars,
            id=f"{prefix}-{cls.name}",
            name="Peak memory by rank",
            subject=panel.title,
            caption="A bar for each rank, from rank 0 at the top; the median over rounds. "
            f"{FIGURES['peak_memory_bytes'].meaning.partition('rounds. ')[2]}",
            alt="Bars of the peak memory of every rank.",
            header=("strategy", "devices", "rank", *kinds),
            table_rows=lambda cell: [
                [cell.name, cell.devices, str(rank), *(with_unit(sizes.get(kind), "bytes") for kind in kinds)]
                for rank, sizes in ranks[cell.anchor].items()
            ],
            row_height=row_height,
        )


def _median_by_rank(cell: CellView) -> dict[int, dict[str, float]]:
    """Of each rank, the bytes of each kind of memory: medians over rounds."""
    rounds = [memory_by_rank(trial) for trial in cell.trials]
    medians: dict[int, dict[str, float]] = {}
    for rank in sorted({rank for by_rank in rounds for rank in by_rank}):
        sizes = [by_rank[rank] for by_rank in rounds if rank in by_rank]
        kinds = dict.fromkeys(kind for each in sizes for kind in each)
        medians[rank] = {kind: float(np.median([each.get(kind, 0) for each in sizes])) for kind in kinds}
    return medians
