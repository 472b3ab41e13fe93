"""Who is on a GPU, by the lists that NVML keeps, as nvidia-smi shows them: M+C for clients of MPS, C for others."""

from types import SimpleNamespace

import pynvml
import pytest

from parbench.system.gpu_users import GpuUsers, users_of

SERVER = "/usr/bin/nvidia-cuda-mps-server"


def driver(compute, clients, names) -> SimpleNamespace:
    """NVML with these lists of process ids; what is not told raises, as there."""

    def told(value):
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return value

    def processes(pids):
        return lambda _: [SimpleNamespace(pid=pid) for pid in told(pids)]

    return SimpleNamespace(
        nvmlDeviceGetComputeRunningProcesses=processes(compute),
        nvmlDeviceGetMPSComputeRunningProcesses=processes(clients),
        nvmlSystemGetProcessName=lambda pid: told(names.get(pid)),
    )


@pytest.mark.parametrize(
    ("compute", "clients", "names", "users"),
    [
        ([1, 2], [], {1: "python", 2: "python"}, GpuUsers((1, 2), ())),
        # An older driver does not know of MPS.
        ([1, 2], None, {}, GpuUsers((1, 2), ())),
        # Clients are in both lists, their server in one.
        ([1, 2, 9], [1, 2], {1: "python", 2: "python", 9: SERVER}, GpuUsers((1, 2), (9,))),
        # Or in one list each.
        ([9], [1, 2], {9: SERVER}, GpuUsers((1, 2), (9,))),
        # A GPU that the daemon was shown, and no client uses.
        ([9], [], {9: SERVER}, GpuUsers((), (9,))),
        # Somebody computes beside the clients.
        ([1, 2, 9, 5], [1, 2], {5: "python", 9: SERVER}, GpuUsers((1, 2, 5), (9,))),
        # A container hides all names: one that is no client must be the server.
        ([1, 2, 9], [1, 2], {}, GpuUsers((1, 2), (9,))),
        ([1, 2, 9, 5], [1, 2], {}, GpuUsers((1, 2, 5), (9,))),
        # It hides the server alone.
        ([1, 5, 9], [1], {1: "python", 5: "python"}, GpuUsers((1, 5), (9,))),
        ([], [], {}, GpuUsers((), ())),
        (None, [], {}, None),
    ],
)
def test_clients_count_once_and_servers_do_no_work(compute, clients, names, users):
    assert users_of(driver(compute, clients, names), "gpu") == users
