"""A rank among the ranks of a trial: what it has to do, how the ranks meet, and how they agree."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Self

import torch
from torch import distributed
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import Store

from parbench.base_types import DeviceKind, Precision
from parbench.measure.probes.compile_time import prepare_compiler
from parbench.models.base import FAMILIES
from parbench.records.assignment import TIMED, Assignment
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context, Layout, Strategy
from parbench.system.cpus import cpus_of
from parbench.system.devices import Devices
from parbench.system.mps import is_client


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one rank does in a trial: the lane and data shard that it works on, and the devices that it drives.

    `cores` are the logical CPUs of each of those devices, on CPU. `cpus` are all that it is pinned to, if it is.
    """

    assignment: Assignment
    rank: int
    spec: WorkloadSpec
    strategy_class: type[Strategy[Any]]
    options: Options
    layout: Layout
    lane: int
    shard: int
    cores: tuple[tuple[int, ...], ...]
    cpus: tuple[int, ...]
    devices: tuple[torch.device, ...]

    @classmethod
    def of(cls, assignment: Assignment, rank: int, local_rank: int) -> Self:
        """The role of a rank, which is the `local_rank`-th of its node. Touches no device."""
        model = assignment.workload["model"]
        family = FAMILIES[model["kind"]].model_validate(model, context={"folder": assignment.folder})
        spec = WorkloadSpec.model_validate({**assignment.workload, "model": family})
        strategy_class = STRATEGIES[assignment.strategy]
        options = strategy_class.options_type.model_validate(assignment.options)
        kind = assignment.device_kind
        devices = Devices(kind=kind, count=assignment.devices, nodes=assignment.nodes)
        layout = strategy_class.layout(options, spec, devices)
        lane, shard = layout.coordinate(rank)
        numbers = layout.devices_of(local_rank)
        cores = assignment.cores[numbers.start : numbers.stop]
        return cls(
            assignment=assignment,
            rank=rank,
            spec=spec,
            strategy_class=strategy_class,
            options=options,
            layout=layout,
            lane=lane,
            shard=shard,
            cores=cores,
            cpus=assignment.rank_cores[local_rank] if assignment.rank_cores else cpus_of(cores),
            devices=tuple(_device(kind, number, assignment.gpus) for number in numbers),
        )

    @property
    def device(self) -> torch.device:
        """The first of its devices: where its model starts and its times are taken."""
        return self.devices[0]

    @property
    def node_devices(self) -> tuple[torch.device, ...]:
        """The devices of all ranks on this rank's node."""
        assignment = self.assignment
        kind, numbers = assignment.device_kind, range(assignment.devices // assignment.nodes)
        return tuple(torch.device(kind, index) if kind == "cuda" else torch.device(kind) for index in numbers)

    @property
    def is_timed(self) -> bool:
        """Whether its steps are timed; references and proofs only need losses."""
        return self.assignment.purpose in TIMED

    def make_strategy(self) -> Strategy[Any]:
        """A new object of the strategy, for one model."""
        return self.strategy_class(self.options)

    def context(self, group: ProcessGroup | None) -> Context:
        """What the strategy is told of this rank; `group` are the ranks of its lane."""
        return Context(
            rank=self.rank % self.layout.ranks_per_lane,
            ranks=self.layout.ranks_per_lane,
            devices=self.devices,
            cores=self.cores,
            threads=self.assignment.threads,
            group=group,
            stacked=self.layout.stacked,
        )

    def pin(self) -> None:
        """Keeps this process on its cores, before any thread starts: threads inherit the cores of their maker."""
        pin_to(self.device, self.cpus, self.assignment.threads)
        prepare_compiler(self.device, self.assignment.threads)
        if self.device.type == "cuda":
            set_precision(self.spec.precision)

    def require_service(self) -> None:
        """Raises `RuntimeError` where MPS is to serve this rank and does not: CUDA goes on without it in silence."""
        for device in self.devices if self.assignment.mps else ():
            if device.type == "cuda":
                torch.cuda.init()
                if is_client(device.index) is False:
                    raise RuntimeError(f"MPS does not serve {device}; its logs are in the folder mps of the trial")


def pin_to(device: torch.device, cpus: tuple[int, ...], threads: int) -> None:
    """Keeps this process on its logical CPUs, where there are any, with so many threads, and on its GPU."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _device(kind: DeviceKind, number: int, gpus: int | None) -> torch.device:
    """Device `number` of this node; GPUs that are fewer than devices are counted through again."""
    return torch.device(kind, number % gpus if gpus else number) if kind == "cuda" else torch.device(kind)


def set_precision(precision: Precision) -> None:
    """Has CUDA round to TF32 where that is asked for, and nowhere else: its recurrent layers would by default."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


class Team:
    """The ranks of a process group; a rank on its own (no group) agrees with itself."""

    def __init__(self, group: ProcessGroup | None, device: torch.device) -> None:
        self.group = group
        self._device = device

    def find_slowest(self, seconds: float) -> float:
        """The largest of all ranks' values, the same in every rank."""
        if self.group is None or self.group.size() == 1:
            return seconds
        value = torch.tensor(seconds, dtype=torch.float64, device=self._device)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self.group)
        return float(value.item())

    def meet(self) -> None:
        """Returns once every rank of the team has called it."""
        self.find_slowest(0.0)


class Teams(NamedTuple):
    """All ranks of the trial, the ranks of this rank's lane, and the store that all of them share."""

    store: Store
    world: Team
    lane: Team


def form_teams(role: Role, listener: socket.socket | None) -> Teams:
    """Meets the other ranks, and finds those of this rank's lane. `listener` is as in `join_process_group`."""
    layout = role.layout
    # NCCL's ranks cannot share a GPU. Those that train alone may, and exchange nothing but times.
    alone = layout.lanes > 1 and layout.ranks_per_lane == 1
    device = torch.device("cpu") if alone or role.assignment.gpus else role.device
    store = join_process_group(device, timedelta(seconds=role.assignment.deadline_s), listener)
    world = Team(distributed.group.WORLD, device)
    lane = Team(world.group if layout.lanes == 1 else make_lane_group(layout, role.lane), device)
    world.meet()
    return Teams(store, world, lane)


def make_lane_group(layout: Layout, lane: int) -> ProcessGroup | None:
    """The group of a lane's ranks; None for a lane of one. A collective: all ranks call it together."""
    size = layout.ranks_per_lane
    if size == 1:
        return None
    # Every rank makes the groups of all lanes, as torch demands.
    groups: list[ProcessGroup] = [
        distributed.new_group(list(range(first, first + size))) for first in range(0, layout.processes, size)
    ]
    return groups[lane]


def join_process_group(device: torch.device, timeout: timedelta, listener: socket.socket | None) -> Store:
    """Joins the process group that torchrun's variables name, over gloo or NCCL; the store of its rendezvous.

    With `listener`, rank 0 serves the rendezvous on that open socket: the launcher that opened it knows its port
    before any rank starts, so no port is ever guessed or lost.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = device if device.type == "cuda" else None
    store: Store
    if "PARBENCH_LISTENER" in os.environ:
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            world_size=size,
            is_master=rank == 0,
            timeout=timeout,
            master_listen_fd=listener.detach() if listener else None,
        )
    else:
        store, _, _ = next(distributed.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=bound)
    return store
