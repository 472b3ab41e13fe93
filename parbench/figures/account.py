"""Where the time of a step goes: the parts of a cell's steps, as shares that add up to one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from parbench.figures.base import Figure, Launch
from parbench.records.account import Part
from parbench.records.trial import RankRecord, Trial

CellPart = Literal[Part, "waiting"]

COMPUTE: tuple[Part, ...] = ("forward", "loss", "backward", "optimizer", "other")

PART_MEANINGS: Mapping[CellPart, str] = {
    "forward": "operators of the forward pass",
    "loss": "operators of the loss",
    "backward": "operators of the backward pass",
    "optimizer": "operators of the optimizer's step",
    "other": "operators of the strategy outside of these",
    "communication": "exposed communication: exchanges while nothing is computed, less the waiting for slower ranks",
    "waiting": "waiting for the slowest rank of the same model, which computes for longer",
    "pipeline": "waiting for other stages of a pipeline and their messages: its bubble",
    "data": "waiting for the next batch",
    "host": "code between operators: Python, dispatching, and on a GPU the launching of kernels",
    "unexplained": "what none of these explains",
}
"""Every part, in the order in which tables and charts show them."""


def shares_of_step(trial: Trial) -> dict[CellPart, float]:
    """The share of a step that each part takes, the mean over ranks; they add up to 1. Empty without an account.

    A rank's waiting is the part of its exposed communication in which the slowest rank of its lane still did something
    else: that rank's time outside of communication, less this rank's own. No clocks of two ranks are compared. For
    example two ranks that compute for 80 and 100 ms of a step of 120 ms wait 20 and 0 ms, and exchange for 20 ms each.
    """
    accounts = [(rank, _seconds(rank)) for rank in trial.ranks if rank.account]
    busiest: defaultdict[int, float] = defaultdict(float)
    for rank, seconds in accounts:
        busiest[rank.lane] = max(busiest[rank.lane], _busy(seconds))
    by_rank = [_split_waiting(seconds, busiest[rank.lane]) for rank, seconds in accounts]
    total = sum(sum(seconds.values()) for seconds in by_rank)
    if not total:
        return {}
    return {part: sum(seconds.get(part, 0.0) for seconds in by_rank) / total for part in PART_MEANINGS}


def mean_shares(trials: Iterable[Trial]) -> dict[CellPart, float]:
    """The mean of each part's share over trials, which add up to 1 as well; empty where no trial has an account."""
    every = [shares for trial in trials if (shares := shares_of_step(trial))]
    return {part: fmean(shares[part] for shares in every) for part in PART_MEANINGS} if every else {}


def exchanges_by_time(trials: Iterable[Trial]) -> list[str]:
    """The kinds of collectives, sends and receives that the trials' accounts hold, those that take longest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for trial in trials:
        for rank in trial.ranks:
            for exchange in rank.account.exchanges if rank.account else ():
                seconds[exchange.name] += exchange.seconds
    return sorted(seconds, key=lambda name: -seconds[name])


def disturbance(trials: Iterable[Trial]) -> float | None:
    """How many times as long steps take under the profiler: on the slowest rank, the mean over trials."""
    ratios = [ratio for trial in trials if (ratio := _disturbance(trial)) is not None]
    return fmean(ratios) if ratios else None


def _disturbance(trial: Trial) -> float | None:
    """The slowest rank's step under the profiler over that of the window of the same model."""
    profiled = max((rank.account.profiled_s for rank in trial.ranks if rank.account), default=None)
    windows = [job.window_s / job.steps for rank in trial.ranks if rank.account for job in rank.jobs[-1:] if job.steps]
    return None if profiled is None or not windows else profiled / max(windows)


def _overlapped(trial: Trial) -> float | None:
    accounts = [rank.account for rank in trial.ranks if rank.account]
    total = sum(account.profiled_s for account in accounts)
    exchanging = any(account.exchanges for account in accounts)
    return sum(account.overlapped_s for account in accounts) / total if total and exchanging else None


def _seconds(rank: RankRecord) -> dict[CellPart, float]:
    return dict(rank.account.parts) if rank.account else {}  # type: ignore[arg-type]


def _busy(seconds: Mapping[CellPart, float]) -> float:
    return sum(value for part, value in seconds.items() if part not in ("communication", "pipeline"))


def _split_waiting(seconds: Mapping[CellPart, float], busiest: float) -> dict[CellPart, float]:
    exposed = seconds.get("communication", 0.0)
    waiting = min(exposed, busiest - _busy(seconds))
    return {**seconds, "communication": exposed - waiting, "waiting": waiting}


def _share(parts: Sequence[CellPart]) -> Callable[[Launch], float | None]:
    """The formula of the share that some parts take together."""

    def share(launch: Launch) -> float | None:
        shares = shares_of_step(launch.trial)
        return sum(shares[part] for part in parts) if shares else None

    return share


def _figure(name: str, title: str, parts: Sequence[CellPart], better: Literal["higher", "lower"]) -> Figure:
    return Figure(
        name=name,
        title=title,
        unit="%",
        better=better,
        meaning=f"The share of a step that is {', '.join(PART_MEANINGS[part] for part in parts)}; the mean over ranks, "
        "the median over rounds. From a few steps after the window, under torch's profiler.",
        of=_share(parts),
        shown_in=("table",),
    )


EXPOSED_COMM = _figure("exposed_comm", "exposed communication", ["communication"], "lower")
WAITING = _figure("waiting", "waiting for ranks", ["waiting"], "lower")
DATA_WAIT = _figure("data_wait", "data wait", ["data"], "lower")
HOST_OVERHEAD = _figure("host_overhead", "host overhead", ["host"], "lower")
UNEXPLAINED = _figure("unexplained", "unexplained", ["unexplained"], "lower")

OVERLAPPED_COMM = Figure(
    name="overlapped_comm",
    title="overlapped communication",
    unit="%",
    better=None,
    meaning="The share of a step in which something is exchanged while the rank computes; the mean over ranks, the "
    "median over rounds. It costs nothing by itself, and is in none of the other shares.",
    of=lambda launch: _overlapped(launch.trial),
    shown_in=("table",),
)

PROFILED_STEP = Figure(
    name="profiled_step",
    title="profiled ÷ plain step",
    unit="×",
    better="lower",
    meaning="A step under the profiler, by which the account of its time was made, over a step of the window, which is "
    "timed without it: the disturbance of that account.",
    of=lambda launch: _disturbance(launch.trial),
    shown_in=("table",),
)

FIGURES = (EXPOSED_COMM, OVERLAPPED_COMM, WAITING, DATA_WAIT, HOST_OVERHEAD, UNEXPLAINED, PROFILED_STEP)
