"""Checks of the GPUs: whether torch can use them, and what disturbs them. Asks NVML."""

from collections.abc import Iterator
from typing import Any

from parbench.system.cpus import allowed_cpus, cpu_ranges
from parbench.system.cuda_query import ask_cuda
from parbench.system.doctor.check import Check, list_numbers, warn_if
from parbench.system.gpu_cpus import cpus_beside
from parbench.system.gpu_users import users_of
from parbench.system.mps import CONTROL
from parbench.system.nvml import answer, gpu_handles, is_sliced, name_compute_mode, nvml, whole_gpu
from parbench.system.software import installed_torch

THROTTLE_REASONS = {
    "SwPowerCap": "its power limit",
    "HwSlowdown": "a hardware slowdown",
    "SwThermalSlowdown": "its temperature",
    "HwThermalSlowdown": "its temperature (hardware)",
    "HwPowerBrakeSlowdown": "the power brake",
    "SyncBoost": "sync boost",
}


def check_gpus() -> Iterator[Check]:
    """Can torch use the GPUs that there are, and does something disturb them?"""
    with nvml() as driver:
        if driver is None:
            yield _without_nvml()
            return
        handles = gpu_handles(driver)
        yield _usable(driver, len(handles))
        yield from _lost(driver)
        for number, handle in enumerate(handles):
            yield from _gpu(driver, f"GPU {number}", handle)


def _without_nvml() -> Check:
    count = len(ask_cuda())
    if count == 0:
        return Check("GPUs", "ok", "no NVIDIA driver answers: only CPU devices can be measured")
    state = f"CUDA shows {count}, and NVML does not answer: what disturbs them cannot be seen"
    return Check(
        "GPUs", "warning", state, "Let the container have the driver's utilities (NVIDIA_DRIVER_CAPABILITIES)."
    )


def _lost(driver: Any) -> Iterator[Check]:
    """GPUs that the driver counts and that do not answer."""
    for index in range(answer(driver.nvmlDeviceGetCount) or 0):
        gpu = answer(driver.nvmlDeviceGetHandleByIndex, index)
        if gpu is None or answer(driver.nvmlDeviceGetUUID, gpu) is None:
            yield Check(f"GPU {index}", "problem", "does not answer", "See the kernel's log (dmesg), and reset it.")


def _usable(driver: Any, visible: int) -> Check:
    torch_version, cuda = installed_torch()
    present = answer(driver.nvmlDeviceGetCount) or 0
    supported = answer(driver.nvmlSystemGetCudaDriverVersion_v2) or 0
    version = f"CUDA {supported // 1000}.{supported % 1000 // 10}"
    state = f"{visible} of {present} visible, driver for {version}"
    if present and torch_version and cuda is None:
        return Check("GPUs", "problem", f"{state}, torch for CPU", f"Install a torch that is built for {version}.")
    if cuda and supported and int(cuda.partition(".")[0]) > supported // 1000:
        return Check(
            "GPUs", "problem", f"{state}, torch for CUDA {cuda}", "Update the driver, or install an older torch."
        )
    return warn_if(visible < present, "GPUs", state, "Check CUDA_VISIBLE_DEVICES, which hides the others.")


def _gpu(driver: Any, topic: str, gpu: Any) -> Iterator[Check]:
    beside = cpus_beside(driver, gpu)
    place = f", beside CPUs {cpu_ranges(beside)}" if beside else ""
    yield Check(topic, "ok", f"{answer(driver.nvmlDeviceGetName, gpu) or 'unnamed'}{place}")
    if beside and not beside & allowed_cpus():
        state = "none of the CPUs beside it is allowed: ranks reach it from another NUMA node"
        yield Check(topic, "warning", state, "Allow CPUs of its node (docker run --cpuset-cpus).")
    if answer(driver.nvmlDeviceGetPersistenceMode, gpu) == driver.NVML_FEATURE_DISABLED:
        yield Check(topic, "warning", "persistence mode is off", "Turn it on: sudo nvidia-smi -pm 1.")
    mode = name_compute_mode(driver, answer(driver.nvmlDeviceGetComputeMode, whole_gpu(driver, gpu)))
    if mode:
        state = f"its compute mode is {mode}: several ranks cannot share it"
        yield Check(topic, "warning", state, "Admit several processes: sudo nvidia-smi -c DEFAULT.")
    if is_sliced(driver, whole_gpu(driver, gpu)):
        state = "it is cut into slices (MIG), of which CUDA shows one to a process"
        yield Check(topic, "warning", state, "Turn MIG off to measure the whole GPU: sudo nvidia-smi -mig 0.")
    yield from _users(driver, topic, gpu)
    bits = answer(driver.nvmlDeviceGetCurrentClocksThrottleReasons, gpu) or 0
    reasons = [
        why for name, why in THROTTLE_REASONS.items() if bits & getattr(driver, f"nvmlClocksThrottleReason{name}")
    ]
    if reasons:
        advice = "Let it cool down, and read its limits with nvidia-smi -q -d PERFORMANCE."
        yield Check(topic, "warning", f"slowed down by {', '.join(reasons)}", advice)


def _users(driver: Any, topic: str, gpu: Any) -> Iterator[Check]:
    """Who else is on a GPU, and whether the Multi-Process Service (MPS) serves it."""
    users = users_of(driver, gpu)
    if users and users.compute:
        state = f"processes {list_numbers(users.compute)} compute on it"
        yield Check(topic, "warning", state, "Stop them, or hide this GPU with CUDA_VISIBLE_DEVICES.")
    if users and users.servers:
        state = f"MPS serves it (process {list_numbers(users.servers)}): ranks that share it do not take turns"
        yield Check(topic, "warning", state, f"End MPS: echo quit | {CONTROL}.")
