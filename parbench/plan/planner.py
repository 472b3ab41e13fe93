"""A scenario on a machine into cells: what is measured, and what is skipped for which reason. Starts nothing."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parbench.base_types import DeviceKind, Scaling
from parbench.errors import ScenarioError, Unsupported
from parbench.models.base import FAMILIES
from parbench.plan.cell_key import cell_key, plainly
from parbench.plan.cells import Cell, Plan, describe_layout
from parbench.plan.mistakes import _note_mistakes
from parbench.plan.proof import proofs_of
from parbench.plan.refusals import Broken, asking, laid_out, require_imported, require_possible, require_room
from parbench.records.cell import CellRecord
from parbench.scenario.document import read_document
from parbench.scenario.exclude import FIELDS, is_excluded
from parbench.scenario.loader import Catalogue, Draft, draft_scenario
from parbench.scenario.specs import Options, Scenario, StrategySpec, WorkloadSpec, relabelled
from parbench.strategies.base import STRATEGIES, Strategy
from parbench.system.devices import Devices, Machine


def read_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario at `path`, for machines that are not known yet. Raises `ScenarioError` with every mistake."""
    draft = _draft(path, overrides)
    if draft.mistakes or draft.scenario is None:
        raise ScenarioError(draft.mistakes)
    return draft.scenario


def read_plan(path: Path, machine: Machine, overrides: Sequence[str] = ()) -> Plan:
    """The plan of the scenario at `path`. Raises `ScenarioError` with every mistake, also those that only show here."""
    draft = _draft(path, overrides)
    scenario = draft.scenario
    cells = tuple(_cells(scenario, machine, draft)) if scenario else ()
    if draft.mistakes or scenario is None:
        raise ScenarioError(draft.mistakes)
    return Plan(scenario=scenario, machine=machine, folder=path.parent, cells=cells)


def _draft(path: Path, overrides: Sequence[str]) -> Draft:
    document = read_document(path).override(overrides)
    return draft_scenario(document, catalogue(), default_name=path.stem, folder=path.parent)


def catalogue() -> Catalogue:
    """All that can be named in a scenario here."""
    strategies = {name: strategy.options_type for name, strategy in sorted(STRATEGIES.classes().items())}
    families = dict(sorted(FAMILIES.classes().items()))
    return Catalogue(families=families, options=strategies, broken=FAMILIES.broken, unimported=STRATEGIES.broken)


def _cells(scenario: Scenario, machine: Machine, draft: Draft) -> Iterator[Cell]:
    kind, counts = _devices(scenario, machine, draft)
    for name, workload in scenario.workloads.items():
        refusals: list[tuple[StrategySpec, list[Unsupported | None]]] = []
        for scaling in scenario.scaling:
            for strategy in scenario.strategies:
                cells = [
                    cell
                    for count in (counts if _class_of(strategy).scales else [1])
                    for cell in _variants(
                        scenario,
                        machine,
                        name,
                        workload,
                        scaling,
                        strategy,
                        machine.spread(kind, count, scenario.devices.cores_per_device),
                    )
                ]
                kept = [(cell, refusal) for cell, refusal in cells if not is_excluded(_fields(cell), scenario.exclude)]
                refusals.append((strategy, [refusal for _, refusal in kept]))
                yield from (cell for cell, _ in kept)
        _note_mistakes(refusals, name, draft)


def _fields(cell: Cell) -> dict[str, Any]:
    """What rules can name of a cell."""
    values = {**cell.workload.model_dump(include=set(FIELDS)), **cell.record.model_dump(include=set(FIELDS))}
    return {field: values[field] for field in FIELDS}


def _variants(
    scenario: Scenario,
    machine: Machine,
    name: str,
    workload: WorkloadSpec,
    scaling: Scaling,
    strategy: StrategySpec,
    devices: Devices,
) -> Iterator[tuple[Cell, Unsupported | None]]:
    """A cell for each way in which the strategy can decide what its options leave open."""
    spread = _grown(workload, devices.count) if scaling == "weak" else workload
    refusal: Unsupported | None = None
    try:
        decided = _decided(strategy, spread, devices)
    except Unsupported as error:
        decided, refusal = [strategy], error
    for variant in decided:
        yield _cell(scenario, machine, name, workload, scaling, variant, devices, refusal)


def _decided(strategy: StrategySpec, workload: WorkloadSpec, devices: Devices) -> list[StrategySpec]:
    """The strategy with what its options leave open decided, in every way. Raises `Unsupported`."""
    with asking("variants"):
        return [
            _with_options(strategy, options)
            for options in _class_of(strategy).variants(strategy.options, workload, devices)
        ]


def _with_options(strategy: StrategySpec, options: Options) -> StrategySpec:
    decided = {key: value for key, value in options if value != getattr(strategy.options, key) and value is not None}
    return strategy.model_copy(update={"options": options, "label": relabelled(strategy.label, decided)})


def _class_of(strategy: StrategySpec) -> type[Strategy[Any]]:
    """The class of a strategy; for one that could not be imported the interface, whose defaults stand for it."""
    return STRATEGIES.classes().get(strategy.name, Strategy)


def _devices(scenario: Scenario, machine: Machine, draft: Draft) -> tuple[DeviceKind, list[int]]:
    """The kind and the counts of devices; asking for what is not there is a mistake, and counts as left out."""
    spec = scenario.devices
    kind = machine.preferred_kind if spec.kind == "auto" else spec.kind
    available = machine.available(kind, spec.cores_per_device)
    if available == 0:
        if kind == "cuda":
            draft.mistake(
                ("devices", "kind"), "there is no CUDA device that the installed torch can use; use cpu or auto"
            )
        else:
            cores = len(machine.cores)
            draft.mistake(("devices", "cores_per_device"), f"there are {cores} cores here; use at most {cores}")
    if spec.counts == "auto":
        each = max(1, available // machine.nodes)
        on_one_node = [2**power for power in range(each.bit_length())]
        return kind, on_one_node + [each * 2**power for power in range(1, machine.nodes.bit_length())]
    for index, count in enumerate(spec.counts if not machine.granted else ()):
        if count > max(1, available) and not (spec.oversubscribe and kind == "cpu"):
            hint = "; or set oversubscribe: true" if kind == "cpu" else ""
            draft.mistake(
                ("devices", "counts", index), f"{count} devices, but there are {available} here; use at most that{hint}"
            )
    return kind, sorted(set(spec.counts))


def _cell(
    scenario: Scenario,
    machine: Machine,
    name: str,
    workload: WorkloadSpec,
    scaling: Scaling,
    strategy: StrategySpec,
    devices: Devices,
    refusal: Unsupported | None,
) -> tuple[Cell, Unsupported | None]:
    """The cell, which may have been refused before it is laid out, and why it is skipped, if it is."""
    cls = _class_of(strategy)
    base, layout, exact, flops = workload, None, cls.exact, None
    try:
        with asking("work"):
            flops = _flops_per_token(workload)
        if refusal:
            raise refusal
        require_imported(strategy.name)
        with asking("is_exact"):
            exact = cls.is_exact(strategy.options)
        with asking("refusal"):
            require_possible(cls, workload, devices, machine)
        require_room(devices, machine, scenario)
        if scaling == "weak":
            workload = _grown(base, devices.count)
            lanes = laid_out(cls, strategy.options, workload, devices).lanes
            workload = _grown(base, devices.count // lanes)
        layout = laid_out(cls, strategy.options, workload, devices)
    except Unsupported as error:
        refusal = error
    if workload.models == "auto":
        workload = workload.model_copy(update={"models": layout.lanes * layout.stacked if layout else 1})
    place: dict[str, Any] = {"strategy": strategy.name, "options": strategy.options, "count": devices.count}
    place |= {"nodes": devices.nodes} if devices.nodes > 1 else {}

    def possible(changed: WorkloadSpec) -> bool:
        with contextlib.suppress(Unsupported):
            other = laid_out(cls, strategy.options, changed, devices)
            return layout is not None and other.shape == layout.shape
        return False

    record = CellRecord(
        id="/".join([name, strategy.label, str(devices.count)] + ["weak"] * (scaling == "weak")),
        key=cell_key(scenario, workload, devices.kind, **place),
        reference=cell_key(scenario, plainly(workload).model_copy(update={"models": 0}), devices.kind),
        workload=name,
        family=workload.model.kind,
        strategy=strategy.name,
        label=strategy.label,
        is_reference=cls.reference,
        exact=exact,
        scaling=scaling,
        device_kind=devices.kind,
        devices=devices.count,
        nodes=devices.nodes,
        models=workload.models if isinstance(workload.models, int) else 1,
        global_batch=workload.global_batch,
        seq_len=workload.seq_len,
        precision=workload.precision,
        phase=workload.phase,
        new_tokens=workload.generated if workload.phase == "generate" else None,
        flops_per_token=flops,
        ideal_bubble=layout.bubble if layout else None,
        layout=describe_layout(layout, devices.nodes) if layout else "",
        data_shards=layout.data_shards if layout else 1,
        proofs=proofs_of(scenario, workload, devices.kind, place, possible, exact=exact) if layout else (),
        emulated=layout.emulated if layout else False,
        oversubscribed=devices.count > machine.available(devices.kind, scenario.devices.cores_per_device),
        reason=str(refusal) if refusal else None,
    )
    broken = isinstance(refusal, Broken)
    cell = Cell(record=record, workload=workload, strategy=strategy, devices=devices, layout=layout, broken=broken)
    return cell, refusal


def _flops_per_token(workload: WorkloadSpec) -> float | None:
    """Of a step, as counted by the family; a backward pass costs two forward passes."""
    family = workload.model
    work = family.work(workload.vocab_size, workload.seq_len)
    if work is None:
        return None
    forward = work.embed + family.n_blocks * work.block + work.head
    return forward * (3 if workload.phase == "train" else 1)


def _grown(workload: WorkloadSpec, devices: int) -> WorkloadSpec:
    """Weak scaling: the batch of a model grows with the devices that work on that model."""
    return workload.model_copy(update={"global_batch": workload.global_batch * devices})
