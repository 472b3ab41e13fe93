"""Energy of processor packages, from a powercap tree that is made up."""

import os
from pathlib import Path

import pytest

from parbench.errors import MeterError
from parbench.system import rapl
from parbench.system.rapl import PackageCounter, joules_between, read_packages


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path)
    return tmp_path


def zone(powercap: Path, place: str, name: str, microjoules: int, range_uj: int = 262_143_328_850) -> Path:
    folder = powercap / place
    folder.mkdir()
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", range_uj)):
        (folder / file).write_text(f"{content}\n")
    return folder


def test_packages_count_once_and_their_parts_not_again(powercap: Path) -> None:
    zone(powercap, "intel-rapl:0", "package-0", 5_000_000, 60_000_000)
    zone(powercap, "intel-rapl:0:0", "core", 4_000_000)
    zone(powercap, "intel-rapl:0:1", "dram", 1_000_000)
    zone(powercap, "intel-rapl:1", "package-1", 7_500_000, 60_000_000)
    zone(powercap, "intel-rapl:2", "psys", 99_000_000)
    zone(powercap, "intel-rapl-mmio:0", "package-0", 5_000_000)
    (powercap / "intel-rapl").mkdir()
    assert read_packages() == {
        "package-0": PackageCounter(pytest.approx(5.0), pytest.approx(60.0)),
        "package-1": PackageCounter(pytest.approx(7.5), pytest.approx(60.0)),
    }


def test_energy_is_what_all_counters_grew_by_also_where_one_started_anew() -> None:
    before = {"package-0": PackageCounter(10.0, 60_000.0), "package-1": PackageCounter(59_990.0, 60_000.0)}
    after = {"package-0": PackageCounter(110.0, 60_000.0), "package-1": PackageCounter(40.0, 60_000.0)}
    assert joules_between(before, after, 2.0) == pytest.approx(100 + 50)


def test_a_window_in_which_a_counter_may_start_anew_twice_is_not_counted() -> None:
    counters = {"package-0": PackageCounter(10.0, 60_000.0)}
    assert joules_between(counters, counters, 59.0) == 0
    with pytest.raises(MeterError, match="package-0 may have started anew unseen in 61 s"):
        joules_between(counters, counters, 61.0)
    with pytest.raises(MeterError, match="came or went"):
        joules_between(counters, {}, 1.0)


def test_a_machine_without_counters_says_so(powercap: Path) -> None:
    with pytest.raises(MeterError, match="the kernel shows no package's counter"):
        read_packages()
    zone(powercap, "intel-rapl:0", "psys", 1)
    with pytest.raises(MeterError, match="the kernel shows no package's counter"):
        read_packages()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_counter_that_root_alone_may_read_says_so(powercap: Path) -> None:
    (zone(powercap, "intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0o000)
    with pytest.raises(MeterError, match="energy_uj cannot be read here; most kernels let root alone read it"):
        read_packages()


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_a_counter_that_cannot_be_read_is_named(powercap: Path, file: str) -> None:
    zone(powercap, "intel-rapl:0", "package-0", 1)
    folder = zone(powercap, "intel-rapl:1", "package-1", 1)
    (folder / file).unlink()
    with pytest.raises(MeterError, match=f"intel-rapl:1/{file} cannot be read here"):
        read_packages()
    (folder / file).write_text("<unknown>\n")
    with pytest.raises(MeterError, match=f"intel-rapl:1/{file} cannot be read here"):
        read_packages()
