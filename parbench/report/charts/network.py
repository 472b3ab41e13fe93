"""Speedup against the network between nodes: what runs of one scenario at several link rates show together."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE, add_legend, marker_style, report_style
from parbench.report.drawing.chart import Chart
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
    with report_style():
        figure = Figure(figsize=(5.6, 3.4))
        axes = figure.subplots()
        axes.axhline(1, **IDEAL_LINE)
        for number, line in enumerate(lines.values()):
            # Lines are moved apart sideways, so that equal points do not hide one another.
            look, shift = line[0][1].look, 1 + 0.02 * (number - (len(lines) - 1) / 2)
            x = [rate * shift for rate, _ in line]
            intervals = [cell.interval("speedup") or (_speedup(cell), _speedup(cell)) for _, cell in line]
            low, high = [each[0] for each in intervals], [each[1] for each in intervals]
            axes.vlines(x, low, high, color=look.hex, linewidth=1.1)
            y = [_speedup(cell) for _, cell in line]
            axes.plot(x, y, color=look.hex, linestyle=look.linestyle, **marker_style(look))
        axes.set_xscale("log")
        axes.set_xticks(rates, [_format_rate(rate) for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"link between {'emulated ' * emulated}nodes")
        axes.set_ylabel("speedup over one device")
        cells = [cell for line in lines.values() for _, cell in line]
        add_legend(figure, cells, [Line2D([], [], **IDEAL_LINE, label="one device alone")])
    return figure


def _speedup(cell: CellView) -> float:
    return cell.value("speedup") or 0.0


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
