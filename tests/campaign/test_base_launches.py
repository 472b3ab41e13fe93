"""The base of ratios is launched about √K times a round, spread over it; records, resumed runs and arms follow."""

import contextlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from parbench.campaign import against
from parbench.campaign.arms import Arms, arms_against
from parbench.campaign.gate import with_references
from parbench.campaign.run import run_campaign
from parbench.campaign.tasks import shuffled_rounds
from parbench.cli.progress import PlainProgress
from parbench.launch.remote.protocol import Greeting
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.records.trial import Trial
from parbench.results.judged_cells import judge_cells
from parbench.results.store import Run, read_run
from parbench.results.tables import cells_table
from parbench.system.devices import Machine
from parbench.system.environment import capture
from tests.conftest import CommandLine
from tests.support.fake_launcher import FakeLauncher
from tests.support.scenarios import TINY_LSTM

SCENARIO = (
    "\nname: bases"
    + TINY_LSTM
    + """strategies: [single, ddp, data_parallel]
devices: {kind: cpu, counts: [1, 2, 4]}
measure: {rounds: 3}
"""
)
MACHINE = Machine(cores=tuple((core,) for core in range(4)))
BASE = "lstm/single/1"


def planned(folder: Path, *overrides: str) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "bases.yaml").write_text(SCENARIO)
    return read_plan(folder / "bases.yaml", MACHINE, overrides)


def campaign(plan: Plan, folder: Path, launcher: FakeLauncher, *, resume: bool = False) -> Run:
    progress = PlainProgress(Console(file=io.StringIO()))
    return run_campaign(plan, folder, launcher, progress, command=["test"], resume=resume)


def times_of(plan: Plan) -> dict[str, int]:
    return {cell.record.id: plan.launches_a_round[cell.record.key] for cell in plan.runnable}


def timed(run: Run, cell: str = BASE) -> list[Trial]:
    return [trial for trial in run.trials if (trial.purpose, trial.cell) == ("measure", cell)]


def fake_servers(
    launcher: Callable[[str], FakeLauncher],
) -> Callable[[Arms], contextlib.AbstractContextManager[tuple[dict[str, FakeLauncher], dict[str, Greeting]]]]:
    """Stands for the servers of two arms; `launcher` makes one for the arm of a name."""

    @contextlib.contextmanager
    def servers(arms: Arms) -> Iterator[tuple[dict[str, FakeLauncher], dict[str, Greeting]]]:
        greeting = Greeting(environment=capture(), modules=(), purposes=("reference", "measure", "proof"))
        yield {arm.name: launcher(arm.name) for arm in arms}, {arm.name: greeting for arm in arms}

    return servers


def test_a_round_launches_the_base_of_six_cells_twice_and_each_of_them_once(tmp_path: Path) -> None:
    times = times_of(planned(tmp_path))
    assert times.pop(BASE) == 2, "√6 is 2.4"
    assert len(times) == 6
    assert set(times.values()) == {1}


@pytest.mark.parametrize("cells", range(1, 41))
def test_as_many_launches_as_estimate_the_ratios_best_for_their_effort(cells: int) -> None:
    """A ratio's variance is as 1 + 1/m, where cells are launched once and the base m times; the effort is K + m."""
    best = min(range(1, 20), key=lambda count: (1 + 1 / count) * (cells + count))
    assert max(1, round(math.sqrt(cells))) == best


def test_every_workload_has_a_base_and_what_scalings_share_counts_once(tmp_path: Path) -> None:
    assert times_of(planned(tmp_path, "workloads.lstm.seq_len=[4, 5]", 'strategies=["single", "ddp"]')) == {
        f"lstm(seq_len={length})/{strategy}/{count}": 2 if strategy == "single" else 1
        for length in (4, 5)
        for strategy, counts in (("single", (1,)), ("ddp", (1, 2, 4)))
        for count in counts
    }
    both = planned(tmp_path, 'scaling=["strong", "weak"]')
    assert both.launches_a_round[next(cell.record.key for cell in both.cells if cell.record.id == BASE)] == 3, "of ten"


@pytest.mark.parametrize("override", ["base_launches=4", "base_launches=1"])
def test_a_scenario_can_set_the_number_which_changes_no_key(override: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"measure.{override}")
    assert times_of(plan)[BASE] == int(override[-1])
    assert plan.launches_a_round.keys() == planned(tmp_path).launches_a_round.keys()


def test_a_part_of_the_plan_launches_the_base_for_that_part(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert set(times_of(plan.only("*/ddp/*")).values()) == {1}, "without a base"
    assert times_of(with_references(plan, {"lstm/ddp/2"})) == {BASE: 1, "lstm/ddp/2": 1}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_launches_of_a_base_are_spread_evenly_over_every_round(count: int, tmp_path: Path) -> None:
    tasks = shuffled_rounds(planned(tmp_path, f"measure.base_launches={count}", "measure.rounds=30"))
    rounds: dict[int, list[int | None]] = defaultdict(list)
    for task in tasks:
        rounds[task.round].append(task.repeat if task.cell.record.id == BASE else None)
    starts = set()
    for order in rounds.values():
        places = [order.index(repeat) for repeat in range(count)]
        gaps = [later - earlier - 1 for earlier, later in pairwise(places)]
        assert all(math.floor(6 / count) <= gap <= math.ceil(6 / count) for gap in gaps), order
        starts.add(places[0])
    assert len(starts) > 1, "the first place is a random one"


def test_every_launch_has_a_record_and_a_folder_of_its_own(tmp_path: Path) -> None:
    run = campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    trials = timed(run)
    assert sorted((trial.round, trial.repeat) for trial in trials) == [(r, n) for r in range(3) for n in range(2)]
    assert {trial.repeat for trial in run.trials if trial.cell != BASE} == {0}
    names = {path.name for path in (tmp_path / "out" / "trials").iterdir()}
    assert {f"r{number:03d}-{trials[0].key}{end}" for number in range(3) for end in ("", "-1")} <= names
    row = cells_table(run).to_dict(orient="records")[0]
    assert (row["rounds"], row["launches"], row["speedup"]) == (3, 6, 1.0)


@pytest.mark.parametrize("stop", [9, 14, 18, 25, 31])
def test_an_interrupted_run_goes_on_with_the_launches_that_are_missing(stop: int, tmp_path: Path) -> None:
    plan, first, second = planned(tmp_path), FakeLauncher(interrupt_at=stop), FakeLauncher()
    with pytest.raises(KeyboardInterrupt):
        campaign(plan, tmp_path / "out", first)
    run = campaign(plan, tmp_path / "out", second, resume=True)
    measured = [each for each in first.launched + second.launched if each.purpose == "measure"]
    launched = Counter((each.key, each.round, each.repeat) for each in measured)
    assert set(launched.values()) == {1}
    assert len(launched) == 3 * sum(plan.launches_a_round.values())
    assert len(timed(run)) == 6
    assert set(cells_table(run)["rounds"]) == {3}


def test_more_cells_later_get_more_launches_of_the_base_and_keep_those_that_there_are(tmp_path: Path) -> None:
    plan, launcher = planned(tmp_path), FakeLauncher()
    campaign(plan.only("*/single/*", "*/ddp/2"), tmp_path / "out", FakeLauncher())
    run = campaign(plan, tmp_path / "out", launcher, resume=True)
    assert {(each.round, each.repeat) for each in launcher.launched if each.key == timed(run)[0].key} == {
        (number, 1) for number in range(3)
    }
    fewer = FakeLauncher()
    again = campaign(plan.only("*/single/*", "*/ddp/2"), tmp_path / "out", fewer, resume=True)
    assert not [each for each in fewer.launched if each.purpose == "measure"]
    assert len(judge_cells(again)[0].trials) == 6, "what was measured is used"


def test_both_arms_launch_the_base_as_often_and_go_first_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, int, int]] = []

    class Watched(FakeLauncher):
        def __init__(self, arm: str) -> None:
            super().__init__()
            self.arm = arm

        def launch(self, folder: Path, **how: object) -> object:  # type: ignore[override]
            ended = super().launch(folder, **how)  # type: ignore[arg-type]
            last = self.launched[-1]
            if last.purpose == "measure" and last.cell == BASE:
                order.append((self.arm, last.round, last.repeat))
            return ended

    monkeypatch.setattr(against, "servers", fake_servers(Watched))
    plan = planned(tmp_path, "measure.rounds=4")
    with arms_against("itself") as arms:
        progress = PlainProgress(Console(file=io.StringIO()))
        candidate, base, _ = against.run_arms(plan, arms, tmp_path / "run", progress, command=[])
    for run in (candidate, base):
        assert sorted((trial.round, trial.repeat) for trial in timed(run)) == [(r, n) for r in range(4) for n in (0, 1)]
    assert len(order) == 2 * 4 * 2
    turns = [tuple(order[index : index + 2]) for index in range(0, len(order), 2)]
    assert all(first[1:] == second[1:] and first[0] != second[0] for first, second in turns), "launch by launch"
    for repeat in (0, 1):
        firsts = Counter(first[0] for first, _ in turns if first[2] == repeat)
        assert set(firsts.values()) == {2}, "each arm goes first in half of the rounds"


def test_a_run_of_before_has_one_launch_of_each_cell_in_a_round(tmp_path: Path) -> None:
    run = campaign(planned(tmp_path, "measure.base_launches=1"), tmp_path / "out", FakeLauncher())
    old = Trial.model_validate({name: value for name, value in timed(run)[0].model_dump().items() if name != "repeat"})
    assert old == timed(run)[0]
    assert read_run(tmp_path / "out").trials == run.trials


def test_real_launches_of_a_base_are_kept_and_the_missing_ones_are_measured(parbench: CommandLine) -> None:
    (parbench.folder / "bases.yaml").write_text(SCENARIO)
    options = ("bases.yaml", "--only", "*/1", "--rounds", "2", "--out", "out", "--set", "measure.base_launches=2")
    quick = (
        "--set",
        "devices.counts=1",
        "--set",
        "measure.window_s=0.001",
        "--set",
        "measure.warmup=5",
        "--set",
        "measure.deadline_s=600",
    )
    ended = parbench("run", *options, *quick)
    assert ended.returncode == 0, ended.stderr
    path = parbench.folder / "out" / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lost = next(number for number, line in enumerate(lines) if '"round":1,"repeat":1' in line)
    path.write_text("".join([*lines[:lost], *lines[lost + 1 :]]))
    resumed = parbench("run", *options, *quick, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"trials to launch; {len(lines) - 1} measured before are kept" in resumed.stderr
    trials = timed(read_run(parbench.folder / "out"))
    assert sorted((trial.round, trial.repeat, trial.status) for trial in trials) == [
        (number, repeat, "ok") for number in (0, 1) for repeat in (0, 1)
    ]
