"""A cell of a plan, and the plan."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from parbench.errors import Unsupported
from parbench.plan.refusals import Broken
from parbench.records.cell import CellRecord
from parbench.scenario.exclude import is_chosen, require_matches
from parbench.scenario.specs import Scenario, StrategySpec, WorkloadSpec
from parbench.strategies.base import Layout
from parbench.system.devices import Devices, Machine


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Workload × strategy × devices, with every `auto` resolved; `layout` is None where it is skipped."""

    record: CellRecord
    workload: WorkloadSpec
    strategy: StrategySpec
    devices: Devices
    layout: Layout | None
    refusal: Unsupported | None = field(default=None, compare=False)
    """Why it is skipped, if it is."""

    @property
    def is_broken(self) -> bool:
        """Whether it is skipped because code failed, such as a plug-in's, and not because the strategy cannot do it."""
        return isinstance(self.refusal, Broken)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scenario's cells on a machine."""

    scenario: Scenario
    machine: Machine
    folder: Path
    cells: tuple[Cell, ...]

    @property
    def runnable(self) -> list[Cell]:
        """The cells to measure, one of each key: on one device, weak and strong scaling are the same measurement."""
        return list({cell.record.key: cell for cell in self.cells if cell.layout}.values())

    @property
    def launches_a_round(self) -> Mapping[str, int]:
        """How often a round launches each measurement, by its key: once, and the base of others more often.

        The ratios of K cells over one base share its luck. With equal variance of all launches, the K ratios are
        estimated best for their effort where the base is launched √K times as often as each of them (Dunnett 1955, "A
        multiple comparison procedure for comparing several treatments with a control").
        """
        setting = self.scenario.measure.base_launches
        times = {cell.record.key: 1 for cell in self.runnable}
        for base, others in self._compared_with_bases().items():
            times[base] = max(1, round(math.sqrt(len(others)))) if setting == "auto" else setting
        return times

    def _compared_with_bases(self) -> dict[str, set[str]]:
        """The keys of all bases, each with those of the other measurements whose ratios are over it."""
        records = [cell.record for cell in self.cells if cell.layout]
        bases: dict[tuple[str, str], str] = {}
        for record in records:
            if record.can_be_base:
                bases.setdefault(record.base_group, record.key)
        compared: dict[str, set[str]] = defaultdict(set)
        for record in records:
            if base := bases.get(record.base_group):
                compared[base] |= {record.key} - {base}
        return compared

    @property
    def broken(self) -> list[Cell]:
        """The cells that are skipped because code failed."""
        return [cell for cell in self.cells if cell.is_broken]

    def only(self, *globs: str) -> "Plan":
        """The plan with the cells whose ids match any of the shell globs; without globs, all of it.

        Raises `UsageError` for a glob that matches no cell.
        """
        require_matches(globs, [cell.record.id for cell in self.cells])
        return replace(self, cells=tuple(cell for cell in self.cells if is_chosen(cell.record.id, globs)))
