from parbench.results.judged_cells import judge_cells
from parbench.verdict.warnings import warnings_on
from tests.support.records import cell, job, rank, reference, run, trial


def warnings_of(count=5, **changes):
    single, ddp = cell(), cell("ddp", 2)
    trials = [trial(single, number) for number in range(count)]
    trials += [trial(ddp, number, ranks=(rank(jobs=(job(**changes),)),)) for number in range(count)]
    return [
        (each.text, [of.record.label for of in each.cells])
        for each in warnings_on(judge_cells(run([single, ddp], [reference(single), *trials], rounds=count)))
    ]


def test_five_rounds_of_ten_steady_steps_carry_no_warning():
    assert warnings_of() == []
    assert list(warnings_on(judge_cells(run([cell(reason="no")])))) == []


def test_fewer_than_five_rounds_carry_one():
    ((text, cells),) = warnings_of(4)
    assert text.startswith("Only 4 rounds: intervals are wide")
    assert cells == []
    assert warnings_of(1)[0][0].startswith("Only 1 round: intervals are missing")


def test_windows_of_fewer_than_ten_steps_carry_one():
    ((text, cells),) = warnings_of(steps=9)
    assert text.startswith("Windows of fewer than 10 steps")
    assert cells == ["ddp"]


def test_step_times_that_were_not_steady_carry_one():
    ((text, cells),) = warnings_of(steady=False)
    assert text.startswith("Step times were not steady")
    assert cells == ["ddp"]
