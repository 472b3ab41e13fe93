"""Throughput against memory: which cells no other beats in both."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import FAINT, GROUND, MUTED, add_legend, draw_segments, marker_style, report_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import is_crowded
from parbench.report.drawing.labels import place_labels
from parbench.report.drawing.marks import mark
from parbench.report.drawing.runs import (
    count_left_out,
    key_columns,
    key_values,
    make_axes,
    name_run,
    set_speed_axis,
    share_limits,
)
from parbench.report.panels import CellView, Panel, group_by, select_with
from parbench.text import MIB

_FRONT_LINE: Any = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (2, 2))}


class MemoryTradeOff(ComparisonChart):
    """A scatter of throughput against peak memory, with the Pareto front."""

    name = "memory-trade-off"
    order = 30

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart; none where no cell has both figures."""
        panels = [panel for panel in panels if _cells(panel)]
        if not panels:
            return
        cells = [cell for panel in panels for cell in _cells(panel)]
        crowded = is_crowded(cells)
        with report_style():
            figure, axes = make_axes(panels, height=3.8 if crowded else 3.0)
            for panel, ax in zip(panels, axes, strict=True):
                _draw_points(ax, panel, quiet=crowded)
            speeds = [_point(cell)[1] for cell in cells]
            set_speed_axis(axes, cells, log=max(speeds) > 8 * min(speeds))
            axes[0].set_ylabel("tokens/s")
            share_limits(axes)
            if not crowded:
                add_legend(figure, cells, [Line2D([], [], **_FRONT_LINE, label="Pareto front")])
            for panel, ax in zip(panels, axes, strict=True):
                points = [
                    (*_point(cell), cell.folded_place(30 if crowded else 24)) for cell in pareto_front(_cells(panel))
                ]
                place_labels(ax, points)
        yield Chart(
            id=f"{prefix}-{cls.name}",
            name="Throughput against memory",
            subject=panels[0].title,
            caption="Up and to the left is better; larger markers are more devices. On the dotted front nothing is "
            f"both faster and smaller, by the measured means.{' All other cells are grey.' * crowded}"
            f"{count_left_out(panels)}",
            alt="Scatter of tokens per second against peak memory per rank. On the Pareto front: "
            f"{'; '.join(_describe_front(panel, panels) for panel in panels)}.",
            header=(
                *key_columns(panels),
                FIGURES["tokens_per_s"].title,
                FIGURES["peak_memory_bytes"].title,
                "Pareto front",
            ),
            rows=[row for panel in panels for row in _rows(panel, panels)],
            figure=figure,
            wide=len(panels) > 1,
        )


def pareto_front(cells: Sequence[CellView]) -> list[CellView]:
    """The cells for which no other is as small and faster, from the smallest to the fastest."""
    front: list[CellView] = []
    for cell in sorted(cells, key=lambda cell: (_point(cell)[0], -_point(cell)[1])):
        if not front or _point(cell)[1] > _point(front[-1])[1]:
            front.append(cell)
    return front


def _cells(panel: Panel) -> list[CellView]:
    return select_with(panel.comparable_with("tokens_per_s"), "peak_memory_bytes")


def _point(cell: CellView) -> tuple[float, float]:
    """Where a cell is drawn: peak memory in MiB, and tokens/s."""
    return (cell.value("peak_memory_bytes") or 0.0) / MIB, cell.value("tokens_per_s") or 0.0


def _draw_points(axes: Axes, panel: Panel, *, quiet: bool) -> None:
    """Draws the front and the cells; where `quiet`, those that are not on the front are grey."""
    cells = _cells(panel)
    front = pareto_front(cells)
    # Nothing was measured between two cells of the front, so it is drawn as steps and not as a line.
    axes.step(*zip(*map(_point, front), strict=True), where="post", zorder=1, **_FRONT_LINE)
    if quiet:
        anchors = {cell.anchor for cell in front}
        _draw_grey_points(axes, [cell for cell in cells if cell.anchor not in anchors])
        cells = front
    for cell in cells:
        x, y = _point(cell)
        speeds, memory = cell.interval("tokens_per_s"), cell.memory
        bars = [[(x, speeds[0]), (x, speeds[1])]] if speeds else []
        if memory and memory.low is not None and memory.high is not None:
            bars.append([(memory.low / MIB, y), (memory.high / MIB, y)])
        mark(draw_segments(axes, bars, color=cell.look.hex, linewidth=0.9, alpha=0.5), cell)
        (marker,) = axes.plot(x, y, linestyle="none", **{**marker_style(cell.look), "markersize": _size(cell)})
        mark(marker, cell)
    axes.margins(0.12, 0.14)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("peak memory of the fullest rank, MiB")


def _draw_grey_points(axes: Axes, cells: Sequence[CellView]) -> None:
    """Draws the cells of each strategy as grey dots, which take its colour where the page brings it out."""
    for group in group_by(cells, lambda cell: cell.record.strategy):
        x, y = zip(*map(_point, group), strict=True)
        sizes = [0.6 * _size(cell) ** 2 for cell in group]
        dots = axes.scatter(x, y, sizes, c=FAINT, edgecolors=GROUND, linewidths=0.5, zorder=1.5)
        mark(dots, group[0], quiet=True)


def _size(cell: CellView) -> float:
    """A marker's size, which tells the number of devices."""
    return min(6 + 2 * math.log2(cell.record.devices), 18)


def _describe_front(panel: Panel, panels: Sequence[Panel]) -> str:
    places = [cell.place for cell in pareto_front(_cells(panel))]
    return f"{name_run(panel, panels)}{', '.join(places)}"


def _rows(panel: Panel, panels: Sequence[Panel]) -> Iterator[list[str]]:
    """The table's rows of one run."""
    cells = _cells(panel)
    front = pareto_front(cells)
    for cell in cells:
        speed = FIGURES["tokens_per_s"].with_interval(cell.row)
        memory = FIGURES["peak_memory_bytes"].text(cell.row["peak_memory_bytes"])
        yield [*key_values(cell, panel, panels), speed, memory, "yes" if cell in front else "no"]
