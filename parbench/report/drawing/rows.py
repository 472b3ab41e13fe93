"""Charts with a row for each cell, labelled at its left end; many rows stand in groups by strategy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.text import Text
from matplotlib.transforms import blended_transform_factory

from parbench.report.drawing.canvas import (
    GRID,
    GROUND,
    INK,
    MUTED,
    WIDTH,
    add_axes,
    draw_segments,
    make_figure,
    report_style,
    set_margins,
)
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import is_crowded, rank_by_strategy
from parbench.report.drawing.marks import mark
from parbench.report.panels import CellView, Panel, fold, group_by
from parbench.text import plain

PlacedCells = Sequence[tuple[float, CellView]]
"""Cells, each with the y coordinate of its row's middle. The y axis points down; a row is usually 1 high."""

_ROW_HEIGHT, _LINE = 0.19, 0.62
"""Inches of a row, and the share of it that each further line of its label takes."""

_NAME_WIDTH, _OPTIONS_WIDTH, _SIZE = 26, 34, 8.0
"""Letters in a line of a name, and of a strategy's options; their font's size in points."""


@dataclass(frozen=True)
class _Rows:
    """Where everything stands: cells and headings by height, and the axis' end."""

    cells: PlacedCells
    labels: Sequence[str]
    headings: Sequence[tuple[float, CellView]]
    end: float


def draw_rows(
    panel: Panel,
    cells: Sequence[CellView],
    draw: Callable[[Axes, PlacedCells], None],
    *,
    id: str,  # noqa: A002 - it is the chart's field
    name: str,
    caption: str,
    alt: str,
    header: Sequence[str],
    table_rows: Callable[[CellView], list[list[str]]],
    row_height: Callable[[CellView], float] = lambda _: 1.0,
    value: Callable[[CellView], str] | None = None,
    footer: float = 0.0,
) -> Iterator[Chart]:
    """Draws a chart of the cells; none without cells.

    `draw` fills the axes, `row_height` is how high a cell's row is, `value` writes what stands at its right end,
    `table_rows` gives its rows of the table, and `footer` is the height (inches) of a legend below the axis.
    """
    if not cells:
        return
    crowded = is_crowded(cells)
    cells = rank_by_strategy(cells) if crowded else cells
    rows = _place_rows(cells, row_height, crowded=crowded)
    with report_style():
        figure = make_figure(0.62 + footer + _ROW_HEIGHT * (rows.end + 0.5))
        letters = max(len(line) for label in rows.labels for line in label.split("\n"))
        letters += 1 + max(len(_devices(cell)) for cell in cells) if crowded else 0
        label_inches = 0.14 * crowded + 0.54 * _SIZE / 72 * letters + 0.1
        values = [value(cell) for cell in cells] if value else []
        value_inches = max((0.6 * _SIZE / 72 * len(text) for text in values), default=0.0)
        set_margins(figure, left=label_inches + 0.1, right=value_inches + 0.18, bottom=0.5 + footer, top=0.08)
        ax = add_axes(figure)
        ax.set_ylim(rows.end, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        draw(ax, rows.cells)
        _write_labels(ax, rows, values, indent=0.14 * crowded)
    yield Chart(
        id=id,
        name=name,
        subject=panel.title,
        caption=caption,
        alt=f"{alt} The numbers are in the table below.",
        header=header,
        rows=[row for cell in cells for row in table_rows(cell)],
        figure=figure,
    )


def by_strategy(cells: PlacedCells) -> list[PlacedCells]:
    """The placed cells of each strategy, which have one colour."""
    return list(group_by(cells, lambda placed: placed[1].record.strategy))


def draw_dots(
    ax: Axes, cells: PlacedCells, value: Callable[[CellView], float], ends: Callable[[CellView], Sequence[float] | None]
) -> None:
    """Draws each cell's value as a dot, and the line between the two ends where it has them.

    The dot is hollow where the cell has notes: it is emulated, say, or oversubscribed.
    """
    for group in by_strategy(cells):
        first = group[0][1]
        lines = [[(each[0], y), (each[1], y)] for y, cell in group if (each := ends(cell)) is not None]
        mark(draw_segments(ax, lines, color=first.look.hex, linewidth=1.6), first)
        for hollow in (False, True):
            points = [(value(cell), y) for y, cell in group if bool(cell.notes) is hollow]
            if points:
                mark(_scatter(ax, points, first, hollow=hollow), first)


def _scatter(ax: Axes, points: Sequence[tuple[float, float]], cell: CellView, *, hollow: bool) -> PathCollection:
    face, edge = (GROUND, cell.look.hex) if hollow else (cell.look.hex, INK)
    x, y = np.transpose(points)
    return ax.scatter(x, y, s=26, c=face, edgecolors=edge, linewidths=1.3 if hollow else 0.6, zorder=3, clip_on=False)


def _place_rows(cells: Sequence[CellView], height: Callable[[CellView], float], *, crowded: bool) -> _Rows:
    """Places rows from the top down; a strategy of a crowded chart has its name as a heading above its cells."""
    placed, labels, headings, top = [], [], [], -0.5
    previous = None
    for cell in cells:
        if crowded and cell.record.strategy != previous:
            top += 0.25 if previous is not None else 0.0
            headings.append((top + 0.5, cell))
            top += 1.0
            previous = cell.record.strategy
        label = _options(cell) if crowded else cell.folded_place(_NAME_WIDTH)
        # A label of several lines needs room, whatever is drawn beside it.
        needed = max(height(cell), 1.0 + _LINE * label.count("\n"))
        placed.append((top + needed / 2, cell))
        labels.append(label)
        top += needed
    return _Rows(placed, labels, headings, top)


def _options(cell: CellView) -> str:
    """The strategy's options, for a row below its name; the name again where there are none."""
    options = cell.label.removeprefix(plain(cell.record.strategy)).strip()
    options = options[1:-1] if options[:1] == "(" and options[-1:] == ")" else options
    return fold(options or cell.label, _OPTIONS_WIDTH, lines=3)


def _devices(cell: CellView) -> str:
    nodes = f", {cell.record.nodes} nodes" if cell.record.nodes > 1 else ""
    return f"on {cell.record.devices}{nodes}"


def _write_labels(ax: Axes, rows: _Rows, values: Sequence[str], *, indent: float) -> None:
    figure = ax.figure
    left = blended_transform_factory(figure.transFigure, ax.transData)
    for (y, cell), label in zip(rows.cells, rows.labels, strict=True):
        if indent:
            beside = Text(-0.015, y, _devices(cell), transform=ax.get_yaxis_transform(), ha="right", va="center")
            beside.set(fontsize=_SIZE, clip_on=False)
            ax.add_artist(mark(beside, cell))
        text = Text(
            (0.08 + indent) / WIDTH,
            y,
            label,
            transform=left,
            va="center",
            fontsize=_SIZE,
            linespacing=1.05,
            clip_on=False,
        )
        ax.add_artist(mark(text, cell))
    for y, cell in rows.headings:
        name = plain(cell.record.strategy)
        text = Text(
            0.08 / WIDTH, y, name, transform=left, va="center", fontsize=_SIZE, fontweight="bold", clip_on=False
        )
        ax.add_artist(mark(text, cell))
    for (y, cell), label in zip(rows.cells, values, strict=bool(values)):
        text = Text(1 - 0.08 / WIDTH, y, label, transform=left, va="center", ha="right", fontsize=_SIZE, clip_on=False)
        ax.add_artist(mark(text, cell))
    guides = [[(0.0, y), (1.0, y)] for y, _ in rows.cells]
    draw_segments(ax, guides, transform=ax.get_yaxis_transform(), color=GRID, linewidth=0.6, zorder=0, clip_on=False)
    rules = [[(0.08 / WIDTH, y - 0.6), (1 - 0.08 / WIDTH, y - 0.6)] for y, _ in rows.headings[1:]]
    draw_segments(ax, rules, transform=left, color=MUTED, linewidth=0.3, clip_on=False)
