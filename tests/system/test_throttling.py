"""How long a GPU was held down, from made-up counters of NVML."""

from types import SimpleNamespace

import pynvml
import pytest

from parbench.system.throttling import read_throttled_seconds

SECOND = 10**9


def unsupported(*_):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def counters(monkeypatch):
    """Makes NVML answer with these counters, in nanoseconds: of fields by number, and of older drivers' policies."""

    def have(fields: dict[int, int], policies: dict[int, int]) -> None:
        def field(number: int) -> SimpleNamespace:
            status = pynvml.NVML_SUCCESS if number in fields else pynvml.NVML_ERROR_NOT_SUPPORTED
            return SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(ullVal=fields.get(number, 0)))

        def policy(_: object, number: int) -> SimpleNamespace:
            return SimpleNamespace(violationTime=policies[number]) if number in policies else unsupported()

        monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", lambda _, numbers: [field(each) for each in numbers])
        monkeypatch.setattr(pynvml, "nvmlDeviceGetViolationStatus", policy)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", unsupported)

    return have


def test_each_cause_has_the_longest_of_its_counters(counters):
    counters(
        {
            pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: 2 * SECOND,
            pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: 3 * SECOND,
            pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: SECOND // 2,
            pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP: 60 * SECOND,
        },
        {},
    )
    assert read_throttled_seconds(pynvml, "gpu") == pytest.approx({"heat": 3, "power brake": 0.5, "power limit": 60})


def test_older_drivers_count_less(counters):
    counters({}, {pynvml.NVML_PERF_POLICY_THERMAL: 4 * SECOND})
    assert read_throttled_seconds(pynvml, "gpu") == pytest.approx({"heat": 4})


def test_what_is_not_counted_is_left_out(counters, monkeypatch):
    counters({}, {})
    assert read_throttled_seconds(pynvml, "gpu") == {}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", unsupported)
    assert read_throttled_seconds(pynvml, "gpu") == {}
    assert read_throttled_seconds(pynvml, None) == {}
