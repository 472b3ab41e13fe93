"""Stored runs as the report reads them: panels of cells, each with its figures, good trials and look."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any, TypeVar

from parbench.figures import speed
from parbench.figures.definitions import FIGURES
from parbench.figures.statistics import RoundId, Summary, summarise_rounds
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.results.judged_cells import JudgedCell, counted_trials, judge_cells
from parbench.results.looks import Look, looks
from parbench.results.store import Run
from parbench.results.tables import table_of
from parbench.text import is_number, plain

T = TypeVar("T")

_PEAK_MEMORY = FIGURES["peak_memory_bytes"]


@dataclass(frozen=True)
class CellView:
    """A judged cell with its row of the table of cells, and how it looks in charts.

    `anchor` is its row's id on the page; `reference` is the trial whose losses it must reproduce.
    """

    judged: JudgedCell
    row: Mapping[str, Any]
    anchor: str
    look: Look
    reference: Trial | None

    @property
    def record(self) -> CellRecord:
        """The cell as the run planned it."""
        return self.judged.record

    @property
    def trials(self) -> Sequence[Trial]:
        """Its good timed trials."""
        return self.judged.trials

    @cached_property
    def label(self) -> str:
        """The strategy's label, without control characters."""
        return plain(self.record.label)

    @cached_property
    def notes(self) -> list[str]:
        """Words that stand beside the label wherever the cell appears, such as `emulated`."""
        notes = {
            "emulated": self.record.emulated,
            "oversubscribed": self.record.oversubscribed,
            "emulated hosts": bool(self.row.get("emulated_hosts")),
            "inexact": self.row["parity"] == "inexact",
            "undecided": self.row["parity"] == "undecided",
        }
        return [note for note, applies in notes.items() if applies]

    @cached_property
    def name(self) -> str:
        """Label and notes, such as `data_parallel (emulated)`."""
        return f"{self.label} ({', '.join(self.notes)})" if self.notes else self.label

    @cached_property
    def place(self) -> str:
        """Name and devices, such as `ddp on 2`."""
        return f"{self.name} on {self.devices}"

    @cached_property
    def devices(self) -> str:
        """The number of devices, and of nodes where there are several, such as `4 (2 nodes)`."""
        nodes = f" ({self.record.nodes} nodes)" if self.record.nodes > 1 else ""
        return f"{self.record.devices}{nodes}"

    def folded_place(self, width: int) -> str:
        """Name and devices on up to three lines of `width` letters, broken before the options."""
        return fold(f"{spaced(self.name)} on\N{NO-BREAK SPACE}{self.devices}", width, lines=3)

    @property
    def comparable(self) -> bool:
        """Whether it was measured without a failure, and parity does not say that it computes something else."""
        return self.judged.comparable

    @property
    def decided(self) -> bool:
        """Whether parity is decided; while it is not, the cell is in no ranking."""
        return bool(self.row["parity"] != "undecided")

    def value(self, figure: str) -> float | None:
        """A figure or another number of the row; None where it is unknown."""
        value = self.row.get(figure)
        return float(value) if is_number(value) else None  # type: ignore[arg-type]

    def interval(self, figure: str) -> tuple[float, float] | None:
        """A figure's 95 % confidence interval over rounds; None where it is unknown."""
        low, high = self.value(f"{figure}_ci_low"), self.value(f"{figure}_ci_high")
        return None if low is None or high is None else (low, high)

    @cached_property
    def speed_by_round(self) -> dict[RoundId, float]:
        """Tokens/s of each round."""
        return self.judged.values_by_round(FIGURES["tokens_per_s"])

    @property
    def speeds(self) -> list[float]:
        """Tokens/s of each round."""
        return list(self.speed_by_round.values())

    @cached_property
    def step_times(self) -> list[list[float]]:
        """The step times of the slowest rank (seconds) in each round that recorded them."""
        return [times for trial in self.trials if (times := speed.slowest_steps(trial))]

    @cached_property
    def memory(self) -> Summary | None:
        """Peak memory of the fullest rank (bytes): its mean and confidence interval over rounds."""
        peaks = {number: peak for number, peak in self.judged.values_by_round(_PEAK_MEMORY).items() if peak}
        return summarise_rounds(peaks) if peaks else None


@dataclass(frozen=True)
class Panel:
    """The cells of one run that may be compared with each other: same workload, phase and scaling.

    `run` is the run's name. `link_mbit` is the rate of the slowest link between its nodes (Mbit/s), where there are
    several nodes and the rate is known.
    """

    key: tuple[str, ...]
    run: str
    cells: Sequence[CellView]
    link_mbit: float | None = None

    @property
    def workload(self) -> str:
        """The workload's name, without control characters."""
        return plain(self.cells[0].record.workload)

    @property
    def scaling(self) -> str:
        """`strong` or `weak`."""
        return self.cells[0].record.scaling

    @property
    def phase(self) -> str:
        """`train`, `score` or `generate`."""
        return self.cells[0].record.phase

    @property
    def title(self) -> str:
        """Workload, phase and scaling, such as `gpt (score), strong scaling`. Training goes without saying."""
        obvious = self.phase == "train" or self.phase in self.workload
        phase = "" if obvious else f" ({plain(self.phase)})"
        return f"{self.workload}{phase}, {self.scaling} scaling"

    @cached_property
    def base(self) -> CellView | None:
        """The reference strategy on one device, which speedups are against; None where it is not comparable."""
        bases = [cell.judged.base.record for cell in self.cells if cell.judged.base]
        return next((cell for cell in self.cells if cell.record in bases), None)

    @cached_property
    def comparable(self) -> list[CellView]:
        """The cells that charts of speed draw."""
        return [cell for cell in self.cells if cell.comparable]

    @property
    def left_out(self) -> list[CellView]:
        """The cells that charts of speed leave out."""
        return [cell for cell in self.cells if not cell.comparable]

    @cached_property
    def by_label(self) -> dict[str, list[CellView]]:
        """The comparable cells of each label, by rising number of devices; labels in the run's order."""
        cells: defaultdict[str, list[CellView]] = defaultdict(list)
        for cell in sorted(self.comparable, key=lambda cell: cell.record.devices):
            cells[cell.record.label].append(cell)
        labels = dict.fromkeys(cell.record.label for cell in self.cells)
        return {label: cells[label] for label in labels if label in cells}

    def comparable_with(self, figure: str) -> list[CellView]:
        """The comparable cells of which the figure is known."""
        return select_with(self.comparable, figure)

    @property
    def size(self) -> str:
        """The work of a step, such as `global batch 32 × 64 tokens`."""
        first = self.cells[0].record
        per_device = self.scaling == "weak"
        batch = f"{first.global_batch // first.devices} per device" if per_device else f"{first.global_batch}"
        return f"global batch {batch} × {first.seq_len} tokens, {plain(first.precision)}"


@dataclass(frozen=True)
class RunView:
    """A run and its panels; `name` is its id, without control characters."""

    run: Run
    name: str
    panels: Sequence[Panel]

    @property
    def cells(self) -> list[CellView]:
        """All cells, in the order of the run's plan."""
        cells = {id(cell.record): cell for panel in self.panels for cell in panel.cells}
        return [cells[id(record)] for record in self.run.record.cells]


def view_runs(runs: Sequence[Run]) -> list[RunView]:
    """Prepares runs for one report: a label looks the same in all of them, and anchors are unique."""
    look_of_label = looks((cell.strategy, cell.label) for run in runs for cell in run.record.cells)
    anchors = _UniqueSlugs()
    several = len(runs) > 1
    return [
        _view_run(run, f"run{number}" if several else "", look_of_label, anchors)
        for number, run in enumerate(runs, start=1)
    ]


def select_with(cells: Sequence[CellView], figure: str) -> list[CellView]:
    """The cells of which the figure is known."""
    return [cell for cell in cells if cell.value(figure) is not None]


def shared_figures(cells: Sequence[CellView]) -> list[str]:
    """The figures that at least one of the cells has, in the order of their definitions."""
    return [name for name in FIGURES if any(cell.value(name) is not None for cell in cells)]


def group_by(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Groups items of equal key, in the order in which the keys first appear."""
    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def shorten(name: str, length: int) -> str:
    """Cuts a name to `length` letters. Variants differ at both ends of their names, so the middle is left out."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[len(name) - (length - 1) // 2 :]}"


def fold(name: str, width: int, lines: int = 2) -> str:
    """Breaks a name into `lines` of `width` letters, or more if its words are long. A longer name loses its middle.

    matplotlib hides labels that begin with an underscore, so an invisible space comes before one.
    """
    first, *others = wrap(shorten(name, lines * width - 8), width, break_on_hyphens=False) or [name]
    return "\n".join([f"\N{ZERO WIDTH SPACE}{first}" if first.startswith("_") else first, *others])


def spaced(name: str) -> str:
    """The name with a space before its first bracket, where a line can be broken."""
    return re.sub(r" ?\(", " (", name, count=1)


def slugify(text: str) -> str:
    """Turns text into a part of an address: lower-case letters, digits and hyphens, at most 80."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "unnamed"


class _UniqueSlugs:
    """Makes slugs, with a number behind those that would be the same as an earlier one."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next_number: defaultdict[str, int] = defaultdict(lambda: 2)

    def make(self, text: str) -> str:
        first = slug = slugify(text)
        while slug in self._used:
            slug = f"{first}-{self._next_number[first]}"
            self._next_number[first] += 1
        self._used.add(slug)
        return slug


def _view_run(run: Run, prefix: str, look_of_label: Mapping[str, Look], anchors: _UniqueSlugs) -> RunView:
    references = counted_trials(run, "reference")
    judged = judge_cells(run)
    rows = table_of(judged, emulated_nodes=run.record.emulated_nodes).to_dict(orient="records")
    cells = [
        CellView(
            judged=cell,
            row={str(column): value for column, value in row.items()},
            anchor=anchors.make(f"{prefix} cell {cell.record.id}"),
            look=look_of_label[cell.record.label],
            reference=next(reversed(_good(references.get(cell.record.reference, []))), None),
        )
        for cell, row in zip(judged, rows, strict=True)
    ]
    name = plain(run.record.id)
    panels = [Panel(_panel_key(group[0]), name, group, run.record.link_mbit) for group in group_by(cells, _panel_key)]
    return RunView(run, name, panels)


def _good(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.status == "ok"]


def _panel_key(cell: CellView) -> tuple[str, ...]:
    record = cell.record
    return record.workload, record.phase, record.scaling
