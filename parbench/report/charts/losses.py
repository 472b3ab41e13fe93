"""Losses over the reference: what the parity gate compares."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from parbench.figures.losses import job_losses
from parbench.records.assignment import PARITY_STEPS
from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import (
    INK,
    MUTED,
    add_legend,
    make_figure,
    marker_style,
    report_style,
    set_margins,
)
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import is_crowded
from parbench.report.drawing.facets import draw_facets
from parbench.report.drawing.marks import mark
from parbench.report.drawing.series import Series
from parbench.report.panels import CellView, Panel
from parbench.results.deviations import PARITY_TOLERANCE, step_deviations, tolerances
from parbench.text import with_unit

MAX_MARKERS = 10


MAX_DESCRIBED = 24


MAX_POINTS = 40
"""Of more steps, the small plots of many cells draw the largest distance of each stretch."""


_TOLERANCE_LINE: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (6, 3))}


_LINES_CAPTION = (
    "The losses of the first model in all steps that are verified, over the reference's in grey, and below the largest "
    "distance of any model's loss from the reference's in any round."
)


_FACETS_CAPTION = (
    "The largest distance of any model's loss from the reference's in any round, at each step that is verified: a plot "
    "for each strategy, with the others in grey; below its name, its largest distance."
)


class Losses(PanelChart):
    """Losses of the verified steps above, and below them each one's distance from the reference, with the tolerance."""

    name = "losses"
    order = 10

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """One chart; none where no cell has losses to compare with a reference."""
        curves = {cell.anchor: _loss_curve(cell) for cell in panel.cells}
        deviations = {cell.anchor: _deviations(cell) for cell in panel.cells}
        cells = [cell for cell in panel.cells if curves[cell.anchor].losses and deviations[cell.anchor]]
        if not cells:
            return
        tolerance = _longest_tolerance(cells)
        crowded = is_crowded(cells)
        with report_style():
            draw = _draw_facets if crowded else _draw_together
            figure = draw(cells, curves, deviations, tolerance)
        steps = _table_steps(max(len(each) for each in deviations.values()))
        largest = [f"{cell.place} {with_unit(max(deviations[cell.anchor]), 'nats')}" for cell in cells[:MAX_DESCRIBED]]
        yield Chart(
            id=f"{prefix}-{cls.name}",
            name="Losses over the reference",
            subject=panel.title,
            caption=(_FACETS_CAPTION if crowded else _LINES_CAPTION) + " Under the dashed tolerance, which grows as "
            "rounding does, a strategy has computed the same thing; points on the bottom line agree to the last digit.",
            alt=f"Largest deviation from the reference's losses: {', '.join(largest)} nats per token.",
            header=("strategy", "devices", *(f"step {step}: loss (deviation)" for step in steps)),
            rows=[
                [cell.name, cell.devices, *_table_fields(curves[cell.anchor].losses, deviations[cell.anchor], steps)]
                for cell in cells
            ],
            figure=figure,
        )


class _LossCurve(NamedTuple):
    """A model's loss at each step (nats per token) in a cell's first round, and in the reference's trial."""

    losses: Sequence[float] = ()
    reference: Sequence[float] = ()


def _loss_curve(cell: CellView) -> _LossCurve:
    """The curve of the lowest-numbered model that both have: a task pool's ranks record theirs in any order."""
    if cell.reference is None or not cell.trials:
        return _LossCurve()
    losses, reference = job_losses(cell.trials[0]), job_losses(cell.reference)
    model = min(losses.keys() & reference.keys(), default=None)
    return _LossCurve() if model is None else _LossCurve(losses[model], reference[model])


def _deviations(cell: CellView) -> list[float]:
    """At each step, the largest deviation from the reference in any round (nats per token)."""
    reference = cell.reference
    if reference is None:
        return []
    rounds = [deviations for trial in cell.trials if (deviations := step_deviations(trial, reference))]
    # Rounds differ in their number of steps, because a window ends after a time.
    return [max(step) for step in zip_longest(*rounds, fillvalue=0.0)]


def _longest_tolerance(cells: Sequence[CellView]) -> list[float]:
    """The tolerance at each step, of the reference with most steps; empty where the precision has none."""
    curves = [
        tolerances(cell.reference, cell.record.precision)
        for cell in cells
        if cell.reference is not None and cell.record.precision in PARITY_TOLERANCE
    ]
    return max(curves, key=len, default=[])


def _draw_together(
    cells: Sequence[CellView],
    curves: Mapping[str, _LossCurve],
    deviations: Mapping[str, Sequence[float]],
    tolerance: Sequence[float],
) -> Figure:
    """The losses above, and the deviations below them."""
    figure = make_figure(3.9)
    set_margins(figure, left=0.76, right=0.12, bottom=0.46, top=0.08)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    _draw_losses(upper, cells, curves)
    _draw_deviations(lower, cells, deviations, tolerance)
    handles = [Line2D([], [], color=MUTED, linewidth=6, alpha=0.35, label="reference")]
    if tolerance:
        handles.append(Line2D([], [], **_TOLERANCE_LINE, label="tolerance"))
    add_legend(figure, cells, handles)
    return figure


def _draw_facets(
    cells: Sequence[CellView],
    _: Mapping[str, _LossCurve],
    deviations: Mapping[str, Sequence[float]],
    tolerance: Sequence[float],
) -> Figure:
    """The deviations of each strategy in a small plot of its own."""
    floor, top = _limits(deviations, cells, tolerance)
    series = []
    for cell in cells:
        steps, largest = _thin(deviations[cell.anchor])
        y = [max(value, floor) for value in largest]
        series.append(Series(cell, steps, y, y, y))

    def set_axes(axes: Sequence[Axes]) -> None:
        for ax in axes:
            _set_distance_axis(ax, floor, top)
            ax.yaxis.set_major_locator(LogLocator(numticks=4))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if tolerance:
                ax.plot(range(1, len(tolerance) + 1), tolerance, **_TOLERANCE_LINE)

    def name_largest(group: Sequence[Series]) -> str:
        value = max(max(deviations[each.cell.anchor]) for each in group)
        return f"{value:.0e}".replace("e-0", "e-") if value else "none"

    return draw_facets(series, set_axes, name_largest, x_label="step", y_label="distance, nats", markers=8)


def _thin(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """At most `MAX_POINTS` steps and values: of more, the largest of each stretch at its last step."""
    stride = math.ceil(len(values) / MAX_POINTS)
    ends = [min(end, len(values)) for end in range(stride, len(values) + stride, stride)]
    return ends, [max(values[max(0, end - stride) : end]) for end in ends]


def _limits(
    deviations: Mapping[str, Sequence[float]], cells: Sequence[CellView], tolerance: Sequence[float]
) -> tuple[float, float]:
    """Where deviations of nothing are drawn, and the largest value: a logarithmic axis has no zero."""
    nonzero = [value for cell in cells for value in deviations[cell.anchor] if value > 0]
    floor = min([*nonzero, *tolerance[:1]], default=1e-5) / 6
    return floor, max([*nonzero, *tolerance], default=floor * 10)


def _mark_zero(ax: Axes, floor: float) -> None:
    """Names the line on which deviations of nothing are drawn, among the ticks."""
    at = blended_transform_factory(ax.transAxes, ax.transData)
    ax.text(-0.02, floor, "none", transform=at, ha="right", va="center", color=MUTED, fontsize=8)


def _set_distance_axis(ax: Axes, floor: float, top: float) -> None:
    ax.set_yscale("log")
    ax.set_ylim(floor / 3, top * 3)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))


def _draw_losses(ax: Axes, cells: Sequence[CellView], curves: Mapping[str, _LossCurve]) -> None:
    # With weak scaling every number of devices has a global batch of its own, and so a reference.
    for reference in dict.fromkeys(tuple(curves[cell.anchor].reference) for cell in cells):
        ax.plot(range(1, len(reference) + 1), reference, color=MUTED, linewidth=7, alpha=0.35)
    for shift, cell in _spread(cells):
        y = curves[cell.anchor].losses
        x = [step + shift for step in range(1, len(y) + 1)]
        (line,) = ax.plot(x, y, **{**_line_style(cell, len(y)), "linestyle": "none"})
        mark(line, cell)
    ax.set_ylabel("loss, nats")


def _draw_deviations(
    ax: Axes, cells: Sequence[CellView], deviations: Mapping[str, Sequence[float]], tolerance: Sequence[float]
) -> None:
    floor, top = _limits(deviations, cells, tolerance)
    for shift, cell in _spread(cells):
        y = [max(value, floor) for value in deviations[cell.anchor]]
        (line,) = ax.plot([step + shift for step in range(1, len(y) + 1)], y, **_line_style(cell, len(y)))
        mark(line, cell)
    if tolerance:
        ax.plot(range(1, len(tolerance) + 1), tolerance, **_TOLERANCE_LINE)
    _set_distance_axis(ax, floor, top)
    _mark_zero(ax, floor)
    ax.set_ylabel("distance, nats")
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _spread(cells: Sequence[CellView]) -> Iterator[tuple[float, CellView]]:
    """Each cell with a shift to the side, so that equal losses do not hide one another."""
    distance = min(0.045, 0.5 / len(cells))
    for index, cell in enumerate(cells):
        yield (index - (len(cells) - 1) / 2) * distance, cell


def _line_style(cell: CellView, steps: int) -> dict[str, Any]:
    """A line with at most about `MAX_MARKERS` markers, which can still be told apart."""
    return {
        "markevery": max(1, steps // MAX_MARKERS),
        "color": cell.look.hex,
        "linestyle": cell.look.linestyle,
        "linewidth": 1.1,
        **marker_style(cell.look),
        "markersize": 5,
    }


def _table_steps(count: int) -> list[int]:
    """Which of `count` steps the table has: the first ones, round numbers and the last."""
    round_numbers = {factor * 10**power for power in range(1, 6) for factor in (1, 2, 5)}
    return sorted(step for step in {*range(1, PARITY_STEPS + 1), *round_numbers, count} if step <= count)


def _table_fields(losses: Sequence[float], deviations: Sequence[float], steps: Sequence[int]) -> list[str]:
    """Loss and deviation at each of `steps`; a dash where a cell took fewer."""
    count = min(len(losses), len(deviations))
    return [f"{losses[step - 1]:.6f} ({deviations[step - 1]:.1e})" if step <= count else "–" for step in steps]
