"""Every layout of a workload on so many devices: the axes that strategies support, and what is free besides them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np

from parbench.errors import Unsupported
from parbench.predict.problem import Array
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.hybrid import Hybrid, HybridOptions, factorisations
from parbench.strategies.model_parallel import Schedule
from parbench.system.devices import Devices

RECOMPUTATIONS = ((0.0, 0.0), (1.0, 1.0))
"""Nothing, or all of a block: the share of its forward pass that is repeated, and whether attention is."""

SCHEDULES: tuple[tuple[Schedule, int], ...] = (
    ("1f1b", 1),
    *(("interleaved_1f1b", stages) for stages in (2, 3, 4, 6, 8)),
)
"""Schedules of pipelines, with the stages of a rank."""

SHORTEST = 4096
"""Tokens of a device's part of a sequence below which sequences are not cut: attention is a small part of the work."""

MOST_MICRO_BATCH = 64
"""Sequences of a micro-batch; larger ones are no faster."""

CHUNK = 100_000
"""Layouts that are computed at once: their arrays take tens of megabytes."""

COLUMNS = (
    "data",
    "tensor",
    "pipeline",
    "context",
    "interleave",
    "micro_batch",
    "micro_batches",
    "shards",
    "zero",
    "sequence_parallel",
    "recompute",
    "recompute_attention",
)


class Axes(NamedTuple):
    """What a strategy is asked about."""

    data: int
    pipeline: int
    tensor: int
    context: int
    interleave: int
    micro_batches: int
    is_sharded: bool
    is_sequence_parallel: bool


@dataclass
class Search:
    """The layouts of a workload on `devices`; `refusals` counts what strategies refuse, by their reasons."""

    workload: WorkloadSpec
    devices: Devices
    refusals: dict[str, int] = field(default_factory=dict)

    def chunks(self) -> Iterator[dict[str, Array]]:
        """All layouts, as columns of at most `CHUNK` rows."""
        rows: list[Sequence[float]] = []
        for axes in self.axes():
            rows.extend(self._free(axes))
            if len(rows) >= CHUNK:
                yield _columns(rows)
                rows = []
        if rows:
            yield _columns(rows)

    def axes(self) -> Iterator[Axes]:
        """Each combination of axes that the workload supports, asked once."""
        for context in _context_degrees(self.workload.seq_len, self.devices.count):
            for data, pipeline, tensor in factorisations(self.devices.count // context):
                for axes in self._combinations(data, pipeline, tensor, context):
                    if self._is_supported(axes):
                        yield axes

    def _combinations(self, data: int, pipeline: int, tensor: int, context: int) -> Iterator[Axes]:
        if self.workload.global_batch % data:
            self._refuse(f"a global batch of {self.workload.global_batch} does not divide into {data} data shards")
            return
        replica = self.workload.global_batch // data
        counts = [count for count in range(1, replica + 1) if replica % count == 0]
        counts = [count for count in counts if replica // count <= MOST_MICRO_BATCH]
        stages = [each for _, each in SCHEDULES] if pipeline > 1 else [1]
        # Schedules and degrees that need more stages than there are blocks are refused once, not for each batch.
        stages = [each for each in stages if pipeline * each <= self.workload.model.n_blocks + 1]
        sharded, sequence_parallel = (False, True)[: 1 + (data > 1)], (False, True)[: 1 + (tensor > 1)]
        for interleave, count, is_sharded, along in product(stages, counts, sharded, sequence_parallel):
            yield Axes(data, pipeline, tensor, context, interleave, count, is_sharded, along)

    def _is_supported(self, axes: Axes) -> bool:
        schedule = next(name for name, stages in SCHEDULES if stages == axes.interleave)
        options = HybridOptions(
            data=axes.data,
            pipeline=axes.pipeline,
            tensor=axes.tensor,
            data_parallel="fsdp" if axes.is_sharded else "ddp",
            sequence_parallel=axes.is_sequence_parallel,
            schedule=schedule,
            micro_batches=axes.micro_batches if axes.pipeline > 1 else None,
            stages_per_rank=axes.interleave if axes.interleave > 1 else None,
        )
        accumulated = 1 if axes.pipeline > 1 else axes.micro_batches
        workload = self.workload.model_copy(update={"gradient_accumulation": accumulated})
        count = axes.data * axes.pipeline * axes.tensor
        try:
            Hybrid.layout(options, workload, Devices(kind=self.devices.kind, count=count, nodes=self._nodes(count)))
        except Unsupported as reason:
            self._refuse(str(reason))
            return False
        return True

    def _nodes(self, count: int) -> int:
        """The nodes that so many of the devices fill, which are not all where sequences are cut as well."""
        return max(1, count // self.devices.per_node)

    def _refuse(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def _free(self, axes: Axes) -> Iterator[Sequence[float]]:
        """The layouts of these axes: what is computed again, and how far states are sharded."""
        replicas = axes.data * axes.context
        micro_batch = self.workload.global_batch / axes.data / axes.micro_batches
        inner = axes.tensor * axes.context
        in_node = max(1, min(replicas, self.devices.per_node // inner * axes.context))
        if axes.is_sharded:
            shardings = [(shards, 0.0) for shards in sorted({replicas, in_node}) if shards > 1]
        else:
            shardings = [(1, 0.0), (1, 1.0)][: 1 + (replicas > 1)]
        for (shards, zero), (share, attention) in product(shardings, RECOMPUTATIONS):
            yield (
                axes.data,
                axes.tensor,
                axes.pipeline,
                axes.context,
                axes.interleave,
                micro_batch,
                axes.micro_batches,
                shards,
                zero,
                axes.is_sequence_parallel,
                share,
                attention,
            )


def _context_degrees(seq_len: int, devices: int) -> list[int]:
    """Into how many parts sequences may be cut: two chunks of equal work for each of them."""
    degrees = [2**power for power in range(devices.bit_length()) if devices % 2**power == 0]
    return [
        degree for degree in degrees if degree == 1 or (seq_len % (2 * degree) == 0 and seq_len // degree >= SHORTEST)
    ]


def _columns(rows: Sequence[Sequence[float]]) -> dict[str, Array]:
    table = np.array(rows, dtype=np.float64)
    return {name: table[:, index] for index, name in enumerate(COLUMNS)}
