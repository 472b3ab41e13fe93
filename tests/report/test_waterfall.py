"""The chart of what is lost: where its pieces lie, and what its table says."""

import pytest
from matplotlib.collections import PolyCollection

from parbench.report.cautions import collect_cautions
from parbench.report.charts.waterfall import WaterfallChart
from parbench.report.drawing.chart import Chart, to_svg
from parbench.report.panels import view_runs
from parbench.results.store import Run
from tests.support.records import cell, trial
from tests.support.waterfalls import COMPANIONS, explained


def charts_of(run: Run) -> list[Chart]:
    (view,) = view_runs([run])
    return [chart for panel in view.panels for chart in WaterfallChart.draw(panel, "lstm")]


def pieces_of(chart: Chart) -> list[tuple[float, float]]:
    """The ends of every piece, in the order in which they are drawn."""
    bars = [drawn for drawn in chart.figure.axes[0].collections if isinstance(drawn, PolyCollection)]
    boxes = [path.get_extents() for bar in bars for path in bar.get_paths()]
    return [(box.x0, box.x1) for box in boxes]


def test_pieces_lie_from_the_ideal_down_to_what_was_measured() -> None:
    (chart,) = charts_of(explained(spread=(1.0,)))
    pieces = sorted(pieces_of(chart))
    expected = [(0, 1.44), (1.44, 1.49), (1.49, 1.58), (1.58, 1.85), (1.85, 1.9), (1.9, 2.0)]
    assert pieces == [pytest.approx(each) for each in expected]
    assert chart.header == (
        "strategy",
        "devices",
        "smaller batch",
        "contention",
        "exposed communication",
        "bubble",
        "remainder",
        "speedup",
    )
    assert chart.rows == [["ddp", "2", "0.10", "0.05", "0.27", "0.09", "0.05", "1.44×"]]
    assert "measured in every round" in chart.caption


def test_what_is_gained_lies_over_the_bar_and_is_said() -> None:
    (chart,) = charts_of(explained(together=1.7, spread=(1.0,)))
    *_, gained = pieces_of(chart)
    assert gained == pytest.approx((1.34, 1.44))
    legend = [text.get_text() for text in chart.figure.legends[0].texts]
    assert legend[0] == "measured"
    assert legend[-1] == "gained instead"
    assert chart.rows[0][-2] == "-0.10"


def test_intervals_are_in_the_table_and_notes_at_the_name() -> None:
    ghost = cell("ddp", 2, companions=COMPANIONS, emulated=True)
    (chart,) = charts_of(explained(of=ghost))
    assert chart.rows[0][0] == "ddp (emulated)"
    assert all("±" in text for text in chart.rows[0][2:-1])


def test_without_companions_one_piece_has_what_they_would_tell_apart() -> None:
    (chart,) = charts_of(explained(together=None))
    assert chart.header[2] == "batch, contention, rest"
    assert "With measure.explain: true" in chart.caption


def test_cells_of_which_nothing_is_known_make_no_chart() -> None:
    assert charts_of(explained(alone=None, parts=None)) == []


def test_ideal_cells_lose_nothing_and_are_drawn() -> None:
    (chart,) = charts_of(explained(measured=2.0, alone=1.0, together=2.0, parts={"forward": 1.0}))
    assert len(pieces_of(chart)) == 1
    assert "measured" in to_svg(chart)


def test_companions_that_failed_are_a_caution() -> None:
    run = explained()
    failed = trial(purpose="companion", key="alone", cell="lstm/single/1 (companion)", status="failed", reason="broke")
    (view,) = view_runs([Run(run.folder, run.record, (*run.trials, failed), ())])
    (caution,) = (each for each in collect_cautions(view) if "explain" in each.text)
    assert caution.cases == ["round 1 of lstm/single/1 (companion): failed: broke"]
