"""Turns a scenario on a machine into cells: what is measured, and what is skipped for which reason. Starts nothing."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from parbench.base_types import DeviceKind, Scaling
from parbench.errors import Unsupported
from parbench.plan.cell_key import cell_key, without_compilation
from parbench.plan.cells import Cell
from parbench.plan.mistakes import Attempts, add_mistakes
from parbench.plan.proof import proofs_of
from parbench.plan.refusals import (
    lay_out,
    refuse_on_error,
    require_imported,
    require_possible,
    require_room,
    require_service,
    require_shareable,
)
from parbench.records.cell import CellRecord, ProofRecord
from parbench.scenario.exclude import FIELDS, is_excluded
from parbench.scenario.loader import Draft
from parbench.scenario.specs import Options, Scenario, StrategySpec, WorkloadSpec, relabelled
from parbench.strategies.base import STRATEGIES, Layout, Strategy
from parbench.system.devices import Devices, Machine


class Combination(NamedTuple):
    """What makes a cell: a workload as it stands in the scenario, a strategy, how it scales, and devices."""

    name: str
    workload: WorkloadSpec
    scaling: Scaling
    strategy: StrategySpec
    devices: Devices

    @property
    def cls(self) -> type[Strategy[Any]]:
        """The strategy's class."""
        return _class_of(self.strategy)

    @property
    def cell_id(self) -> str:
        """The cell's name in tables and for `--only`."""
        return "/".join([self.name, self.strategy.label, str(self.devices.count)] + ["weak"] * (self.scaling == "weak"))

    @property
    def place(self) -> dict[str, Any]:
        """What a cell's key holds of strategy and devices; on one node no number of nodes, so that old keys stay."""
        place: dict[str, Any] = {
            "strategy": self.strategy.name,
            "options": self.strategy.options,
            "count": self.devices.count,
        }
        return place | ({"nodes": self.devices.nodes} if self.devices.nodes > 1 else {})


@dataclass(kw_only=True)
class Attempt:
    """How far laying out a combination has come: the workload at its size, the layout, or why there is none."""

    workload: WorkloadSpec
    exact: bool
    flops_per_token: float | None = None
    layout: Layout | None = None
    refusal: Unsupported | None = None


class Planner:
    """Makes the cells of a scenario on a machine. Mistakes that only show here are added to the draft."""

    def __init__(self, scenario: Scenario, machine: Machine, draft: Draft) -> None:
        self.scenario = scenario
        self.machine = machine
        self.draft = draft

    def cells(self) -> Iterator[Cell]:
        """All cells that no rule excludes, in the order of tables."""
        kind, counts = self._devices()
        for name, workload in self.scenario.workloads.items():
            attempts: list[Attempts] = []
            for scaling in self.scenario.scaling:
                for strategy in self.scenario.strategies:
                    cells = [
                        cell
                        for count in (counts if _class_of(strategy).scales else [1])
                        for cell in self._variants(
                            Combination(name, workload, scaling, strategy, self._spread(kind, count))
                        )
                        if not is_excluded(_matchable_fields(cell), self.scenario.exclude)
                    ]
                    attempts.append(Attempts(strategy, [cell.refusal for cell in cells]))
                    yield from cells
            add_mistakes(self.draft, name, attempts)

    def _devices(self) -> tuple[DeviceKind, list[int]]:
        """The kind and the counts of devices. A count that the machine does not have is a mistake.

        Not so with `kind: auto`, which is for any machine: there it is skipped, as long as another count is left.
        """
        spec, machine = self.scenario.devices, self.machine
        kind = machine.preferred_kind if spec.kind == "auto" else spec.kind
        available = machine.available(kind, spec.cores_per_device)
        if available == 0:
            self._add_no_device(kind)
        if spec.counts == "auto":
            per_node = max(1, available // machine.nodes)
            on_one_node = [2**power for power in range(per_node.bit_length())]
            return kind, on_one_node + [per_node * 2**power for power in range(1, machine.nodes.bit_length())]
        is_portable = spec.kind == "auto" and min(spec.counts) <= available
        for index, count in enumerate(spec.counts if not machine.granted and not is_portable else ()):
            if count > max(1, available) and not spec.may_share(kind):
                hint = "; or set oversubscribe: true" if kind in ("cpu", spec.kind) else ""
                message = f"{count} devices, but there are {available} here; use at most that{hint}"
                self.draft.mistake(("devices", "counts", index), message)
        return kind, sorted(set(spec.counts))

    def _add_no_device(self, kind: DeviceKind) -> None:
        """Adds the mistake of a scenario that asks for devices of which there is none."""
        if kind == "cuda":
            message = "there is no CUDA device that the installed torch can use; use cpu or auto"
            self.draft.mistake(("devices", "kind"), message)
        else:
            cores = len(self.machine.cores)
            message = f"there are {cores} cores here; use at most {cores}"
            self.draft.mistake(("devices", "cores_per_device"), message)

    def _spread(self, kind: DeviceKind, count: int) -> Devices:
        return self.machine.spread(kind, count, self.scenario.devices.cores_per_device)

    def _variants(self, combination: Combination) -> Iterator[Cell]:
        """A cell for each way in which the strategy can choose the options that the scenario leaves open."""
        _, workload, scaling, strategy, devices = combination
        at_size = _scaled(workload, devices.count) if scaling == "weak" else workload
        try:
            with refuse_on_error("variants"):
                variants = [
                    _with_options(strategy, options)
                    for options in combination.cls.variants(strategy.options, at_size, devices)
                ]
        except Unsupported as error:
            yield self._cell(combination, Attempt(workload=workload, exact=combination.cls.exact, refusal=error))
            return
        for variant in variants:
            yield self._cell(
                combination._replace(strategy=variant), Attempt(workload=workload, exact=combination.cls.exact)
            )

    def _cell(self, combination: Combination, attempt: Attempt) -> Cell:
        """The cell of a combination, whether it can be laid out or not."""
        try:
            self._lay_out(combination, attempt)
        except Unsupported as error:
            attempt.refusal = error
        layout = attempt.layout
        if attempt.workload.models == "auto":
            models = layout.lanes * layout.stacked if layout else 1
            attempt.workload = attempt.workload.model_copy(update={"models": models})
        return Cell(
            record=self._record(combination, attempt),
            workload=attempt.workload,
            strategy=combination.strategy,
            devices=combination.devices,
            layout=layout,
            refusal=attempt.refusal,
        )

    def _lay_out(self, combination: Combination, attempt: Attempt) -> None:
        """Fills in the attempt, step by step. Raises `Unsupported` at the first step that fails; the others remain."""
        _, workload, scaling, strategy, devices = combination
        cls, options = combination.cls, strategy.options
        with refuse_on_error("work"):
            attempt.flops_per_token = _flops_per_token(workload)
        if attempt.refusal:
            raise attempt.refusal
        require_imported(strategy.name)
        with refuse_on_error("is_exact"):
            attempt.exact = cls.is_exact(options)
        with refuse_on_error("refusal"):
            require_possible(cls, workload, devices, self.machine)
        require_room(devices, self.machine, self.scenario)
        if scaling == "weak":
            attempt.workload = _scaled(workload, devices.count)
            lanes = lay_out(cls, options, attempt.workload, devices).lanes
            attempt.workload = _scaled(workload, max(1, devices.count // lanes))
        layout = lay_out(cls, options, attempt.workload, devices)
        require_service(layout, self.machine)
        require_shareable(cls, layout, devices, self.machine)
        attempt.layout = layout

    def _record(self, combination: Combination, attempt: Attempt) -> CellRecord:
        name, _, scaling, strategy, devices = combination
        workload, layout = attempt.workload, attempt.layout
        reference = without_compilation(workload).model_copy(update={"models": 0})
        cost = self.scenario.cost
        available = self.machine.available(devices.kind, self.scenario.devices.cores_per_device)
        return CellRecord(
            id=combination.cell_id,
            key=cell_key(self.scenario, workload, devices.kind, **combination.place),
            reference=cell_key(self.scenario, reference, devices.kind),
            workload=name,
            family=workload.model.kind,
            strategy=strategy.name,
            label=strategy.label,
            is_reference=combination.cls.reference,
            exact=attempt.exact,
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
            flops_per_token=attempt.flops_per_token,
            ideal_bubble=layout.bubble if layout else None,
            layout=layout.in_words(devices.nodes) if layout else "",
            data_shards=layout.data_shards if layout else 1,
            traffic_varies=layout.traffic_varies if layout else False,
            proofs=self._proofs(combination, attempt),
            emulated=layout.emulated if layout else False,
            oversubscribed=devices.count > available,
            price_per_device_hour=cost.per_device_hour if cost else None,
            currency=cost.currency if cost else "",
            reason=str(attempt.refusal) if attempt.refusal else None,
        )

    def _proofs(self, combination: Combination, attempt: Attempt) -> tuple[ProofRecord, ...]:
        """How the cell can be proven: with workloads that the strategy lays out in the same shape."""
        layout, devices = attempt.layout, combination.devices
        if layout is None:
            return ()

        def has_same_shape(workload: WorkloadSpec) -> bool:
            with contextlib.suppress(Unsupported):
                return lay_out(combination.cls, combination.strategy.options, workload, devices).shape == layout.shape
            return False

        return proofs_of(
            self.scenario, attempt.workload, devices.kind, combination.place, has_same_shape, exact=attempt.exact
        )


def _class_of(strategy: StrategySpec) -> type[Strategy[Any]]:
    """The class of a strategy; of one that could not be imported the interface, whose defaults stand for it."""
    return STRATEGIES.classes().get(strategy.name, Strategy)


def _with_options(strategy: StrategySpec, options: Options) -> StrategySpec:
    """The strategy with all options chosen; its label names those that the scenario left open."""
    choices = {key: value for key, value in options if value != getattr(strategy.options, key) and value is not None}
    return strategy.model_copy(update={"options": options, "label": relabelled(strategy.label, choices)})


def _matchable_fields(cell: Cell) -> dict[str, Any]:
    """The fields of a cell that the rules of `exclude` can name."""
    values = {**cell.workload.model_dump(include=set(FIELDS)), **cell.record.model_dump(include=set(FIELDS))}
    return {field: values[field] for field in FIELDS}


def _flops_per_token(workload: WorkloadSpec) -> float | None:
    """FLOPs per token of a step, as the family counts them; a backward pass costs as much as two forward passes."""
    family = workload.model
    work = family.work(workload.vocab_size, workload.seq_len)
    if work is None:
        return None
    forward = work.embed + family.n_blocks * work.block + work.head
    return forward * (3 if workload.phase == "train" else 1)


def _scaled(workload: WorkloadSpec, devices: int) -> WorkloadSpec:
    """The workload at weak scaling: the global batch of a model grows with the devices that work on that model."""
    return workload.model_copy(update={"global_batch": workload.global_batch * devices})
