"""The sentence on what the fastest cell on several devices loses, and what would win back most of it."""

import pytest

from parbench.records.account import Part
from parbench.records.trial import RankRecord, Trial
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run
from parbench.verdict.lines import Line
from parbench.verdict.losses import list_losses, named_losses, say_losses
from parbench.verdict.verdict import verdicts_on
from tests.support.records import cell
from tests.support.waterfalls import COMPANIONS, DDP, explained


def ddp(run: Run) -> JudgedCell:
    return judge_cells(run)[1]


def said(run: Run) -> str:
    return Line("fastest", say_losses(ddp(run), ("It",))).text


def test_the_largest_losses_are_named_and_what_would_win_back_the_largest() -> None:
    assert said(explained()) == (
        "It loses 0.56× of 2×: 0.27 to 2.3 MiB of all-reduce that nothing overlaps, 0.10 to the smaller batch and 0.09 "
        "to the pipeline's bubble; fewer bytes, or exchanges while something is computed, would win back most."
    )


BUSY: dict[Part, float] = {"forward": 1.0}


@pytest.mark.parametrize(
    ("changes", "lost", "advice"),
    [
        ({"alone": 0.7, "together": 1.4}, "0.60 to the smaller batch", "a larger batch"),
        ({"alone": 1.0, "together": 1.4}, "0.60 to contention for memory and cores", "devices that share less"),
        ({"alone": 1.0, "together": 2.0}, "0.60 to what the strategy adds", "parbench run --trace"),
        ({"alone": None}, "0.60 to a smaller batch, contention and the rest", "measure.explain: true"),
        (
            {"alone": 1.0, "together": 2.0, "parts": {"forward": 0.7, "data": 0.3}},
            "0.60 to waiting for data",
            "in time",
        ),
        (
            {"alone": 1.0, "together": 2.0, "parts": {"forward": 0.7, "pipeline": 0.3}},
            "0.60 to the pipeline's bubble",
            "more micro-batches",
        ),
    ],
)
def test_every_loss_has_words_and_an_advice(changes, lost, advice) -> None:
    sentence = said(explained(**{"measured": 1.4, "parts": BUSY, **changes}))
    assert f"It loses 0.60× of 2×: {lost}" in sentence
    assert advice in sentence


def test_small_losses_and_gains_are_not_named() -> None:
    # In the rounds together, the batch wins 0.1, contention takes 0.24 and the rest 0.01.
    run = explained(measured=1.85, alone=1.05, together=1.86, parts=BUSY, spread=(1.0,) * 5)
    assert [loss for loss, _ in named_losses(ddp(run))] == ["contention"]


def test_what_may_be_luck_is_not_named() -> None:
    wild = explained(measured=1.7, alone=1.0, together=1.9, parts=BUSY, spread=(1.0, 1.15, 0.85, 1.1, 0.9))
    # The cell's own speed varies, and with it what nothing explains; its companions do not.
    assert [loss for loss, _ in named_losses(ddp(wild))] == ["contention"]
    assert list_losses(ddp(wild)) == ("0.10 to contention for memory and cores",)
    one = explained(spread=(1.0,))
    assert said(one) == "It loses 0.56× of 2×, and so few rounds do not tell to what."
    assert list_losses(ddp(one)) == ()


def test_what_loses_nothing_or_is_not_explained_has_no_sentence() -> None:
    assert said(explained(measured=1.99)) == ""
    assert said(explained(alone=None, parts=None)) == ""
    assert list_losses(ddp(explained(alone=None, parts=None))) == ()


def test_the_first_line_of_the_verdict_says_it_of_the_fastest_cell_on_several_devices() -> None:
    (verdict,) = verdicts_on(explained())
    first = verdict.lines[0].text
    assert first.startswith("On 2 CPU devices, ddp trains lstm fastest: 1.44×")
    assert " over one device. It loses 0.56× of 2×: 0.27 to 2.3 MiB of all-reduce" in first


def test_where_one_device_is_fastest_the_best_of_the_others_is_explained() -> None:
    (slow,) = verdicts_on(explained(measured=0.7))
    first, last = slow.lines[0].text, slow.lines[-1].text
    assert first.startswith("No strategy is faster than one device at training lstm. ddp on 2 loses 1.30× of 2×: 0.98 ")
    assert last == "Slower than one device: ddp on 2 with 0.70× [0.69, 0.71]."


def test_those_behind_are_listed_with_what_they_lose() -> None:
    run, late = explained(), cell("late", 2, companions=COMPANIONS)
    behind = [
        trial.model_copy(update={"key": late.key, "ranks": slowed(trial)})
        for trial in run.trials
        if trial.key == DDP.key
    ]
    record = run.record.model_copy(update={"cells": (*run.record.cells, late)})
    (verdict,) = verdicts_on(Run(run.folder, record, (*run.trials, *behind), ()))
    assert "ddp trains lstm fastest" in verdict.lines[0].text
    assert verdict.lines[-1].text.endswith(
        "late on 2 with 1.20× [1.19, 1.21] (it loses 0.35 to what the strategy adds or nothing explains and "
        "0.22 to 2.3 MiB of all-reduce that nothing overlaps)."
    )


def slowed(of: Trial) -> tuple[RankRecord, ...]:
    """The ranks, whose windows take a fifth longer."""
    return tuple(
        rank.model_copy(
            update={"jobs": tuple(job.model_copy(update={"window_s": 1.2 * job.window_s}) for job in rank.jobs)}
        )
        for rank in of.ranks
    )


def test_one_round_explains_nothing() -> None:
    (verdict,) = verdicts_on(explained(spread=(1.0,)))
    assert "loses" not in " ".join(line.text for line in verdict.lines)
