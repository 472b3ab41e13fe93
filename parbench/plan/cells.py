"""A cell of a plan, and the plan."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

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
    companions: "Companions | None" = None
    """What would explain its speed; None for what is on one device, or skipped."""
    refusal: Unsupported | None = field(default=None, compare=False)
    """Why it is skipped, if it is."""

    @property
    def is_broken(self) -> bool:
        """Whether it is skipped because code failed, such as a plug-in's, and not because the strategy cannot do it."""
        return isinstance(self.refusal, Broken)


class Companions(NamedTuple):
    """What is launched to explain a cell, as cells that are no rows of the comparison: see `CompanionsRecord`."""

    alone: Cell
    together: Cell


def bases_of(cells: Iterable[Cell]) -> dict[tuple[str, str], Cell]:
    """The cell that ratios are over, by workload and scaling: the first of those to measure that can be one."""
    bases: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if cell.layout and cell.record.can_be_base:
            bases.setdefault(cell.record.base_group, cell)
    return bases


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
        bases = bases_of(self.cells)
        compared: dict[str, set[str]] = defaultdict(set)
        for cell in self.cells:
            if cell.layout and (base := bases.get(cell.record.base_group)):
                compared[base.record.key] |= {cell.record.key} - {base.record.key}
        return compared

    @property
    def companions(self) -> list[Cell]:
        """What every round launches once to explain cells, one of each key, where the scenario asks for it.

        A companion that is a cell of the plan is measured as that.
        """
        if not self.scenario.measure.explain:
            return []
        bases, own = bases_of(self.cells), {cell.record.key for cell in self.runnable}
        explained = [cell.companions for cell in self.cells if cell.companions and cell.record.base_group in bases]
        every = {each.record.key: each for companions in explained for each in companions}
        return [each for key, each in every.items() if key not in own]

    def unexplained(self) -> "Plan":
        """The plan without what would be launched only to explain its cells."""
        measure = self.scenario.measure.model_copy(update={"explain": False})
        return replace(self, scenario=self.scenario.model_copy(update={"measure": measure}))

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
