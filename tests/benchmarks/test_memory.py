"""Does a strategy that cuts a model up need less memory in each rank? A model of 100 million parameters, on two."""

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.corpus import prepare
from parbench.launch.local.launcher import LocalLauncher
from parbench.plan.reading import read_plan
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine

SCENARIO = Path(__file__).parents[2] / "scenarios" / "memory.yaml"


def test_resident_growth(launcher: LocalLauncher, tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    plan = read_plan(SCENARIO, Machine(cores=allowed_cores()))
    growth: dict[str, list[float]] = {}

    def measure_all() -> None:
        for cell in plan.runnable:
            corpus = prepare(cell.workload.data, seq_len=16, seed=0, folder=tmp_path)
            task = Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1)
            trial = measure(plan, task, corpus, tmp_path / "trial", launcher, Origin("here"))
            assert trial.status == "ok", trial.reason
            growth[cell.record.label] = [rank.memory.resident_growth / 1e6 for rank in trial.ranks]

    benchmark.pedantic(measure_all, rounds=1)
    benchmark.extra_info["resident_growth_mb"] = growth
    print()
    for label, megabytes in growth.items():
        ranks = ", ".join(f"{each:,.0f} MB" for each in megabytes)
        print(f"{label:26} {ranks}: {max(megabytes) / max(growth['ddp']):.2f} of ddp's")
    for label in ("fsdp", "tensor_parallel", "model_parallel"):
        assert max(growth[label]) < 0.7 * max(growth["ddp"]), label
