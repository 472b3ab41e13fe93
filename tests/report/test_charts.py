"""What the charts draw, looked up in the drawings themselves."""

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.text import Text

from parbench.records.trial import MemoryRecord, RankRecord
from parbench.report.charts.base import ComparisonChart, draw_charts
from parbench.report.charts.efficiency import Efficiency
from parbench.report.charts.losses import Losses
from parbench.report.charts.memory import Memory
from parbench.report.charts.memory_account import MemoryAccount
from parbench.report.charts.memory_trade_off import MemoryTradeOff
from parbench.report.charts.other_figures import OtherFigures
from parbench.report.charts.ranking import Ranking
from parbench.report.charts.throughput import Throughput
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import MAX_LINES, MAX_ROWS, choose_cells, say_chosen
from parbench.report.drawing.scaling import node_boundary
from parbench.report.panels import Panel, fold, view_runs
from parbench.results.store import Run
from tests.support.memory import account, accounted
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
    bars = [path.get_extents() for drawn in bars_of(chart) for path in drawn.get_paths()]
    assert len(bars) == 8 + 9
    assert bars[0].height < 0.5 < bars[-1].height
    for above, below in pairwise(sorted(bars, key=lambda bar: bar.y0)):
        assert above.y1 < below.y0


def bars_of(chart: Chart) -> list[PolyCollection]:
    return [drawn for drawn in chart.figure.axes[0].collections if isinstance(drawn, PolyCollection)]


def test_the_schedules_ideal_is_a_tick_beside_the_bubble():
    pipes = [cell("pipe", 2, label=f"pipe{ideal}", ideal_bubble=ideal) for ideal in (0.25, 0.5)]
    trials = [trial(of, ranks=ranks_of(2)) for of in pipes]
    charts = OtherFigures.draw(panels_of(run(pipes, [reference(), *trials]))[0], "lstm")
    chart = next(chart for chart in charts if chart.name == "bubble")
    (ticks,) = (list(line.get_xdata()) for line in chart.figure.axes[0].lines if line.get_marker() == "|")
    assert ticks == [0.25, 0.5]
    assert [row[-2:] for row in chart.rows] == [["50 %", "25 %"], ["50 %", "50 %"]]
    assert "ideal: what the schedule leaves idle" in chart.figure.legends[0].texts[0].get_text()
    assert "The tick is the ideal" in chart.caption


def test_a_figure_that_one_cell_has_gets_no_chart():
    cells = [cell(), cell("pipe", 2)]
    trials = [trial(cells[0]), trial(cells[1], ranks=ranks_of(2))]
    names = [chart.name for chart in OtherFigures.draw(panels_of(run(cells, [reference(), *trials]))[0], "lstm")]
    assert names == ["val ppl"]


def variants(count: int) -> Panel:
    """One device, and a strategy's variants of long names that differ in their middles."""
    labels = [
        f"pipe(schedule={schedule}, micro_batches={batches}, stages={stages})"
        for schedule in ("interleaved_zero_bubble", "interleaved_1f1b", "dualpipev")
        for batches in (4, 8)
        for stages in (2, 4)
    ]
    pipes = [cell("pipe", 2, label=label, oversubscribed=True) for label in labels[: count - 1]]
    cells = [cell(), *pipes]
    memory = MemoryRecord(resident_growth=2**30)
    trials = [trial(of, ranks=(rank(jobs=(job(window_s=1 + n),), memory=memory),)) for n, of in enumerate(cells)]
    (panel,) = panels_of(run(cells, [reference(), *trials]))
    return panel


def texts_of(chart: Chart) -> list[str]:
    return [text.get_text() for ax in chart.figure.axes for text in ax.texts] + [
        artist.get_text() for ax in chart.figure.axes for artist in ax.artists if isinstance(artist, Text)
    ]


def test_lines_have_their_names_beside_them_and_no_legend():
    panel = variants(MAX_LINES)
    (chart,) = Throughput.draw([panel], "lstm")
    names = [text for text in texts_of(chart) if text]
    assert len(set(names)) == MAX_LINES
    assert max(len(line) for name in names for line in name.split("\n")) <= 24
    assert not chart.figure.legends
    chart.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in chart.figure.axes[0].texts]
    assert all(box.x0 >= 0 and box.x1 <= chart.figure.bbox.x1 for box in boxes)
    assert not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))


@pytest.mark.parametrize("kind", [Throughput, Efficiency])
def test_of_more_lines_each_strategy_has_a_small_plot_with_the_same_scales(kind):
    panel = variants(MAX_LINES + 1)
    (chart,) = kind.draw([panel], "lstm")
    single, pipe = chart.figure.axes
    assert (single.get_xlim(), single.get_ylim()) == (pipe.get_xlim(), pipe.get_ylim())
    assert single.texts[0].get_text() == "single"
    assert pipe.texts[0].get_text() == "pipe"
    assert not chart.figure.legends
    marks = {line.get_gid() for line in pipe.lines if line.get_gid()}
    assert marks == {"mark-pipe"}


def test_every_cell_is_a_ranked_row_where_lines_are_too_many():
    assert list(Ranking.draw([variants(MAX_LINES)], "lstm")) == []
    panel = variants(MAX_LINES + 1)
    (chart,) = Ranking.draw([panel], "lstm")
    assert chart.rows[0][0] == "single"
    speeds = [panel.cells[0].value("speedup"), *(cell.value("speedup") for cell in panel.cells[1:])]
    assert [float(row[2].split("×")[0]) for row in chart.rows] == [round(speed, 2) for speed in speeds]
    texts = texts_of(chart)
    assert "pipe" in texts
    assert "schedule=interleaved_zero_bubble,\nmicro_batches=4, stages=2" in texts


def test_only_points_of_the_front_are_in_colour_and_named_where_there_are_many():
    (chart,) = MemoryTradeOff.draw([variants(MAX_LINES + 1)], "lstm")
    (axes,) = chart.figure.axes
    assert [text.get_text() for text in axes.texts] == ["single on\N{NO-BREAK SPACE}1"]
    (grey,) = (dots for dots in axes.collections if isinstance(dots, PathCollection))
    assert len(grey.get_offsets()) == MAX_LINES
    assert grey.get_gid() == "quiet-pipe"


def test_losses_of_many_labels_are_small_plots():
    (chart,) = Losses.draw(variants(MAX_LINES + 1), "lstm")
    assert len(chart.figure.axes) == 2
    assert "Largest deviation" in chart.alt


def test_of_more_cells_than_rows_the_fastest_of_each_label_are_chosen():
    cells = [cell("ddp", 1 + number, label=f"ddp{number % 20}") for number in range(MAX_ROWS + 1)]
    trials = [trial(of, window_s=100.0 - number) for number, of in enumerate(cells)]
    (panel,) = panels_of(run(cells, [*map(reference, cells[:1]), *trials]))
    chosen = choose_cells(panel.cells)
    assert len(chosen) == 20
    assert chosen[0].record.devices == MAX_ROWS + 1
    assert choose_cells(panel.cells[:MAX_ROWS]) == list(panel.cells[:MAX_ROWS])
    assert say_chosen(20, 41).endswith("20 of 41; the table of cells has all.")


def test_a_cell_may_have_several_launches_in_a_round():
    cells = [cell(), *(cell("ddp", 2, label=f"ddp{number}") for number in range(MAX_LINES))]
    trials = [trial(of, 0, window_s=1 + n / 10) for n, of in enumerate([cells[0], *cells])]
    for panel in panels_of(run(cells, [reference(), *trials])):
        assert [chart.name for chart in draw_charts([panel], "lstm")]


@pytest.mark.parametrize("name", ["short", "x" * 200, "a(b=1, " * 30 + "end=2)", "_hidden", " ", ""])
def test_a_folded_name_keeps_both_its_ends(name):
    lines = fold(name, 40).lstrip("\N{ZERO WIDTH SPACE}")
    assert max(map(len, lines.split("\n"))) <= 40
    assert lines.startswith(name[:20].strip() or name)
    assert lines.endswith(name[-20:].split(" ")[-1])
    assert not fold(name, 40).startswith("_")


def test_a_bar_of_what_memory_holds_ends_at_the_peak_of_the_fullest_rank():
    first = account(parameters=4, optimizer_state=8, gradients=4, activations=1)
    second = account(parameters=2, optimizer_state=4, gradients=2, activations=20, rest=3)
    cells = [cell(), cell("pipe", 2), cell("old", 2)]
    trials = [
        trial(cells[0], ranks=(accounted(0, 40, first),)),
        trial(cells[1], ranks=(accounted(0, 30, first), accounted(1, 50, second))),
        trial(cells[2], ranks=ranks_of(2)),
    ]
    (chart,) = MemoryAccount.draw(panels_of(run(cells, [reference(), *trials]))[0], "lstm")
    assert [row[0] for row in chart.rows] == ["single", "pipe"]
    assert chart.header == (
        *("strategy", "devices", "parameters", "optimizer", "gradients", "activations", "rest"),
        *("tensor peak", "memory/rank", "arithmetic"),
    )
    assert chart.rows[1][2:] == ["2.0 MiB", "4.0 MiB", "2.0 MiB", "20 MiB", "3.0 MiB", "31 MiB", "50 MiB", "6.0 MiB"]
    by_row: dict[int, list[float]] = {}
    for drawn in bars_of(chart):
        for path in drawn.get_paths():
            box = path.get_extents()
            by_row.setdefault(round(box.y0), []).extend([box.x0, box.x1])
    assert [max(ends) for _, ends in sorted(by_row.items())] == [17, 31]
    marks = [
        (line.get_marker(), list(line.get_xdata())) for line in chart.figure.axes[0].lines if len(line.get_xdata())
    ]
    assert [x for marker, x in marks if marker == "D"] == [[40], [50]]
    assert [x for marker, x in marks if marker == "|"] == [[12], [6]]
    assert [text.get_text() for text in chart.figure.legends[0].texts][-2:] == ["memory/rank", "arithmetic"]


def test_cells_without_an_account_have_no_chart_of_what_memory_holds():
    cells = [cell(), cell("pipe", 2)]
    trials = [trial(each, ranks=ranks_of(each.devices)) for each in cells]
    assert list(MemoryAccount.draw(panels_of(run(cells, [reference(), *trials]))[0], "lstm")) == []
