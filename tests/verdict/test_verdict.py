import pytest

from parbench.records.trial import MemoryRecord, TrafficRecord
from parbench.results.judged_cells import judge_cells
from parbench.verdict.candidates import panels_of
from parbench.verdict.frontier import frontier
from parbench.verdict.lines import listing, phrase
from parbench.verdict.verdict import verdict_on, verdicts_on
from tests.support.records import cell, job, rank, reference, run, trial

CALM = (1.0, 1.01, 0.99, 1.01, 0.99)
OTHERWISE = (0.99, 1.0, 1.01, 0.99, 1.01)
WILD = (1.0, 1.2, 0.8, 1.3, 0.7)
SINGLE, DDP, OTHER = cell(), cell("ddp", 2), cell("other", 2)


def rounds(of, window_s, spread=CALM, *, memory=None, models=1, **changes):
    """Rounds of a cell, whose windows differ a little."""
    memory_spread = reversed(spread)
    for number, (factor, size) in enumerate(zip(spread, memory_spread, strict=True)):
        jobs = tuple(job(model, window_s=window_s * factor / models, **changes) for model in range(models))
        record = MemoryRecord(resident_growth=None if memory is None else int(memory * 2**20 * size))
        yield trial(of, number, ranks=(rank(jobs=jobs, memory=record),))


def verdict_of(cells, trials, *, count=5, **options):
    judged = judge_cells(run(cells, [reference(cells[0]), *trials], rounds=count))
    (panel,) = panels_of(judged)
    return verdict_on(panel, **options)


def texts_of(cells, trials, **options):
    return {line.kind: line.text for line in verdict_of(cells, trials, **options).lines}


SINGLE_TRIALS = list(rounds(SINGLE, 2.0, OTHERWISE, memory=100))


def test_the_fastest_is_named_with_its_speedup_interval_and_memory():
    verdict = verdict_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 1.0, OTHERWISE, memory=130)])
    # In round 0 both are 1 % faster, and so on: the ratio is 2 in every round.
    assert verdict.lines[0].text == (
        "On 2 CPU devices, ddp trains lstm fastest: 2.00× over one device, at 1.30× its memory per rank."
    )
    assert verdict.recommended.record == DDP
    assert verdict.title == "lstm, strong scaling"


def test_what_cannot_be_told_apart_is_said_with_the_difference_that_would_have_been_seen():
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.0, CALM), *rounds(OTHER, 1.005, OTHERWISE)]
    verdict = verdict_of([SINGLE, DDP, OTHER], trials)
    first = verdict.lines[0].text
    assert first.startswith("ddp on 2 with 2.00× [1.95, 2.05] and other on 2 with 1.99× cannot be told apart as the ")
    assert first.endswith("; a difference of 2 % would have been seen in 8 of 10 such runs.")
    assert verdict.recommended.record == DDP
    assert "losers" not in {line.kind for line in verdict.lines}


def test_ties_span_device_counts_of_one_strategy_and_the_fewest_devices_are_recommended():
    four = cell("ddp", 4)
    trials = [*SINGLE_TRIALS, *rounds(four, 0.995, CALM), *rounds(DDP, 1.0, OTHERWISE)]
    verdict = verdict_of([SINGLE, DDP, four], trials)
    assert [each.record for each in verdict.standing.leaders] == [four, DDP]
    assert "ddp on 4 with 2.01× [1.96, 2.06] and ddp on 2 with 2.00× cannot be told apart" in verdict.lines[0].text
    assert verdict.recommended.record == DDP


def test_few_rounds_of_many_cells_tell_15_percent_apart():
    # The ratio of the two within three rounds is 1.16 [0.96, 1.40].
    first, second = (1.0, 1.03, 0.96), (1.0, 0.97, 1.05)
    many = [cell(f"more{number}", 2) for number in range(6)]
    spreads = [
        (1.02, 0.99, 0.98),
        (0.98, 1.0, 1.02),
        (1.0, 1.02, 0.99),
        (0.99, 0.97, 1.03),
        (1.03, 1.0, 0.98),
        CALM[:3],
    ]
    trials = [*rounds(SINGLE, 2.0, CALM[:3]), *rounds(DDP, 1.0, first), *rounds(OTHER, 1.15, second)]
    few = verdict_of([DDP, OTHER], trials, count=3)
    trials += [each for of, spread in zip(many, spreads, strict=True) for each in rounds(of, 1.6, spread)]
    verdict = verdict_of([SINGLE, DDP, OTHER, *many], trials, count=3)
    assert [each.record for each in verdict.standing.leaders] == [DDP]
    assert [each.record for each in few.standing.leaders] == [DDP, OTHER]


@pytest.mark.parametrize("note", ["emulated", "oversubscribed"])
def test_what_a_user_cannot_use_never_wins_but_is_named_where_it_looks_faster(note):
    ghost = cell("ghost", 2, **{note: True})
    verdict = verdict_of([SINGLE, DDP, ghost], [*SINGLE_TRIALS, *rounds(DDP, 1.0), *rounds(ghost, 0.5, OTHERWISE)])
    assert verdict.recommended.record == DDP
    assert verdict.lines[0].text.startswith("On 2 CPU devices, ddp trains lstm fastest")
    assert verdict.lines[-1].text == f"Not ranked: 1 {note} (ghost on 2 with 4.00×); the table has the reasons."
    slow = verdict_of([SINGLE, DDP, ghost], [*SINGLE_TRIALS, *rounds(DDP, 1.0), *rounds(ghost, 1.5)])
    assert slow.lines[-1].text == f"Not ranked: 1 {note}; the table has the reasons."


def test_what_computes_something_else_is_named_beside_the_winner():
    loose = cell("loose", 2, exact=False)
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.5), *rounds(loose, 0.5, OTHERWISE, losses=(5.5, 5.0, 4.5, 4.0, 3.5))]
    verdict = verdict_of([SINGLE, DDP, loose], trials)
    assert verdict.recommended.record == DDP
    assert "1 inexact (loose on 2 with 4.00×)" in verdict.lines[-1].text


def test_several_models_at_once_are_no_rival_of_one_model():
    pool = cell("pool", 2, models=2)
    expected = reference(SINGLE, ranks=(rank(jobs=(job(0), job(1))),))
    judged = judge_cells(
        run([SINGLE, DDP, pool], [expected, *SINGLE_TRIALS, *rounds(pool, 2.0, OTHERWISE, models=2), *rounds(DDP, 1.5)])
    )
    verdict = verdict_on(judged)
    assert verdict.recommended.record == DDP
    assert "1 with several models (pool on 2 with 2.00× in sum)" in verdict.lines[-1].text


def test_a_cell_of_undecided_or_wrong_parity_never_wins():
    unproven = cell("unproven", 2, reference="never computed", proofs=())
    wrong = cell("wrong", 2)
    trials = [
        *SINGLE_TRIALS,
        *rounds(DDP, 1.5),
        *rounds(unproven, 0.5, OTHERWISE),
        *rounds(wrong, 0.5, losses=(9.0,) * 5),
    ]
    verdict = verdict_of([SINGLE, DDP, unproven, wrong, cell("absent", 2, reason="no")], trials)
    assert verdict.recommended.record == DDP
    assert verdict.lines[-1].text == (
        "Not ranked: 1 of undecided parity (unproven on 2 with 4.00×), 1 not comparable and 1 skipped; the table has "
        "the reasons."
    )


def test_cells_on_emulated_hosts_are_compared_with_each_other():
    remote = cell("ddp", 2, nodes=2)
    verdict = verdict_of([SINGLE, remote], [*SINGLE_TRIALS, *rounds(remote, 1.0)], emulated_hosts=True)
    assert verdict.recommended.record == remote
    assert verdict.lines[-1].text.startswith("All hosts are emulated")


def test_nothing_is_faster_than_one_device():
    slow = verdict_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 4.0)])
    assert slow.lines[0].text == "No strategy is faster than one device at training lstm."
    assert slow.recommended.record == SINGLE
    level = verdict_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 1.98, WILD)])
    assert level.lines[0].text.startswith(
        "No strategy is measurably faster than one device at training lstm: the best "
    )
    assert "ddp on 2 with 1.04×" in level.lines[0].text
    assert "would have been seen in 8 of 10 such runs" in level.lines[0].text
    assert level.recommended.record == SINGLE


def test_those_behind_are_sorted_by_what_is_certain_and_say_what_they_lose():
    cells = [SINGLE, DDP, cell("half", 2), cell("same", 2), cell("slow", 2)]
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.0), *rounds(cells[2], 1.4), *rounds(cells[3], 2.0, (1.01, 1, 1, 0.99, 1))]
    trials += [
        trial(cells[4], number, ranks=(rank(jobs=(job(window_s=4.0 * factor, compute_s=2.0 * factor),)),))
        for number, factor in enumerate(CALM)
    ]
    line = texts_of(cells, trials)["losers"]
    behind, level, slower = line.split("; ")
    assert behind.startswith("Behind, but faster than one device: half on 2 with 1.43× [")
    assert level.startswith("not measurably faster than one device: same on 2 with 1.00× [")
    assert slower.startswith("slower than one device: slow on 2 with 0.50× [")
    assert slower.endswith("] (bubble 50 %).")


def test_what_is_communicated_is_the_loss_where_no_share_of_a_step_is_known():
    chatty = cell("chatty", 2)
    traffic = TrafficRecord(calls=104, given_bytes=50 * 2**20)
    trials = [
        trial(chatty, number, ranks=(rank(jobs=(job(window_s=4.0 * f),), traffic=traffic),))
        for number, f in enumerate(CALM)
    ]
    assert texts_of([SINGLE, chatty], [*SINGLE_TRIALS, *trials])["losers"].endswith("(50 MiB in 104 calls a step).")


def test_a_verdict_has_five_lines_however_many_cells_there_are():
    names = [f"strategy{number}" for number in range(40)]
    cells = [cell(name, 2, oversubscribed=number % 4 == 0, exact=number % 5 > 0) for number, name in enumerate(names)]
    trials = [
        each
        for number, of in enumerate(cells)
        for each in rounds(of, 1.0 + number / 20, CALM if number % 2 else OTHERWISE, memory=150 - 2 * number)
    ]
    verdict = verdict_of([SINGLE, *cells], [*SINGLE_TRIALS, *trials])
    assert [line.kind for line in verdict.lines] == ["fastest", "memory", "frontier", "losers", "unjudged"]
    assert max(len(line.text) for line in verdict.lines) < 400
    assert " and 1" in verdict.lines[2].text
    assert verdict.lines[2].text.endswith(" more.")


def test_the_least_memory_is_named_with_its_share_and_speed():
    trials = [*rounds(SINGLE, 2.0, memory=100), *rounds(DDP, 1.0, memory=80), *rounds(OTHER, 1.5, OTHERWISE, memory=50)]
    memory = texts_of([SINGLE, DDP, OTHER], trials)["memory"]
    assert memory.startswith(
        "other on 2 needs the least memory on a rank: 50 MiB, 0.50× that of one device, at a speed "
    )
    level = [*rounds(SINGLE, 2.0, memory=100), *rounds(DDP, 1.0, OTHERWISE, memory=99.9)]
    assert texts_of([SINGLE, DDP], level)["memory"] == (
        "No strategy needs measurably less memory on a rank than one device: 100 MiB."
    )
    assert "memory" not in texts_of([SINGLE, DDP], [*rounds(SINGLE, 2.0), *rounds(DDP, 1.0)])


def test_the_frontier_is_what_saves_memory_step_by_step():
    sizes = {"fast": 100, "no": 120, "slim": 80, "fat": 90, "least": 50}
    assert frontier(list(sizes), lambda one, other: sizes[one] < sizes[other]) == ["fast", "slim", "least"]
    assert frontier([], lambda one, other: True) == []


def test_one_round_decides_nothing():
    verdict = verdict_of([SINGLE, DDP], [trial(SINGLE), trial(DDP, window_s=1.0)], count=1)
    assert verdict.lines[0].text == (
        "On 2 CPU devices, ddp was fastest at training lstm (2.00× over one device) in the only round: one launch "
        "cannot tell whether that is more than luck."
    )
    assert verdict.recommended is None
    slow = verdict_of([SINGLE, DDP], [trial(SINGLE), trial(DDP, window_s=4.0)], count=1)
    assert slow.lines[0].text == (
        "No strategy was faster than one device at training lstm in the only round: one launch cannot tell whether "
        "that is more than luck."
    )


def test_cells_that_share_no_round_cannot_be_compared():
    other = [each.model_copy(update={"round": each.round + 5}) for each in rounds(OTHER, 4.0)]
    verdict = verdict_of([DDP, OTHER], [*rounds(DDP, 1.0), *other])
    assert "shares too few rounds with the others, which cannot tell" in verdict.lines[0].text
    assert verdict.recommended is None


@pytest.mark.parametrize("count", [1, 3])
def test_a_cell_alone_is_faster_than_nothing(count):
    verdict = verdict_of([SINGLE], [trial(SINGLE, number) for number in range(count)], count=count)
    assert [line.text for line in verdict.lines] == [
        "On one CPU device, single trains lstm at 2,560 tokens/s; there is no other cell to compare it with."
    ]
    assert verdict.recommended.record == SINGLE


def test_without_a_reference_speeds_are_compared():
    verdict = verdict_of([DDP, OTHER], [*rounds(DDP, 1.0), *rounds(OTHER, 2.0)])
    assert verdict.lines[0].text.startswith("On 2 CPU devices, ddp trains lstm fastest: 5,1")
    assert verdict.lines[0].text.endswith("] tokens/s.")


def test_where_every_cell_failed_the_verdict_says_so():
    failed = [trial(of, status="out_of_memory", reason="no memory") for of in (SINGLE, DDP)]
    verdict = verdict_of([SINGLE, DDP], failed, count=1)
    assert [line.text for line in verdict.lines] == [
        "No cell of lstm can be ranked: 2 out of memory. The table has the reasons."
    ]
    assert verdict.recommended is None


def test_each_workload_phase_and_scaling_has_a_verdict_of_its_own():
    cells = [SINGLE, cell(workload="gpt"), cell(workload="gpt", phase="score"), cell("ddp", 2, scaling="weak")]
    titles = [verdict.title for verdict in verdicts_on(run(cells, [trial(each) for each in cells]))]
    assert titles == [
        "lstm, strong scaling",
        "gpt, strong scaling",
        "gpt (score), strong scaling",
        "lstm, weak scaling",
    ]


def test_long_listings_give_counts():
    words = [("a",), ("b",), ("c",), ("d",)]
    assert "".join(listing(words[:3])) == "a, b and c"
    assert "".join(listing(words)) == "a, b and 2 more"
    assert "".join(listing(words, 1)) == "4 more"
    assert phrase("{} on {}", ("x", "y"), "2") == ("x", "y", " on ", "2")
