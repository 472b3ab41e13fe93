"""Runs of one scenario in one environment, by the same code, are sessions that are pooled into one table."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from parbench.figures.definitions import FIGURES
from parbench.figures.speed import tokens_per_s
from parbench.figures.statistics import RoundId, summarise
from parbench.results.judged_cells import judge_cells
from parbench.results.sessions import count_rounds, pool_sessions, say_coverage, what_differs
from parbench.results.store import Run, Store, read_run
from parbench.results.tables import cells_table
from parbench.verdict.verdict import verdicts_on
from tests.conftest import CommandLine
from tests.support import records
from tests.support.records import LOSSES, cell, job, rank, reference, run_record, trial

SINGLE, DDP = cell(), cell("ddp", 2)
CODE = "the code"
STORED = sorted((Path(__file__).parents[2] / "results" / "stored").glob("*/run.json"))


def session(name: str, single: tuple[float, ...], ddp: tuple[float, ...], *more, **changes) -> Run:
    """A session whose cells' windows took so long in each round."""
    trials = [trial(SINGLE, number, window_s=window_s) for number, window_s in enumerate(single)]
    trials += [trial(DDP, number, window_s=window_s) for number, window_s in enumerate(ddp)]
    trials = [each.model_copy(update={"code": CODE}) for each in (reference(SINGLE), *trials, *more)]
    fields = {"id": name, "code": CODE, "rounds": len(single), "scenario": {"name": "made_up", "measure": {}}}
    record = run_record([SINGLE, DDP]).model_copy(update={**fields, **changes})
    return Run(Path(name), record, tuple(trials), ())


def monday(**changes) -> Run:
    return session("monday", (2.0, 2.0), (1.0, 1.0), **changes)


def tuesday(**changes) -> Run:
    return session("tuesday", (4.0, 4.0), (1.6, 1.6), **changes)


def test_sessions_are_one_run_whose_rounds_are_paired_within_their_session() -> None:
    (pooled,) = pool_sessions([monday(), tuesday()])
    single, ddp = judge_cells(pooled)
    assert ddp.values_by_round(FIGURES["speedup"]) == pytest.approx(
        {RoundId(0, 0): 2.0, RoundId(0, 1): 2.0, RoundId(1, 0): 2.5, RoundId(1, 1): 2.5}
    )
    assert set(single.values_by_round(FIGURES["speedup"]).values()) == {1.0}
    row = cells_table(pooled).to_dict(orient="records")[1]
    # The sessions' means are 2 and 2.5: by hand, Student's t of one degree of freedom is 12.706.
    center, error = math.log(5.0) / 2, math.log(1.25) / 2
    assert row["speedup"] == pytest.approx(math.exp(center))
    assert row["speedup_ci_low"] == pytest.approx(math.exp(center - 12.7062047 * error))
    assert row["speedup_ci_high"] == pytest.approx(math.exp(center + 12.7062047 * error))
    assert (row["rounds"], row["launches"], row["sessions"]) == (4, 4, 2)
    # Tokens/s are 5,120 on one day and 3,200 on the other, in every round.
    assert row["between_sessions"] == pytest.approx(math.log(1.6) / math.sqrt(2))


def test_a_session_with_more_rounds_counts_no_more_than_another() -> None:
    short, long = session("short", (2.0,), (1.0,)), session("long", (2.0,) * 3, (0.5,) * 3)
    (pooled,) = pool_sessions([short, long])
    assert cells_table(pooled).to_dict(orient="records")[1]["speedup"] == pytest.approx(math.sqrt(2 * 4))
    assert count_rounds(pooled) == "2 sessions, 1 to 3 rounds each"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"scenario": {"name": "made_up", "measure": {"window_s": 9.0}}}, "scenario"),
        ({"environment_digest": "another"}, "environment"),
        ({"code": "other code"}, "code"),
        ({"launcher": "torchrun"}, "launcher"),
        ({"cells": (SINGLE,)}, "cells"),
    ],
)
def test_what_is_no_session_stays_apart(changes, difference: str) -> None:
    runs = [monday(), tuesday(**changes)]
    assert pool_sessions(runs) == runs
    assert what_differs(*runs) == [difference]


def test_code_that_is_not_known_may_be_any_code_so_that_two_arms_are_never_pooled() -> None:
    runs = [monday(code=""), tuesday(code="")]
    assert pool_sessions(runs) == runs
    assert what_differs(*runs) == ["code, which is not known"]


def test_a_run_that_is_given_twice_is_no_second_session() -> None:
    assert pool_sessions([monday(), monday()]) == [monday(), monday()]


def test_sessions_among_other_runs_take_the_place_of_the_first_of_them() -> None:
    other = session("other", (1.0,), (1.0,), environment_digest="another")
    first, second = pool_sessions([monday(), other, tuesday()])
    assert [each.record.id for each in first.sessions] == ["monday", "tuesday"]
    assert second == other


def test_sessions_may_differ_in_their_number_of_rounds() -> None:
    runs = [monday(scenario={"measure": {"rounds": 2}}), tuesday(scenario={"measure": {"rounds": 7}}, rounds=7)]
    assert len(pool_sessions(runs)) == 1


def test_sessions_may_differ_in_the_price_of_a_device_and_runs_of_older_versions_have_none() -> None:
    scenario = {"name": "made_up", "measure": {}}
    for cost in ({}, {"cost": None}, {"cost": {"per_device_hour": 2.5, "currency": "USD"}}):
        assert what_differs(monday(), tuesday(scenario={**scenario, **cost})) == []


def test_the_worst_of_all_sessions_counts_and_its_reason_names_the_session() -> None:
    wrong = (rank(jobs=(job(losses=tuple(loss + 1 for loss in LOSSES)),)),)
    bad = session("bad", (2.0, 2.0), (1.0,), trial(DDP, 1, ranks=wrong))
    died = session("died", (2.0, 2.0), (1.0,), trial(DDP, 1, status="killed", reason="fell over"))
    for other, status, word, reason in (
        (bad, "ok", "failed", "bad: not comparable"),
        (died, "killed", "ok", "died: fell over (1 of 2 rounds)"),
    ):
        single, ddp = judge_cells(pool_sessions([monday(), other])[0])
        assert (ddp.status, ddp.parity.word) == (status, word)
        assert ddp.reason.startswith(reason)
        assert not ddp.comparable
        assert ddp.base is None
        assert single.comparable
        assert single.reason is None


def test_what_a_plan_skips_has_one_reason_in_all_sessions() -> None:
    skipped = cell("fsdp", 2, reason="no room")
    (pooled,) = pool_sessions([monday(cells=(SINGLE, skipped)), tuesday(cells=(SINGLE, skipped))])
    assert [(each.status, each.reason) for each in judge_cells(pooled)] == [("ok", None), ("skipped", "no room")]


def test_what_is_faster_in_every_round_of_one_day_and_slower_on_another_is_not_surely_faster() -> None:
    runs = [
        session("fast", (2.0, 2.1, 2.0, 2.1), (1.0, 1.05, 1.0, 1.05)),
        session("slow", (2.0, 2.1, 2.0, 2.1), (1.9, 2.0, 1.9, 2.0)),
    ]
    (pooled,) = pool_sessions(runs)
    for run, leaders in ((runs[0], 1), (pooled, 2)):
        (verdict,) = verdicts_on(run)
        assert len(verdict.standing.leaders) == leaders


def test_intervals_say_what_they_cover() -> None:
    (pooled,) = pool_sessions([monday(), tuesday()])
    assert say_coverage(monday()).startswith("Intervals cover one session (2 rounds), not what differs from day to day")
    assert say_coverage(pooled) == (
        "Intervals cover differences between sessions (2 sessions, 2 rounds each: monday, tuesday)."
    )


def stored(run: Run, folder: Path) -> str:
    with Store.locked(folder / run.record.id) as store:
        store.begin(run.record)
        for each in run.trials:
            store.append(each)
    return str(folder / run.record.id)


def test_table_and_report_pool_sessions_unless_told_to_keep_them_apart(parbench: CommandLine) -> None:
    runs = [stored(run, parbench.folder) for run in (monday(), tuesday())]
    pooled, apart = parbench("table", *runs), parbench("table", *runs, "--each")
    assert pooled.stdout.count("Verdict on lstm") == 1
    assert "2 sessions, 2 rounds each: monday, tuesday" in pooled.stdout
    assert apart.stdout.count("Verdict on lstm") == 2
    assert apart.stdout.count("not what differs from day to day") == 2
    (single, ddp) = csv.DictReader(io.StringIO(parbench("table", *runs, "--format", "csv").stdout))
    assert (single["sessions"], ddp["sessions"], ddp["rounds"]) == ("2", "2", "4")
    refused = parbench("table", *runs, "--each", "--format", "json")
    assert refused.returncode == 2
    assert "--format json holds one table, and monday and tuesday are not pooled" in refused.stderr
    for flags, is_pooled in (((), True), (("--each",), False)):
        ended = parbench("report", *runs, "--out", "page", *flags)
        assert ended.returncode == 0, ended.stderr
        page = (parbench.folder / "page" / "index.html").read_text()
        assert ("2 sessions, 2 rounds each" in page) == is_pooled
        assert ("Runs compared" in page) != is_pooled


@pytest.mark.parametrize("path", STORED, ids=[path.parent.name for path in STORED])
def test_runs_with_one_launch_of_each_cell_a_round_have_the_numbers_of_their_launches(path: Path) -> None:
    whole = read_run(path.parent)
    run = replace(whole, trials=tuple(trial for trial in whole.trials if trial.repeat == 0))
    cells = judge_cells(run)
    for judged, row in zip(cells, cells_table(run).to_dict(orient="records"), strict=True):
        speeds = [tokens_per_s(trial, judged.record) for trial in judged.trials]
        if not speeds:
            continue
        assert row["tokens_per_s"] == summarise(speeds).mean
        if judged.base:
            base = {trial.round: tokens_per_s(trial, judged.base.record) for trial in judged.base.trials}
            ratios = [speed / base[trial.round] for speed, trial in zip(speeds, judged.trials, strict=True)]
            expected = summarise(ratios)
            assert (row["speedup"], row["speedup_ci_low"]) == (
                expected.mean,
                pytest.approx(expected.low) if expected.low else None,
            )


def test_hand_made_records_have_no_code() -> None:
    assert records.run().record.code == "", "so that reports of several of them stay side by side"
