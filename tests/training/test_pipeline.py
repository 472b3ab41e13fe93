"""Stages of a pipeline by themselves; what they compute together is in tests/test_parity.py."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import pipelining

from parbench.data.batches import Batch
from parbench.measure.probes.compile_time import prepare_compiler
from parbench.models.transformer import Transformer
from parbench.records.corpus import Corpus
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Context, Strategy
from parbench.training import pipeline, workload
from parbench.training.loss import next_token_loss
from parbench.training.pipeline import Pipeline, PipelineStage, WaitClock
from parbench.training.workload import Workload


@pytest.fixture
def alone() -> Iterator[None]:
    """A world of one rank."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_stages_of_one_rank_do_not_greet_each_other(alone: None) -> None:
    stage = PipelineStage(nn.Identity(), 0, 2, torch.device("cpu"))
    assert {op.group_peer for op in pipelining.PipelineStage._get_init_p2p_neighbors_ops(stage)} == {0}
    assert stage._get_init_p2p_neighbors_ops() == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which passes only where a test adds to it."""
    now = [0.0]
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: now[0])
    return now


def test_waiting_is_what_is_left_of_a_schedule_without_its_work(clock: list[float]) -> None:
    waits = WaitClock(torch.device("cpu"))

    def pass_time(seconds: float) -> None:
        clock[0] += seconds

    work = waits.time_work(pass_time)

    def schedule() -> None:
        pass_time(3.0)
        work(4.0)
        pass_time(0.5)

    waits.time_schedule(schedule)()
    pass_time(7.0)  # an optimizer, or batches that are dealt
    assert waits.read_seconds() == pytest.approx(3.5)


class Slow(nn.Linear):
    """A stage whose forward pass takes two seconds of `clock`."""

    clock: list[float]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.clock[0] += 2.0
        return super().forward(inputs)


def test_one_stage_waits_for_nobody_not_even_while_it_computes_the_loss(alone: None, clock: list[float]) -> None:
    stage = Slow(4, 3)
    stage.clock = clock

    def scaled(loss: torch.Tensor) -> torch.Tensor:
        clock[0] += 5.0
        return loss

    for schedule, parts in (("gpipe", 2), ("1f1b", 2), ("naive", 1)):
        line = Pipeline(
            schedule,
            {0: stage},
            stages=1,
            micro_batches=parts,
            device=torch.device("cpu"),
            group=None,
            loss=next_token_loss,
            scaled=scaled,
        )
        batch = Batch(torch.randn(4, 2, 4), torch.zeros(4, 2, dtype=torch.long))
        assert line.train(batch) is not None
        before, started = line.clock.read_seconds(), clock[0]
        line.train(batch)
        line.evaluate(batch)
        assert clock[0] - started >= 7.0
        assert line.clock.read_seconds() == pytest.approx(before)


def set_up(name: str, *, compiles_loss: bool, **options: Any) -> Strategy[Any]:
    """A strategy whose blocks are not compiled, which would take a minute."""
    family = Transformer(layers=2, d_model=16, heads=2)
    spec = WorkloadSpec(model=family, seq_len=8, global_batch=4, compile=compiles_loss)
    corpus = Corpus(path="none", sha256="0" * 64, tokens=1000, vocab_size=spec.vocab_size, dtype="uint8")
    strategy = STRATEGIES[name](STRATEGIES[name].options_type(**options))
    device, group = torch.device("cpu"), distributed.group.WORLD
    context = Context(rank=0, ranks=1, devices=(device,), cores=((),), threads=1, group=group)
    trained = Workload(spec, corpus, seed=0, device=device)
    trained.spec = spec.model_copy(update={"compile": False})
    strategy.setup(trained, 0, context)
    return strategy


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own code
def test_a_compiled_pipeline_compiles_its_loss_as_well(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []

    def watched(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        compiled.append(torch.compiler.is_compiling())
        return next_token_loss(logits, targets)

    prepare_compiler(torch.device("cpu"), 1)
    tokens = torch.randint(256, (2, 4, 8), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[0], tokens[1])
    single = set_up("single", compiles_loss=False)
    monkeypatch.setattr(workload, "next_token_loss", watched)
    staged = set_up("model_parallel", compiles_loss=True, schedule="gpipe", micro_batches=2)
    for _ in range(2):
        torch.testing.assert_close(staged.step(batch), single.step(batch))
    with torch.no_grad():
        torch.testing.assert_close(staged.evaluate(batch), single.evaluate(batch))
    # Also on the made-up logits, if the schedule learns shapes from them.
    assert len(compiled) >= 6
    assert all(compiled)
