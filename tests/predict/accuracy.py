"""Prints how wrong the planner is: the tables of docs/planner.md, from stored rows.

make accuracy
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parbench.predict.calibrate import fit
from parbench.predict.cases import Case, case_of, cases_of
from parbench.predict.fitted import published_fit
from parbench.predict.judge import Judged, judge, judge_case
from parbench.predict.memory import TIGHT, memory_need
from parbench.predict.problem import Problem
from parbench.predict.rows import Row, published_rows, read_rows
from tests.predict.tables import accuracy_table, figures_row, percent
from tests.predict.test_accuracy import GRID

ANCHORS = 10
ANCHOR_TIGHTNESS = 3.0
"""The published constants are known better than the priors were."""


def main() -> None:
    rows = published_rows()
    print(accuracy_table(judge(rows, published_fit())), "\n")
    print(figures_row("6ND at a fixed share of the peak", fixed_share(cases_of(rows)[0])), "\n")
    grid = cases_of(read_rows(GRID))[0]
    cold = [judge_case(case, published_fit()) for case in grid]
    print(figures_row("grid", cold))
    print(figures_row(f"grid, {ANCHORS} anchors", anchored(grid)))
    for picks in (1, 3):
        print(f"best of the first {picks} picks loses {percent(lost(cold, picks))} on average")
    print("\n".join(["", *memory_lines(rows)]))


def fixed_share(cases: Sequence[Case]) -> list[Judged]:
    """Six operations a weight and token, at the share of the measured peak that the median row of other sources has."""

    def ideal(case: Case) -> float:
        problem = Problem.stacked([case.numbers])
        flops = 6 * float((problem.layers * problem.block_parameters + problem.vocab * problem.width)[0])
        return float(problem.matmul[0]) * case.devices / flops

    judged = []
    for case in cases:
        others = [each.tokens_per_s / ideal(each) for each in cases if each.fold != case.fold]
        judged.append(Judged(case, ideal(case) * float(np.median(others)), 0.0, np.inf))
    return judged


def anchored(grid: Sequence[Case]) -> list[Judged]:
    """The grid without ten of its rows, which the published constants are fitted to as prior."""
    anchors = [grid[index] for index in np.linspace(0, len(grid) - 1, ANCHORS).astype(int)]
    known = {case.row_id for case in anchors}
    fitted = published_fit()
    constants = fit(anchors, prior=fitted.constants, tightness=ANCHOR_TIGHTNESS)
    return [judge_case(case, replace(fitted, constants=constants)) for case in grid if case.row_id not in known]


def lost(rows: Sequence[Judged], picks: int) -> float:
    """The mean share of throughput by which the best of the first `picks` falls short of the best layout of its model,
    devices and global batch."""
    groups: dict[object, list[Judged]] = defaultdict(list)
    for row in rows:
        problem = Problem.stacked([row.case.numbers])
        batch = problem.micro_batch * problem.micro_batches * problem.data
        groups[(*row.case.group, float(batch[0]))].append(row)
    losses = []
    for members in groups.values():
        if len(members) > picks:
            best = sorted(members, key=lambda row: -row.predicted)[:picks]
            most = max(row.case.tokens_per_s for row in members)
            losses.append(1 - max(row.case.tokens_per_s for row in best) / most)
    return float(np.mean(losses))


def memory_lines(rows: Sequence[Row]) -> list[str]:
    """How far the need for memory lies off, by source, and how many that ran were said to fit."""
    errors: dict[str, list[float]] = defaultdict(list)
    verdicts: dict[str, int] = defaultdict(int)
    for row in rows:
        problem = Problem.stacked([case_of(row).numbers])
        need, capacity = float(memory_need(problem).total[0]), float(problem.memory[0])
        verdicts["yes" if need < (1 - TIGHT) * capacity else "tight" if need <= (1 + TIGHT) * capacity else "no"] += 1
        if reported := row.number("mem_gib"):
            errors[row.fold].append(need / 2**30 / reported - 1)
    lines = [
        f"memory, {fold}: n {len(each)}, median error {percent(float(np.median(np.abs(each))))}, bias "
        f"{percent(float(np.median(each)))}"
        for fold, each in sorted(errors.items())
    ]
    return [*lines, f"of {len(rows)} rows that ran, by verdict: {dict(sorted(verdicts.items()))}"]


if __name__ == "__main__":
    main()
