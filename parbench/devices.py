"""What this machine has to spread work over: accelerators, and physical CPU cores. Needs no torch."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a cell is laid out over: `count` devices of one kind, in equal parts on `nodes` nodes."""

    kind: DeviceKind
    count: int
    nodes: int = 1

    @property
    def per_node(self) -> int:
        """How many of them are on each node."""
        return self.count // self.nodes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What parbench may use: `nodes` equal nodes, of which this is one.

    `cores` are this node's allowed physical cores, each with the numbers of its allowed logical CPUs.
    `gpus` is the number of accelerators that the installed torch can use, `compute_capability` the lowest of theirs,
    as CUDA numbers it. `granted` says that it is what somebody was given of something larger.
    """

    cores: tuple[tuple[int, ...], ...]
    gpus: int = 0
    compute_capability: tuple[int, int] | None = None
    nodes: int = 1
    granted: bool = False

    @property
    def preferred_kind(self) -> DeviceKind:
        """CUDA where there is an accelerator, else CPU."""
        return "cuda" if self.gpus else "cpu"

    def available(self, kind: DeviceKind, cores_per_device: int = 1) -> int:
        """How many disjoint devices of a kind there are on all nodes."""
        return self.nodes * self.per_node(kind, cores_per_device)

    def per_node(self, kind: DeviceKind, cores_per_device: int = 1) -> int:
        """How many a node has; on CPU a device is `cores_per_device` physical cores."""
        return self.gpus if kind == "cuda" else len(self.cores) // cores_per_device

    def spread(self, kind: DeviceKind, count: int, cores_per_device: int = 1) -> Devices:
        """`count` devices on as few nodes as have that many; on all nodes where not even those have."""
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
        """The logical CPUs of CPU device number `device` of a node. Beyond the last share they are given again."""
        shares = max(1, len(self.cores) // cores_per_device)
        first = device % shares * cores_per_device
        return tuple(cpu for core in self.cores[first : first + cores_per_device] for cpu in core)

    def shares(self, devices: int, cores_per_device: int = 1) -> tuple[tuple[int, ...], ...]:
        """The logical CPUs of each of the first CPU devices of a node."""
        return tuple(self.share(index, cores_per_device) for index in range(devices))


def detect() -> Machine:
    """The cores and accelerators that this process may use, read from the kernel and from NVML."""
    gpus = _usable_gpus()
    return Machine(cores=allowed_cores(), gpus=len(gpus), compute_capability=_lowest_capability(gpus))


def allowed_cores() -> tuple[tuple[int, ...], ...]:
    """The allowed physical cores; a control group's CPU quota leaves out those it does not pay for."""
    allowed = allowed_cpus()
    cores = sorted({tuple(sorted(_siblings(cpu) & allowed)) for cpu in allowed})
    quota = cpu_quota()
    return tuple(cores if quota is None else cores[: max(1, int(quota))])


def allowed_cpus() -> frozenset[int]:
    """The logical CPUs that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """The CPU time that control groups grant, in cores; None where there is no limit."""
    return _quota_of(Path("/sys/fs/cgroup/cpu.max"), None) or _quota_of(
        Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    )


def cpu_list(text: str) -> frozenset[int]:
    """The numbers in the kernel's list format: '0-2,5' is {0, 1, 2, 5}."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def torch_build() -> tuple[str, str | None] | None:
    """The installed torch's version and the CUDA version it was built for (None: a CPU build); None without torch.

    Read from torch's own version file: importing torch takes seconds and hundreds of megabytes.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    version = _version_module(Path(spec.submodule_search_locations[0]) / "version.py")
    return str(version.__version__), getattr(version, "cuda", None)


def _siblings(cpu: int) -> frozenset[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return cpu_list(path.read_text()) | {cpu}
    except (OSError, ValueError):
        return frozenset({cpu})


def _quota_of(quota_path: Path, period_path: Path | None) -> float | None:
    try:
        words = quota_path.read_text().split() + (period_path.read_text().split() if period_path else [])
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return quota / period if quota > 0 else None


@cache
def _version_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_version", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"torch is installed without {path}; install it again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _usable_gpus() -> list[str]:
    build = torch_build()
    if build is None or build[1] is None:
        return []
    return visible_gpus(nvml_gpu_uuids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _lowest_capability(uuids: Sequence[str]) -> tuple[int, int] | None:
    import pynvml

    if not uuids:
        return None
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()) for uuid in uuids]
        return min(tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)) for handle in handles)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def nvml_gpu_uuids() -> list[str]:
    """The UUID of every NVIDIA GPU that the driver shows; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def visible_gpus(uuids: Sequence[str], selection: str | None) -> list[str]:
    """The UUIDs that CUDA shows under CUDA_VISIBLE_DEVICES=`selection`, in its order.

    As CUDA does, an entry that names no GPU hides itself and all after it. Entries are indices or UUID prefixes.
    """
    if selection is None:
        return list(uuids)
    visible: list[str] = []
    for entry in map(str.strip, selection.split(",")):
        if entry.startswith("MIG-"):
            # CUDA shows one process at most one slice of a GPU.
            return [*visible, entry]
        matches = [uuids[int(entry)]] if entry.isdecimal() and int(entry) < len(uuids) else []
        matches = matches or [uuid for uuid in uuids if entry.startswith("GPU-") and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        visible.append(matches[0])
    return visible
