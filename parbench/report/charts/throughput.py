"""Throughput against devices: how strategies scale."""

import math
from collections.abc import Iterator, Sequence

from matplotlib.lines import Line2D

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE, add_legend, report_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.runs import (
    collect_cells,
    count_left_out,
    key_columns,
    make_axes,
    set_speed_axis,
    tabulate,
)
from parbench.report.drawing.scaling import describe_line_ends, draw_lines, set_device_axes
from parbench.report.panels import Panel


class Throughput(ComparisonChart):
    """Tokens/s against devices. On two log scales equal distances are equal factors, and the ideal is a line."""

    name = "throughput"
    order = 10

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart; none where no cell has a speed."""
        panels = [panel for panel in panels if panel.comparable_with("tokens_per_s")]
        if not panels:
            return
        cells = collect_cells(panels, "tokens_per_s")
        with report_style():
            figure, axes = make_axes(panels)
            for panel, ax in zip(panels, axes, strict=True):
                if panel.base is not None:
                    counts = [cell.record.devices for cell in panel.comparable]
                    speed = panel.base.value("tokens_per_s") or math.nan
                    ends = [min(counts) / 1.2, max(counts) * 1.2]
                    ax.plot(ends, [speed * end for end in ends], **IDEAL_LINE)
                draw_lines(ax, panel, "tokens_per_s")
            set_speed_axis(axes, cells, log=True)
            set_device_axes(axes, cells)
            ideal = Line2D([], [], **IDEAL_LINE, label="ideal: one device × devices")
            add_legend(figure, cells, [ideal] if any(panel.base for panel in panels) else [])
        yield Chart(
            id=f"{prefix}-{cls.name}",
            name="Throughput",
            subject=panels[0].title,
            caption="Tokens per second of the whole system, with 95 % confidence intervals over rounds. Both axes are "
            "logarithmic: equal distances are equal factors. Points are moved apart sideways a little."
            f"{count_left_out(panels)}",
            alt=describe_line_ends(panels, "tokens_per_s"),
            header=(*key_columns(panels), FIGURES["tokens_per_s"].title, FIGURES["speedup"].title),
            rows=tabulate(panels, "tokens_per_s", "speedup"),
            figure=figure,
            wide=len(panels) > 1,
        )
