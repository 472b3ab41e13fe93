"""What the charts draw, looked up in the drawings themselves."""

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from parbench.records.trial import MemoryRecord, RankRecord
from parbench.report.charts.base import ComparisonChart
from parbench.report.charts.efficiency import Efficiency
from parbench.report.charts.losses import Losses
from parbench.report.charts.memory import Memory
from parbench.report.charts.memory_trade_off import MemoryTradeOff
from parbench.report.charts.other_figures import OtherFigures
from parbench.report.charts.throughput import Throughput
from parbench.report.drawing.scaling import node_boundary
from parbench.report.panels import Panel, fold, view_runs
from parbench.results.store import Run
from tests.support.records import LOSSES, cell, job, rank, reference, run, run_record, trial


def panels_of(*runs: Run) -> list[Panel]:
    return [panel for view in view_runs(runs) for panel in view.panels]


def run_of(name: str, windows: dict[tuple[str, int], float], **changes: object) -> Run:
    """A run of one round whose cells, by strategy and devices, take these seconds."""
    cells = [cell(strategy, devices, **changes) for strategy, devices in windows]
    memory = MemoryRecord(resident_growth=2**20)
    trials = [
        trial(of, ranks=(rank(jobs=(job(window_s=window_s),), memory=memory),))
        for of, window_s in zip(cells, windows.values(), strict=True)
    ]
    return Run(Path(name), run_record(cells, id=name), (reference(cells[0]), *trials), ())


def axes_of(kind: type[ComparisonChart], panels: list[Panel]) -> list[Axes]:
    (chart,) = kind.draw(panels, "lstm")
    return chart.figure.axes


@pytest.mark.parametrize("kind", [Throughput, Efficiency, MemoryTradeOff])
def test_panels_side_by_side_have_one_scale_and_the_same_ticks(kind):
    fast = run_of("fast", {("single", 1): 0.01, ("ddp", 2): 0.006})
    slow = run_of("slow", {("single", 1): 2.0, ("ddp", 2): 1.5, ("ddp", 8): 0.01})
    first, second = axes_of(kind, panels_of(fast, slow))
    for property_ in ("yscale", "ylim", "xlim", "yticks", "xticks"):
        ours, theirs = (getattr(ax, f"get_{property_}")() for ax in (first, second))
        assert list(ours) == list(theirs)


def test_the_end_of_a_node_is_marked():
    cells = {("single", 1): 2.0, ("ddp", 2): 1.0}
    within, beyond = panels_of(run_of("x", cells))[0], cell("ddp", 8, nodes=2)
    assert node_boundary(within) is None
    both = Run(
        Path("x"),
        run_record([*(each.record for each in within.cells), beyond]),
        (*run_of("x", cells).trials, trial(beyond, window_s=0.5)),
        (),
    )
    (panel,) = panels_of(both)
    assert node_boundary(panel) == 4
    for kind in (Throughput, Efficiency):
        (axes,) = axes_of(kind, [panel])
        assert {"one node", "several"} <= {text.get_text() for text in axes.texts}


def grey(lines: list[Line2D]) -> list[list[float]]:
    return [list(map(float, line.get_ydata())) for line in lines if line.get_linewidth() == 7]


def test_losses_are_of_the_first_model_that_cell_and_reference_share():
    other = tuple(loss + 0.5 for loss in LOSSES)
    pool = cell("pool", 2, models=2)
    expected = reference(pool, ranks=(rank(jobs=(job(0), job(1, losses=other))),))
    # The rank that comes first in the record trains the second model.
    measured = trial(pool, ranks=(rank(jobs=(job(1, losses=other),)), rank(1, jobs=(job(0),))))
    (chart,) = Losses.draw(panels_of(run([pool], [expected, measured]))[0], "lstm")
    (row,) = chart.rows
    assert row[2] == "5.500000 (0.0e+00)"
    assert grey(chart.figure.axes[0].lines) == [list(LOSSES)]


def test_every_distinct_reference_has_a_grey_line():
    weak = [cell("ddp", devices, scaling="weak", global_batch=8 * devices) for devices in (1, 2)]
    fsdp = cell("fsdp", 2, scaling="weak", global_batch=16)
    other = tuple(loss + 0.5 for loss in LOSSES)
    trials = [reference(weak[0]), reference(weak[1], ranks=(rank(jobs=(job(losses=other),)),)), trial(weak[0])]
    trials += [trial(of, ranks=(rank(jobs=(job(losses=other),)),)) for of in (weak[1], fsdp)]
    (chart,) = Losses.draw(panels_of(run([*weak, fsdp], trials))[0], "lstm")
    assert grey(chart.figure.axes[0].lines) == [list(LOSSES), list(other)]


def ranks_of(count: int) -> tuple[RankRecord, ...]:
    record = MemoryRecord(resident_growth=2**30)
    return tuple(rank(number, memory=record, jobs=(job(compute_s=1.0),)) for number in range(count))


def test_a_row_of_the_memory_chart_is_as_high_as_its_own_ranks_need():
    cells = [cell("ddp", 8), *(cell("single", 1, label=f"single{number}") for number in range(9))]
    trials = [trial(of, ranks=ranks_of(of.devices)) for of in cells]
    (chart,) = Memory.draw(panels_of(run(cells, [reference(), *trials]))[0], "lstm")
    assert chart.figure.get_figheight() < 5
    middles = chart.figure.axes[0].get_yticks()
    gaps = [below - above for above, below in pairwise(middles)]
    assert gaps[0] > 1.5
    assert gaps[1:] == pytest.approx([1.0] * 8)
    bars = [patch for patch in chart.figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(bars) == 8 + 9
    for above, below in pairwise(sorted(bars, key=lambda bar: bar.get_y())):
        assert above.get_y() + above.get_height() < below.get_y()


def test_the_schedules_ideal_is_a_tick_beside_the_bubble():
    pipes = [cell("pipe", 2, label=f"pipe{ideal}", ideal_bubble=ideal) for ideal in (0.25, 0.5)]
    trials = [trial(of, ranks=ranks_of(2)) for of in pipes]
    charts = OtherFigures.draw(panels_of(run(pipes, [reference(), *trials]))[0], "lstm")
    chart = next(chart for chart in charts if chart.name == "bubble")
    ticks = [line.get_xdata()[0] for line in chart.figure.axes[0].lines if line.get_marker() == "|"]
    assert ticks == [0.25, 0.5]
    assert [row[-2:] for row in chart.rows] == [["50 %", "25 %"], ["50 %", "50 %"]]
    assert "ideal: what the schedule leaves idle" in chart.figure.legends[0].texts[0].get_text()
    assert "The tick is the ideal" in chart.caption


def test_a_figure_that_one_cell_has_gets_no_chart():
    cells = [cell(), cell("pipe", 2)]
    trials = [trial(cells[0]), trial(cells[1], ranks=ranks_of(2))]
    names = [chart.name for chart in OtherFigures.draw(panels_of(run(cells, [reference(), *trials]))[0], "lstm")]
    assert names == ["val ppl"]


def test_labels_that_differ_anywhere_differ_in_the_legend():
    labels = [
        f"pipe(schedule={schedule}, micro_batches={batches}, stages={stages})"
        for schedule in ("interleaved_zero_bubble", "interleaved_1f1b")
        for batches in (4, 8)
        for stages in (2, 4)
    ]
    cells = [cell("pipe", 2, label=label, oversubscribed=True) for label in labels]
    (chart,) = Throughput.draw(panels_of(run(cells, [reference(), *map(trial, cells)])), "lstm")
    names = [text.get_text() for text in chart.figure.legends[0].texts]
    assert len(set(names)) == len(labels)
    assert max(len(line) for name in names for line in name.split("\n")) <= 48
    chart.figure.draw_without_rendering()
    assert chart.figure.legends[0].get_window_extent().y0 >= 0


@pytest.mark.parametrize("name", ["short", "x" * 200, "a(b=1, " * 30 + "end=2)", "_hidden", " ", ""])
def test_a_folded_name_keeps_both_its_ends(name):
    lines = fold(name, 40).lstrip("\N{ZERO WIDTH SPACE}")
    assert max(map(len, lines.split("\n"))) <= 40
    assert lines.startswith(name[:20].strip() or name)
    assert lines.endswith(name[-20:].split(" ")[-1])
    assert not fold(name, 40).startswith("_")
