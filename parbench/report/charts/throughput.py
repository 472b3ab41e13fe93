"""Throughput against devices: how strategies scale."""

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from parbench.figures.definitions import FIGURES
from parbench.report.charts.base import ComparisonChart
from parbench.report.drawing.canvas import IDEAL_LINE, format_tick
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.runs import count_left_out, key_columns, set_speed_axis, tabulate
from parbench.report.drawing.scaling import describe_facets, describe_line_ends, draw_scaling
from parbench.report.drawing.series import Series
from parbench.report.panels import Panel


class Throughput(ComparisonChart):
    """Tokens/s against devices. On two log scales equal distances are equal factors, and the ideal is a line."""

    name = "throughput"
    order = 10

    @classmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """One chart, or of too many labels one for each run; none where no cell has a speed."""
        panels = [panel for panel in panels if panel.comparable_with("tokens_per_s")]
        drawings = draw_scaling(
            panels,
            "tokens_per_s",
            _draw_ideal,
            lambda axes, cells: set_speed_axis(axes, cells, log=True),
            "tokens/s",
            _name_best,
        )
        for number, (drawn, figure) in enumerate(drawings, start=1):
            yield Chart(
                id=f"{prefix}-{cls.name}" + f"-{number}" * (number > 1),
                name="Throughput",
                subject=drawn[0].title,
                caption="Tokens per second of the whole system, with 95 % confidence intervals over rounds. Both axes "
                "are logarithmic: equal distances are equal factors. Dashed: the ideal, one device × devices."
                f"{describe_facets(panels, 'tokens_per_s', 'highest speed')}{count_left_out(drawn)}",
                alt=describe_line_ends(drawn, "tokens_per_s"),
                header=(*key_columns(panels), FIGURES["tokens_per_s"].title, FIGURES["speedup"].title),
                rows=tabulate(drawn, "tokens_per_s", "speedup"),
                figure=figure,
                wide=len(drawn) > 1,
            )


def _draw_ideal(ax: Axes, panel: Panel) -> None:
    if panel.base is not None:
        counts = [cell.record.devices for cell in panel.comparable]
        speed = panel.base.value("tokens_per_s") or math.nan
        ends = [min(counts) / 1.2, max(counts) * 1.2]
        ax.plot(ends, [speed * end for end in ends], **IDEAL_LINE)


def _name_best(lines: Sequence[Series]) -> str:
    """The highest speed of the lines and its number of devices, such as `14.1k on 2`."""
    speed, devices = max((y, int(x)) for line in lines for x, y in zip(line.x, line.y, strict=True))
    return f"{format_tick(float(f'{speed:.3g}'))} on {devices}"
