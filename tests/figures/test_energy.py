"""Energy, power and cost of a trial, by hand arithmetic."""

import pytest

from parbench.figures.base import Launch
from parbench.figures.definitions import FIGURES
from parbench.figures.energy import (
    clock,
    cost_per_million_tokens,
    energy,
    energy_per_token,
    held_down,
    mean_power,
    tokens_per_joule,
    utilization,
)
from parbench.records.energy import EnergyRecord, GpuReadings, PackageReadings, counted, sampled, unavailable
from parbench.records.trial import GpuSurroundings, RankRecord, SurroundingsRecord
from parbench.scenario.specs import CheckSpec
from tests.support.records import cell, job, rank, trial

ON_CPU, ON_GPU = cell("ddp", 2), cell("ddp", 2, device_kind="cuda")
TOKENS = 10 * 8 * 64
"""Of a made-up trial: 10 steps of 8 × 64."""


def gpu(uuid: str, joules: float, busy: float = 0.5, mhz: float = 1500.0) -> GpuReadings:
    return GpuReadings(uuid=uuid, energy_j=counted(joules), utilization=sampled(busy, 12), clock_mhz=sampled(mhz, 2))


def read(*gpus: GpuReadings, number: int = 0, window_s: float = 2.0, host: str = "a", **changes: object) -> RankRecord:
    record = EnergyRecord(seconds=window_s, gpus=gpus, **changes)
    return rank(number, host=host, jobs=(job(window_s=window_s),), energy=record)


def packages(machine: str, joules: float) -> PackageReadings:
    return PackageReadings(machine=machine, energy_j=counted(joules))


def test_energy_of_several_gpus_adds_up_and_gives_tokens_per_joule() -> None:
    both = read(gpu("GPU-1", 1000.0), gpu("GPU-2", 280.0))
    measured = trial(ON_GPU, ranks=(both,))
    assert energy(measured, ON_GPU) == counted(1280.0)
    assert tokens_per_joule(measured, ON_GPU) == pytest.approx(TOKENS / 1280)
    assert energy_per_token(measured, ON_GPU) == pytest.approx(1280 / TOKENS)
    assert mean_power(measured, ON_GPU) == counted(640.0)


def test_a_gpu_that_several_ranks_read_counts_once_in_the_window_of_the_slowest() -> None:
    fast = read(gpu("GPU-1", 900.0), gpu("GPU-2", 100.0), window_s=1.0)
    slow = read(gpu("GPU-1", 1000.0), gpu("GPU-2", 250.0), number=1, window_s=4.0)
    for ranks in ((fast, slow), (slow, fast)):
        measured = trial(ON_GPU, ranks=ranks)
        assert energy(measured, ON_GPU) == counted(1250.0)
        assert mean_power(measured, ON_GPU) == counted(312.5)


def test_gpus_of_several_hosts_add_up_each_over_its_own_slowest_rank() -> None:
    here, there = read(gpu("GPU-1", 800.0)), read(gpu("GPU-2", 300.0), number=1, window_s=1.0, host="b")
    measured = trial(ON_GPU, ranks=(here, there))
    assert energy(measured, ON_GPU) == counted(1100.0)
    assert mean_power(measured, ON_GPU) == counted(400.0 + 300.0)


def test_the_windows_of_a_lane_are_added_to_tell_the_slowest() -> None:
    two = rank(0, jobs=(job(0), job(1)), energy=EnergyRecord(seconds=4.0, gpus=(gpu("GPU-1", 900.0),)))
    one = read(gpu("GPU-1", 500.0), number=1, window_s=3.0)
    assert energy(trial(ON_GPU, ranks=(one, two)), ON_GPU) == counted(900.0)


def test_the_packages_of_a_machine_count_once_whatever_its_hosts_are_called() -> None:
    ranks = (
        read(packages=packages("m", 90.0)),
        read(number=1, window_s=3.0, host="b", packages=packages("m", 120.0)),
        read(number=2, host="c", packages=packages("other", 30.0)),
    )
    assert energy(trial(ON_CPU, ranks=ranks), ON_CPU) == counted(150.0)
    assert utilization(trial(ON_CPU, ranks=ranks), ON_CPU) is clock(trial(ON_CPU, ranks=ranks), ON_CPU) is None


def test_packages_are_no_part_of_what_gpus_used_nor_the_other_way_round() -> None:
    both = (read(gpu("GPU-1", 700.0), packages=packages("m", 50.0)),)
    assert energy(trial(ON_GPU, ranks=both), ON_GPU) == counted(700.0)
    assert energy(trial(ON_CPU, ranks=both), ON_CPU) == counted(50.0)


def test_one_meter_without_a_value_leaves_the_cell_without() -> None:
    silent = GpuReadings(uuid="GPU-2", energy_j=unavailable("NVML shows no such GPU"))
    measured = trial(ON_GPU, ranks=(read(gpu("GPU-1", 700.0), silent),))
    assert energy(measured, ON_GPU) == unavailable("NVML shows no such GPU")
    assert tokens_per_joule(measured, ON_GPU) is energy_per_token(measured, ON_GPU) is None
    assert mean_power(measured, ON_GPU).source == "unavailable"


def test_one_sampled_meter_makes_the_sum_a_sampled_one() -> None:
    old = GpuReadings(uuid="GPU-2", energy_j=sampled(300.0, 90))
    measured = trial(ON_GPU, ranks=(read(gpu("GPU-1", 700.0), old),))
    assert energy(measured, ON_GPU) == sampled(1000.0, 90)


def test_means_are_over_gpus() -> None:
    measured = trial(ON_GPU, ranks=(read(gpu("GPU-1", 1.0, 0.75, 1000.0), gpu("GPU-2", 1.0, 0.25, 2000.0)),))
    assert utilization(measured, ON_GPU) == sampled(0.5, 24)
    assert clock(measured, ON_GPU) == sampled(1500.0, 4)


def test_records_of_versions_that_read_no_meters_have_none() -> None:
    for ranks in ((rank(),), (read(gpu("GPU-1", 1.0)), rank(1)), ()):
        measured = trial(ON_GPU, ranks=ranks)
        assert energy(measured, ON_GPU) is mean_power(measured, ON_GPU) is utilization(measured, ON_GPU) is None
    old = Launch(trial(ON_GPU, ranks=(rank(),)), ON_GPU)
    assert FIGURES["tokens_per_joule"].tags([old]) is None


def test_shares_of_the_window_for_which_a_clock_was_held_down() -> None:
    around = SurroundingsRecord(
        window_s=4.0, gpus=(GpuSurroundings(uuid="GPU-1", throttled_s={"power limit": 3.0, "heat": 0.0}),)
    )
    assert held_down(trial(ON_GPU, ranks=(rank(surroundings=around),))) == {"GPU-1": {"power limit": 0.75, "heat": 0}}
    assert held_down(trial(ON_GPU, ranks=(rank(),))) == {}


def test_a_million_tokens_cost_the_devices_of_as_many_hours() -> None:
    priced = cell("ddp", 2, price_per_device_hour=2.5, currency="USD")
    # 2,560 tokens/s are 9.216 million tokens an hour, in which two devices cost 5.
    assert cost_per_million_tokens(trial(priced), priced) == pytest.approx(5 / 9.216)
    assert cost_per_million_tokens(trial(ON_CPU), ON_CPU) is None
    row = {"cost_per_million_tokens": 5 / 9.216, "cost_per_million_tokens_currency": "USD"}
    assert FIGURES["cost_per_million_tokens"].with_interval(row) == "0.543 (USD)"
    assert FIGURES["cost_per_million_tokens"].tags([Launch(trial(priced), priced)]) == "USD"
    assert FIGURES["cost_per_million_tokens"].tags([Launch(trial(ON_CPU), ON_CPU)]) is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"tokens_per_joule": 4.0, "tokens_per_joule_source": "counter"}, "4.00 tokens/J (counter)"),
        (
            {
                "tokens_per_joule": 4.0,
                "tokens_per_joule_ci_low": 3.5,
                "tokens_per_joule_ci_high": 4.5,
                "tokens_per_joule_source": "sampled",
            },
            "4.00 tokens/J (sampled) [3.50, 4.50]",
        ),
        ({"tokens_per_joule": float("nan"), "tokens_per_joule_source": "unavailable"}, "unavailable"),
        ({"tokens_per_joule": float("nan"), "tokens_per_joule_source": None}, "–"),
        ({"tokens_per_joule": float("nan")}, "–"),
        ({"tokens_per_joule": float("nan"), "tokens_per_joule_source": "a\x1b[31m"}, "a\N{REPLACEMENT CHARACTER}[31m"),
    ],
    ids=["one round", "with an interval", "unavailable", "not recorded", "no such column", "hostile"],
)
def test_a_value_is_written_with_its_source(row: dict[str, object], text: str) -> None:
    assert FIGURES["tokens_per_joule"].with_interval(row) == text


def test_rounds_of_different_sources_name_both() -> None:
    counter = Launch(trial(ON_GPU, 0, ranks=(read(gpu("GPU-1", 1.0)),)), ON_GPU)
    silent = GpuReadings(uuid="GPU-1", energy_j=unavailable("a reason"))
    without = Launch(trial(ON_GPU, 1, ranks=(read(silent),)), ON_GPU)
    assert FIGURES["mean_power_w"].tags([counter, without, counter]) == "counter, unavailable"


def test_energy_can_be_gated_and_is_not_by_default() -> None:
    assert CheckSpec(gate=("energy_per_token_j",)).gate == ("energy_per_token_j",)
    assert not {"energy_per_token_j", "tokens_per_joule", "cost_per_million_tokens"} & set(CheckSpec().gate)
