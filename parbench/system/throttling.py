"""How long a GPU's clocks were held below what it could run at, from NVML's counters, which only grow."""

from typing import Any

from parbench.system.nvml import answer, whole_gpu

_FIELDS = {
    "heat": ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN"),
    "power brake": ("NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",),
    "power limit": ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",),
}

_POLICIES = {"heat": "NVML_PERF_POLICY_THERMAL", "power limit": "NVML_PERF_POLICY_POWER"}
"""What drivers from before those counters count."""

NANOSECOND = 1e-9


def read_throttled_seconds(driver: Any, gpu: Any) -> dict[str, float]:
    """Seconds since the driver was loaded for which each cause held the clocks of a GPU down.

    A cause that this driver or GPU does not count is left out. The causes may hold the clocks down at the same time.
    """
    if gpu is None:
        return {}
    gpu = whole_gpu(driver, gpu)
    causes = {cause: _read_fields(driver, gpu, names) for cause, names in _FIELDS.items()}
    for cause, policy in _POLICIES.items():
        if causes[cause] is None:
            causes[cause] = _read_policy(driver, gpu, policy)
    return {cause: seconds for cause, seconds in causes.items() if seconds is not None}


def _read_fields(driver: Any, gpu: Any, names: tuple[str, ...]) -> float | None:
    """The largest of some counters, in seconds; None where the GPU has none of them."""
    numbers = [number for name in names if (number := getattr(driver, name, None)) is not None]
    values = answer(driver.nvmlDeviceGetFieldValues, gpu, numbers) or ()
    counts = [value.value.ullVal for value in values if value.nvmlReturn == driver.NVML_SUCCESS]
    return max(counts) * NANOSECOND if counts else None


def _read_policy(driver: Any, gpu: Any, policy: str) -> float | None:
    violation = answer(driver.nvmlDeviceGetViolationStatus, gpu, getattr(driver, policy))
    return None if violation is None else violation.violationTime * NANOSECOND
