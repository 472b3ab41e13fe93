"""`python -m tests.benchmarks [GLOB] [ROUNDS] [TURNS]`: the speed of parbench as a part of the other's."""

import statistics
import sys
from fnmatch import fnmatchcase

from parbench.figures.statistics import summarise
from tests.benchmarks.duel import ROUNDS, TURNS, Ratios, duel, pairs, token_file


def describe(name: str, rounds: list[Ratios]) -> str:
    """A line for a pair: the medians of its rounds, and the interval of the speeds."""
    speeds = [each.speed for each in rounds]
    low, high = summarise(speeds)[1:] if len(rounds) > 1 else (speeds[0], speeds[0])
    cpu = statistics.median(each.cpu for each in rounds)
    return f"{name:28} {statistics.median(speeds):.3f} [{low:.3f}, {high:.3f}]  by CPU time {cpu:.3f}"


def main(glob: str = "*", rounds: int = ROUNDS, turns: int = TURNS) -> None:
    corpus = token_file()
    for pair in pairs():
        if fnmatchcase(pair.name, glob):
            print(describe(pair.name, [duel(pair, corpus, number, turns) for number in range(rounds)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
