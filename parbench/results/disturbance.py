"""What disturbed a trial, in sentences, from what its ranks saw around them."""

from collections import Counter
from collections.abc import Iterator, Sequence

from parbench.results.trial import RankRecord

SHARE = 0.1
"""Of a rank's cores, that others may use before it is worth a warning."""


def warnings_of(ranks: Sequence[RankRecord]) -> tuple[str, ...]:
    """A sentence for each thing that took from a rank what it was measured with."""
    return (*_about_cores(ranks), *_about_gpus(ranks))


def _about_cores(ranks: Sequence[RankRecord]) -> Iterator[str]:
    owners = Counter((rank.host, core) for rank in ranks for core in rank.cores)
    for rank in ranks:
        seen = rank.surroundings
        # Ranks that share cores disturb each other by design, and are labelled as oversubscribed.
        if not rank.cores or seen.window_s == 0 or any(owners[rank.host, core] > 1 for core in rank.cores):
            continue
        capacity = seen.window_s * len(rank.cores)
        if (others := (seen.busy_s - seen.own_s) / capacity) > SHARE:
            yield f"other processes used {others:.0%} of the cores of rank {rank.rank}"
        if (stolen := seen.stolen_s / capacity) > SHARE:
            yield f"the hypervisor gave {stolen:.0%} of the cores of rank {rank.rank} to others"
        if seen.throttled:
            yield f"the cores of rank {rank.rank} were slowed down for heat {seen.throttled} times"


def _about_gpus(ranks: Sequence[RankRecord]) -> Iterator[str]:
    users = Counter((rank.host, gpu.uuid) for rank in ranks for gpu in rank.surroundings.gpus)
    told = set()
    for rank in ranks:
        for gpu in rank.surroundings.gpus:
            place = (rank.host, gpu.uuid)
            foreign = (gpu.processes or 0) - users[place]
            if foreign > 0 and place not in told:
                told.add(place)
                yield f"{foreign} other process{'es' * (foreign > 1)} computed on {gpu.uuid} of rank {rank.rank}"
            if gpu.held_down:
                yield f"the clock of {gpu.uuid} of rank {rank.rank} was held down ({', '.join(gpu.held_down)})"
