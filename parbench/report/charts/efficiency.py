"""Scaling efficiency against devices: how much of the added devices is used."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.runs import count_left_out, key_columns, tabulate
from parbench.report.drawing.scaling import describe_facets, describe_line_ends, draw_scaling
from parbench.report.drawing.series import Series
from parbench.report.panels import CellView, Panel


class Efficiency(ComparisonChart):
    """Scaling efficiency against devices; the ideal is a line at 100 %."""

    name = "efficiency"
    order = 20

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart, or of too many labels one for each run; none where no cell has an efficiency."""
        panels = [panel for panel in panels if panel.comparable_with("scaling_efficiency")]
        drawings = draw_scaling(
            panels, "scaling_efficiency", _draw_ideal, _set_percent, "scaling efficiency", _name_last
        )
        for number, (drawn, figure) in enumerate(drawings, start=1):
            yield Chart(
                id=f"{prefix}-{cls.name}" + f"-{number}" * (number > 1),
                name="Scaling efficiency",
                subject=drawn[0].title,
                caption=f"{FIGURES['scaling_efficiency'].meaning} The interval is the speedup's. Dashed: the ideal."
                f"{describe_facets(panels, 'scaling_efficiency', 'best at the most devices')}{count_left_out(drawn)}",
                alt=describe_line_ends(drawn, "scaling_efficiency"),
                header=(*key_columns(panels), FIGURES["scaling_efficiency"].title, FIGURES["speedup"].title),
                rows=tabulate(drawn, "scaling_efficiency", "speedup"),
                figure=figure,
                wide=len(drawn) > 1,
            )


def _draw_ideal(ax: Axes, _: Panel) -> None:
    ax.axhline(1, **IDEAL_LINE)


def _set_percent(axes: Sequence[Axes], _: Sequence[CellView]) -> None:
    for ax in axes:
        ax.set_ylim(0, max(1.15, ax.get_ylim()[1]))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _name_last(lines: Sequence[Series]) -> str:
    """The highest efficiency at the most devices, such as `47 % on 4`."""
    devices, efficiency = max((int(line.x[-1]), line.y[-1]) for line in lines)
    return f"{efficiency:.0%} on {devices}".replace("%", " %")
