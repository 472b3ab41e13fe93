"""What the charts draw, looked up in the drawings themselves."""

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from parbench.report.canvas import Chart
from parbench.report.charts import efficiency, node_boundary, throughput, trade_off
from parbench.report.losses import losses
from parbench.report.view import Panel, views
from parbench.results.store import Run
from parbench.results.trial import MemoryRecord
from tests.records import LOSSES, cell, job, rank, reference, run, run_record, trial


def panels_of(*runs: Run) -> list[Panel]:
    return [panel for view in views(runs) for panel in view.panels]


def run_of(name: str, windows: dict[tuple[str, int], float], **changes: object) -> Run:
    """A run of one round whose cells, by strategy and devices, take these seconds."""
    cells = [cell(strategy, devices, **changes) for strategy, devices in windows]
    memory = MemoryRecord(resident_growth=2**20)
    trials = [
        trial(of, ranks=(rank(jobs=(job(window_s=window_s),), memory=memory),))
        for of, window_s in zip(cells, windows.values(), strict=True)
    ]
    return Run(Path(name), run_record(cells, id=name), (reference(cells[0]), *trials), ())


def axes_of(chart: Chart | None) -> list[Axes]:
    assert chart is not None
    return chart.figure.axes


@pytest.mark.parametrize("chart", [throughput, efficiency, trade_off])
def test_panels_side_by_side_have_one_scale_and_the_same_ticks(chart):
    fast = run_of("fast", {("single", 1): 0.01, ("ddp", 2): 0.006})
    slow = run_of("slow", {("single", 1): 2.0, ("ddp", 2): 1.5, ("ddp", 8): 0.01})
    first, second = axes_of(chart(panels_of(fast, slow), "lstm"))
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
    for chart in (throughput, efficiency):
        (axes,) = axes_of(chart([panel], "lstm"))
        assert {"one node", "several"} <= {text.get_text() for text in axes.texts}


def grey(lines: list[Line2D]) -> list[list[float]]:
    return [list(map(float, line.get_ydata())) for line in lines if line.get_linewidth() == 7]


def test_losses_are_of_the_first_model_that_cell_and_reference_share():
    other = tuple(loss + 0.5 for loss in LOSSES)
    pool = cell("pool", 2, models=2)
    expected = reference(pool, ranks=(rank(jobs=(job(0), job(1, losses=other))),))
    # The rank that comes first in the record trains the second model.
    found = trial(pool, ranks=(rank(jobs=(job(1, losses=other),)), rank(1, jobs=(job(0),))))
    (chart,) = losses(panels_of(run([pool], [expected, found]))[0], "lstm")
    (row,) = chart.rows
    assert row[2] == "5.500000 (0.0e+00)"
    assert grey(chart.figure.axes[0].lines) == [list(LOSSES)]


def test_every_distinct_reference_has_a_grey_line():
    weak = [cell("ddp", devices, scaling="weak", global_batch=8 * devices) for devices in (1, 2)]
    fsdp = cell("fsdp", 2, scaling="weak", global_batch=16)
    other = tuple(loss + 0.5 for loss in LOSSES)
    trials = [reference(weak[0]), reference(weak[1], ranks=(rank(jobs=(job(losses=other),)),)), trial(weak[0])]
    trials += [trial(of, ranks=(rank(jobs=(job(losses=other),)),)) for of in (weak[1], fsdp)]
    (chart,) = losses(panels_of(run([*weak, fsdp], trials))[0], "lstm")
    assert grey(chart.figure.axes[0].lines) == [list(LOSSES), list(other)]
