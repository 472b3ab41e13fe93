"""Fingerprint of machine and software; no torch import needed."""

import json
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from parbench import __version__
from parbench.base_types import Record
from parbench.system.cpus import allowed_cores, cpu_quota
from parbench.system.cuda_query import CudaDevice, ask_cuda
from parbench.system.digests import digest_of_text
from parbench.system.kernel import cpu_model, governor, load_average
from parbench.system.nvml import answer, gpu_handles, is_sliced, name_compute_mode, nvml, whole_gpu
from parbench.system.software import installed_libraries, installed_torch
from parbench.text import GIB

# Only these variables are ever recorded: an environment also holds secrets.
SPEED_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "OMP_DYNAMIC", "OMP_SCHEDULE",
    "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_HW_SUBSET", "KMP_LIBRARY",
    "KMP_TPAUSE", "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MALLOC_CONF", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTHONMALLOC", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_DISTRIBUTED_DEBUG", "TORCH_NCCL_AVOID_RECORD_STREAMS", "TORCH_NCCL_BLOCKING_WAIT", "GLOO_SOCKET_IFNAME",
    "NCCL_ALGO", "NCCL_BUFFSIZE", "NCCL_CROSS_NIC", "NCCL_CUMEM_ENABLE", "NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_IB_HCA",
    "NCCL_LAUNCH_MODE", "NCCL_MAX_CTAS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS", "NCCL_MIN_NCHANNELS",
    "NCCL_NET_GDR_LEVEL", "NCCL_NSOCKS_PERTHREAD", "NCCL_NTHREADS", "NCCL_NVLS_ENABLE", "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL", "NCCL_PROTO", "NCCL_SHM_DISABLE", "NCCL_SOCKET_IFNAME", "NCCL_SOCKET_NTHREADS",
    "NCCL_TOPO_FILE",
)  # fmt: skip


# Less strict than other records: they hold it as plain JSON data, in which tuples are lists.
class Accelerator(Record, strict=False):
    """Equal GPUs: how many there are, and of each the memory in GiB and what decides how fast it may run.

    `power_limit_w` is the limit that is enforced; clocks are the highest that it may reach. `compute_mode` says which
    processes it admits, where that is not all. What a GPU does not tell is None.
    """

    name: str | None
    memory_gib: int | None
    count: int
    power_limit_w: int | None = None
    max_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    ecc: bool | None = None
    mig: bool | None = None
    compute_mode: str | None = None

    def __str__(self) -> str:
        return f"{self.count} × {self.name} ({self.memory_gib} GiB)"


class Speed(Record, strict=False):
    """What changes how fast a cell runs. Two environments that agree here may be compared.

    `physical_cores` are those this process may use, `cpu_quota` is in cores. `gpu_links` says for each pair of
    visible GPUs ('0-1') what joins them: 'NVLink', or a PCIe level in the words of `nvidia-smi topo -m`; `network`
    how each of several nodes is joined to the others; `nccl`, `cudnn` and `triton` the versions of those that torch was
    installed with, where it is built for CUDA.
    """

    cpu_model: str | None
    physical_cores: int
    logical_cpus_per_core: int
    cpu_quota: float | None
    memory_gib: int | None
    governor: str | None
    accelerators: tuple[Accelerator, ...]
    gpu_links: dict[str, str]
    driver: str | None
    torch: str | None
    cuda: str | None
    python: str
    kernel: str | None
    glibc: str | None
    variables: dict[str, str]
    network: tuple[str, ...] = ()
    nccl: str | None = None
    cudnn: str | None = None
    triton: str | None = None


LATER_FIELDS = ("network", "nccl", "cudnn", "triton")
"""Fields that records of older versions lack."""


class Circumstances(Record, strict=False):
    """Where and when an environment was captured; not part of its digest.

    `load_average` is over 1, 5 and 15 minutes, `captured_at` is UTC in ISO 8601.
    """

    host: str
    parbench: str
    git_commit: str | None
    load_average: tuple[float, float, float] | None
    captured_at: str


class Environment(Record, strict=False):
    """The machine and software that a measurement was taken in."""

    speed: Speed
    context: Circumstances

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that are equal for environments of equal `speed`."""
        # Without later fields that are empty: so the digests of older records, which lack them, stay the same.
        fields = self.speed.model_dump(
            mode="json", exclude={name for name in LATER_FIELDS if not getattr(self.speed, name)}
        )
        fields["accelerators"] = [_without_unknown(accelerator) for accelerator in fields["accelerators"]]
        return digest_of_text(json.dumps(fields, sort_keys=True, separators=(",", ":")))[:16]


def capture(network: Sequence[str] = ()) -> Environment:
    """The environment of this process, now, on nodes that `network` joins. What cannot be read here is None."""
    return Environment(speed=_speed().model_copy(update={"network": tuple(network)}), context=_context())


def differences(a: Environment, b: Environment) -> list[tuple[str, object, object]]:
    """What differs in speed: each field's name and its value in `a` and in `b`."""
    ours, theirs = _fields(a.speed), _fields(b.speed)
    names = dict.fromkeys([*ours, *theirs])
    return [(name, ours.get(name), theirs.get(name)) for name in names if differ(ours.get(name), theirs.get(name))]


def differ(one: object, other: object) -> bool:
    """Whether two values of a field differ. Absent, unknown and empty are the same: older records lack later fields."""
    return (one or None) != (other or None)


def _speed() -> Speed:
    import psutil

    cores = allowed_cores()
    torch, cuda = installed_torch()
    driver, accelerators, links = _gpus()
    kernel = re.match(r"\d+\.\d+", platform.release())
    return Speed(
        cpu_model=cpu_model(),
        physical_cores=len(cores),
        logical_cpus_per_core=max(map(len, cores)),
        cpu_quota=cpu_quota(),
        memory_gib=round(psutil.virtual_memory().total / GIB),
        governor=governor(),
        accelerators=accelerators,
        gpu_links=links,
        driver=driver,
        torch=torch,
        cuda=cuda,
        python=platform.python_version(),
        kernel=kernel and kernel[0],
        glibc=platform.libc_ver()[1] or None,
        variables={name: os.environ[name] for name in SPEED_VARIABLES if name in os.environ},
        **installed_libraries(cuda),
    )


def _context() -> Circumstances:
    return Circumstances(
        host=platform.node(),
        parbench=__version__,
        git_commit=_git_commit(),
        load_average=load_average(),
        captured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _without_unknown(accelerator: dict[str, Any]) -> dict[str, Any]:
    """An accelerator's fields without those that older records lack, where they are not known."""
    first = ("name", "memory_gib", "count")
    return {name: value for name, value in accelerator.items() if name in first or value is not None}


def _fields(speed: Speed) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in speed:
        fields |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return fields


def _gpus() -> tuple[str | None, tuple[Accelerator, ...], dict[str, str]]:
    with nvml() as driver:
        if driver is None:
            return None, _counted(_cuda_accelerator(device) for device in ask_cuda()), {}
        handles = gpu_handles(driver)
        accelerators = _counted(_accelerator(driver, handle) for handle in handles)
        pairs = combinations(enumerate(handles), 2)
        links = {f"{i}-{j}": _link(driver, first, second) for (i, first), (j, second) in pairs}
        return answer(driver.nvmlSystemGetDriverVersion), accelerators, links


def _counted(accelerators: Iterable[Accelerator]) -> tuple[Accelerator, ...]:
    """Each kind once, with the number of its GPUs."""
    return tuple(kind.model_copy(update={"count": count}) for kind, count in Counter(accelerators).items())


def _cuda_accelerator(device: CudaDevice) -> Accelerator:
    return Accelerator(name=device.name, memory_gib=round(device.memory / GIB), count=1)


def _accelerator(driver: Any, gpu: Any) -> Accelerator:
    memory = answer(driver.nvmlDeviceGetMemoryInfo, gpu)
    whole = whole_gpu(driver, gpu)
    power = answer(driver.nvmlDeviceGetEnforcedPowerLimit, whole)
    ecc = answer(driver.nvmlDeviceGetEccMode, whole)
    mode = answer(driver.nvmlDeviceGetComputeMode, whole)
    return Accelerator(
        name=answer(driver.nvmlDeviceGetName, gpu),
        memory_gib=memory and round(memory.total / GIB),
        count=1,
        power_limit_w=power and round(power / 1000),
        max_clock_mhz=answer(driver.nvmlDeviceGetMaxClockInfo, whole, driver.NVML_CLOCK_SM),
        max_memory_clock_mhz=answer(driver.nvmlDeviceGetMaxClockInfo, whole, driver.NVML_CLOCK_MEM),
        ecc=ecc and ecc[0] == driver.NVML_FEATURE_ENABLED,
        mig=is_sliced(driver, whole) or None,
        compute_mode=name_compute_mode(driver, mode),
    )


def _link(driver: Any, first: Any, second: Any) -> str:
    by_nvlink = answer(driver.nvmlDeviceGetP2PStatus, first, second, driver.NVML_P2P_CAPS_INDEX_NVLINK)
    if by_nvlink == driver.NVML_P2P_STATUS_OK:
        return "NVLink"
    levels = {
        driver.NVML_TOPOLOGY_INTERNAL: "same board",
        driver.NVML_TOPOLOGY_SINGLE: "PIX",
        driver.NVML_TOPOLOGY_MULTIPLE: "PXB",
        driver.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
        driver.NVML_TOPOLOGY_NODE: "NODE",
        driver.NVML_TOPOLOGY_SYSTEM: "SYS",
    }
    return levels.get(answer(driver.nvmlDeviceGetTopologyCommonAncestor, first, second), "unknown")


def _git_commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        # No input comes from a user here, and `git` is the one on the PATH.
        process = subprocess.run(  # noqa: S603
            [git, "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None
