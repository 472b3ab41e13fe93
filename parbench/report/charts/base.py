"""The contract of a chart. A class that is defined with a `name` registers itself, and the page draws it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from parbench.registry import Registry
from parbench.report.drawing.chart import Chart
from parbench.report.panels import Panel

CHART_KINDS: "Registry[ChartKind]" = Registry("parbench.report.charts")


class ChartKind(ABC):
    """A kind of chart: derive from `ComparisonChart` or `PanelChart`.

    `name` ends the ids of its charts and the names of their files, such as `lstm-strong-throughput`. On the page, kinds
    stand by rising `order`.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            CHART_KINDS.add(cls.name, cls)


class ComparisonChart(ChartKind):
    """Shows one workload in every run of the report. It stands above the charts of single runs."""

    @classmethod
    @abstractmethod
    def draw(cls, panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
        """Draws the panels, one for each run, as charts with ids that begin with `prefix`; none without data."""


class PanelChart(ChartKind):
    """Shows one workload in one run."""

    @classmethod
    @abstractmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the panel as charts with ids that begin with `prefix`; none without data."""


def draw_charts(panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
    """Draws every chart of one workload, given its panel in each run: first the comparisons, then run by run."""
    kinds = sorted(CHART_KINDS.classes().values(), key=lambda kind: (kind.order, kind.name))
    for kind in kinds:
        if issubclass(kind, ComparisonChart):
            yield from kind.draw(panels, prefix)
    for number, panel in enumerate(panels, start=1):
        panel_prefix = prefix if len(panels) == 1 else f"{prefix}-run{number}"
        for kind in kinds:
            if issubclass(kind, PanelChart):
                yield from kind.draw(panel, panel_prefix)
