"""What the parity gate saw: the losses of each strategy's verified steps, over the reference's."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbench.figures.losses import job_losses
from parbench.records.assignment import PARITY_STEPS
from parbench.report.charts.canvas import INK, MUTED, Chart, drawing, legend, marker
from parbench.report.panels import CellView, Panel
from parbench.results.deviations import PARITY_TOLERANCE, step_deviations, tolerances
from parbench.text import shown

_MOST_MARKERS = 10


def losses(panel: Panel, prefix: str) -> Iterator[Chart]:
    """Losses above, and below them how far each lies from the reference, with the gate's tolerance."""
    courses = {cell.anchor: _course(cell) for cell in panel.cells}
    away = {cell.anchor: _deviations(cell) for cell in panel.cells}
    cells = [cell for cell in panel.cells if courses[cell.anchor].found and away[cell.anchor]]
    if not cells:
        return
    with drawing():
        figure = Figure(figsize=(5.6, 4.2))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
        _draw_losses(upper, cells, courses)
        tolerance = _tolerance(cells)
        _draw_deviations(lower, cells, away, tolerance)
        extra = [Line2D([], [], color=MUTED, linewidth=6, alpha=0.35, label="reference")]
        if tolerance:
            extra.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (6, 3)), label="tolerance"))
        legend(figure, cells, extra)
    labels = _labelled_steps(max(len(each) for each in away.values()))
    yield Chart(
        id=f"{prefix}-losses",
        name="Losses over the reference",
        subject=panel.title,
        caption="The losses of the first model in all steps that are verified, over the reference's in grey, and below "
        "the largest distance of any model's loss from the reference's in any round. Under the dashed tolerance, which "
        "grows as rounding does, a strategy has computed the same thing; points on the bottom line agree to the last "
        "digit.",
        alt="Largest deviation from the reference's losses: "
        + ", ".join(f"{cell.place} {shown(max(away[cell.anchor]), 'nats')}" for cell in cells[:24])
        + " nats per token.",
        header=("strategy", "devices", *(f"step {step}: loss (deviation)" for step in labels)),
        rows=[
            [cell.name, cell.devices, *_texts(courses[cell.anchor].found, away[cell.anchor], labels)] for cell in cells
        ],
        figure=figure,
    )


class _Course(NamedTuple):
    """A model's losses in a cell's first round, and those that the reference had of the same model."""

    found: Sequence[float] = ()
    expected: Sequence[float] = ()


def _course(cell: CellView) -> _Course:
    """The lowest-numbered model that both have: ranks of a pool record theirs in any order."""
    if cell.reference is None or not cell.trials:
        return _Course()
    found, expected = job_losses(cell.trials[0]), job_losses(cell.reference)
    model = min(found.keys() & expected.keys(), default=None)
    return _Course() if model is None else _Course(found[model], expected[model])


def _deviations(cell: CellView) -> list[float]:
    """The largest over rounds, at each step."""
    reference = cell.reference
    if reference is None:
        return []
    rounds = [each for trial in cell.trials if (each := step_deviations(trial, reference))]
    # Rounds are as long as the machine was fast.
    return [max(step) for step in zip_longest(*rounds, fillvalue=0.0)]


def _tolerance(cells: Sequence[CellView]) -> list[float]:
    """That of the reference which goes furthest; nothing where the precision has none."""
    each = [
        tolerances(cell.reference, cell.record.precision)
        for cell in cells
        if cell.reference is not None and cell.record.precision in PARITY_TOLERANCE
    ]
    return max(each, key=len, default=[])


def _labelled_steps(steps: int) -> list[int]:
    """The steps that the numbers behind the chart have: all would be too many to read."""
    round_numbers = {factor * 10**power for power in range(1, 6) for factor in (1, 2, 5)}
    return sorted(step for step in {*range(1, PARITY_STEPS + 1), *round_numbers, steps} if step <= steps)


def _draw_losses(ax: Axes, cells: Sequence[CellView], courses: dict[str, _Course]) -> None:
    # With weak scaling every number of devices has a global batch of its own, and so a reference.
    for expected in dict.fromkeys(tuple(courses[cell.anchor].expected) for cell in cells):
        ax.plot(range(1, len(expected) + 1), expected, color=MUTED, linewidth=7, alpha=0.35)
    for x, cell in _dodged(cells):
        y = courses[cell.anchor].found
        ax.plot([step + x for step in range(1, len(y) + 1)], y, **{**_style(cell, len(y)), "linestyle": "none"})
    ax.set_ylabel("loss, nats")


def _draw_deviations(
    ax: Axes, cells: Sequence[CellView], away: dict[str, list[float]], tolerance: Sequence[float]
) -> None:
    nonzero = [value for cell in cells for value in away[cell.anchor] if value > 0]
    floor = min([*nonzero, *tolerance[:1]], default=1e-5) / 6
    for x, cell in _dodged(cells):
        y = [max(value, floor) for value in away[cell.anchor]]
        ax.plot([step + x for step in range(1, len(y) + 1)], y, **_style(cell, len(y)))
    if tolerance:
        ax.plot(range(1, len(tolerance) + 1), tolerance, color=INK, linewidth=1, linestyle=(0, (6, 3)))
    ax.set_yscale("log")
    ax.set_ylim(floor / 3, max([*nonzero, *tolerance]) * 3)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    ax.text(0.995, 0.1, "bottom: no difference at all", transform=ax.transAxes, ha="right", color=MUTED, fontsize=7.5)
    ax.set_ylabel("distance, nats")
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _dodged(cells: Sequence[CellView]) -> Iterator[tuple[float, CellView]]:
    """Cells with the shift that keeps equal losses from hiding one another."""
    spread = min(0.045, 0.5 / len(cells))
    for index, cell in enumerate(cells):
        yield (index - (len(cells) - 1) / 2) * spread, cell


def _style(cell: CellView, steps: int) -> dict[str, Any]:
    """A line with as many markers as can be told apart."""
    return {
        "markevery": max(1, steps // _MOST_MARKERS),
        "color": cell.look.hex,
        "linestyle": cell.look.linestyle,
        "linewidth": 1.1,
        **marker(cell.look),
        "markersize": 5,
    }


def _texts(course: Sequence[float], away: Sequence[float], steps: Sequence[int]) -> list[str]:
    """A cell that took fewer steps than others has nothing to tell of the later ones."""
    reach = min(len(course), len(away))
    return [f"{course[step - 1]:.6f} ({away[step - 1]:.1e})" if step <= reach else "–" for step in steps]
