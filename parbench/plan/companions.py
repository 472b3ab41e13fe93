"""Companions: what is launched to explain why a cell on N devices is not N times as fast as one device.

One device with the batch that each device of the cell computes at once shows what the smaller batch costs. N
independent copies of that at the same time show what sharing memory, caches and cores costs. Cells that agree in both
share them.
"""

from collections.abc import Sequence
from dataclasses import replace

from parbench.errors import Unsupported
from parbench.plan.cell_key import cell_key
from parbench.plan.cells import Cell, Companions, bases_of
from parbench.plan.planner import Combination
from parbench.plan.refusals import lay_out, require_possible
from parbench.records.cell import CellRecord, CompanionRecord, CompanionsRecord
from parbench.scenario.specs import Scenario, StrategySpec, WorkloadSpec
from parbench.strategies.base import STRATEGIES, Layout
from parbench.system.devices import Devices, Machine


def with_companions(cells: Sequence[Cell], scenario: Scenario, machine: Machine) -> tuple[Cell, ...]:
    """The cells, with companions where several devices work on one model and there is a base to compare with."""
    bases = bases_of(cells)
    return tuple(_accompanied(cell, bases.get(cell.record.base_group), scenario, machine) for cell in cells)


def step_of_one_device(workload: WorkloadSpec, layout: Layout) -> WorkloadSpec | None:
    """The workload of a device of this layout, were it alone: its share of the batch, as much of it at once.

    What it trains on in parts, one after another, stays one step. None where the batch has no such equal parts.
    """
    shares = layout.data_shards * layout.devices_per_process
    parts = workload.gradient_accumulation * layout.micro_batches
    if workload.global_batch % (shares * parts):
        return None
    share = workload.global_batch // shares
    if workload.phase == "train":
        return workload.model_copy(update={"global_batch": share, "gradient_accumulation": parts})
    return workload.model_copy(update={"global_batch": share // parts})


def _accompanied(cell: Cell, base: Cell | None, scenario: Scenario, machine: Machine) -> Cell:
    """The cell with its companions; as it is where there is nothing to explain, or no strategy can do it."""
    if cell.layout is None or base is None or not cell.record.is_spread:
        return cell
    pool = _independent_strategy()
    step = step_of_one_device(cell.workload, cell.layout)
    if pool is None or step is None:
        return cell
    try:
        companions = Companions(
            alone=_companion(base.record, scenario, machine, step, base.strategy, base.devices),
            together=_companion(cell.record, scenario, machine, _copies(step, cell.devices.count), pool, cell.devices),
        )
    except Unsupported:
        return cell
    alone, together = (
        CompanionRecord(key=each.record.key, global_batch=each.record.global_batch) for each in companions
    )
    record = cell.record.model_copy(update={"companions": CompanionsRecord(alone=alone, together=together)})
    return replace(cell, record=record, companions=companions)


def _independent_strategy() -> StrategySpec | None:
    """The strategy that runs independent copies, with its defaults; None where there is none."""
    classes = STRATEGIES.classes().items()
    pools = ((name, strategy) for name, strategy in classes if strategy.independent)
    return next((StrategySpec(name=name, options=cls.options_type(), label=name) for name, cls in pools), None)


def _copies(workload: WorkloadSpec, count: int) -> WorkloadSpec:
    """As many models as `count`, each with what is set for the only one."""
    optimizer = workload.optimizer
    if optimizer.lr_per_model:
        optimizer = optimizer.model_copy(update={"lr": optimizer.lr_of(0), "lr_per_model": None})
    return workload.model_copy(update={"models": count, "length_per_model": None, "optimizer": optimizer})


def _companion(
    like: CellRecord,
    scenario: Scenario,
    machine: Machine,
    workload: WorkloadSpec,
    strategy: StrategySpec,
    devices: Devices,
) -> Cell:
    """A companion, whose record is like that of a cell on the same devices.

    Its key is that of a cell: what is planned anyway is not measured twice. Raises `Unsupported`.
    """
    cls = STRATEGIES[strategy.name]
    require_possible(cls, workload, devices, machine)
    layout = lay_out(cls, strategy.options, workload, devices)
    combination = Combination(like.workload, workload, "strong", strategy, devices)
    batch, parts = workload.global_batch, workload.gradient_accumulation
    note = f"companion, batch {batch}" + f" in {parts} parts" * (parts > 1)
    changes = {
        "id": f"{combination.cell_id} ({note})",
        "key": cell_key(scenario, workload, devices.kind, **combination.place),
        "strategy": strategy.name,
        "label": strategy.label,
        "is_reference": cls.reference,
        "exact": cls.exact,
        "models": workload.models,
        "global_batch": batch,
        "ideal_bubble": layout.bubble,
        "layout": layout.in_words(devices.nodes),
        "data_shards": layout.data_shards,
        "proofs": (),
        "emulated": layout.emulated,
    }
    record = like.model_copy(update=changes)
    return Cell(record=record, workload=workload, strategy=strategy, devices=devices, layout=layout)
