"""Charts with a row for each cell: memory of every rank, and any figure that has no chart of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbench.figures.base import Figure
from parbench.figures.definitions import FIGURES
from parbench.figures.memory import memory_by_rank
from parbench.report.charts.canvas import INK, MUTED, Chart, drawing, marker
from parbench.report.panels import CellView, Panel, shared_figures
from parbench.text import MIB, shown

MAX_ROWS = 40


_KINDS: tuple[dict[str, Any], ...] = ({"alpha": 0.85}, {"alpha": 0.4, "hatch": "////"}, {"alpha": 0.2, "hatch": "...."})


_IDEAL: dict[str, Any] = {"color": INK, "marker": "|", "markersize": 11, "markeredgewidth": 1.4, "linestyle": "none"}


_MOST_BARS = 8


Placed = Sequence[tuple[float, CellView]]
"""Cells with the height at which each is drawn: that of its row's middle, downwards."""


Draw = Callable[[Axes, Placed], None]


def memory(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Peak memory of every rank, never summed, stacked by kind where it is known."""
    ranks = {cell.anchor: _by_rank(cell) for cell in panel.cells}
    cells = [cell for cell in panel.cells if ranks[cell.anchor]]
    kinds = list(dict.fromkeys(kind for rank in ranks.values() for parts in rank.values() for kind in parts))

    def height(cell: CellView) -> float:
        """A row has room for the bars of its own ranks."""
        return 1 + 0.22 * (min(len(ranks[cell.anchor]), _MOST_BARS) - 1)

    def draw(ax: Axes, part: Placed) -> None:
        for row, cell in part:
            by_rank = ranks[cell.anchor]
            thick = (height(cell) - 0.2) / len(by_rank)
            for index, parts in enumerate(by_rank.values()):
                y, left = row + thick * (index + 0.5 - len(by_rank) / 2), 0.0
                for kind, size in parts.items():
                    style = _KINDS[min(kinds.index(kind), len(_KINDS) - 1)]
                    edge: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.4 if len(by_rank) < 5 else 0}
                    ax.barh(y, size / MIB, thick * 0.86, left, color=cell.look.hex, **edge, **style)
                    left += size / MIB
        ax.set_xlabel("peak memory of each rank, MiB")
        if len(kinds) > 1:
            patches = [Patch(facecolor=MUTED, label=kind, **style) for kind, style in zip(kinds, _KINDS, strict=False)]
            ax.figure.legend(handles=patches, loc="outside lower center", ncols=3)

    yield from row_charts(
        cells,
        draw,
        id=f"{prefix}-memory",
        name="Peak memory by rank",
        subject=panel.title,
        caption="A bar for each rank, from rank 0 at the top; the median over rounds. "
        f"{FIGURES['peak_memory_bytes'].meaning.partition('rounds. ')[2]}",
        alt="Bars of the peak memory of every rank.",
        header=("strategy", "devices", "rank", *kinds),
        rows=lambda cell: [
            [cell.name, cell.devices, str(rank), *(shown(parts.get(kind), "bytes") for kind in kinds)]
            for rank, parts in ranks[cell.anchor].items()
        ],
        height=height,
    )


def further(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Every figure that is shown in a plain chart, and that several cells of this run have."""
    for name in shared_figures(panel.cells):
        cells = [
            cell for cell in panel.cells if math.isfinite(cell.value(name) or 0.0) and cell.value(name) is not None
        ]
        # A point alone compares nothing, and the table has it.
        if "charts" in FIGURES[name].shown_in and len(cells) > 1:
            yield from _figure(panel, cells, prefix, FIGURES[name])


def _figure(panel: Panel, cells: Sequence[CellView], prefix: str, figure: Figure) -> Iterator[Chart]:
    name = figure.name
    ideals = {cell.anchor: ideal for cell in cells if figure.ideal and (ideal := cell.value(figure.ideal)) is not None}

    def draw(ax: Axes, part: Placed) -> None:
        for row, cell in part:
            interval = cell.interval(name)
            if interval:
                ax.hlines(row, *interval, color=cell.look.hex, linewidth=1.4)
            ax.plot(cell.value(name) or 0.0, row, linestyle="none", **marker(cell.look))
            if cell.anchor in ideals:
                ax.plot(ideals[cell.anchor], row, **_IDEAL)
        if figure.unit == "%":
            ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: figure.text(value)))
        ax.set_xlabel(figure.title)
        if ideals:
            handle = Line2D([], [], label=f"ideal: {figure.ideal_meaning}", **_IDEAL)
            ax.figure.legend(handles=[handle], loc="outside lower center")

    sentences = [figure.meaning]
    sentences += [f"{figure.better.capitalize()} is better."] if figure.better else []
    sentences += [f"The tick is the ideal: {figure.ideal_meaning}."] if ideals else []
    yield from row_charts(
        cells,
        draw,
        id=f"{prefix}-{name.replace('_', '-')}",
        name=figure.title,
        subject=panel.title,
        caption=" ".join(sentences),
        alt=f"{figure.title} of every cell.",
        header=("strategy", "devices", figure.title, *(["ideal"] if ideals else [])),
        rows=lambda cell: [
            [
                cell.name,
                cell.devices,
                figure.with_interval(cell.row),
                *([figure.text(ideals.get(cell.anchor))] if ideals else []),
            ]
        ],
    )


def row_charts(
    cells: Sequence[CellView],
    draw: Draw,
    *,
    id: str,  # noqa: A002 - it is the chart's field
    name: str,
    subject: str,
    caption: str,
    alt: str,
    header: Sequence[str],
    rows: Callable[[CellView], list[list[str]]],
    height: Callable[[CellView], float] = lambda _: 1.0,
) -> Iterator[Chart]:
    """A chart for every `MAX_ROWS` cells: a drawing of hundreds of rows can be neither read nor printed."""
    for start in range(0, len(cells), MAX_ROWS):
        part = cells[start : start + MAX_ROWS]
        edges = [-0.5, *(-0.5 + end for end in accumulate(map(height, part)))]
        middles = [(above + below) / 2 for above, below in pairwise(edges)]
        with drawing():
            figure = Drawing(figsize=(8.6, 0.95 + 0.3 * (edges[-1] - edges[0])))
            ax = figure.subplots()
            draw(ax, list(zip(middles, part, strict=True)))
            ax.set_ylim(edges[-1], edges[0])
            ax.set_yticks(middles, [cell.short_place(54) for cell in part], fontsize=8)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        span = f" (cells {start + 1} to {start + len(part)} of {len(cells)})" if len(cells) > MAX_ROWS else ""
        yield Chart(
            id=id if start == 0 else f"{id}-{start + 1}",
            name=name,
            subject=subject + span,
            caption=caption,
            alt=f"{alt} The numbers are in the table below.",
            header=header,
            rows=[row for cell in part for row in rows(cell)],
            figure=figure,
            wide=True,
        )


def _by_rank(cell: CellView) -> dict[int, dict[str, float]]:
    """The median over rounds of each kind of memory on each rank."""
    rounds = [memory_by_rank(trial) for trial in cell.trials]
    ranks = sorted({rank for found in rounds for rank in found})
    medians: dict[int, dict[str, float]] = {}
    for rank in ranks:
        mine = [found[rank] for found in rounds if rank in found]
        kinds = dict.fromkeys(kind for found in mine for kind in found)
        medians[rank] = {kind: float(np.median([found.get(kind, 0) for found in mine])) for kind in kinds}
    return medians
