"""How the cells of a panel stand to each other: everything that the verdict says, as data."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parbench.figures.base import Figure
from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.speed import TOKENS_PER_S
from parbench.results.judged_cells import JudgedCell
from parbench.verdict.candidates import base_of, candidates_and_others, memory, speed
from parbench.verdict.contest import Contest
from parbench.verdict.frontier import frontier
from parbench.verdict.rounds import logarithms

Cells = Sequence[JudgedCell]


@dataclass(frozen=True)
class Followers:
    """Strategies on several devices behind the fastest, each by its best cell, the fastest first.

    They are faster than one device, or cannot be told apart from it, or are slower.
    """

    faster: Cells = ()
    level: Cells = ()
    slower: Cells = ()


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the cells of a panel stand to each other.

    candidates: the cells that may win, the fastest first. others: all that may not, by the reason.
    leaders: the fastest, and those that cannot be told apart from it. detectable: the difference that would have been
    seen between them, as the share by which the faster is faster. tested: whether there was a test at all.
    thriftiest: the same for memory, with thrift_tested.
    frontier: what lies between the first leader and the thriftiest. followers: the strategies that lose.
    memory_ratio: the first leader's memory over the base's, where they surely differ.
    """

    cells: Cells
    base: JudgedCell | None
    candidates: Cells
    others: Mapping[str, Cells]
    leaders: Cells = ()
    detectable: float | None = None
    tested: bool = False
    memory_ratio: float | None = None
    thriftiest: Cells = ()
    thrift_tested: bool = False
    frontier: Cells = ()
    followers: Followers = Followers()

    @property
    def models(self) -> int | None:
        """How many models each candidate runs."""
        return self.candidates[0].record.models if self.candidates else None

    @property
    def base_leads(self) -> bool:
        """Whether nothing is surely faster than the reference on one device."""
        return _has(self.leaders, self.base)

    @property
    def recommended(self) -> JudgedCell | None:
        """The cell to use: of those that cannot be told apart, the reference, or the fastest with the fewest devices.

        None where there is no candidate, or several and no test that compares them.
        """
        if not self.tested and len(self.candidates) > 1:
            return None
        if self.base_leads:
            return self.base
        return min(self.leaders, key=lambda cell: cell.record.devices, default=None)


def stand(cells: Cells) -> Standing:
    """How the cells of one panel (workload, phase and scaling) stand to each other."""
    unsorted, others = candidates_and_others(cells)
    candidates = sorted(unsorted, key=lambda cell: -speed(cell))
    base = base_of(cells)
    if not candidates:
        return Standing(cells=cells, base=base, candidates=(), others=others)
    race, thrift = _contest(cells, TOKENS_PER_S), _contest(cells, PEAK_MEMORY_BYTES)
    best, *rest = candidates
    tested = _is_tested(race, candidates)
    ties = race.ties_with(best.record.id, _names(rest))
    leaders = [best, *_select(rest, ties.cells)] if tested else [best]
    thriftiest, thrift_tested = _thriftiest(candidates, thrift)
    front = frontier(
        [cell for cell in candidates if not math.isnan(memory(cell))],
        lambda one, other: _is_better(thrift, one, other),
    )
    return Standing(
        cells=cells,
        base=base,
        candidates=candidates,
        others=others,
        leaders=leaders,
        detectable=None if ties.detectable is None else math.expm1(ties.detectable),
        tested=tested,
        memory_ratio=_memory_ratio(best, base, thrift),
        thriftiest=thriftiest,
        thrift_tested=thrift_tested,
        frontier=[cell for cell in front if not _has((best, *thriftiest), cell)],
        followers=_followers(candidates, leaders, base, race),
    )


def _contest(cells: Cells, figure: Figure) -> Contest:
    """All comparable cells tell how much launches differ, whether they may win or not."""
    sign = 1 if figure.better == "higher" else -1
    samples = {
        cell.record.id: {number: sign * value for number, value in logarithms(cell, figure).items()}
        for cell in cells
        if cell.comparable
    }
    return Contest(samples, {cell.record.id: cell.record.strategy for cell in cells})


def _thriftiest(candidates: Cells, thrift: Contest) -> tuple[Cells, bool]:
    """The candidate that needs least memory, those that cannot be told apart from it, and whether that was tested."""
    by_memory = sorted((cell for cell in candidates if not math.isnan(memory(cell))), key=memory)
    if len(by_memory) < 2:
        return (), False
    least, *rest = by_memory
    ties = thrift.ties_with(least.record.id, _names(rest))
    is_tested = _is_tested(thrift, by_memory)
    return [least, *_select(rest, ties.cells)] if is_tested else [least], is_tested


def _followers(candidates: Cells, leaders: Cells, base: JudgedCell | None, race: Contest) -> Followers:
    """Each label's best cell on several devices, without labels that lead, compared with one device."""
    leading = {cell.record.label for cell in leaders}
    best: dict[str, JudgedCell] = {}
    for cell in candidates:
        if cell.record.devices > 1 and cell.record.label not in leading:
            best.setdefault(cell.record.label, cell)
    if base is None or not best:
        return Followers(slower=list(best.values()))
    groups: defaultdict[str, list[JudgedCell]] = defaultdict(list)
    apart = race.apart_from(base.record.id, _names(list(best.values())))
    for cell in best.values():
        is_apart = cell.record.id in apart
        groups["level" if not is_apart else "faster" if speed(cell) > speed(base) else "slower"].append(cell)
    return Followers(**groups)


def _memory_ratio(cell: JudgedCell, base: JudgedCell | None, thrift: Contest) -> float | None:
    if base is None or cell is base:
        return None
    difference = thrift.difference(cell.record.id, base.record.id)
    return memory(cell) / memory(base) if difference and difference.is_sure else None


def _is_better(contest: Contest, one: JudgedCell, other: JudgedCell) -> bool:
    difference = contest.difference(one.record.id, other.record.id)
    return difference is not None and difference.estimate > 0 and difference.is_sure


def _is_tested(contest: Contest, cells: Cells) -> bool:
    """Whether the first of the cells could be compared with any other."""
    first, *rest = _names(cells)
    return any(contest.difference(first, each) for each in rest)


def _names(cells: Cells) -> list[str]:
    return [cell.record.id for cell in cells]


def _select(cells: Cells, names: Sequence[str]) -> list[JudgedCell]:
    chosen = set(names)
    return [cell for cell in cells if cell.record.id in chosen]


def _has(cells: Cells, wanted: JudgedCell | None) -> bool:
    return wanted is not None and any(cell is wanted for cell in cells)
