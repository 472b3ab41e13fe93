"""Is what parbench reports what plain torch reaches? Both interleaved; a ratio a round, then their spread."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.campaign.tasks import Origin, Task, measure
from parbench.figures.speed import tokens_per_s
from parbench.figures.statistics import Summary, summarise
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.reading import read_plan
from parbench.scenario.specs import describe_options
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from tests.benchmarks import arms, duel
from tests.benchmarks.bare.models import GLOBAL_BATCH, HEADS, LAYERS, LENGTH, WIDTH

FLOOR = 0.98
REPOSITORY = Path(__file__).parents[2]
WITHOUT_SCRIPT: dict[tuple[str, str], str] = {
    ("expert_parallel", phase): "the models of the scripts have no experts" for phase in ("train", "score", "generate")
}
"""Strategies and phases that have no script, each with the reason."""
EVERY = [(name, phase) for name, cls in arms.BUILT_IN.items() for phase in cls.phases]
SCRIPTED = [pair for pair in duel.pairs() if isinstance(pair.other, arms.Script)]
TRAINED = [pair for pair in SCRIPTED if pair.task.phase == "train"]


@pytest.mark.parametrize(("strategy", "phase"), EVERY)
def test_every_strategy_has_a_script_for_every_phase(strategy: str, phase: str) -> None:
    if (strategy, phase) in WITHOUT_SCRIPT:
        pytest.skip(WITHOUT_SCRIPT[strategy, phase])
    assert callable(getattr(import_module(f"tests.benchmarks.bare.{strategy}"), phase))
    assert any((pair.ours.strategy, pair.task.phase) == (strategy, phase) for pair in SCRIPTED)


def in_rounds(benchmark: BenchmarkFixture, one_round: Callable[[int], float], what: str) -> Summary:
    """The ratios of `duel.ROUNDS` rounds, noted and printed."""
    ratios: list[float] = []
    benchmark.pedantic(lambda: ratios.append(one_round(len(ratios))), rounds=duel.ROUNDS)
    summary = summarise(ratios)
    benchmark.extra_info["ratio"] = summary._asdict()
    print(f"\n{what}: {statistics.median(ratios):.3f} [{summary.low:.3f}, {summary.high:.3f}]")
    return summary


@pytest.mark.parametrize("pair", duel.pairs(), ids=lambda pair: pair.name)
def test_steps_in_turn(pair: duel.Pair, benchmark: BenchmarkFixture) -> None:
    summary = in_rounds(benchmark, lambda number: duel.duel(pair, number).speed, f"{pair.name}, in turn")
    assert summary.mean >= FLOOR, "slower than the other"


@pytest.mark.parametrize("pair", TRAINED, ids=lambda pair: pair.name)
def test_reported_over_bare_throughput(
    pair: duel.Pair, launcher: LocalLauncher, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    corpus = arms.token_file()
    path = tmp_path / "scenario.yaml"
    path.write_text(scenario(pair))
    plan = read_plan(path, Machine(cores=allowed_cores()))
    (cell,) = plan.runnable
    processes = pair.ours.layout(pair.task).processes
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    assert isinstance(pair.other, arms.Script)
    place = [pair.other.module, pair.other.function or pair.task.phase, pair.task.family]
    script = ["-m", "tests.benchmarks.bare", *place, corpus.path]
    command = [sys.executable, *torchrun * (processes > 1), *script]

    def reported(number: int) -> float:
        task = Task(purpose="measure", cell=cell, key=cell.record.key, round=number, models=cell.record.models)
        return tokens_per_s(measure(plan, task, corpus, tmp_path / "trial", launcher, Origin("here")), cell.record)

    def bare(number: int) -> float:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout)

    def one_round(number: int) -> float:
        speeds = {arm: arm(number) for arm in ((reported, bare) if number % 2 else (bare, reported))}
        return speeds[reported] / speeds[bare]

    what = f"{pair.ours.strategy}{describe_options(pair.ours.options)} {pair.task.family}, reported ÷ bare"
    in_rounds(benchmark, one_round, what)


def scenario(pair: duel.Pair) -> str:
    heads = f", heads: {HEADS}" if pair.task.family == "transformer" else ""
    return f"""
workloads:
  w:
    model: {{kind: {pair.task.family}, layers: {LAYERS}, d_model: {WIDTH}{heads}}}
    seq_len: {LENGTH}
    global_batch: {GLOBAL_BATCH}
strategies: [{json.dumps({pair.ours.strategy: pair.ours.options})}]
devices: {{kind: cpu, counts: [{pair.ours.devices}], oversubscribe: true}}
measure: {{window_s: 1.5}}
"""
