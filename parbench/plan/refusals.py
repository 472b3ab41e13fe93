"""Why a cell is skipped: it asks for what is not there, or code that has to lay it out fails."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, Scenario, WorkloadSpec
from parbench.strategies.base import STRATEGIES, Layout, Strategy
from parbench.system.devices import Devices, Machine


class Broken(Unsupported):
    """A strategy that could not be imported, or code of a strategy or a family that failed while a cell was planned."""


@contextlib.contextmanager
def refuse_on_error(method: str) -> Iterator[None]:
    """Turns any error of a method of a strategy or a family into `Broken`: plug-ins cost their own cells only."""
    try:
        yield
    except Unsupported:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        raise Broken(f"{method} failed: {type(error).__name__}: {error} ({where})") from error


def require_imported(name: str) -> None:
    """Raises `Broken` for a strategy that could not be imported."""
    if name in STRATEGIES.broken:
        raise Broken(f"could not be imported: {STRATEGIES.broken[name]}")


def require_possible(cls: type[Strategy[Any]], workload: WorkloadSpec, devices: Devices, machine: Machine) -> None:
    """Raises `Unsupported` for a phase, device, precision or model that is unsupported in any layout."""
    if workload.phase not in cls.phases:
        raise Unsupported(f"is for {' and '.join(cls.phases)}, not for phase {workload.phase}")
    if devices.kind not in cls.device_kinds:
        raise Unsupported(f"runs on {' and '.join(cls.device_kinds)}, not on {devices.kind}")
    family = workload.model
    if workload.phase == "generate" and not family.generates:
        raise Unsupported(f"models of family {family.kind} cannot go on after a prompt: their blocks take no cache")
    _require_chunks(workload)
    reason = machine.refusal(workload.precision, devices.kind) or family.refusal(workload, devices.kind)
    if reason:
        raise Unsupported(reason)
    _require_checkpointing(workload, devices)


def _require_chunks(workload: WorkloadSpec) -> None:
    """Raises `Unsupported` where the loss cannot be computed in as many chunks as the workload asks for."""
    family = workload.model
    if workload.loss_chunks == 1:
        return
    if not family.chunks_loss:
        raise Unsupported(
            f"models of family {family.kind} have not been shown to have a head that works on each token alone, as "
            "loss_chunks needs it"
        )
    if workload.phase == "train" and workload.precision == "fp16":
        raise Unsupported(
            "loss_chunks takes gradients in the forward pass, before fp16 scales its loss: small ones would be lost; "
            "use bf16"
        )


def _require_checkpointing(workload: WorkloadSpec, devices: Devices) -> None:
    """Raises `Unsupported` where blocks cannot be checkpointed in the way that the workload asks for."""
    checkpointing, family = workload.activation_checkpointing, workload.model
    if isinstance(checkpointing, bool):
        return
    if not family.n_blocks:
        raise Unsupported(
            f"models of family {family.kind} run their blocks themselves, so nothing of them can be chosen; "
            "set activation_checkpointing to full or none"
        )
    if checkpointing == "selective" and workload.compile:
        raise Unsupported(
            "torch.compile hides the operations of a block, of which activation_checkpointing: selective keeps some; "
            "use full or {every: 2}"
        )
    if checkpointing == "offloaded" and devices.kind == "cpu":
        raise Unsupported(
            "activation_checkpointing: offloaded moves what goes into blocks from a GPU to the host, and here it is "
            "there already; use full"
        )


def require_room(devices: Devices, machine: Machine, scenario: Scenario) -> None:
    """Raises `Unsupported` for more devices than there are, or a count that the nodes cannot share equally."""
    spec = scenario.devices
    available = machine.available(devices.kind, spec.cores_per_device)
    if devices.count > max(1, available) and not spec.may_share(devices.kind):
        each = machine.per_node(devices.kind, spec.cores_per_device)
        there = f"granted are {machine.nodes} × {each}" if machine.granted else f"there are {available} here"
        raise Unsupported(f"needs {devices.count} devices; {there}")
    if devices.count % devices.nodes:
        raise Unsupported(f"{devices.count} devices cannot be shared equally by {devices.nodes} nodes")


def require_service(layout: Layout, machine: Machine) -> None:
    """Raises `Unsupported` for a layout that needs MPS where that cannot be started."""
    if layout.mps and machine.no_mps:
        raise Unsupported(machine.no_mps)


def require_shareable(cls: type[Strategy[Any]], layout: Layout, devices: Devices, machine: Machine) -> None:
    """Raises `Unsupported` for ranks that would share a GPU, and cannot."""
    if devices.kind != "cuda" or devices.per_node <= machine.gpus:
        return
    if layout.devices_per_process > 1:
        raise Unsupported(f"one process drives {layout.devices_per_process} GPUs, and a GPU cannot be several of them")
    if layout.ranks_per_lane > 1 and not cls.gloo_suffices:
        raise Unsupported("its ranks would share a GPU, which NCCL's cannot, and gloo lacks what they exchange there")


def lay_out(cls: type[Strategy[Any]], options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:
    """The strategy's layout over the devices. Raises `Unsupported`, also where a process would span nodes."""
    with refuse_on_error("layout"):
        layout = cls.layout(options, workload, devices)
        if not isinstance(layout, Layout):
            raise TypeError(f"must return a Layout, not {layout!r}")
    if devices.nodes > 1 and devices.per_node % layout.devices_per_process:
        raise Unsupported(
            f"one process drives {layout.devices_per_process} devices, and a node has {devices.per_node} of them"
        )
    return layout
