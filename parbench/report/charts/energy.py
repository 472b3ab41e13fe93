"""Tokens per joule of every cell, and what each meter showed; where the energy is unavailable, why."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap

from matplotlib.figure import Figure

from parbench.figures.definitions import FIGURES
from parbench.figures.energy import Meter, energy, gpus, held_down, packages
from parbench.records.energy import Reading
from parbench.report.charts.base import PanelChart
from parbench.report.charts.other_figures import draw_figure
from parbench.report.drawing.canvas import make_figure, report_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells
from parbench.report.panels import CellView, Panel, select_with
from parbench.text import plain, with_unit

NAME = "Tokens per joule"
HEADER = ("strategy", "devices", "tokens/J", "meter", "energy", "power", "GPU busy", "SM clock", "clock held down by")
LETTERS, LINE = 84, 0.17
"""Letters in a line of the drawing that says why there is none, and inches between two lines."""


class Energy(PanelChart):
    """A row for each cell with its tokens per joule; words where no cell's energy is known."""

    name = "energy"
    order = 25

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """One chart, of what was measured by versions that read meters."""
        read = [cell for cell in panel.cells if any(energy(trial, cell.record) for trial in cell.trials)]
        known = select_with(read, "tokens_per_joule")
        rows = [row for cell in choose_cells(read) for row in _tabulate(cell)]
        silence = _explain([cell for cell in read if cell.value("tokens_per_joule") is None])
        if known:
            sources = ", ".join(dict.fromkeys(plain(cell.row["tokens_per_joule_source"]) for cell in known))
            for chart in draw_figure(panel, known, prefix, FIGURES["tokens_per_joule"]):
                caption = f"{chart.caption} Source here: {sources}.{silence}"
                yield replace(chart, name=NAME, caption=caption, header=HEADER, rows=rows)
        elif read:
            yield Chart(
                id=f"{prefix}-tokens-per-joule",
                name=NAME,
                subject=panel.title,
                caption=FIGURES["tokens_per_joule"].meaning,
                alt=silence.strip(),
                header=HEADER,
                rows=rows,
                figure=_write(silence.strip()),
            )


def _explain(cells: Sequence[CellView]) -> str:
    """A sentence on the cells whose energy is unavailable, with the reasons; empty where there is none."""
    readings = [energy(trial, cell.record) for cell in cells for trial in cell.trials]
    reasons = dict.fromkeys(plain(reading.reason) for reading in readings if reading and reading.reason)
    count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
    return f" The energy of {count} is unavailable: {'; '.join(reasons)}." if cells else ""


def _write(sentence: str) -> Figure:
    """The sentence in place of a drawing."""
    lines = wrap(sentence, LETTERS)
    with report_style():
        figure = make_figure(0.2 + LINE * len(lines))
        figure.text(0.02, 0.5, "\n".join(lines), va="center", fontsize=8)
    return figure


def _tabulate(cell: CellView) -> list[list[str]]:
    """A row for each GPU and each machine's packages: medians over rounds, each with its source."""
    seen: defaultdict[str, list[Meter]] = defaultdict(list)
    for trial in cell.trials:
        for meter in (*gpus(trial), *packages(trial)):
            seen[meter.name].append(meter)
    ratio = FIGURES["tokens_per_joule"].with_interval(cell.row)
    return [
        [
            cell.name,
            cell.devices,
            ratio,
            plain(name),
            _typical([meter.energy for meter in meters], "J"),
            _typical([meter.power for meter in meters], "W"),
            _typical([meter.utilization for meter in meters], "%"),
            _typical([meter.clock for meter in meters], "MHz"),
            _held_down(cell, name),
        ]
        for name, meters in seen.items()
    ]


def _typical(readings: Sequence[Reading], unit: str) -> str:
    """The median with its source. A reading without a reason is none that such a meter has."""
    values = [reading.value for reading in readings if reading.value is not None]
    if not values:
        return "unavailable" if any(reading.reason for reading in readings) else "–"
    sources = dict.fromkeys(reading.source for reading in readings)
    return f"{with_unit(statistics.median(values), unit)} ({', '.join(sources)})"


def _held_down(cell: CellView, meter_name: str) -> str:
    """The causes that held a GPU's clock down, each with its median share of the window; of packages none is known."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for trial in cell.trials:
        for cause, share in held_down(trial).get(meter_name, {}).items():
            shares[cause].append(share)
    if not shares:
        is_gpu = any(meter.name == meter_name for trial in cell.trials for meter in gpus(trial))
        return "unavailable" if is_gpu else "–"
    causes = {plain(cause): statistics.median(each) for cause, each in shares.items()}
    texts = [f"{cause} {with_unit(share, '%')}" for cause, share in causes.items() if share > 0]
    return f"{', '.join(texts) or 'nothing'} (counter)"
