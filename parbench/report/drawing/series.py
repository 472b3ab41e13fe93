"""Series: the lines of a chart, each with the cells of one label, their intervals and whose they are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from parbench.report.drawing.canvas import FAINT, draw_segments, marker_style
from parbench.report.drawing.marks import mark
from parbench.report.panels import CellView, group_by


@dataclass(frozen=True)
class Series:
    """Points (x, y) with the ends of their intervals. `cell` is one of its cells: it gives name, look and strategy."""

    cell: CellView
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def end(self) -> tuple[float, float]:
        """The last point."""
        return self.x[-1], self.y[-1]


def draw_series(
    axes: Axes, series: Sequence[Series], *, markers: int = 1, apart: float = 0.0, small: bool = False
) -> None:
    """Draws lines with markers at every so many points, intervals, and the bands between these.

    On a logarithmic x axis lines lie `apart` by this many powers of two at most, so that equal points do not hide one
    another. In `small` plots there are no bands.
    """
    spread = min(apart, 8 * apart / max(1, len(series)))
    for index, each in enumerate(series):
        look, shift = each.cell.look, 2 ** ((index - (len(series) - 1) / 2) * spread)
        x = [value * shift for value in each.x]
        if any(low < high for low, high in zip(each.low, each.high, strict=True)):
            bars = [((at, low), (at, high)) for at, low, high in zip(x, each.low, each.high, strict=True)]
            mark(draw_segments(axes, bars, color=look.hex, linewidth=1.1, alpha=0.85), each.cell)
            if len(x) > 1 and not small:
                mark(axes.fill_between(x, each.low, each.high, color=look.hex, alpha=0.1, linewidth=0), each.cell)
        (line,) = axes.plot(
            x, each.y, color=look.hex, linestyle=look.linestyle, markevery=markers, **marker_style(look)
        )
        if small:
            line.set(markersize=4.5, linewidth=1.4)
        mark(line, each.cell)


def draw_behind(axes: Axes, series: Sequence[Series]) -> None:
    """Draws lines in grey, as the ground on which others stand out."""
    lines = dict.fromkeys(tuple(zip(each.x, each.y, strict=True)) for each in series if len(each.x) > 1)
    draw_segments(axes, lines, color=FAINT, linewidth=0.6, zorder=0.5, clip_on=False)


def group_series(series: Sequence[Series]) -> Mapping[str, list[Series]]:
    """The series of each strategy by its name; of a single strategy, by label."""
    strategies = group_by(series, lambda each: each.cell.record.strategy)
    if len(strategies) > 1:
        return {group[0].cell.record.strategy: group for group in strategies}
    return {group[0].cell.label: group for group in group_by(series, lambda each: each.cell.record.label)}


def series_of(cells: Sequence[CellView], figure: str, x: Sequence[float]) -> Series:
    """The figure of each cell at `x`, with its confidence interval; one without an interval is a point."""
    y = [cell.value(figure) or math.nan for cell in cells]
    intervals = [interval_of(cell, figure) or (value, value) for cell, value in zip(cells, y, strict=True)]
    return Series(cells[0], x, y, [low for low, _ in intervals], [high for _, high in intervals])


def interval_of(cell: CellView, figure: str) -> tuple[float, float] | None:
    """The figure's confidence interval; scaling efficiency has the speedup's, divided by the devices."""
    if figure != "scaling_efficiency":
        return cell.interval(figure)
    interval = cell.interval("speedup")
    return interval and (interval[0] / cell.record.devices, interval[1] / cell.record.devices)
