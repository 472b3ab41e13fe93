"""What the memory of each cell's fullest rank holds at its peak, beside what was measured and what arithmetic says."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.memory_account import PART_MEANINGS, PART_TITLES, TENSOR_PEAK_BYTES, first_account
from parbench.records.memory_account import MemoryAccountRecord, MemoryPart, MemoryPartsRecord
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import GROUND, INK, place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, by_strategy, draw_rows
from parbench.report.panels import Panel
from parbench.results.looks import PALETTE
from parbench.text import MIB, with_unit

PART_COLOURS: Mapping[MemoryPart, str] = {
    "parameters": PALETTE[0],
    "optimizer_state": PALETTE[1],
    "gradients": PALETTE[2],
    "activations": PALETTE[4],
    "buffers": PALETTE[9],
    "rest": PALETTE[3],
}

_MEASURED: Any = {"color": INK, "marker": "D", "markersize": 5, "markerfacecolor": GROUND, "linestyle": "none"}
_ARITHMETIC: Any = {"color": INK, "marker": "|", "markersize": 13, "markeredgewidth": 1.4, "linestyle": "none"}

_HALF = 0.36
"""Half of a bar's thickness, in rows."""


class MemoryAccount(PanelChart):
    """A bar for each cell, stacked by what its tensors are; its end is the peak of all of them together."""

    name = "memory-account"
    order = 22

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells whose memory was accounted for."""
        accounts = {cell.anchor: account for cell in panel.cells if (account := first_account(cell.trials))}
        every = [cell for cell in panel.cells if cell.anchor in accounts]
        cells = choose_cells(every)
        parts = [part for part in PART_TITLES if any(getattr(_peak(each), part) for each in accounts.values())]

        def draw_bars(ax: Axes, placed: PlacedCells) -> None:
            for group in by_strategy(placed):
                _stack(ax, group, accounts)
                _plot(ax, group, {cell.anchor: cell.value("peak_memory_bytes") for _, cell in group}, _MEASURED)
                _plot(ax, group, {cell.anchor: _kept(accounts[cell.anchor]) for _, cell in group}, _ARITHMETIC)
            sizes = [_total(accounts[cell.anchor]) for _, cell in placed]
            sizes += [cell.value("peak_memory_bytes") or 0.0 for _, cell in placed]
            ax.set_xlim(0, 1.03 * max(sizes) / MIB)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("memory of the fullest rank, MiB")
            handles = [*(Patch(facecolor=PART_COLOURS[part]) for part in parts), *_handles()]
            names = [*(PART_TITLES[part] for part in parts), PEAK_MEMORY_BYTES.title, "arithmetic"]
            place_below(cast("Figure", ax.figure), handles, names, 3)

        yield from draw_rows(
            panel,
            cells,
            draw_bars,
            id=f"{prefix}-{cls.name}",
            name="What memory holds",
            caption="The tensors of the fullest rank when they take the most bytes, from some steps after the window. "
            f"{_explain(parts)} The diamond is {PEAK_MEMORY_BYTES.title} as it was measured: on CPU "
            "resident memory, with freed memory that the C library keeps. The tick is what the strategy's arithmetic "
            "says of parameters and optimizer state." + say_chosen(len(cells), len(every)),
            alt="Stacked bars of what the memory of each cell's fullest rank holds.",
            header=(
                *("strategy", "devices", *(PART_TITLES[part] for part in parts)),
                *(TENSOR_PEAK_BYTES.title, PEAK_MEMORY_BYTES.title, "arithmetic"),
            ),
            table_rows=lambda cell: [
                [
                    cell.name,
                    cell.devices,
                    *(with_unit(getattr(_peak(accounts[cell.anchor]), part), "bytes") for part in parts),
                    with_unit(_total(accounts[cell.anchor]), "bytes"),
                    with_unit(cell.value("peak_memory_bytes"), "bytes"),
                    with_unit(_kept(accounts[cell.anchor]), "bytes"),
                ]
            ],
            value=lambda cell: with_unit(_total(accounts[cell.anchor]), "bytes"),
            footer=0.6,
        )


def _peak(account: MemoryAccountRecord) -> MemoryPartsRecord:
    """What there is at the peak; nothing where that is not known."""
    return account.at_peak or MemoryPartsRecord()


def _total(account: MemoryAccountRecord) -> float:
    return _peak(account).total


def _kept(account: MemoryAccountRecord) -> float | None:
    expected = account.expected
    return None if expected is None else expected.parameters + expected.optimizer_state


def _stack(ax: Axes, cells: PlacedCells, accounts: Mapping[str, MemoryAccountRecord]) -> None:
    """Draws the bars of one strategy's cells, all pieces of a part in one go."""
    ends = {cell.anchor: 0.0 for _, cell in cells}
    for part, colour in PART_COLOURS.items():
        bars = []
        for y, cell in cells:
            left = ends[cell.anchor]
            right = ends[cell.anchor] = left + getattr(_peak(accounts[cell.anchor]), part) / MIB
            if right > left:
                bars.append([(left, y - _HALF), (right, y - _HALF), (right, y + _HALF), (left, y + _HALF)])
        if bars:
            drawn = PolyCollection(bars, facecolors=colour, edgecolors=GROUND, linewidths=0.5)
            ax.add_collection(mark(drawn, cells[0][1]))


def _plot(ax: Axes, cells: PlacedCells, sizes: Mapping[str, float | None], style: Any) -> None:
    """Marks a size in each cell's row that has it."""
    points = [(size / MIB, y) for y, cell in cells if (size := sizes[cell.anchor]) is not None]
    if points:
        (line,) = ax.plot(*zip(*points, strict=True), **style, zorder=4, clip_on=False)
        mark(line, cells[0][1])


def _handles() -> tuple[Line2D, Line2D]:
    return Line2D([], [], **_MEASURED), Line2D([], [], **_ARITHMETIC)


def _explain(parts: list[MemoryPart]) -> str:
    """A sentence on each part whose name does not say it."""
    named = [part for part in parts if part in ("activations", "buffers", "rest")]
    return " ".join(f"{PART_TITLES[part].capitalize()}: {PART_MEANINGS[part]}." for part in named)
