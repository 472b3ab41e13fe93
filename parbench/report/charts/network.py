"""What the network between nodes does to each strategy: runs of one scenario at several link rates in one chart."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from parbench.figures.definitions import FIGURES
from parbench.report.charts.canvas import MUTED, Chart, drawing, legend, marker
from parbench.report.panels import CellView, Panel


def network(panels: Sequence[Panel], prefix: str) -> Chart | None:
    """Speedup over one device against the rate of the link, a line for each strategy that spans nodes."""
    points = _by_label(panels)
    rates = sorted({rate for line in points.values() for rate, _ in line})
    if len(rates) < 2:
        return None
    cells = [cell for line in points.values() for _, cell in line]
    with drawing():
        figure = Figure(figsize=(5.6, 3.4))
        axes = figure.subplots()
        axes.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (6, 3)))
        for number, line in enumerate(points.values()):
            look, shift = line[0][1].look, 1 + 0.02 * (number - (len(points) - 1) / 2)
            x = [rate * shift for rate, _ in line]
            bounds = [cell.interval("speedup") or (_speedup(cell), _speedup(cell)) for _, cell in line]
            axes.vlines(x, [low for low, _ in bounds], [high for _, high in bounds], color=look.hex, linewidth=1.1)
            axes.plot(x, [_speedup(cell) for _, cell in line], color=look.hex, linestyle=look.linestyle, **marker(look))
        axes.set_xscale("log")
        axes.set_xticks(rates, [_told(rate) for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"link between {'emulated ' * _emulated(cells)}nodes")
        axes.set_ylabel("speedup over one device")
        legend(
            figure, cells, [Line2D([], [], color=MUTED, linewidth=1, linestyle=(0, (6, 3)), label="one device alone")]
        )
    return Chart(
        id=f"{prefix}-network",
        name="Speedup against the network",
        subject=panels[0].title,
        caption="Speedup over one device in the same round, with 95 % confidence intervals, by the rate of the slowest "
        "link between nodes (logarithmic). Below the dashed line several nodes are slower than one device."
        + " The nodes are emulated on one machine, and so is the network."
        * _emulated(cells),
        alt=f"Speedup against the link's rate. At {_told(rates[0])}: {_at(points, rates[0])}. "
        f"At {_told(rates[-1])}: {_at(points, rates[-1])}.",
        header=("strategy", "devices", "link", FIGURES["speedup"].title, FIGURES["tokens_per_s"].title),
        rows=[
            [
                cell.name,
                cell.devices,
                _told(rate),
                *(FIGURES[name].with_interval(cell.row) for name in ("speedup", "tokens_per_s")),
            ]
            for line in points.values()
            for rate, cell in line
        ],
        figure=figure,
    )


def _by_label(panels: Sequence[Panel]) -> dict[str, list[tuple[float, CellView]]]:
    """The cells on several nodes of each strategy and number of devices, from the slowest link to the fastest."""
    found: dict[str, list[tuple[float, CellView]]] = {}
    for panel in sorted(panels, key=lambda each: each.link_mbit or 0.0):
        for cell in panel.comparable:
            if panel.link_mbit and cell.record.nodes > 1 and cell.value("speedup") is not None:
                found.setdefault(cell.place, []).append((panel.link_mbit, cell))
    return found


def _speedup(cell: CellView) -> float:
    return cell.value("speedup") or 0.0


def _emulated(cells: Sequence[CellView]) -> bool:
    return any(cell.row.get("emulated_hosts") for cell in cells)


def _told(mbit: float) -> str:
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def _at(points: dict[str, list[tuple[float, CellView]]], rate: float) -> str:
    return ", ".join(
        f"{place} {FIGURES['speedup'].with_interval(cell.row)}"
        for place, line in points.items()
        for at, cell in line
        if at == rate
    )
