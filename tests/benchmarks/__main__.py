"""`python -m tests.benchmarks [GLOB] [ROUNDS] [TURNS]`: the speed of parbench as a part of the other's."""

import statistics
import sys
from fnmatch import fnmatchcase

from parbench.figures.statistics import summarise
from tests.benchmarks.duel import ROUNDS, TURNS, Ratios, duel, pairs


def describe(name: str, rounds: list[Ratios]) -> str:
    """A line for a pair: the geometric mean of its rounds with its interval."""
    mean, low, high = summarise([each.speed for each in rounds])
    cpu = statistics.median(each.cpu for each in rounds)
    return f"{name:36} {mean:.3f} [{low or mean:.3f}, {high or mean:.3f}]  by CPU time {cpu:.3f}"


def main(glob: str = "*", rounds: int = ROUNDS, turns: int = TURNS) -> None:
    for pair in pairs():
        if fnmatchcase(pair.name, glob):
            print(describe(pair.name, [duel(pair, number, turns) for number in range(rounds)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
