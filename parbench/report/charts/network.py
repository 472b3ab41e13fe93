"""Speedup against the network between nodes: what runs of one scenario at several link rates show together."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE, add_axes, make_figure, report_style, set_margins
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import MAX_LINES
from parbench.report.drawing.ends import label_ends, name_width
from parbench.report.drawing.facets import draw_facets
from parbench.report.drawing.series import draw_series, series_of
from parbench.report.panels import CellView, Panel

Lines = Mapping[str, Sequence[tuple[float, CellView]]]
"""By name and devices: the cells at each link rate (Mbit/s), from the slowest link to the fastest."""


class Network(ComparisonChart):
    """Speedup over one device against the link's rate, a line for each strategy and number of devices."""

    name = "network"
    order = 40

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart; none unless there are runs on several nodes at two link rates or more."""
        lines = _collect_lines(panels)
        rates = sorted({rate for line in lines.values() for rate, _ in line})
        if len(rates) < 2:
            return
        cells = [cell for line in lines.values() for _, cell in line]
        emulated = any(cell.row.get("emulated_hosts") for cell in cells)
        yield Chart(
            id=f"{prefix}-{cls.name}",
            name="Speedup against the network",
            subject=panels[0].title,
            caption="Speedup over one device in the same round, with 95 % confidence intervals, by the rate of the "
            "slowest link between nodes (logarithmic). Below the dashed line several nodes are slower than one device."
            + " The nodes are emulated on one machine, and so is the network."
            * emulated,
            alt=f"Speedup against the link's rate. {_describe_rate(lines, rates[0])} "
            f"{_describe_rate(lines, rates[-1])}",
            header=("strategy", "devices", "link", FIGURES["speedup"].title, FIGURES["tokens_per_s"].title),
            rows=[
                [
                    cell.name,
                    cell.devices,
                    _format_rate(rate),
                    *(FIGURES[figure].with_interval(cell.row) for figure in ("speedup", "tokens_per_s")),
                ]
                for line in lines.values()
                for rate, cell in line
            ],
            figure=_draw_lines(lines, rates, emulated),
        )


def _collect_lines(panels: Sequence[Panel]) -> Lines:
    """The comparable cells on several nodes."""
    lines: dict[str, list[tuple[float, CellView]]] = {}
    for panel in sorted(panels, key=lambda panel: panel.link_mbit or 0.0):
        for cell in panel.comparable:
            if panel.link_mbit and cell.record.nodes > 1 and cell.value("speedup") is not None:
                lines.setdefault(cell.place, []).append((panel.link_mbit, cell))
    return lines


def _draw_lines(lines: Lines, rates: Sequence[float], emulated: bool) -> Figure:
    """One plot with the lines' names beside them or, of too many lines, a small plot for each strategy."""
    series = [series_of([cell for _, cell in line], "speedup", [rate for rate, _ in line]) for line in lines.values()]
    label = f"link between {'emulated ' * emulated}nodes"

    def set_axes(axes: Sequence[Axes]) -> None:
        top = max(value for each in series for value in each.high) * 1.08
        for ax in axes:
            ax.axhline(1, **IDEAL_LINE)
            ax.set_xscale("log")
            ax.set_xticks(rates, [_format_rate(rate) for rate in rates], fontsize=8)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_ylim(0, top)

    with report_style():
        if len(series) > MAX_LINES:
            return draw_facets(series, set_axes, lambda _: "", x_label=label, y_label="speedup over one device")
        figure = make_figure(3.0)
        set_margins(figure, left=0.76, right=name_width(series), bottom=0.46, top=0.1)
        axes = add_axes(figure)
        draw_series(axes, series, apart=0.03)
        set_axes([axes])
        axes.set_xlabel(label)
        axes.set_ylabel("speedup over one device")
        label_ends(axes, series)
    return figure


def _format_rate(mbit: float) -> str:
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def _describe_rate(lines: Lines, rate: float) -> str:
    """A sentence on the speedups at one link rate."""
    speedups = [
        f"{place} {FIGURES['speedup'].with_interval(cell.row)}"
        for place, line in lines.items()
        for link_rate, cell in line
        if link_rate == rate
    ]
    return f"At {_format_rate(rate)}: {', '.join(speedups)}."
