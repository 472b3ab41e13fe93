"""Runs as the report shows them: panels of comparable cells, each with its figures, trials and look."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any

from parbench.figures import memory, speed
from parbench.figures.definitions import FIGURES
from parbench.figures.statistics import Summary, summarise
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.results.judged_cells import JudgedCell, counted_trials, judge_cells
from parbench.results.looks import Look, looks
from parbench.results.store import Run
from parbench.results.tables import table_of
from parbench.text import known, plain


@dataclass(frozen=True)
class CellView:
    """A judged cell with its row of the table, the trial whose losses it must reproduce, and its look."""

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
        """The strategy's label, safe to show."""
        return plain(self.record.label)

    @cached_property
    def notes(self) -> list[str]:
        """What must be said wherever the cell is shown."""
        marks = {"emulated": self.record.emulated, "oversubscribed": self.record.oversubscribed}
        marks["emulated hosts"] = bool(self.row.get("emulated_hosts"))
        marks["inexact"] = self.row["parity"] == "inexact"
        marks["undecided"] = self.row["parity"] == "undecided"
        return [note for note, holds in marks.items() if holds]

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
        """How many, and on how many nodes if there are several, such as `4 (2 nodes)`."""
        nodes = f" ({self.record.nodes} nodes)" if self.record.nodes > 1 else ""
        return f"{self.record.devices}{nodes}"

    def short_place(self, width: int) -> str:
        """Name and devices on two lines of a width: of a longer name the middle is left out, never the devices."""
        return folded(f"{shorter(self.name, 2 * width - 16)} on\N{NO-BREAK SPACE}{self.devices}", width)

    @property
    def comparable(self) -> bool:
        """Measured, without failure, and not known to compute something else than the reference by mistake."""
        return self.judged.comparable

    @property
    def decided(self) -> bool:
        """Whether it is known to compute what it should: nothing else may win."""
        return bool(self.row["parity"] != "undecided")

    def value(self, figure: str) -> float | None:
        """A figure or another number of the row; None where it is unknown."""
        found = self.row.get(figure)
        return float(found) if known(found) else None  # type: ignore[arg-type]

    def interval(self, figure: str) -> tuple[float, float] | None:
        """A figure's confidence interval; None where there is none."""
        low, high = self.value(f"{figure}_ci_low"), self.value(f"{figure}_ci_high")
        return None if low is None or high is None else (low, high)

    @cached_property
    def speed_by_round(self) -> dict[int, float]:
        """Tokens/s of each round, by its number."""
        return {trial.round: speed.tokens_per_s(trial, self.record) for trial in self.trials}

    @property
    def speeds(self) -> list[float]:
        """Tokens/s of each round."""
        return list(self.speed_by_round.values())

    @cached_property
    def memory(self) -> Summary | None:
        """Peak memory of the fullest rank with its confidence interval over rounds."""
        peaks = [peak for trial in self.trials if (peak := memory.peak_memory_bytes(trial))]
        return summarise(peaks) if peaks else None


@dataclass(frozen=True)
class Panel:
    """The cells of one run that may be compared with each other: same workload, phase and scaling.

    `link_mbit` is what the network between the run's nodes lets through, where there are several.
    """

    key: tuple[str, ...]
    run: str
    cells: Sequence[CellView]
    link_mbit: float | None = None

    @property
    def workload(self) -> str:
        """The workload's name, safe to show."""
        return plain(self.cells[0].record.workload)

    @property
    def scaling(self) -> str:
        """Strong or weak."""
        return self.cells[0].record.scaling

    @property
    def phase(self) -> str:
        """What is done with the model: train, score or generate."""
        return self.cells[0].record.phase

    @property
    def title(self) -> str:
        """Such as `lstm, strong scaling`."""
        said = self.phase == "train" or self.phase in self.workload
        phase = "" if said else f" ({plain(self.phase)})"
        return f"{self.workload}{phase}, {self.scaling} scaling"

    @cached_property
    def base(self) -> CellView | None:
        """The cell that all ratios are over: a reference on one device, where one can be compared with."""
        bases = [cell.judged.base.record for cell in self.cells if cell.judged.base]
        return next((cell for cell in self.cells if cell.record in bases), None)

    @cached_property
    def comparable(self) -> list[CellView]:
        """The cells that may be ranked."""
        return [cell for cell in self.cells if cell.comparable]

    @property
    def left_out(self) -> list[CellView]:
        """The cells that charts of speed do not draw."""
        return [cell for cell in self.cells if not cell.comparable]

    @cached_property
    def by_label(self) -> dict[str, list[CellView]]:
        """The comparable cells of each label, by devices."""
        found: defaultdict[str, list[CellView]] = defaultdict(list)
        for cell in sorted(self.comparable, key=lambda cell: cell.record.devices):
            found[cell.record.label].append(cell)
        order = dict.fromkeys(cell.record.label for cell in self.cells)
        return {label: found[label] for label in order if label in found}

    @property
    def size(self) -> str:
        """The work of a step, such as `global batch 32 × 64 tokens`."""
        first = self.cells[0].record
        per_device = self.scaling == "weak"
        batch = f"{first.global_batch // first.devices} per device" if per_device else f"{first.global_batch}"
        return f"global batch {batch} × {first.seq_len} tokens, {plain(first.precision)}"


@dataclass(frozen=True)
class RunView:
    """A run and its panels; `name` is its id, `slug` what anchors and files are named with."""

    run: Run
    name: str
    slug: str
    panels: Sequence[Panel]

    @property
    def cells(self) -> list[CellView]:
        """All cells, in the order of the run's plan."""
        found = {id(cell.record): cell for panel in self.panels for cell in panel.cells}
        return [found[id(record)] for record in self.run.record.cells]


def views(runs: Sequence[Run]) -> list[RunView]:
    """The runs, ready to be shown together: a label looks the same in all of them."""
    look = looks((cell.strategy, cell.label) for run in runs for cell in run.record.cells)
    anchors = _Names()
    several = len(runs) > 1
    return [_view(run, f"run{number}" if several else "", look, anchors) for number, run in enumerate(runs, start=1)]


def shared_figures(cells: Sequence[CellView]) -> list[str]:
    """The figures that at least one of the cells has, in the registry's order."""
    return [name for name in FIGURES if any(cell.value(name) is not None for cell in cells)]


def grouped(items: Sequence[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """Items of equal key together, in order of first appearance."""
    found: defaultdict[Hashable, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return list(found.values())


def shorter(name: str, length: int) -> str:
    """A name of this length at most. What tells variants apart is at both ends, so the middle makes way."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[len(name) - (length - 1) // 2 :]}"


def folded(name: str, width: int) -> str:
    """A name on lines of a width: two, unless its words are long. Of a longer name the middle is left out.

    It never begins with the underscore by which matplotlib hides labels.
    """
    lines = wrap(shorter(name, 2 * width - 8), width, break_on_hyphens=False) or [name]
    return "\n".join([f"\N{ZERO WIDTH SPACE}{lines[0]}" if lines[0].startswith("_") else lines[0], *lines[1:]])


def slug(text: str) -> str:
    """Text as part of an address: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "unnamed"


class _Names:
    """Slugs that are told apart by a number where two texts have the same one."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: defaultdict[str, int] = defaultdict(lambda: 2)

    def name(self, text: str) -> str:
        first = found = slug(text)
        while found in self._taken:
            found = f"{first}-{self._next[first]}"
            self._next[first] += 1
        self._taken.add(found)
        return found


def _view(run: Run, prefix: str, look: Mapping[str, Look], anchors: _Names) -> RunView:
    references = counted_trials(run, "reference")
    judged = judge_cells(run)
    rows = table_of(judged, emulated_nodes=run.record.emulated_nodes).to_dict(orient="records")
    cells = []
    for cell, row in zip(judged, rows, strict=True):
        record = cell.record
        expected = [trial for trial in references.get(record.reference, []) if trial.status == "ok"]
        anchor = anchors.name(f"{prefix} cell {record.id}")
        reference = expected[-1] if expected else None
        cells.append(CellView(cell, _texts_as_keys(row), anchor, look[record.label], reference))
    name = plain(run.record.id)
    link_mbit = run.record.link_mbit
    panels = [Panel(_panel_key(group[0]), name, group, link_mbit) for group in grouped(cells, _panel_key)]
    return RunView(run, name, prefix, panels)


def _texts_as_keys(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


def _panel_key(cell: CellView) -> tuple[str, ...]:
    record = cell.record
    return record.workload, record.phase, record.scaling
