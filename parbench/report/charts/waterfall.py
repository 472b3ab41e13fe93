"""What each cell loses on the way from as many times the speed of one device as it has devices to its own."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from parbench.figures.speed import SPEEDUP
from parbench.figures.waterfall import LOSS_MEANINGS, STEP_LOSSES, Loss, Waterfall
from parbench.report.charts.base import PanelChart
from parbench.report.drawing import step_parts
from parbench.report.drawing.canvas import FAINT, GRID, INK, MUTED, draw_segments, place_below
from parbench.report.drawing.chart import Chart
from parbench.report.drawing.crowd import choose_cells, say_chosen
from parbench.report.drawing.marks import mark
from parbench.report.drawing.rows import PlacedCells, by_strategy, draw_rows
from parbench.report.panels import CellView, Panel
from parbench.text import with_reach

NAMES: Mapping[Loss, str] = {
    "unsplit": "batch, contention, rest",
    "batch": "smaller batch",
    "contention": "contention",
    **{part: step_parts.NAMES[part] for part in STEP_LOSSES},
    "remainder": "remainder",
}

STYLES: Mapping[Loss, dict[str, Any]] = {
    "unsplit": {"facecolor": FAINT, "hatch": "....", "edgecolor": MUTED},
    "batch": {"facecolor": "#5a9bd4"},
    "contention": {"facecolor": "#7b86cf"},
    **{part: step_parts.STYLES[part] for part in STEP_LOSSES},
    "remainder": {"facecolor": FAINT, "hatch": "////", "edgecolor": MUTED},
}

MEASURED: Mapping[str, Any] = {"facecolor": GRID, "edgecolor": "none", "linewidth": 0.0}
GAIN: Mapping[str, Any] = {"facecolor": "none", "hatch": "xxxx", "edgecolor": INK, "linewidth": 0.6}

VISIBLE = 0.005
"""A loss that is smaller in every cell is not drawn."""

LEGEND_COLUMNS, LEGEND_ROW = 3, 0.17


class _Piece(NamedTuple):
    """A piece of a cell's bar, between two multiples of the speed of one device."""

    loss: Loss
    left: float
    right: float
    is_gain: bool


class _Kind(NamedTuple):
    """Pieces that look alike."""

    is_gain: bool
    loss: Loss


_Corners = list[tuple[float, float]]


class WaterfallChart(PanelChart):
    """A bar for each cell on several devices, from its speedup up to the ideal, cut into what it loses."""

    name = "waterfall"
    order = 7

    @classmethod
    def draw(cls, panel: Panel, prefix: str) -> Iterator[Chart]:
        """Draws the cells of whose losses anything is known."""
        waterfalls = {cell.anchor: cell.judged.waterfall for cell in panel.comparable if cell.judged.waterfall}
        every = [cell for cell in panel.comparable if cell.anchor in waterfalls]
        cells = choose_cells(every)
        pieces = {cell.anchor: list(_cut(waterfalls[cell.anchor])) for cell in cells}
        drawn = [piece for each in pieces.values() for piece in each]
        losses = [loss for loss in LOSS_MEANINGS if any(piece.loss == loss for piece in drawn)]
        handles = [Patch(**MEASURED), *(Patch(**_style(loss)) for loss in losses)]
        names = ["measured", *(NAMES[loss] for loss in losses)]
        if any(piece.is_gain for piece in drawn):
            handles, names = [*handles, Patch(**GAIN)], [*names, "gained instead"]

        def draw_bars(ax: Axes, placed: PlacedCells) -> None:
            for group in by_strategy(placed):
                measured = [_corners(y, 0.0, waterfalls[cell.anchor].measured.mean) for y, cell in group]
                ax.add_collection(mark(PolyCollection(measured, **MEASURED), group[0][1]))
                for kind, corners in _stack(group, pieces).items():
                    style = GAIN if kind.is_gain else _style(kind.loss)
                    ax.add_collection(mark(PolyCollection(corners, **style), group[0][1]))
                ideals = [[(waterfalls[cell.anchor].devices, y + end) for end in (-0.45, 0.45)] for y, cell in group]
                mark(draw_segments(ax, ideals, color=INK, linewidth=1.0), group[0][1])
            ax.set_xlim(0, 1.01 * max([cell.record.devices for cell in cells] + [piece.right for piece in drawn]))
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("speedup over one device")
            place_below(cast("Figure", ax.figure), handles, names, LEGEND_COLUMNS)

        yield from draw_rows(
            panel,
            cells,
            draw_bars,
            id=f"{prefix}-{cls.name}",
            name="What is lost of the ideal speedup",
            caption="From as many times the speed of one device as there are devices (the tick) down to what was "
            f"measured.{_say_source(waterfalls.values())} In the table, ± is half of the 95 % interval over rounds; a "
            "negative loss is a gain." + say_chosen(len(cells), len(every)),
            alt="Bars of the ideal speedup of each cell on several devices, cut into what is reached and what is lost.",
            header=("strategy", "devices", *(NAMES[loss] for loss in losses), SPEEDUP.title),
            table_rows=lambda cell: [_row(cell, waterfalls[cell.anchor], losses)],
            value=lambda cell: SPEEDUP.text(waterfalls[cell.anchor].measured.mean),
            footer=LEGEND_ROW * -(-len(names) // LEGEND_COLUMNS),
        )


def _cut(waterfall: Waterfall) -> Iterator[_Piece]:
    """The pieces of a bar from the ideal down; what is gained goes up again, over the pieces before it."""
    level = float(waterfall.devices)
    for loss, (lost, *_) in waterfall.losses.items():
        below = level - lost
        if abs(lost) >= VISIBLE:
            yield _Piece(loss, min(level, below), max(level, below), is_gain=lost < 0)
        level = below


def _stack(cells: PlacedCells, pieces: Mapping[str, Sequence[_Piece]]) -> dict[_Kind, list[_Corners]]:
    """The corners of all pieces of each kind; gains come last, because they lie over others."""
    kinds: defaultdict[_Kind, list[_Corners]] = defaultdict(list)
    for y, cell in cells:
        for piece in pieces[cell.anchor]:
            kinds[_Kind(piece.is_gain, piece.loss)].append(_corners(y, piece.left, piece.right))
    return dict(sorted(kinds.items()))


def _corners(y: float, left: float, right: float) -> _Corners:
    return [(left, y - 0.33), (right, y - 0.33), (right, y + 0.33), (left, y + 0.33)]


def _style(loss: Loss) -> dict[str, Any]:
    return {"edgecolor": "none", "linewidth": 0.0, **STYLES[loss]}


def _row(cell: CellView, waterfall: Waterfall, losses: Sequence[Loss]) -> list[str]:
    values = [with_reach(*waterfall.losses[loss]) if loss in waterfall.losses else "–" for loss in losses]
    return [cell.name, cell.devices, *values, SPEEDUP.text(waterfall.measured.mean)]


def _say_source(waterfalls: Collection[Waterfall]) -> str:
    """Where the losses come from."""
    if any("batch" in waterfall.losses for waterfall in waterfalls):
        return (
            " Smaller batch and contention were measured in every round: one device with the batch that each of them "
            "computes at once, and as many independent copies of that at the same time."
        )
    return " With measure.explain: true, smaller batch and contention are measured apart from the rest."
