"""Charts of how strategies scale: throughput, efficiency, throughput against memory. Runs stand side by side."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter

from parbench.figures.definitions import FIGURES
from parbench.report.charts.canvas import MUTED, Chart, device_axis, drawing, legend, marker
from parbench.report.charts.labels import place_labels
from parbench.report.panels import CellView, Panel, shorter
from parbench.text import MIB

HEADER = ("strategy", "devices")


def throughput(panels: Sequence[Panel], prefix: str) -> Chart | None:
    """Tokens/s against devices on log scales, where equal distances are equal factors, with the ideal line."""
    panels = [panel for panel in panels if _with(panel, "tokens_per_s")]
    if not panels:
        return None
    with drawing():
        figure, axes = _side_by_side(panels)
        for panel, ax in zip(panels, axes, strict=True):
            if panel.base is not None:
                counts = [cell.record.devices for cell in panel.comparable]
                speed = panel.base.value("tokens_per_s") or math.nan
                ends = [min(counts) / 1.2, max(counts) * 1.2]
                ax.plot(ends, [speed * end for end in ends], color=MUTED, linewidth=1, linestyle=(0, (6, 3)))
            _lines(ax, panel, "tokens_per_s")
        _speed_axes(axes, _cells(panels, "tokens_per_s"), log=True)
        _device_axes(axes, _cells(panels, "tokens_per_s"))
        ideal = Line2D([], [], color=MUTED, linewidth=1, linestyle=(0, (6, 3)), label="ideal: one device × devices")
        legend(figure, _cells(panels, "tokens_per_s"), [ideal] if any(panel.base for panel in panels) else [])
    return Chart(
        id=f"{prefix}-throughput",
        name="Throughput",
        subject=panels[0].title,
        caption="Tokens per second of the whole system, with 95 % confidence intervals over rounds. Both axes are "
        f"logarithmic: equal distances are equal factors. Points are moved apart sideways a little.{_absent(panels)}",
        alt=_summary(panels, "tokens_per_s"),
        header=(*_header(panels), FIGURES["tokens_per_s"].title, FIGURES["speedup"].title),
        rows=_rows(panels, "tokens_per_s", "speedup"),
        figure=figure,
        wide=len(panels) > 1,
    )


def efficiency(panels: Sequence[Panel], prefix: str) -> Chart | None:
    """Scaling efficiency against devices."""
    panels = [panel for panel in panels if _with(panel, "scaling_efficiency")]
    if not panels:
        return None
    with drawing():
        figure, axes = _side_by_side(panels)
        for panel, ax in zip(panels, axes, strict=True):
            ax.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (6, 3)))
            _lines(ax, panel, "scaling_efficiency")
            ax.set_ylim(0, max(1.15, ax.get_ylim()[1]))
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes[0].set_ylabel("scaling efficiency")
        _device_axes(axes, _cells(panels, "scaling_efficiency"))
        ideal = Line2D([], [], color=MUTED, linewidth=1, linestyle=(0, (6, 3)), label="ideal: 100 %")
        legend(figure, _cells(panels, "scaling_efficiency"), [ideal])
    return Chart(
        id=f"{prefix}-efficiency",
        name="Scaling efficiency",
        subject=panels[0].title,
        caption=f"{FIGURES['scaling_efficiency'].meaning} The interval is the speedup's.{_absent(panels)}",
        alt=_summary(panels, "scaling_efficiency"),
        header=(*_header(panels), FIGURES["scaling_efficiency"].title, FIGURES["speedup"].title),
        rows=_rows(panels, "scaling_efficiency", "speedup"),
        figure=figure,
        wide=len(panels) > 1,
    )


def trade_off(panels: Sequence[Panel], prefix: str) -> Chart | None:
    """Throughput against memory; the Pareto front is what nothing beats in both."""
    panels = [panel for panel in panels if _points(panel)]
    if not panels:
        return None
    with drawing():
        figure, axes = _side_by_side(panels)
        for panel, ax in zip(panels, axes, strict=True):
            _scatter(ax, panel)
        cells = [cell for panel in panels for cell in _points(panel)]
        speeds = [_point(cell)[1] for cell in cells]
        _speed_axes(axes, cells, log=max(speeds) > 8 * min(speeds))
        _share_limits(axes)
        front = Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="Pareto front")
        legend(figure, cells, [front])
        for panel, ax in zip(panels, axes, strict=True):
            place_labels(figure, ax, [(*_point(cell), cell.short_place(30)) for cell in pareto(_points(panel))])
    fronts = [f"{_of(panel, panels)}{', '.join(cell.place for cell in pareto(_points(panel)))}" for panel in panels]
    return Chart(
        id=f"{prefix}-memory-trade-off",
        name="Throughput against memory",
        subject=panels[0].title,
        caption="Up and to the left is better; larger markers are more devices. On the dotted front nothing is both "
        f"faster and smaller, by the measured means.{_absent(panels)}",
        alt=f"Scatter of tokens per second against peak memory per rank. On the Pareto front: {'; '.join(fronts)}.",
        header=(*_header(panels), FIGURES["tokens_per_s"].title, FIGURES["peak_memory_bytes"].title, "Pareto front"),
        rows=[
            [
                *_key(cell, panel, panels),
                FIGURES["tokens_per_s"].with_interval(cell.row),
                _memory(cell),
                _mark(cell, panel),
            ]
            for panel in panels
            for cell in _points(panel)
        ],
        figure=figure,
        wide=len(panels) > 1,
    )


def pareto(cells: Sequence[CellView]) -> list[CellView]:
    """The cells that no other beats in memory without being slower, from the smallest to the fastest."""
    front: list[CellView] = []
    for cell in sorted(cells, key=lambda each: (_point(each)[0], -_point(each)[1])):
        if not front or _point(cell)[1] > _point(front[-1])[1]:
            front.append(cell)
    return front


def compact(value: float) -> str:
    """A tick such as 20k or 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _side_by_side(panels: Sequence[Panel]) -> tuple[Figure, list[Axes]]:
    """An axes for each run, three in a row at most."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 if columns == 1 else 4.2 * columns, 3.2 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = [ax for row in grid for ax in row]
    for unused in axes[len(panels) :]:
        unused.remove()
    if len(panels) > 1:
        for panel, ax in zip(panels, axes, strict=False):
            ax.set_title(shorter(panel.run, 44), fontsize=8.5)
    return figure, axes[: len(panels)]


def _lines(axes: Axes, panel: Panel, figure: str) -> None:
    """A line for each label: its points, their intervals, and the band between them."""
    labels = [known for cells in panel.by_label.values() if (known := _known(cells, figure))]
    spread = min(0.05, 0.4 / max(1, len(labels)))
    for index, cells in enumerate(labels):
        look = cells[0].look
        shift = 2 ** ((index - (len(labels) - 1) / 2) * spread)
        x = [cell.record.devices * shift for cell in cells]
        y = [cell.value(figure) or 0.0 for cell in cells]
        bounds = [_bounds(cell, figure) for cell in cells]
        low, high = [bound[0] for bound in bounds], [bound[1] for bound in bounds]
        axes.vlines(x, low, high, color=look.hex, linewidth=1.1, alpha=0.85)
        if len(x) > 1:
            axes.fill_between(x, low, high, color=look.hex, alpha=0.1, linewidth=0)
        axes.plot(x, y, color=look.hex, linestyle=look.linestyle, **marker(look))
    boundary = node_boundary(panel)
    if boundary is not None:
        axes.axvline(boundary, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        beside: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
        for text, shift, side in (("one node", -4, "right"), ("several", 4, "left")):
            axes.annotate(text, (boundary, 1), (shift, -2), color=MUTED, fontsize=7.5, ha=side, **beside)


def node_boundary(panel: Panel) -> float | None:
    """Between the most devices that one node has and the fewest that need several; None where one node has all."""
    within = [cell.record.devices for cell in panel.comparable if cell.record.nodes == 1]
    beyond = [cell.record.devices for cell in panel.comparable if cell.record.nodes > 1]
    return math.sqrt(max(within) * min(beyond)) if within and beyond else None


def _bounds(cell: CellView, figure: str) -> tuple[float, float]:
    value = cell.value(figure) or 0.0
    if figure != "scaling_efficiency":
        return cell.interval(figure) or (value, value)
    low, high = cell.interval("speedup") or (value * cell.record.devices,) * 2
    return low / cell.record.devices, high / cell.record.devices


def _scatter(axes: Axes, panel: Panel) -> None:
    cells = _points(panel)
    front = [_point(cell) for cell in pareto(cells)]
    # A staircase: between two cells of the front there is nothing, so no line may promise it.
    axes.step(*zip(*front, strict=True), where="post", color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
    for cell in cells:
        x, y = _point(cell)
        speeds, memory = cell.interval("tokens_per_s"), cell.memory
        if speeds:
            axes.vlines(x, *speeds, color=cell.look.hex, linewidth=0.9, alpha=0.5)
        if memory and memory.low is not None and memory.high is not None:
            axes.hlines(y, memory.low / MIB, memory.high / MIB, color=cell.look.hex, linewidth=0.9, alpha=0.5)
        size = 6 + 2 * math.log2(cell.record.devices)
        axes.plot(x, y, linestyle="none", **{**marker(cell.look), "markersize": min(size, 18)})
    axes.margins(0.12, 0.14)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("peak memory of the fullest rank, MiB")


def _speed_axes(axes: Sequence[Axes], cells: Sequence[CellView], *, log: bool) -> None:
    """Tokens/s upwards: one scale and one set of ticks for every run, or they could not be compared by eye."""
    for ax in axes:
        if log:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=_steps(cells)))
            ax.yaxis.set_minor_locator(LogLocator(subs=()))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    axes[0].set_ylabel("tokens/s")


def _device_axes(axes: Sequence[Axes], cells: Sequence[CellView]) -> None:
    """Devices to the right: those of every run, so that the same number is at the same place."""
    for ax in axes:
        device_axis(ax, [cell.record.devices for cell in cells])
    _share_limits(axes)


def _share_limits(axes: Sequence[Axes]) -> None:
    """The same scale for every run, or they could not be compared by eye."""
    setters: list[tuple[Callable[[Axes], tuple[float, float]], Callable[[Axes, float, float], Any]]] = [
        (lambda ax: ax.get_xlim(), lambda ax, low, high: ax.set_xlim(low, high)),
        (lambda ax: ax.get_ylim(), lambda ax, low, high: ax.set_ylim(low, high)),
    ]
    for get, put in setters:
        limits = [get(ax) for ax in axes]
        for ax in axes:
            put(ax, min(low for low, _ in limits), max(high for _, high in limits))


def _steps(cells: Sequence[CellView]) -> tuple[float, ...]:
    """Where a logarithmic axis has ticks within a decade: closer together where speeds are."""
    speeds = [cell.value("tokens_per_s") or 1.0 for cell in cells]
    return (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8) if max(speeds) / min(speeds) < 6 else (1, 2, 5)


def _points(panel: Panel) -> list[CellView]:
    return _known(_known(panel.comparable, "tokens_per_s"), "peak_memory_bytes")


def _point(cell: CellView) -> tuple[float, float]:
    return (cell.value("peak_memory_bytes") or 0.0) / MIB, cell.value("tokens_per_s") or 0.0


def _with(panel: Panel, figure: str) -> list[CellView]:
    return _known(panel.comparable, figure)


def _known(cells: Sequence[CellView], figure: str) -> list[CellView]:
    return [cell for cell in cells if cell.value(figure) is not None]


def _cells(panels: Sequence[Panel], figure: str) -> list[CellView]:
    return [cell for panel in panels for cell in _with(panel, figure)]


def _header(panels: Sequence[Panel]) -> tuple[str, ...]:
    return ("run", *HEADER) if len(panels) > 1 else HEADER


def _key(cell: CellView, panel: Panel, panels: Sequence[Panel]) -> list[str]:
    return [*([panel.run] if len(panels) > 1 else []), cell.name, cell.devices]


def _rows(panels: Sequence[Panel], *names: str) -> list[list[str]]:
    return [
        [*_key(cell, panel, panels), *(FIGURES[name].with_interval(cell.row) for name in names)]
        for panel in panels
        for cell in _with(panel, names[0])
    ]


def _memory(cell: CellView) -> str:
    return FIGURES["peak_memory_bytes"].text(cell.row["peak_memory_bytes"])


def _mark(cell: CellView, panel: Panel) -> str:
    return "yes" if cell in pareto(_points(panel)) else "no"


def _of(panel: Panel, panels: Sequence[Panel]) -> str:
    return f"{panel.run}: " if len(panels) > 1 else ""


def _summary(panels: Sequence[Panel], figure: str) -> str:
    """What a line chart shows, in words: where each line ends."""
    ends = []
    for panel in panels:
        cells = [_known(cells, figure) for cells in panel.by_label.values()]
        last = [f"{each[-1].place}: {FIGURES[figure].with_interval(each[-1].row)}" for each in cells[:12] if each]
        more = f", and {len(cells) - 12} more" if len(cells) > 12 else ""
        ends.append(f"{_of(panel, panels)}{', '.join(last)}{more}")
    return f"{FIGURES[figure].title} against devices. At the most devices: {'; '.join(ends)}."


def _absent(panels: Sequence[Panel]) -> str:
    """A sentence on the cells that are not drawn: nothing is hidden."""
    count = sum(len(panel.left_out) for panel in panels)
    if not count:
        return ""
    cells = "cell that is" if count == 1 else "cells that are"
    return f" Not drawn: {count} {cells} not comparable; the table says why."
