"""What a rank reads of energy, utilisation and clocks around its windows, from meters that are made up."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from parbench.measure.probes import energy
from parbench.measure.probes.energy import EnergyProbe
from parbench.records.energy import Reading
from parbench.system import rapl
from tests.support.fake_nvml import FakeGpu, FakeNvml

POWER, BUSY, CLOCK = (
    FakeNvml.NVML_TOTAL_POWER_SAMPLES,
    FakeNvml.NVML_GPU_UTILIZATION_SAMPLES,
    FakeNvml.NVML_PROCESSOR_CLK_SAMPLES,
)
SECOND_US = 10**6


class Clock:
    """Time that passes when a test says so, on both clocks that the probe reads."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds

    def us(self) -> int:
        return round(self.now_s * SECOND_US)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    monkeypatch.setattr(energy, "now_us", made.us)
    return made


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A powercap tree with one package, whose counter a test may change."""
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path)
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("60000000000\n")
    return zone


@pytest.fixture
def probe_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EnergyProbe]:
    """A probe of a node with these GPUs, whose UUIDs torch knows without `GPU-` or `MIG-`."""

    def make(*gpus: FakeGpu, driver: FakeNvml | None = None, names: tuple[str, ...] = ()) -> EnergyProbe:
        driver = driver or FakeNvml(*gpus)
        names = names or tuple(gpu.name.partition("-")[2] for gpu in gpus)
        monkeypatch.setattr(energy, "nvml", driver.opened)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=names[device.index])
        )
        return EnergyProbe([torch.device("cuda", index) for index in range(len(names))])

    return make


def said(reading: Reading) -> tuple[float | None, str, int]:
    return reading.value, reading.source, reading.samples


def take_window(probe: EnergyProbe, during: Callable[[], None]) -> None:
    probe.start_window()
    during()
    probe.end_window()
    probe.keep_window()


def test_counters_are_read_at_both_ends_and_windows_add_up(probe_of, clock) -> None:
    gpu = FakeGpu("GPU-1", millijoules=5_000, clock_mhz=1900)
    probe = probe_of(gpu)

    def work(millijoules: int, seconds: float) -> None:
        gpu.millijoules += millijoules
        clock.pass_s(seconds)

    take_window(probe, lambda: work(700_000, 2.0))
    work(99_000, 5.0)  # what lies between two windows is in none
    take_window(probe, lambda: work(300_000, 1.0))
    record = probe.read()
    assert record.seconds == pytest.approx(3.0)
    assert record.gpus[0].uuid == "GPU-1"
    assert said(record.gpus[0].energy_j) == (pytest.approx(1000.0), "counter", 0)


def test_every_gpu_of_the_node_has_readings_of_its_own(probe_of, clock) -> None:
    busy, idle = FakeGpu("GPU-1", millijoules=0), FakeGpu("GPU-2", millijoules=10)
    probe = probe_of(busy, idle)

    def work() -> None:
        busy.millijoules, idle.millijoules = 1_400_000, 160_010
        clock.pass_s(2.0)

    take_window(probe, work)
    used = {gpu.uuid: gpu.energy_j.value for gpu in probe.read().gpus}
    assert used == pytest.approx({"GPU-1": 1400.0, "GPU-2": 160.0})


def test_samples_are_the_drivers_own(probe_of, clock) -> None:
    start = clock.us()
    gpu = FakeGpu("GPU-1", millijoules=0, clock_mhz=1980)
    gpu.samples = {
        BUSY: [(start - 1, 10), (start + SECOND_US // 2, 100), (start + SECOND_US, 60)],
        CLOCK: [(start - 9, 1980), (start + SECOND_US, 1500)],
    }
    probe = probe_of(gpu)
    take_window(probe, lambda: clock.pass_s(2.0))
    (readings,) = probe.read().gpus
    assert said(readings.utilization) == (pytest.approx(0.8), "sampled", 2)
    assert said(readings.clock_mhz) == (pytest.approx(1740.0), "sampled", 2)
    assert readings.energy_j.source == "unavailable"
    assert "the counter did not move" in readings.energy_j.reason


def test_means_of_several_windows_are_weighed_by_their_length(probe_of, clock) -> None:
    gpu = FakeGpu("GPU-1", millijoules=0, clock_mhz=1000)
    probe = probe_of(gpu)
    take_window(probe, lambda: clock.pass_s(3.0))
    gpu.clock_mhz = 2000
    take_window(probe, lambda: clock.pass_s(1.0))
    assert said(probe.read().gpus[0].clock_mhz) == (pytest.approx(1250.0), "sampled", 4)


def test_without_a_counter_energy_is_sampled_power_times_the_time(probe_of, clock) -> None:
    start = clock.us()
    gpu = FakeGpu("GPU-1", samples={POWER: [(start - 5, 1), (start + 10, 200_000), (start + 20, 300_000)]})
    probe = probe_of(gpu)
    take_window(probe, lambda: clock.pass_s(4.0))
    assert said(probe.read().gpus[0].energy_j) == (pytest.approx(1000.0), "sampled", 2)


def test_power_that_is_sampled_in_part_of_the_window_alone_is_not_stretched(probe_of, clock) -> None:
    gpu = FakeGpu("GPU-1", samples={POWER: [(clock.us() + 10, 200_000), (clock.us() + 20, 300_000)]})
    probe = probe_of(gpu)
    take_window(probe, lambda: clock.pass_s(4.0))
    reading = probe.read().gpus[0].energy_j
    assert (reading.value, reading.source) == (None, "unavailable")
    assert reading.reason.startswith("it has no counter of energy, and of its power the driver's samples do not reach")


def test_one_window_without_a_value_leaves_all_without(probe_of, clock) -> None:
    gpu = FakeGpu("GPU-1", millijoules=0)
    probe = probe_of(gpu)
    take_window(probe, lambda: setattr(gpu, "millijoules", 5_000))
    take_window(probe, lambda: clock.pass_s(1.0))
    assert probe.read().gpus[0].energy_j.source == "unavailable"


def test_a_slice_of_a_gpu_and_one_that_is_not_shown_have_no_values(probe_of, clock) -> None:
    part = FakeGpu("MIG-1", millijoules=0, clock_mhz=1980)
    probe = probe_of(part, names=("1", "2"))
    take_window(probe, lambda: setattr(part, "millijoules", 10**6))
    slice_, absent = probe.read().gpus
    assert (slice_.uuid, absent.uuid) == ("MIG-1", "GPU-2")
    for readings, reason in ((slice_, "a slice of a GPU has no meters of its own"), (absent, "NVML shows no such GPU")):
        for reading in (readings.energy_j, readings.utilization, readings.clock_mhz):
            assert reading == Reading(reason=reason)


def test_without_nvml_all_of_a_gpu_is_unavailable(probe_of, clock, monkeypatch) -> None:
    probe = probe_of(FakeGpu("GPU-1"))
    monkeypatch.setattr(energy, "nvml", lambda: nullcontext(None))
    take_window(probe, lambda: clock.pass_s(1.0))
    assert probe.read().gpus[0].energy_j == Reading(reason="NVML does not answer")


def test_packages_are_the_machines(probe_of, clock, powercap) -> None:
    (powercap / "energy_uj").write_text("59999000000\n")
    probe = probe_of()

    def work() -> None:
        (powercap / "energy_uj").write_text("49000000\n")
        clock.pass_s(2.0)

    take_window(probe, work)
    record = probe.read()
    assert record.gpus == ()
    assert record.packages.machine
    assert said(record.packages.energy_j) == (pytest.approx(50.0), "counter", 0)


def test_packages_that_cannot_be_read_say_why(probe_of, clock, powercap) -> None:
    probe = probe_of()
    take_window(probe, lambda: clock.pass_s(2.0))
    assert probe.read().packages.energy_j.reason.endswith("cannot be read here; most kernels let root alone read it")
    (powercap / "energy_uj").write_text("1\n")
    take_window(probe, lambda: clock.pass_s(100.0))
    assert probe.read().packages.energy_j.reason.endswith("cannot be read here; most kernels let root alone read it")
    other = probe_of()
    take_window(other, lambda: clock.pass_s(100.0))
    assert "may have started anew unseen in 100 s" in other.read().packages.energy_j.reason


def test_where_no_window_was_measured_nothing_was_read(probe_of) -> None:
    assert probe_of(FakeGpu("GPU-1")).read() is None


def test_the_probe_of_this_machine_reads_or_says_why() -> None:
    """The real tree, if there is one: what is not a number has a reason."""
    probe = EnergyProbe([torch.device("cpu")])
    take_window(probe, lambda: sum(range(10**6)))
    reading = probe.read().packages.energy_j
    assert (reading.value is None) == bool(reading.reason)
