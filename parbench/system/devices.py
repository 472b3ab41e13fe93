"""The devices of this machine: accelerators, and shares of physical CPU cores. Needs no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from parbench.base_types import DeviceKind
from parbench.system.cpus import allowed_cores, cpus_of
from parbench.system.cuda_query import ask_cuda
from parbench.system.gpu_cpus import Core, cpus_beside, divide_cores
from parbench.system.mps import why_no_mps
from parbench.system.nvml import answer, gpu_handle, nvml, nvml_gpu_uuids, visible_gpus, whole_gpu
from parbench.system.software import torch_build

NOT_STARTED = "MPS is started by launcher local alone"


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices of a cell: `count` of one kind, equally many on each of `nodes` nodes."""

    kind: DeviceKind
    count: int
    nodes: int = 1

    @property
    def per_node(self) -> int:
        """The number of devices on each node."""
        return self.count // self.nodes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The hardware that parbench may use: `nodes` equal nodes, of which this is one.

    `cores` are this node's allowed physical cores, each with the numbers of its allowed logical CPUs.
    `gpus` is the number of accelerators that the installed torch can use, `compute_capability` the lowest of theirs,
    as CUDA numbers it, and `gpu_cpus` the logical CPUs beside each, empty where nobody tells. `granted` says that it
    is an allocation, such as SLURM's, and not a whole machine. `no_mps` says why the Multi-Process Service cannot be
    started for a trial; it is None where it can.
    """

    cores: tuple[tuple[int, ...], ...]
    gpus: int = 0
    compute_capability: tuple[int, int] | None = None
    gpu_cpus: tuple[tuple[int, ...], ...] = ()
    nodes: int = 1
    granted: bool = False
    no_mps: str | None = NOT_STARTED

    @property
    def preferred_kind(self) -> DeviceKind:
        """CUDA where there is an accelerator, else CPU."""
        return "cuda" if self.gpus else "cpu"

    def available(self, kind: DeviceKind, cores_per_device: int = 1) -> int:
        """The number of disjoint devices of a kind on all nodes."""
        return self.nodes * self.per_node(kind, cores_per_device)

    def per_node(self, kind: DeviceKind, cores_per_device: int = 1) -> int:
        """The number of devices on a node; on CPU a device is `cores_per_device` physical cores."""
        return self.gpus if kind == "cuda" else len(self.cores) // cores_per_device

    def spread(self, kind: DeviceKind, count: int, cores_per_device: int = 1) -> Devices:
        """`count` devices on as few nodes as possible; on all nodes where there are fewer devices than `count`."""
        needed = -(-count // max(1, self.per_node(kind, cores_per_device)))
        return Devices(kind=kind, count=count, nodes=min(self.nodes, needed))

    def refusal(self, precision: str, kind: DeviceKind) -> str | None:
        """Why a device of this kind cannot compute in `precision`; None where it can.

        TF32 and bf16 came with compute capability 8.0 (CUDA C++ Programming Guide, table of arithmetic instructions).
        """
        if precision == "tf32" and kind == "cpu":
            return "tf32 is a format of NVIDIA GPUs; on CPU use fp32 or bf16"
        old = kind == "cuda" and self.compute_capability is not None and self.compute_capability < (8, 0)
        if precision in ("tf32", "bf16") and old:
            major, minor = self.compute_capability or (0, 0)
            return f"{precision} needs a GPU of compute capability 8.0; the oldest here has {major}.{minor}"
        return None

    def share(self, device: int, cores_per_device: int = 1) -> tuple[int, ...]:
        """The logical CPUs of CPU device number `device` of a node. Devices beyond the last share share them anew."""
        shares = max(1, len(self.cores) // cores_per_device)
        first = device % shares * cores_per_device
        return cpus_of(self.cores[first : first + cores_per_device])

    def shares(self, devices: int, cores_per_device: int = 1) -> tuple[tuple[int, ...], ...]:
        """The logical CPUs of each of the first CPU devices of a node."""
        return tuple(self.share(index, cores_per_device) for index in range(devices))

    def cores_of_gpu_ranks(self, gpus: int, ranks: int) -> tuple[tuple[Core, ...], ...]:
        """The cores of each of a node's `ranks`, which drive its first `gpus` GPUs: a share of those beside them.

        Empty where ranks are not pinned: a GPU has no allowed core beside it, or all of them, as on one NUMA node.
        """
        beside = [[core for core in self.cores if core[0] in cpus] for cpus in self.gpu_cpus]
        is_known = len(beside) >= gpus and all(0 < len(cores) < len(self.cores) for cores in beside)
        return divide_cores(beside[:gpus], ranks) if is_known else ()


class _Gpus(NamedTuple):
    """Fields of a `Machine`."""

    gpus: int
    compute_capability: tuple[int, int] | None
    gpu_cpus: tuple[tuple[int, ...], ...] = ()


def detect() -> Machine:
    """The cores and accelerators that this process may use, read from the kernel and from NVML.

    Where NVML does not answer, CUDA is asked.
    """
    gpus = _gpus_of_nvml() or _gpus_of_cuda()
    return Machine(cores=allowed_cores(), no_mps=why_no_mps(), **gpus._asdict())


def _gpus_of_nvml() -> _Gpus | None:
    """The usable GPUs; None where there is no NVML."""
    with nvml() as driver:
        if driver is None:
            return None
        uuids = _usable_gpus()
        beside = (cpus_beside(driver, gpu_handle(driver, uuid)) for uuid in uuids)
        return _Gpus(len(uuids), _lowest_capability(driver, uuids), tuple(tuple(sorted(cpus)) for cpus in beside))


def _gpus_of_cuda() -> _Gpus:
    devices = ask_cuda()
    return _Gpus(len(devices), min((device.compute_capability for device in devices), default=None))


def _usable_gpus() -> list[str]:
    build = torch_build()
    if build is None or build[1] is None:
        return []
    return visible_gpus(nvml_gpu_uuids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _lowest_capability(driver: Any, uuids: Sequence[str]) -> tuple[int, int] | None:
    """The lowest compute capability of these GPUs; None without GPUs, or where one does not tell its own."""
    gpus = [whole_gpu(driver, handle) for uuid in uuids if (handle := gpu_handle(driver, uuid)) is not None]
    capabilities = [answer(driver.nvmlDeviceGetCudaComputeCapability, gpu) for gpu in gpus]
    is_complete = len(capabilities) == len(uuids) and None not in capabilities
    return min((tuple(each) for each in capabilities if each), default=None) if is_complete else None
