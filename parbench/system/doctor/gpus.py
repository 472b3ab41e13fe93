"""Checks of the GPUs: whether torch can use them, and what disturbs them. Asks NVML."""

from collections.abc import Iterator
from typing import Any

from parbench.system.doctor.check import Check, list_numbers, warn_if
from parbench.system.nvml import answer, gpu_handles, nvml
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
            yield Check("GPUs", "ok", "no NVIDIA driver answers: only CPU devices can be measured")
            return
        handles = gpu_handles(driver)
        yield _usable(driver, len(handles))
        for number, handle in enumerate(handles):
            yield from _gpu(driver, f"GPU {number}", handle)


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
    yield Check(topic, "ok", answer(driver.nvmlDeviceGetName, gpu) or "unnamed")
    if answer(driver.nvmlDeviceGetPersistenceMode, gpu) == driver.NVML_FEATURE_DISABLED:
        yield Check(topic, "warning", "persistence mode is off", "Turn it on: sudo nvidia-smi -pm 1.")
    others = answer(driver.nvmlDeviceGetComputeRunningProcesses, gpu)
    if others:
        state = f"processes {list_numbers(other.pid for other in others)} compute on it"
        yield Check(topic, "warning", state, "Stop them, or hide this GPU with CUDA_VISIBLE_DEVICES.")
    bits = answer(driver.nvmlDeviceGetCurrentClocksThrottleReasons, gpu) or 0
    reasons = [
        why for name, why in THROTTLE_REASONS.items() if bits & getattr(driver, f"nvmlClocksThrottleReason{name}")
    ]
    if reasons:
        advice = "Let it cool down, and read its limits with nvidia-smi -q -d PERFORMANCE."
        yield Check(topic, "warning", f"slowed down by {', '.join(reasons)}", advice)
