"""Sessions: runs of one scenario that are pooled, so that intervals cover what differs from day to day."""

from collections.abc import Sequence
from typing import Any

from parbench.results.store import Run
from parbench.text import plain


def pool_sessions(runs: Sequence[Run]) -> list[Run]:
    """The runs, with those that are sessions of each other as one, in the place of the first of them.

    A run that is given twice is no second session.
    """
    groups: list[list[Run]] = []
    for run in runs:
        fitting = (group for group in groups if not what_differs(group[0], run) and not _holds(group, run))
        if group := next(fitting, None):
            group.append(run)
        else:
            groups.append([run])
    return [_pooled(group) if len(group) > 1 else group[0] for group in groups]


def what_differs(one: Run, other: Run) -> list[str]:
    """What keeps two runs from being sessions of each other, in words; empty where nothing does.

    The number of rounds may differ. Code that is not known, as of the arms of a comparison, may be any code.
    """
    first, second = _identity(one), _identity(other)
    differing = [name for name, value in first.items() if value != second[name]]
    return differing + ["code, which is not known"] * (not one.record.code or not other.record.code)


def count_rounds(run: Run) -> str:
    """The number of rounds and, where several sessions are pooled, of sessions: `3 sessions, 5 rounds each`."""
    fewest, most = (choice(session.record.rounds for session in run.sessions) for choice in (min, max))
    rounds = f"{most} round{'s' * (most != 1)}" if fewest == most else f"{fewest} to {most} rounds"
    return f"{len(run.sessions)} sessions, {rounds} each" if len(run.sessions) > 1 else rounds


def say_coverage(run: Run) -> str:
    """A sentence on what the intervals of a run cover, without control characters."""
    if len(run.sessions) > 1:
        names = ", ".join(plain(session.record.id) for session in run.sessions)
        return f"Intervals cover differences between sessions ({count_rounds(run)}: {names})."
    return (
        f"Intervals cover one session ({count_rounds(run)}), not what differs from day to day: "
        "parbench table RUN RUN pools sessions."
    )


def _pooled(runs: Sequence[Run]) -> Run:
    """Several sessions as one run: the trials and problems of all of them, and what they have in common."""
    first = runs[0]
    update = {
        "id": " + ".join(run.record.id for run in runs),
        "rounds": min(run.record.rounds for run in runs),
    }
    return Run(
        folder=first.folder,
        record=first.record.model_copy(update=update),
        trials=tuple(trial for run in runs for trial in run.trials),
        problems=tuple(f"{run.record.id}: {problem}" for run in runs for problem in run.problems),
        pooled=tuple(runs),
    )


def _identity(run: Run) -> dict[str, Any]:
    """What sessions have in common, by its name in sentences."""
    record = run.record
    scenario = {name: value for name, value in record.measured_scenario.items() if name != "measure"}
    measure = {name: value for name, value in (record.scenario.get("measure") or {}).items() if name != "rounds"}
    return {
        "scenario": (scenario, measure),
        "data": {name: corpus.sha256 for name, corpus in record.corpora.items()},
        "cells": [(cell.id, cell.key) for cell in record.cells],
        "environment": record.environment_digest,
        "code": record.code,
        "launcher": record.launcher,
        "nodes": [(node.mbit, node.link) for node in record.nodes],
    }


def _holds(group: Sequence[Run], run: Run) -> bool:
    """Whether a run is among others. Folders, and so ids, are used again; the moment tells runs apart."""
    moments = [(each.record.id, each.record.created_at) for each in group]
    return (run.record.id, run.record.created_at) in moments
