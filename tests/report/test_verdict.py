import pytest

from parbench.records.trial import MemoryRecord
from parbench.report.panels import view_runs
from parbench.report.verdict import write_verdict
from tests.support.records import cell, job, rank, reference, run, trial

SPREAD = (0.98, 1.0, 1.02)


def rounds(of, window_s, *, spread=SPREAD, memory=None, models=1, losses=None):
    """Three rounds of a cell, whose windows differ a little."""
    changes = {} if losses is None else {"losses": losses}
    for number, factor in enumerate(spread):
        jobs = tuple(job(model, window_s=window_s * factor / models, **changes) for model in range(models))
        record = MemoryRecord(resident_growth=None if memory is None else int(memory * 2**20 * factor))
        yield trial(of, number, ranks=(rank(jobs=jobs, memory=record),))


def sentences_of(cells, trials, *, count=3):
    (view,) = view_runs([run(cells, [reference(cells[0]), *trials], rounds=count)])
    return [str(sentence.striptags()) for sentence in write_verdict(view.panels[0])]


SINGLE, DDP, OTHER = cell(), cell("ddp", 2), cell("other", 2)
SINGLE_TRIALS = list(rounds(SINGLE, 2.0))


def test_the_fastest_is_named_with_its_speedup_interval_and_memory():
    single = rounds(SINGLE, 2.0, memory=100)
    # In round 0 both are 2 % faster, and so on: the ratio is 2 in every round.
    first, *_ = sentences_of([SINGLE, DDP], [*single, *rounds(DDP, 1.0, memory=130)])
    assert first == "On 2 CPU devices, ddp trains lstm fastest: 2.00× over one device, at 1.30× its memory per rank."


def test_an_interval_stands_beside_a_ratio_that_varies():
    first, *_ = sentences_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 1.0, spread=(1.0, 1.0, 1.0))])
    assert first == "On 2 CPU devices, ddp trains lstm fastest: 2.00× [1.90, 2.10] over one device."


def test_a_ratio_within_rounds_that_may_be_1_is_a_tie():
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.0, spread=(1, 1.1, 1.2)), *rounds(OTHER, 1.02, spread=(1.1, 1, 1.2))]
    first, *rest = sentences_of([SINGLE, DDP, OTHER], trials)
    assert first.startswith("On 2 CPU devices, ddp and other tie for fastest at training lstm with 1.8")
    assert first.endswith("over one device: the first is not measurably faster.")
    assert not any("Behind" in sentence for sentence in rest)


def test_what_is_faster_within_every_round_is_no_tie_though_intervals_overlap():
    # Rounds differ by a third, which both share: in each of them ddp is faster by 10 to 12 %.
    trials = [
        *SINGLE_TRIALS,
        *rounds(DDP, 1.0, spread=(1.0, 1.15, 1.3)),
        *rounds(OTHER, 1.0, spread=(1.1, 1.28, 1.45)),
    ]
    first, second, *_ = sentences_of([SINGLE, DDP, OTHER], trials)
    assert first.startswith("On 2 CPU devices, ddp trains lstm fastest: 1.7")
    assert "other on 2 with 1.5" in second


def test_where_rounds_are_not_shared_overlapping_intervals_are_a_tie():
    ddp = list(rounds(DDP, 1.0, spread=(1, 1.1, 1.2)))
    other = [each.model_copy(update={"round": each.round + 3}) for each in rounds(OTHER, 1.0, spread=(1.1, 1.2, 1.3))]
    assert "ddp and other tie" in sentences_of([DDP, OTHER], [*ddp, *other])[0]
    apart = [each.model_copy(update={"round": each.round + 3}) for each in rounds(OTHER, 4.0)]
    assert sentences_of([DDP, OTHER], [*ddp, *apart])[0].startswith("On 2 CPU devices, ddp trains lstm fastest")


def test_nothing_is_faster_than_one_device():
    sentences = sentences_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 4.0, spread=(1, 1, 1))])
    assert sentences[0] == "No strategy is faster than one device at training lstm."
    assert sentences[1].startswith("Slower than one device: ddp on 2 with 0.50× [")
    first, *_ = sentences_of([SINGLE, DDP], [*SINGLE_TRIALS, *rounds(DDP, 1.98, spread=(1.1, 0.9, 1.0))])
    assert first.startswith("No strategy is measurably faster than one device at training lstm: the best is ddp on 2")


def test_those_behind_are_sorted_by_what_is_certain():
    cells = [SINGLE, DDP, cell("half", 2), cell("same", 2), cell("slow", 2)]
    windows = {"ddp": 1.0, "half": 1.4, "same": 2.0, "slow": 3.0}
    varied = (1.0, 1.0, 1.01)
    trials = [each for of in cells[1:] for each in rounds(of, windows[of.strategy], spread=varied)]
    sentences = sentences_of(cells, [*SINGLE_TRIALS, *trials])
    assert sentences[1].startswith("Behind, but faster than one device: half on 2 with 1.42× [")
    assert sentences[2].startswith("Not measurably faster than one device: same on 2 with 1.00× [")
    assert sentences[3].startswith("Slower than one device: slow on 2 with 0.66× [")


def test_what_is_lost_of_a_step_is_the_reason_where_it_was_measured():
    pipe = cell("pipe", 2)
    trials = [
        trial(pipe, number, ranks=(rank(jobs=(job(window_s=4.0 * factor, compute_s=2.0 * factor),)),))
        for number, factor in enumerate((1.0, 1.01, 0.99))
    ]
    sentences = sentences_of([SINGLE, pipe], [*SINGLE_TRIALS, *trials])
    assert sentences[1].startswith("Slower than one device: pipe on 2 with 0.50× [")
    assert sentences[1].endswith("] because of bubble 50 %.")


def test_several_models_at_once_are_no_rival_of_one_model():
    pool = cell("pool", 2, models=2)
    expected = reference(SINGLE, ranks=(rank(jobs=(job(0), job(1))),))
    trials = [expected, *SINGLE_TRIALS, *rounds(pool, 2.0, models=2), *rounds(DDP, 1.5)]
    (view,) = view_runs([run([SINGLE, DDP, pool], trials, rounds=3)])
    sentences = [str(sentence.striptags()) for sentence in write_verdict(view.panels[0])]
    assert sentences[0].startswith("On 2 CPU devices, ddp trains lstm fastest")
    assert "On 2 CPU devices, pool trains 2 independent models at once: in sum 2.00× over one device." in sentences


def test_what_computes_something_else_is_never_called_fastest():
    loose = cell("loose", 2, exact=False)
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.5), *rounds(loose, 0.5, losses=(5.5, 5.0, 4.5, 4.0, 3.5))]
    sentences = sentences_of([SINGLE, DDP, loose], trials)
    assert sentences[0].startswith("On 2 CPU devices, ddp trains lstm fastest")
    assert any("loose reaches 4.00×" in each and "does not compute what the reference" in each for each in sentences)


def test_a_cell_with_other_losses_is_in_no_ranking_and_counted():
    wrong = cell("wrong", 2)
    trials = [*SINGLE_TRIALS, *rounds(DDP, 1.5), *rounds(wrong, 0.5, losses=(9.0,) * 5)]
    sentences = sentences_of([SINGLE, DDP, wrong, cell("absent", 2, reason="no")], trials)
    assert sentences[0].startswith("On 2 CPU devices, ddp")
    assert sentences[-1] == "Left out of this: 1 not comparable and 1 skipped; the table says why."


def test_one_round_decides_nothing():
    first, *_ = sentences_of([SINGLE, DDP], [trial(SINGLE), trial(DDP, window_s=1.0)], count=1)
    assert "in the only round: one launch cannot tell whether that is more than luck" in first


def test_one_device_that_was_fastest_in_one_round_is_not_compared_with_itself():
    first, *_ = sentences_of([SINGLE, DDP], [trial(SINGLE), trial(DDP, window_s=4.0)], count=1)
    assert first == (
        "No strategy was faster than one device at training lstm in the only round: one launch cannot tell whether "
        "that is more than luck."
    )


@pytest.mark.parametrize("count", [1, 3])
def test_a_cell_alone_is_faster_than_nothing(count):
    first, *_ = sentences_of([SINGLE], [trial(SINGLE, number) for number in range(count)], count=count)
    assert first == (
        "On one CPU device, single trains lstm at 2,560 tokens/s; there is no other cell to compare it with."
    )


def test_without_a_reference_speeds_are_compared():
    first, *_ = sentences_of([DDP, OTHER], [*rounds(DDP, 1.0), *rounds(OTHER, 2.0)])
    assert first.startswith("On 2 CPU devices, ddp trains lstm fastest: 5,1")
    assert first.endswith("tokens/s.")


def test_where_every_cell_failed_the_verdict_says_so():
    failed = [trial(of, status="out_of_memory", reason="no memory") for of in (SINGLE, DDP)]
    assert sentences_of([SINGLE, DDP], failed, count=1) == [
        "No cell of lstm can be ranked: 2 out of memory. The table gives each one's reason."
    ]


def test_the_least_memory_is_named_only_where_it_is_certain():
    def about_memory(memory):
        trials = [*rounds(SINGLE, 2.0, memory=100), *rounds(DDP, 1.0, memory=memory)]
        return [each for each in sentences_of([SINGLE, DDP], trials) if "least memory" in each]

    assert about_memory(50) == ["ddp on 2 needs the least memory on a rank: 50 MiB, 0.50× that of one device."]
    assert about_memory(99) == []


def test_names_are_escaped():
    hostile = "</script><script>alert(1)</script>"
    single, ddp = cell(workload=hostile), cell("ddp", 2, workload=hostile, label=hostile)
    (view,) = view_runs([run([single, ddp], [reference(single), *rounds(single, 2.0), *rounds(ddp, 1.0)], rounds=3)])
    html = " ".join(write_verdict(view.panels[0]))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
