"""Models that share a process, on streams that are only watched: what they compute, and what waits for what."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from parbench.data.corpus import prepare
from parbench.data.sources import SyntheticTokens
from parbench.measure.job import make_batches
from parbench.measure.twins import hold_learning_rate
from parbench.models.transformer import Transformer
from parbench.scenario.specs import OptimizerSpec, WorkloadSpec
from parbench.strategies import task_pool
from parbench.strategies.base import Context
from parbench.strategies.single import Single, SingleOptions
from parbench.strategies.task_pool import TaskPool, TaskPoolOptions
from parbench.training.workload import Workload

MODELS, STEPS = 3, 4
CPU = torch.device("cpu")


class Stream:
    """Writes down what waits for it, and what it waits for."""

    def __init__(self, events: list[tuple[str, ...]], name: str) -> None:
        self.events, self.name = events, name

    def wait_stream(self, other: "Stream") -> None:
        self.events.append((self.name, "waits for", other.name))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """What happens to streams, in order; `main` is the current one outside of others."""
    happened: list[tuple[str, ...]] = []
    current = [Stream(happened, "main")]
    made: list[Stream] = []

    def make(_: torch.device) -> Stream:
        made.append(Stream(happened, f"s{len(made)}"))
        return made[-1]

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        current.append(stream)
        happened.append((stream.name, "computes"))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    task_pool.streams_of.cache_clear()
    yield happened
    task_pool.streams_of.cache_clear()


def workload(folder: Path, phase: str = "train") -> Workload:
    spec = WorkloadSpec(
        model=Transformer(layers=2, d_model=16, heads=2),
        data=SyntheticTokens(vocab_size=16, tokens=2000),
        seq_len=4,
        global_batch=4,
        models=MODELS,
        optimizer=OptimizerSpec(lr_per_model=(1e-3, 1e-2, 3e-2)),
        phase=phase,
    )
    corpus = prepare(spec.data, seq_len=4, seed=0, folder=folder)
    return Workload(spec, corpus, seed=0, device=CPU)


def context(stacked: int) -> Context:
    return Context(rank=0, ranks=1, devices=(CPU,), cores=(), threads=1, group=None, stacked=stacked)


def shared(made: Workload) -> TaskPool:
    pool = TaskPool(TaskPoolOptions(tasks_per_device=MODELS, sharing="streams"))
    pool.setup(made, 0, context(MODELS))
    return pool


def alone(made: Workload, job: int) -> Single:
    single = Single(SingleOptions())
    single.setup(made, job, context(1))
    return single


@pytest.mark.usefixtures("events")
def test_each_model_takes_the_steps_that_it_takes_alone(tmp_path: Path) -> None:
    made = workload(tmp_path)
    pool, batches = shared(made), make_batches(made, 0, MODELS)
    together = torch.stack([pool.step(batches.training(step)) for step in range(STEPS)])
    assert together.shape == (STEPS, MODELS)
    assert not together.requires_grad
    for job in range(MODELS):
        single, own = alone(made, job), made.batches(job)
        losses = torch.stack([single.step(own.training(step)) for step in range(STEPS)])
        assert torch.equal(together[:, job], losses)
        for mine, theirs in zip(pool.tasks[job].model.parameters(), single.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert sum(p.numel() for p in pool.model.parameters()) == MODELS * sum(p.numel() for p in single.model.parameters())


@pytest.mark.usefixtures("events")
def test_each_model_scores_its_own_text(tmp_path: Path) -> None:
    made = workload(tmp_path, "score")
    pool, batches = shared(made), make_batches(made, 0, MODELS)
    with torch.inference_mode():
        together = pool.evaluate(batches.validation(0))
        losses = [alone(made, job).evaluate(made.batches(job).validation(0)) for job in range(MODELS)]
    assert torch.equal(together, torch.stack(losses))


def test_streams_wait_for_the_batch_and_the_next_batch_waits_for_them(
    tmp_path: Path, events: list[tuple[str, ...]]
) -> None:
    made = workload(tmp_path)
    pool, batches = shared(made), make_batches(made, 0, MODELS)
    pool.step(batches.training(0))
    began = [(f"s{job}", *what) for job in range(MODELS) for what in (("waits for", "main"), ("computes",))]
    assert events == began + [("main", "waits for", f"s{job}") for job in range(MODELS)]


@pytest.mark.usefixtures("events")
def test_the_next_group_of_models_has_the_same_streams(tmp_path: Path) -> None:
    made = workload(tmp_path)
    assert shared(made).streams == shared(made).streams


@pytest.mark.usefixtures("events")
def test_the_learning_rates_of_all_models_are_held(tmp_path: Path) -> None:
    made = workload(tmp_path)
    pool, batches = shared(made), make_batches(made, 0, MODELS)
    before = [parameter.clone() for parameter in pool.model.parameters()]
    for step in hold_learning_rate(pool, range(3), quiet=2):
        moved = [not torch.equal(old, new) for old, new in zip(before, pool.model.parameters(), strict=True)]
        assert not any(moved)
        if step == 2:
            rates = [group["lr"] for optimizer in pool.optimizers() for group in optimizer.param_groups]
            assert rates == [1e-3, 1e-2, 3e-2]
        pool.step(batches.training(step))
    assert not all(torch.equal(old, new) for old, new in zip(before, pool.model.parameters(), strict=True))


def test_a_task_on_its_own_needs_no_stream(tmp_path: Path) -> None:
    made = workload(tmp_path)
    pool = TaskPool(TaskPoolOptions())
    pool.setup(made, 1, context(1))
    assert torch.equal(pool.step(made.batches(1).training(0)), alone(made, 1).step(made.batches(1).training(0)))
    assert len(pool.optimizers()) == 1
