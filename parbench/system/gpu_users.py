"""Who uses a GPU, as NVML tells it, also where the Multi-Process Service (MPS) serves it."""

from typing import Any, NamedTuple

from parbench.system.mps import SERVER
from parbench.system.nvml import answer


class GpuUsers(NamedTuple):
    """Process ids: those that `compute` on a GPU, and the `servers` of MPS, which do no work of their own."""

    compute: tuple[int, ...]
    servers: tuple[int, ...]


def users_of(driver: Any, gpu: Any) -> GpuUsers | None:
    """The processes on a GPU; None where NVML does not tell.

    NVML lists clients of MPS twice, among all that compute and by themselves. It lists a server among all that compute,
    on every GPU that its daemon was shown, even where it has no client. nvidia-smi calls them M+C and C.
    """
    listed = answer(driver.nvmlDeviceGetComputeRunningProcesses, gpu)
    if listed is None:
        return None
    clients = [each.pid for each in answer(driver.nvmlDeviceGetMPSComputeRunningProcesses, gpu) or ()]
    others = [each.pid for each in listed if each.pid not in clients]
    names = {pid: answer(driver.nvmlSystemGetProcessName, pid) for pid in others}
    servers = [pid for pid in others if SERVER in (names[pid] or "")]
    if clients and not servers:
        # A container may hide names: clients have a server, and it is none of them.
        servers = [pid for pid in others if names[pid] is None][:1]
    return GpuUsers((*clients, *(pid for pid in others if pid not in servers)), tuple(servers))
