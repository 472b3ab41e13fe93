"""Energy of a trial, what devices did with it, and what tokens cost. Where a meter is silent, nothing is filled in."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from parbench.figures.base import Figure, Launch, Tag
from parbench.figures.speed import tokens, tokens_per_s, window_s
from parbench.records.cell import CellRecord
from parbench.records.energy import EnergyRecord, Reading, mean_of, total_of
from parbench.records.trial import RankRecord, Trial


class Meter(NamedTuple):
    """What a GPU, or the processor packages of a machine, showed in a trial, over `seconds`.

    Energy is in joules, utilisation a share of one, the clock in MHz; packages have energy alone.
    """

    name: str
    seconds: float
    energy: Reading
    utilization: Reading = Reading()
    clock: Reading = Reading()

    @property
    def power(self) -> Reading:
        """Mean power in watts: energy ÷ the time between its readings."""
        joules = self.energy.value
        return self.energy if joules is None else self.energy.model_copy(update={"value": joules / self.seconds})


def gpus(trial: Trial) -> list[Meter]:
    """Each GPU once, as the slowest of the ranks saw it that read it; empty where records have none.

    All ranks read all GPUs of their node, so on one node they are seen over the window that tokens/s is over.
    """
    return _once(trial, _gpus_of)


def packages(trial: Trial) -> list[Meter]:
    """The processor packages of each machine once, as the slowest of its ranks saw them."""
    return _once(trial, _packages_of)


def meters(trial: Trial, cell: CellRecord) -> list[Meter]:
    """The meters whose energy is the cell's: those of its GPUs or, of a cell on CPU, its machines' packages."""
    return gpus(trial) if cell.device_kind == "cuda" else packages(trial)


def energy(trial: Trial, cell: CellRecord) -> Reading | None:
    """Joules of all of the cell's meters; None in records of versions that read none."""
    return _joined(trial, [meter.energy for meter in meters(trial, cell)], total_of)


def mean_power(trial: Trial, cell: CellRecord) -> Reading | None:
    """Watts of all of the cell's meters together."""
    return _joined(trial, [meter.power for meter in meters(trial, cell)], total_of)


def utilization(trial: Trial, cell: CellRecord) -> Reading | None:
    """The mean share of time in which kernels ran, over the cell's GPUs; None on CPU."""
    return _joined(trial, [meter.utilization for meter in gpus(trial)], _mean) if cell.device_kind == "cuda" else None


def clock(trial: Trial, cell: CellRecord) -> Reading | None:
    """The mean clock in MHz, over the cell's GPUs; None on CPU."""
    return _joined(trial, [meter.clock for meter in gpus(trial)], _mean) if cell.device_kind == "cuda" else None


def held_down(trial: Trial) -> Mapping[str, Mapping[str, float]]:
    """Of each GPU by its UUID, the share of the windows for which each counted cause held its clock down."""
    return {
        gpu.uuid: {cause: seconds / rank.surroundings.window_s for cause, seconds in gpu.throttled_s.items()}
        for rank in sorted(trial.ranks, key=window_s)
        for gpu in rank.surroundings.gpus
        if rank.surroundings.window_s
    }


def tokens_per_joule(trial: Trial, cell: CellRecord) -> float | None:
    """Tokens of the measured steps ÷ the energy of the cell's meters; None where that is not known."""
    reading = energy(trial, cell)
    return tokens(trial, cell) / reading.value if reading and reading.value else None


def energy_per_token(trial: Trial, cell: CellRecord) -> float | None:
    """Joules ÷ tokens: the inverse of tokens per joule. For example 500 J for 2,000 tokens are 0.25 J."""
    ratio = tokens_per_joule(trial, cell)
    return 1 / ratio if ratio else None


def cost_per_million_tokens(trial: Trial, cell: CellRecord) -> float | None:
    """Devices × the price of a device-hour ÷ the millions of tokens in an hour; None without a price.

    For example 2 devices at 2.50 an hour and 10,000 tokens/s: 5.00 ÷ 36 million tokens are 0.139 a million.
    """
    if cell.price_per_device_hour is None:
        return None
    million_tokens_an_hour = tokens_per_s(trial, cell) * 3600 / 1e6
    return cell.devices * cell.price_per_device_hour / million_tokens_an_hour


def _once(trial: Trial, read: Callable[[RankRecord, EnergyRecord], Mapping[str, Meter]]) -> list[Meter]:
    """Every meter once. The slowest rank comes first, and what it read counts."""
    found: dict[str, Meter] = {}
    for rank in sorted(trial.ranks, key=window_s, reverse=True):
        if rank.energy:
            found = {**read(rank, rank.energy), **found}
    return list(found.values())


def _gpus_of(_: RankRecord, record: EnergyRecord) -> Mapping[str, Meter]:
    return {
        gpu.uuid: Meter(gpu.uuid, record.seconds, gpu.energy_j, gpu.utilization, gpu.clock_mhz) for gpu in record.gpus
    }


def _packages_of(rank: RankRecord, record: EnergyRecord) -> Mapping[str, Meter]:
    """By the machine, because several hosts may be parts of one."""
    read = record.packages
    return {read.machine: Meter(f"packages of {rank.host}", record.seconds, read.energy_j)} if read else {}


def _joined(trial: Trial, readings: Sequence[Reading], join: Callable[[Sequence[Reading]], Reading]) -> Reading | None:
    """One reading for all meters; None unless every rank has read its meters."""
    return join(readings) if trial.ranks and all(rank.energy for rank in trial.ranks) else None


def _mean(readings: Sequence[Reading]) -> Reading:
    return mean_of(readings, [1.0] * len(readings))


def _value(reading: Reading | None) -> float | None:
    return reading.value if reading else None


def _source(of: Callable[[Launch], Reading | None]) -> Tag:
    """How a figure's reading came about, as its tag."""

    def word(launch: Launch) -> str | None:
        reading = of(launch)
        return reading.source if reading else None

    return Tag("source", word)


OF_THE_CELL = (
    "On CUDA the energy is that of the cell's GPUs, whole boards, in the window of the slowest rank. On CPU it is that "
    "of the machine's processor packages, whatever else runs on them and however few of their cores the cell has. It "
    "is the growth of a counter, or the mean of the driver's samples of power × the time (sampled), or unavailable."
)

TOKENS_PER_JOULE = Figure(
    name="tokens_per_joule",
    title="tokens/J",
    unit="tokens/J",
    better="higher",
    meaning=f"Tokens of the window ÷ the energy that it took. {OF_THE_CELL} The geometric mean over rounds.",
    of=lambda launch: tokens_per_joule(launch.trial, launch.cell),
    over_rounds="geometric mean",
    interval=True,
    shown_in=("table", "terminal"),
    tag=_source(lambda launch: energy(launch.trial, launch.cell)),
)

ENERGY_PER_TOKEN_J = Figure(
    name="energy_per_token_j",
    title="energy/token",
    unit="J",
    better="lower",
    meaning="Energy of the window ÷ its tokens, the median over rounds: the inverse of tokens/J.",
    of=lambda launch: energy_per_token(launch.trial, launch.cell),
    shown_in=("table",),
    gate="relative",
    tag=_source(lambda launch: energy(launch.trial, launch.cell)),
)

MEAN_POWER_W = Figure(
    name="mean_power_w",
    title="power",
    unit="W",
    better=None,
    meaning="Energy ÷ the time between its readings, of all of the cell's GPUs together, or on CPU of the machine's "
    "packages; the median over rounds.",
    of=lambda launch: _value(mean_power(launch.trial, launch.cell)),
    shown_in=("table",),
    tag=_source(lambda launch: mean_power(launch.trial, launch.cell)),
)

GPU_UTILIZATION = Figure(
    name="gpu_utilization",
    title="GPU busy",
    unit="%",
    better="higher",
    meaning="The share of the window in which some kernel ran, however little of the GPU it used: the mean over GPUs "
    "of the driver's samples; the median over rounds.",
    of=lambda launch: _value(utilization(launch.trial, launch.cell)),
    shown_in=("table",),
    tag=_source(lambda launch: utilization(launch.trial, launch.cell)),
)

SM_CLOCK_MHZ = Figure(
    name="sm_clock_mhz",
    title="SM clock",
    unit="MHz",
    better=None,
    meaning="The clock of the multiprocessors: the mean over GPUs of the driver's samples or, where it keeps none, of "
    "two readings, before the window and after it; the median over rounds.",
    of=lambda launch: _value(clock(launch.trial, launch.cell)),
    shown_in=("table",),
    tag=_source(lambda launch: clock(launch.trial, launch.cell)),
)

COST_PER_MILLION_TOKENS = Figure(
    name="cost_per_million_tokens",
    title="cost/Mtoken",
    unit="cost",
    better="lower",
    meaning="What a million tokens cost: devices × the scenario's price of a device-hour ÷ the millions of tokens in "
    "an hour, in the price's currency; the median over rounds. Set-up, warm-up and compilation are not paid for in it.",
    of=lambda launch: cost_per_million_tokens(launch.trial, launch.cell),
    tag=Tag("currency", lambda launch: launch.cell.currency or None),
)

FIGURES = (
    TOKENS_PER_JOULE,
    ENERGY_PER_TOKEN_J,
    MEAN_POWER_W,
    GPU_UTILIZATION,
    SM_CLOCK_MHZ,
    COST_PER_MILLION_TOKENS,
)
