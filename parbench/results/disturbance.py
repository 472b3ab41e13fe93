"""Warnings of a trial: what took cores, clock speed or time from its ranks while they measured."""

from collections import Counter
from collections.abc import Iterator, Sequence

from parbench.records.trial import GpuSurroundings, RankRecord
from parbench.results.stalls import longest_stall

SHARE = 0.1
"""The share of a rank's cores that other processes, or a hypervisor, may take before a warning says so."""

THROTTLED_SHARE = 0.01
"""The share of a window for which a GPU's clock may be held down before a warning says so."""

CORES = 1.0
"""How many cores other processes may keep busy before a warning: a rank's own or, where it has none, its host's."""


def warnings_of(ranks: Sequence[RankRecord], *, mps: bool = False) -> tuple[str, ...]:
    """A sentence for each disturbance: other processes, a hypervisor, heat, other users of a GPU, stalls.

    `mps`: the ranks were to share GPUs through the Multi-Process Service.
    """
    pinned = [rank for rank in ranks if rank.cores]
    free = [rank for rank in ranks if not rank.cores]
    return (
        *_about_cores(pinned),
        *_about_hosts(free),
        *_about_heat(ranks),
        *_about_gpus(ranks),
        *(() if mps else _about_mps(ranks)),
        *_about_stalls(ranks),
    )


def _about_cores(ranks: Sequence[RankRecord]) -> Iterator[str]:
    owners = Counter((rank.host, core) for rank in ranks for core in rank.cores)
    for rank in ranks:
        around = rank.surroundings
        # Ranks that share cores disturb each other by design; on CPU they are labelled as oversubscribed.
        if around.window_s == 0 or any(owners[rank.host, core] > 1 for core in rank.cores):
            continue
        capacity = around.window_s * len(rank.cores)
        others_s = around.busy_s - around.own_s
        if others_s > min(SHARE * capacity, CORES * around.window_s):
            yield f"other processes used {others_s / capacity:.0%} of the cores of rank {rank.rank}"
        if (stolen := around.stolen_s / capacity) > SHARE:
            yield f"the hypervisor gave {stolen:.0%} of the cores of rank {rank.rank} to others"


def _about_hosts(ranks: Sequence[RankRecord]) -> Iterator[str]:
    """Where ranks are not pinned, another process may keep busy the core that one of them needs."""
    first = {rank.host: rank for rank in reversed(ranks)}
    for host, rank in sorted(first.items()):
        here, around = [each for each in ranks if each.host == host], rank.surroundings
        # Ranks of another lane set up and warm up while this one measures, and count that nowhere.
        if around.window_s == 0 or len({each.lane for each in here}) > 1:
            continue
        others = (around.busy_s - sum(each.surroundings.own_s for each in here)) / around.window_s
        if others > CORES:
            yield f"other processes kept {others:.1f} cores busy beside rank {rank.rank}"


def _about_heat(ranks: Sequence[RankRecord]) -> Iterator[str]:
    for rank in ranks:
        if rank.surroundings.throttled:
            yield f"the cores of rank {rank.rank} were slowed down for heat {rank.surroundings.throttled} times"


def _about_gpus(ranks: Sequence[RankRecord]) -> Iterator[str]:
    users = Counter((rank.host, gpu.uuid) for rank in ranks for gpu in rank.surroundings.gpus)
    reported = set()
    for rank in ranks:
        for gpu in rank.surroundings.gpus:
            place = (rank.host, gpu.uuid)
            foreign = (gpu.processes or 0) - users[place]
            if foreign > 0 and place not in reported:
                reported.add(place)
                yield f"{foreign} other process{'es' * (foreign > 1)} computed on {gpu.uuid} of rank {rank.rank}"
            yield from _about_throttling(rank, gpu)


def _about_mps(ranks: Sequence[RankRecord]) -> Iterator[str]:
    """A daemon that runs here serves all processes that find it, also ranks that were to take turns on a GPU."""
    served = {(rank.host, gpu.uuid): rank for rank in reversed(ranks) for gpu in rank.surroundings.gpus if gpu.mps}
    for (_, uuid), rank in sorted(served.items(), key=lambda place: place[0]):
        yield f"MPS, for which this cell does not ask, served rank {rank.rank} on {uuid}"


def _about_throttling(rank: RankRecord, gpu: GpuSurroundings) -> Iterator[str]:
    window_s = rank.surroundings.window_s
    for cause, seconds in gpu.throttled_s.items():
        # A GPU under full load is always at its power limit: that is its speed, not a disturbance.
        if cause != "power limit" and window_s and (share := seconds / window_s) > THROTTLED_SHARE:
            yield f"{cause} held the clock of {gpu.uuid} of rank {rank.rank} down for {share:.0%} of the window"


def _about_stalls(ranks: Sequence[RankRecord]) -> Iterator[str]:
    """A rank that waits for a stalled one stalls as well, so each has a sentence: times do not tell the first."""
    for rank in ranks:
        stalls = [stall for job in rank.jobs if (stall := longest_stall(job.step_times_s, job.cycle))]
        if stalls:
            longest = max(stalls)
            yield f"a step of rank {rank.rank} took {longest.took_s:.1f} s, where others take {_time(longest.usual_s)}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
