"""Is no option that computes the same in as much memory surely faster than the default? And is that asked of all?"""

import os
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.scenario.specs import Options
from tests.benchmarks import defaults
from tests.benchmarks.ranks import Step, Team

SWEPT = [sweep for sweep in defaults.sweeps() if sweep.others]


@pytest.mark.parametrize("sweep", SWEPT, ids=lambda sweep: sweep.name)
def test_no_equal_option_is_surely_faster_than_the_default(sweep: defaults.Sweep, benchmark: BenchmarkFixture) -> None:
    options: list[defaults.Option] = []
    benchmark.pedantic(lambda: options.extend(defaults.measure(sweep)), rounds=1)
    print("", *defaults.describe(sweep, options), sep="\n")
    equals = [each for each in options if each.is_equal]
    losing = [each.name for each, judgement in zip(equals, defaults.judge(equals), strict=True) if judgement.is_sure]
    assert not losing, f"surely more than {defaults.MARGIN - 1:.0%} faster than the default: {', '.join(losing)}"


class EveryKind(Options):
    """An option of each kind that strategies have."""

    flag: bool = False
    choice: Literal["none", "some"] = "none"
    number: PositiveInt = 4
    open_number: PositiveFloat | None = None
    degree: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


def test_other_values_come_from_the_options_types() -> None:
    values = [("flag", True), ("choice", "some"), ("number", 2), ("number", 8)]
    values += [("open_number", float(value)) for value in defaults.MAGNITUDES]
    values += [("degree", value) for value in defaults.MAGNITUDES]
    assert list(defaults.other_values(EveryKind)) == values


def test_a_type_without_known_values_is_named() -> None:
    class Strange(Options):
        names: tuple[str, ...] = ()

    with pytest.raises(TypeError, match="no values are known for an option of type"):
        list(defaults.other_values(Strange))


def test_only_what_computes_the_same_is_swept() -> None:
    others = {sweep.name: set(sweep.others) for sweep in defaults.sweeps()}
    assert {"static_graph=True", "shard_optimizer=True"} <= others["ddp-lstm-train"]
    assert not any(name.startswith("communication_hook") for name in others["ddp-lstm-train"]), "they round"
    assert others["fsdp-lstm-train"] == {"reshard_after_forward=False", "replicas=2"}
    assert not others["local_sgd-lstm-train"], "inexact"
    assert not others["task_pool-lstm-train"], "more models at a time"
    assert "data_parallel=fsdp" in others["hybrid(data=2, pipeline=1, tensor=1)-lstm-train"]


def option(*speeds: float, memory: float = 1.0) -> defaults.Option:
    return defaults.Option("o", list(speeds), list(speeds), [memory] * len(speeds))


def test_a_faster_option_must_be_surely_so_by_more_than_the_margin() -> None:
    surely = option(1.10, 1.11, 1.09, 1.10, 1.10)
    barely = option(1.030, 1.032, 1.029, 1.031, 1.030)
    perhaps = option(1.30, 0.95, 1.20, 0.90, 1.30)
    assert [each.is_sure for each in defaults.judge([surely, barely, perhaps])] == [True, False, False]


def test_the_number_of_options_counts() -> None:
    likely, equal = option(1.04, 1.06, 1.05, 1.03, 1.08), option(1.0, 1.01, 0.99, 1.0, 1.0)
    (alone,) = defaults.judge([likely])
    (among, *_) = defaults.judge([likely, *[equal] * 9])
    assert (alone.is_sure, among.is_sure) == (True, False)
    assert among.speed.low < alone.speed.low


def test_speed_that_costs_memory_is_told_apart() -> None:
    sweep = next(sweep for sweep in SWEPT if len(sweep.others) == 1)
    text = "\n".join(defaults.describe(sweep, [option(1.2, 1.21, 1.19, memory=1.5)]))
    assert "no other option computes the same in as much memory" in text
    assert "(more)" in text


def test_what_one_team_sets_for_its_process_no_other_team_sees() -> None:
    with Team(1, setting_threads, pinned=True) as one, Team(1, seeing_no_setting, pinned=True) as other:
        for team in (one, other, one, other):
            assert team.take(range(2)).wall_s >= 0


def setting_threads(rank: int, ranks: int) -> Step:
    import torch

    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    os.environ["A_SETTING"] = "of one team"
    return lambda index: None


def seeing_no_setting(rank: int, ranks: int) -> Step:
    import torch

    def step(index: int) -> None:
        assert torch.get_num_threads() == 1
        assert torch.get_default_dtype() is torch.float32
        assert "A_SETTING" not in os.environ

    return step


def test_a_rank_that_fails_is_heard_while_its_peers_wait() -> None:
    with pytest.raises(RuntimeError, match="the second rank"), Team(2, failing, pinned=True):
        pass


def failing(rank: int, ranks: int) -> Step:
    from torch import distributed

    if rank:
        raise ValueError("the second rank")
    distributed.barrier()
    raise AssertionError("its peer never came")
