import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.system import cpus, devices, nvml, software
from parbench.system.cpus import cpu_list, cpu_ranges
from parbench.system.devices import Machine
from parbench.system.nvml import visible_gpus

UUIDS = ["GPU-aa11", "GPU-aa22", "GPU-bb33"]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Writes files of a made-up kernel; `devices` then reads those and no others."""
    monkeypatch.setattr(cpus, "Path", lambda path: tmp_path / path.lstrip("/"))

    def write(path: str, text: str) -> None:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def allow(monkeypatch, *cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-2,5\n", {0, 1, 2, 5}),
        ("7", {7}),
        ("0,2,4-5", {0, 2, 4, 5}),
        ("", set()),
        ("\n", set()),
    ],
)
def test_the_kernels_list_format(text, numbers):
    assert cpu_list(text) == numbers


@given(st.sets(st.tuples(st.integers(0, 300), st.integers(0, 20))))
def test_every_list_of_ranges_is_read_back(ranges):
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert cpu_list(text) == {cpu for first, more in ranges for cpu in range(first, first + more + 1)}


@given(st.sets(st.integers(0, 300)))
def test_numbers_are_written_as_the_kernel_reads_them(numbers):
    text = cpu_ranges(numbers)
    assert cpu_list(text) == numbers
    assert text.count(",") == max(0, sum(number - 1 not in numbers for number in numbers) - 1)


def test_what_is_no_list_is_an_error():
    with pytest.raises(ValueError, match="invalid literal"):
        cpu_list("all")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("250000 100000\n", 2.5), ("max 100000\n", None), ("50000 100000", 0.5), ("", None), ("100000", None)],
)
def test_quota_of_control_groups_v2(kernel, text, cores):
    kernel("/sys/fs/cgroup/cpu.max", text)
    assert cpus.cpu_quota() == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000\n", 3.0), ("-1\n", None)])
def test_quota_of_control_groups_v1(kernel, quota, cores):
    kernel("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota)
    kernel("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpus.cpu_quota() == cores


@pytest.mark.usefixtures("kernel")
def test_no_control_group_is_no_limit():
    assert cpus.cpu_quota() is None


def test_allowed_siblings_make_one_core(kernel, monkeypatch):
    for cpu in range(4):
        kernel(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 2},{cpu % 2 + 2}\n")
    allow(monkeypatch, 0, 1, 2)
    assert cpus.allowed_cores() == ((0, 2), (1,))


@pytest.mark.usefixtures("kernel")
def test_without_topology_every_cpu_is_a_core(monkeypatch):
    allow(monkeypatch, 3, 1)
    assert cpus.allowed_cores() == ((1,), (3,))


def test_garbled_topology_is_no_topology(kernel, monkeypatch):
    kernel("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "what\n")
    allow(monkeypatch, 0)
    assert cpus.allowed_cores() == ((0,),)


@pytest.mark.parametrize(("quota", "cores"), [("250000", 2), ("50000", 1), ("900000", 4)])
def test_a_quota_leaves_out_the_cores_it_does_not_pay_for(kernel, monkeypatch, quota, cores):
    kernel("/sys/fs/cgroup/cpu.max", f"{quota} 100000")
    allow(monkeypatch, 0, 1, 2, 3)
    assert cpus.allowed_cores() == ((0,), (1,), (2,), (3,))[:cores]


def test_the_cores_of_this_machine_hold_only_allowed_cpus_and_each_once():
    logical = list(chain.from_iterable(cpus.allowed_cores()))
    assert logical
    assert len(logical) == len(set(logical))
    assert set(logical) <= os.sched_getaffinity(0)


machines = st.lists(st.integers(1, 4), min_size=1, max_size=24).map(
    lambda sizes: Machine(
        cores=tuple(tuple(range(sum(sizes[:core]), sum(sizes[: core + 1]))) for core in range(len(sizes)))
    )
)


@given(machines, st.integers(1, 6))
def test_the_shares_of_available_devices_are_disjoint_and_made_of_whole_cores(machine, cores_per_device):
    count = machine.available("cpu", cores_per_device)
    shares = [machine.share(device, cores_per_device) for device in range(count)]
    cpus = list(chain.from_iterable(shares))
    assert len(cpus) == len(set(cpus))
    for share in shares:
        assert sum(set(core) <= set(share) for core in machine.cores) == cores_per_device
    assert len(machine.cores) - count * cores_per_device < cores_per_device


@given(machines, st.integers(1, 6), st.integers(0, 100))
def test_beyond_the_last_share_they_are_handed_out_again(machine, cores_per_device, device):
    period = max(1, machine.available("cpu", cores_per_device))
    assert machine.share(device, cores_per_device)
    assert machine.share(device, cores_per_device) == machine.share(device + period, cores_per_device)


def test_a_device_larger_than_the_machine_gets_all_of_it_but_is_not_available():
    machine = Machine(cores=((0, 2), (1, 3)))
    assert machine.available("cpu", 3) == 0
    assert machine.share(0, 3) == (0, 2, 1, 3)


def test_accelerators_are_preferred():
    assert Machine(cores=((0,),)).preferred_kind == "cpu"
    with_gpus = Machine(cores=((0,),), gpus=2)
    assert with_gpus.preferred_kind == "cuda"
    assert with_gpus.available("cuda", 5) == 2


@pytest.mark.parametrize(
    ("selection", "visible"),
    [
        (None, UUIDS),
        ("", []),
        ("2,0", ["GPU-bb33", "GPU-aa11"]),
        (" 1 , 2 ", ["GPU-aa22", "GPU-bb33"]),
        ("0,7,1", ["GPU-aa11"]),
        ("-1,0", []),
        ("0,-1,1", ["GPU-aa11"]),
        ("GPU-bb", ["GPU-bb33"]),
        ("GPU-aa,0", []),
        ("bb33", []),
        ("1,GPU-aa11", ["GPU-aa22", "GPU-aa11"]),
    ],
)
def test_visible_gpus_follow_cuda(selection, visible):
    assert visible_gpus(UUIDS, selection) == visible


@pytest.mark.parametrize(
    ("uuids", "selection", "visible"),
    [
        (["MIG-1", "MIG-2"], None, ["MIG-1"]),
        (["GPU-aa11", "MIG-1"], None, ["MIG-1"]),
        (["GPU-aa11", "MIG-1"], "0", ["GPU-aa11"]),
        (UUIDS, "GPU-aa11,MIG-7", ["MIG-7"]),
    ],
)
def test_cuda_shows_one_slice_of_a_gpu_and_then_nothing_else(uuids, selection, visible):
    assert visible_gpus(uuids, selection) == visible


def test_a_sliced_gpu_is_its_first_slice_and_one_that_is_lost_is_left_out(monkeypatch):
    def lost(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def slice_of(gpu: int, index: int) -> str:
        if index != 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"MIG-{gpu}"

    drive(monkeypatch, UUIDS)
    modes = {0: lambda: (pynvml.NVML_DEVICE_MIG_ENABLE, 1), 1: lambda: (pynvml.NVML_DEVICE_MIG_DISABLE, 1)}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", lambda gpu: modes[gpu]() if gpu in modes else lost(gpu))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMaxMigDeviceCount", lambda _: 7)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigDeviceHandleByIndex", slice_of)
    monkeypatch.setattr(
        pynvml,
        "nvmlDeviceGetUUID",
        lambda handle: handle if isinstance(handle, str) else UUIDS[1] if handle == 1 else lost(handle),
    )
    assert nvml.nvml_gpu_uuids() == ["MIG-0", UUIDS[1]]


@pytest.mark.parametrize(("shown", "name"), [("GPU-7", "GPU-7"), ("MIG-7", "MIG-7"), ("GPU-8", "GPU-7")])
def test_torch_does_not_say_whether_a_uuid_is_of_a_slice(monkeypatch, shown, name):
    def by_uuid(uuid: str) -> str:
        if uuid != shown:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    assert nvml.gpu_of_torch(pynvml, 7) == (name, shown if shown == name else None)


def drive(monkeypatch, uuids) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(uuids))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: uuids[handle])


@pytest.mark.parametrize(
    ("build", "selection", "gpus"),
    [
        (("2.13.0", "12.8"), None, 3),
        (("2.13.0", "12.8"), "1", 1),
        (("2.13.0+cpu", None), None, 0),
        (None, None, 0),
    ],
)
def test_detected_gpus_are_those_that_torch_can_use(monkeypatch, build, selection, gpus):
    drive(monkeypatch, UUIDS)
    monkeypatch.setattr(devices, "torch_build", lambda: build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if selection:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", selection)
    machine = devices.detect()
    assert machine.gpus == gpus
    assert machine.cores == cpus.allowed_cores()


def test_without_a_driver_there_are_no_gpus(monkeypatch):
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert nvml.nvml_gpu_uuids() == []


def fake_torch(folder: Path, version: str) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "torch" / "version.py").write_text(version)


def said_of_torch(folder: Path) -> str:
    """What a Python that finds packages in `folder` alone says of its torch."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from parbench.system.software import torch_build; print(torch_build())"
    )
    repository = str(Path(devices.__file__).parent.parent.parent)
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), repository])}
    command = [sys.executable, "-S", "-c", code, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("cuda", [None, "12.8"])
def test_torchs_build_is_read_without_importing_it(tmp_path, cuda):
    fake_torch(tmp_path, f"__version__ = '2.12.1'\ncuda = {cuda!r}\n")
    assert said_of_torch(tmp_path) == str(("2.12.1", cuda))


def test_a_machine_may_have_no_torch(tmp_path):
    assert said_of_torch(tmp_path) == "None"


def test_the_installed_torch_agrees():
    torch = pytest.importorskip("torch")
    assert software.torch_build() == (torch.__version__, torch.version.cuda)
