"""A cell of a plan, and the plan."""

from dataclasses import dataclass, replace
from pathlib import Path

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
    broken: bool = False
    """It is skipped because code failed that was asked about it, and not because the strategy cannot do it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scenario's cells on a machine."""

    scenario: Scenario
    machine: Machine
    folder: Path
    cells: tuple[Cell, ...]

    @property
    def runnable(self) -> list[Cell]:
        """The cells to measure, each measurement once: at one device, weak and strong scaling are the same one."""
        return list({cell.record.key: cell for cell in self.cells if cell.layout}.values())

    @property
    def broken(self) -> list[Cell]:
        """The cells that are skipped because code failed."""
        return [cell for cell in self.cells if cell.broken]

    def only(self, *globs: str) -> "Plan":
        """The part of the plan whose cells' ids some glob matches, as in a shell; without globs, all of it.

        Raises `UsageError` for a glob that matches none.
        """
        require_matches(globs, [cell.record.id for cell in self.cells])
        return replace(self, cells=tuple(cell for cell in self.cells if is_chosen(cell.record.id, globs)))


def describe_layout(layout: Layout, nodes: int = 1) -> str:
    """A layout in words, such as `2 processes, 2 data shards`."""
    parts = [(layout.processes, "process", "processes")]
    parts += [(layout.devices_per_process, "device each", "devices each")] * (layout.devices_per_process > 1)
    parts += [(layout.processes_per_device, "", "on each device")] * (layout.processes_per_device > 1)
    parts += [(layout.data_shards, "data shard", "data shards")] * (layout.data_shards > 1)
    parts += [(layout.lanes, "lane", "lanes")] * (layout.lanes > 1)
    parts += [(layout.stacked, "model stacked", "models stacked")] * (layout.stacked > 1)
    words = [f"{count} {singular if count == 1 else plural}" for count, singular, plural in parts]
    words[0] += f" on {nodes} nodes" * (nodes > 1)
    return ", ".join(words + [layout.note] * bool(layout.note))
