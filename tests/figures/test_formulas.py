import math

import pytest

from parbench.figures import memory, speed, utilisation
from parbench.figures.base import Launch
from parbench.figures.definitions import FIGURES
from parbench.figures.losses import job_losses, validation_perplexity
from parbench.records.trial import DeviceMemory, MemoryRecord
from parbench.results import deviations
from tests.support.records import LOSSES, cell, job, rank, trial

CELL = cell(global_batch=8, seq_len=64)


def cuda(*allocated: int) -> MemoryRecord:
    devices = tuple(DeviceMemory(allocated_peak=peak, reserved_peak=10 * peak) for peak in allocated)
    return MemoryRecord(resident_growth=10**9, devices=devices)


def shards(*losses: tuple[float, ...]):
    """A trial of one model whose ranks hold these losses, a shard each."""
    return trial(ranks=tuple(rank(number, jobs=(job(losses=each),)) for number, each in enumerate(losses)))


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        pytest.param([rank(jobs=(job(steps=10, window_s=2.0),))], 10 * 8 * 64 / 2, id="one model"),
        pytest.param(
            [rank(jobs=(job(0, steps=10, window_s=2.0), job(1, steps=10, window_s=3.0)))],
            2 * 10 * 8 * 64 / 5,
            id="two models one after another",
        ),
        pytest.param(
            [rank(0, jobs=(job(steps=10, window_s=2.0),)), rank(1, jobs=(job(steps=10, window_s=4.0),))],
            10 * 8 * 64 / 4,
            id="two shards of one model count once, in the slower rank's window",
        ),
        pytest.param(
            [
                rank(0, jobs=(job(0, window_s=2.0), job(2, window_s=2.5))),
                rank(1, jobs=(job(1, window_s=4.0),)),
            ],
            3 * 10 * 8 * 64 / 4.5,
            id="three models in two lanes",
        ),
    ],
)
def test_tokens_per_second_are_all_models_tokens_over_the_slowest_ranks_window(ranks, expected):
    assert speed.tokens_per_s(trial(ranks=tuple(ranks)), CELL) == pytest.approx(expected)


def test_tokens_per_second_grow_with_the_batch_and_the_sequence():
    assert speed.tokens_per_s(trial(), cell(global_batch=32, seq_len=128)) == pytest.approx(10 * 32 * 128 / 2)


def test_the_step_beside_tokens_per_second_is_the_window_over_its_steps():
    rare = job(steps=10, window_s=2.0, step_times_s=(0.1,) * 9 + (1.1,))
    assert speed.mean_step_s(trial(ranks=(rank(jobs=(rare,)),))) == pytest.approx(0.2)
    assert speed.step_time_s(trial(ranks=(rank(jobs=(rare,)),))) == 0.1
    slow = rank(1, jobs=(job(0, steps=4, window_s=2.0), job(1, steps=6, window_s=4.0)))
    assert speed.mean_step_s(trial(ranks=(rank(0), slow))) == pytest.approx(0.6)
    stacked = rank(jobs=tuple(job(number, steps=10, window_s=3.0, stacked=2) for number in range(2)))
    assert speed.mean_step_s(trial(ranks=(stacked,))) == pytest.approx(0.3)
    assert speed.mean_step_s(trial(ranks=(rank(jobs=()),))) is None


def test_tables_call_the_mean_a_step_and_the_median_a_median():
    titles = {figure.title: figure for figure in FIGURES.values()}
    assert titles["step"].name == "mean_step_s"
    assert "terminal always" in titles["step"].shown_in
    assert titles["median step"].name == "step_time_s"
    assert titles["median step"].gate == "relative"


def test_step_time_is_the_median_step_of_the_slowest_rank():
    quick = rank(0, jobs=(job(step_times_s=(0.1, 0.1, 9.0)),))
    slow = rank(1, jobs=(job(0, step_times_s=(0.2, 0.3)), job(1, step_times_s=(0.4,))))
    assert speed.step_time_s(trial(ranks=(quick, slow))) == 0.3


@pytest.mark.parametrize(
    ("memories", "expected"),
    [
        ([MemoryRecord(resident_growth=100), MemoryRecord(resident_growth=300)], 300),
        ([MemoryRecord(resident_growth=122, file_growth=43, shared_growth=5)], 79),
        ([MemoryRecord(resident_growth=10, file_growth=-4)], 14),
        ([MemoryRecord(resident_growth=10, file_growth=12)], 0),
        ([cuda(5, 7), cuda(6)], 7),
        ([MemoryRecord(), MemoryRecord(resident_growth=0)], 0),
        ([MemoryRecord(), MemoryRecord()], None),
    ],
    ids=["cpu", "without files", "fewer pages of files", "nothing but files", "cuda", "one rank unknown", "unknown"],
)
def test_memory_is_the_fullest_ranks_peak_and_never_a_sum(memories, expected):
    ranks = tuple(rank(number, memory=memory) for number, memory in enumerate(memories))
    assert memory.peak_memory_bytes(trial(ranks=ranks)) == expected


def test_the_peak_of_a_rank_that_drives_several_cpu_devices_is_that_of_all_of_them():
    replicas = cell("data_parallel", 2)
    assert memory.devices_in_a_rank(trial(replicas), replicas) == 2
    assert memory.devices_in_a_rank(trial(replicas, ranks=(rank(0), rank(1))), replicas) == 1
    assert memory.devices_in_a_rank(trial(CELL, ranks=(rank(0), rank(1))), CELL) == 1
    on_cuda = cell("data_parallel", 2, device_kind="cuda")
    assert memory.devices_in_a_rank(trial(on_cuda), on_cuda) == 1, "there it is the fullest device"
    assert memory.devices_in_a_rank(trial(replicas, status="failed"), replicas) == 1


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([math.log(100.0)], 100.0),
        ([math.log(100.0), math.log(400.0)], 200.0),
        ([None, math.log(100.0)], 100.0),
        ([None], None),
        ([1e6], math.inf),
    ],
    ids=["one", "geometric mean of shards", "only the last stage has one", "unknown", "beyond what a float holds"],
)
def test_perplexity_is_exp_of_the_mean_loss(losses, expected):
    ranks = tuple(rank(number, jobs=(job(validation_loss=loss),)) for number, loss in enumerate(losses))
    assert validation_perplexity(trial(ranks=ranks)) == (None if expected is None else pytest.approx(expected))


def test_measured_time_is_warm_up_and_window_where_they_took_longest():
    one = rank(0, jobs=(job(warmup_s=1.0, window_s=2.0), job(1, warmup_s=0.5, window_s=2.0)))
    other = rank(1, jobs=(job(warmup_s=4.0, window_s=1.0),))
    assert speed.measured_s(trial(ranks=(one, other))) == 5.5
    assert speed.measured_s(trial(status="failed")) == 0.0


def test_a_models_loss_is_the_mean_over_its_equal_shards():
    first = rank(0, jobs=(job(0, losses=(1.0, 3.0)), job(1, losses=(7.0,))))
    second = rank(1, jobs=(job(0, losses=(2.0, 5.0)),))
    assert job_losses(trial(ranks=(first, second))) == {0: [1.5, 4.0], 1: [7.0]}


def test_deviation_is_the_largest_difference_of_any_step():
    deviation = deviations.parity_deviation(shards((1.0, 2.5, 3.0)), shards((1.25, 2.0, 3.0)))
    assert deviation == 0.5


def test_deviation_is_the_largest_of_any_model():
    def models(*losses: float):
        return trial(ranks=(rank(jobs=tuple(job(number, losses=(loss,)) for number, loss in enumerate(losses))),))

    assert deviations.parity_deviation(models(1.0, 2.0, 3.0), models(1.0, 2.75, 3.25)) == 0.75


def test_shards_that_average_to_the_reference_do_not_deviate():
    assert deviations.parity_deviation(shards((1.0, 4.0), (3.0, 2.0)), shards((2.0, 3.0))) == 0.0


def test_ranks_without_losses_do_not_matter_where_another_rank_has_them():
    assert deviations.parity_deviation(shards((), LOSSES), shards(LOSSES)) == 0.0


def test_a_reference_of_more_models_than_were_trained_will_do():
    more = trial(ranks=(rank(jobs=(job(0), job(1))),))
    assert deviations.parity_deviation(shards(LOSSES), more) == 0.0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (shards(()), shards(LOSSES)),
        (shards(LOSSES), shards(())),
        (shards(LOSSES[:-1]), shards(LOSSES)),
        (trial(ranks=(rank(jobs=(job(0), job(1))),)), shards(LOSSES)),
        (trial(ranks=(rank(jobs=(job(0), job(1, losses=()))),)), trial(ranks=(rank(jobs=(job(0), job(1))),))),
        (trial(ranks=(rank(jobs=(job(0), job(1, losses=()))),)), shards(LOSSES)),
        (trial(ranks=()), shards(LOSSES)),
    ],
    ids=[
        "none found",
        "none expected",
        "too few found",
        "a model without a reference",
        "a model without losses",
        "a model without losses on either side",
        "no ranks",
    ],
)
def test_a_missing_loss_is_an_infinite_deviation(found, expected):
    assert deviations.parity_deviation(found, expected) == math.inf


def test_every_figure_is_described_under_its_own_name():
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.meaning.endswith(".")


def compiled(seconds: float, hits: int = 0, misses: int = 0):
    """A rank with one model for which torch.compile took so long, and found so many graphs or not."""
    return rank(jobs=(job(compile_s=seconds, cache_hits=hits, cache_misses=misses),))


@pytest.mark.parametrize(
    ("ranks", "cold_s", "warm_s"),
    [
        pytest.param([compiled(9.0, misses=3), compiled(7.0, misses=3)], 9.0, None, id="all compiled"),
        pytest.param([compiled(2.0, hits=3), compiled(3.0, hits=3)], None, 3.0, id="all found"),
        pytest.param([compiled(2.0, hits=3), compiled(5.0, hits=2, misses=1)], 5.0, None, id="one of them compiled"),
        pytest.param([compiled(4.0)], 4.0, None, id="an older record, or no caches"),
        pytest.param([compiled(0.0)], None, None, id="nothing compiled"),
    ],
)
def test_the_time_to_compile_is_told_apart_from_that_to_load_what_was_compiled(ranks, cold_s, warm_s):
    launch = Launch(trial=trial(ranks=tuple(ranks)), cell=CELL)
    assert (utilisation.COMPILE_S.of(launch), utilisation.WARM_COMPILE_S.of(launch)) == (cold_s, warm_s)


def test_no_median_mixes_the_two():
    rounds = [[compiled(10.0, misses=2)], [compiled(1.0, hits=2)], [compiled(12.0, misses=2)], [compiled(2.0, hits=2)]]
    trials = [trial(number=number, ranks=tuple(ranks)) for number, ranks in enumerate(rounds)]
    launches = [Launch(trial=each, cell=CELL) for each in trials]
    assert utilisation.COMPILE_S.summarise(launches).mean == 11.0
    assert utilisation.WARM_COMPILE_S.summarise(launches).mean == 1.5
