"""Means of the driver's samples over a window, from made-up ones by hand arithmetic."""

import pytest

from parbench.errors import MeterError
from parbench.system.gpu_meters import (
    Mean,
    Span,
    mean_clock_mhz,
    mean_power_w,
    mean_utilization,
    read_clock_mhz,
    read_energy_j,
)
from tests.support.fake_nvml import FakeGpu, FakeNvml

POWER, BUSY, CLOCK = (
    FakeNvml.NVML_TOTAL_POWER_SAMPLES,
    FakeNvml.NVML_GPU_UTILIZATION_SAMPLES,
    FakeNvml.NVML_PROCESSOR_CLK_SAMPLES,
)
WINDOW = Span(1000, 2000)


def gpu(kind: int, *samples: tuple[int, int]) -> tuple[FakeNvml, FakeGpu]:
    made = FakeGpu("GPU-1", samples={kind: samples})
    return FakeNvml(made), made


def test_counters_are_in_joules_and_megahertz() -> None:
    full, bare = FakeGpu("GPU-1", millijoules=12_500, clock_mhz=1980), FakeGpu("GPU-2")
    driver = FakeNvml(full, bare)
    assert (read_energy_j(driver, full), read_clock_mhz(driver, full)) == (12.5, 1980.0)
    assert (read_energy_j(driver, bare), read_clock_mhz(driver, bare)) == (None, None)


def test_only_samples_within_the_window_count() -> None:
    driver, made = gpu(POWER, (900, 90_000), (1250, 300_000), (1500, 400_000), (2000, 350_000), (2250, 80_000))
    assert mean_power_w(driver, made, WINDOW) == Mean(pytest.approx(350.0), 3)


def test_utilisation_is_a_share_and_samples_may_be_out_of_order() -> None:
    driver, made = gpu(BUSY, (1900, 100), (0, 77), (1600, 50), (800, 0), (1300, 90))
    assert mean_utilization(driver, made, WINDOW) == Mean(pytest.approx(0.8), 3)


def test_a_clock_holds_until_it_changes() -> None:
    # 1,980 MHz until 1,250 µs, then 1,600 MHz until 1,750 µs, then 1,800 MHz.
    driver, made = gpu(CLOCK, (10, 1000), (400, 1980), (1250, 1600), (1750, 1800), (2400, 300))
    assert mean_clock_mhz(driver, made, WINDOW) == Mean(pytest.approx((1980 + 2 * 1600 + 1800) / 4), 3)
    steady = gpu(CLOCK, (400, 1980))
    assert mean_clock_mhz(*steady, WINDOW) == Mean(pytest.approx(1980.0), 1)


@pytest.mark.parametrize("mean", [mean_power_w, mean_utilization, mean_clock_mhz])
@pytest.mark.parametrize(
    ("samples", "span", "why"),
    [
        (None, WINDOW, "keeps no samples"),
        ((), WINDOW, "do not reach back"),
        (((1001, 5), (1500, 5)), WINDOW, "do not reach back"),
        (((0, 5), (1500, 5)), WINDOW, "do not reach back"),
        (((500, 5), (1500, 5)), Span(2000, 1000), "clock"),
        (((500, 5), (1500, 5)), Span(1000, 1000), "clock"),
    ],
    ids=["unsupported", "none", "dropped", "never stamped", "set back", "no time"],
)
def test_a_window_that_samples_do_not_cover_has_no_mean(mean, samples, span, why) -> None:
    made = FakeGpu("GPU-1", samples={} if samples is None else dict.fromkeys((POWER, BUSY, CLOCK), samples))
    with pytest.raises(MeterError, match=why):
        mean(FakeNvml(made), made, span)


@pytest.mark.parametrize(("mean", "kind"), [(mean_power_w, POWER), (mean_utilization, BUSY)])
def test_a_window_between_two_samples_has_no_mean(mean, kind) -> None:
    driver, made = gpu(kind, (500, 5), (2500, 5))
    with pytest.raises(MeterError, match="shorter than the time between two"):
        mean(driver, made, WINDOW)
