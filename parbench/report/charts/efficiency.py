"""Scaling efficiency against devices: how much of the added devices is used."""

from collections.abc import Iterator, Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE, add_legend, report_style
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.runs import collect_cells, count_left_out, key_columns, make_axes, tabulate
from parbench.report.drawing.scaling import describe_line_ends, draw_lines, set_device_axes
from parbench.report.panels import Panel


class Efficiency(ComparisonChart):
    """Scaling efficiency against devices; the ideal is a line at 100 %."""

    name = "efficiency"
    order = 20

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart; none where no cell has an efficiency."""
        panels = [panel for panel in panels if panel.comparable_with("scaling_efficiency")]
        if not panels:
            return
        cells = collect_cells(panels, "scaling_efficiency")
        with report_style():
            figure, axes = make_axes(panels)
            for panel, ax in zip(panels, axes, strict=True):
                ax.axhline(1, **IDEAL_LINE)
                draw_lines(ax, panel, "scaling_efficiency")
                ax.set_ylim(0, max(1.15, ax.get_ylim()[1]))
                ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            axes[0].set_ylabel("scaling efficiency")
            set_device_axes(axes, cells)
            add_legend(figure, cells, [Line2D([], [], **IDEAL_LINE, label="ideal: 100 %")])
        yield Chart(
            id=f"{prefix}-{cls.name}",
            name="Scaling efficiency",
            subject=panels[0].title,
            caption=f"{FIGURES['scaling_efficiency'].meaning} The interval is the speedup's.{count_left_out(panels)}",
            alt=describe_line_ends(panels, "scaling_efficiency"),
            header=(*key_columns(panels), FIGURES["scaling_efficiency"].title, FIGURES["speedup"].title),
            rows=tabulate(panels, "scaling_efficiency", "speedup"),
            figure=figure,
            wide=len(panels) > 1,
        )
