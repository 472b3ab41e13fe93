"""Companions are launched once in every round beside the cells, and stored, resumed and counted like them."""

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from parbench.campaign import against
from parbench.campaign.arms import arms_against
from parbench.campaign.run import run_campaign
from parbench.cli.plans import print_plan
from parbench.cli.progress import PlainProgress
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.records.assignment import Assignment
from parbench.results.judged_cells import judge_cells
from parbench.results.store import Run
from parbench.results.tables import cells_table
from parbench.system.devices import Machine
from tests.campaign.test_base_launches import fake_servers
from tests.support.fake_launcher import FakeLauncher
from tests.support.scenarios import TINY_LSTM

SCENARIO = (
    "\nname: explained"
    + TINY_LSTM
    + """strategies: [single, ddp, data_parallel, model_parallel: {schedule: gpipe, micro_batches: 2}]
devices: {kind: cpu, counts: [1, 2]}
measure: {rounds: 3, explain: true}
"""
)


def planned(folder: Path, *overrides: str) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(SCENARIO)
    return read_plan(folder / "s.yaml", Machine(cores=((0,), (1,))), overrides)


def campaign(
    plan: Plan, folder: Path, launcher: FakeLauncher, *, resume: bool = False, told: io.StringIO | None = None
) -> Run:
    progress = PlainProgress(Console(file=told or io.StringIO(), width=300))
    return run_campaign(plan, folder, launcher, progress, command=["test"], resume=resume)


def companions_of(launcher: FakeLauncher) -> list[Assignment]:
    return [each for each in launcher.launched if each.purpose == "companion"]


def test_every_round_launches_each_once_and_they_are_timed_but_not_watched(tmp_path: Path) -> None:
    plan, launcher = planned(tmp_path), FakeLauncher()
    run = campaign(plan, tmp_path / "out", launcher)
    launched = companions_of(launcher)
    keys = {each.record.key for each in plan.companions}
    assert len(keys) == 4
    assert Counter((each.key, each.round) for each in launched) == {
        (key, number): 1 for key in keys for number in range(3)
    }
    assert {(each.matmul, each.account, each.steps) for each in launched} == {(None, False, 5)}
    assert {each.account for each in launcher.launched if each.purpose == "measure"} == {True}
    assert {(each.strategy, each.devices, each.workload["models"]) for each in launched} == {
        ("single", 1, 1),
        ("task_pool", 2, 2),
    }
    assert [trial.cell for trial in run.trials if trial.purpose == "companion"] == [each.cell for each in launched]
    folders = {path.name for path in (tmp_path / "out" / "trials").iterdir()}
    assert {f"companion-r{number:03d}-{key}" for key in keys for number in range(3)} <= folders


def test_they_are_among_the_cells_of_a_round(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    campaign(planned(tmp_path, "measure.rounds=20"), tmp_path / "out", launcher)
    timed = [each for each in launcher.launched if each.purpose in ("measure", "companion")]
    assert {"measure", "companion"} == {each.purpose for each in timed[:: len(timed) // 20]}


def test_they_are_no_rows_and_explain_the_cells_of_their_round(tmp_path: Path) -> None:
    run = campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    assert len(cells_table(run)) == 7
    cells = {cell.record.id: cell for cell in judge_cells(run)}
    for launch in cells["lstm/ddp/2"].launches:
        alone, together = launch.companions
        assert {each.round for each in (*alone, *together)} == {launch.round}
        assert [each.trial.cell for each in alone] == ["lstm/single/1 (companion, batch 4)"]
        assert [each.cell.global_batch for each in (*alone, *together)] == [4, 4]
    assert not any(launch.companions.alone for launch in cells["lstm/ddp/1"].launches)


def test_they_are_counted_planned_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, told = planned(tmp_path), io.StringIO()
    campaign(plan, tmp_path / "out", FakeLauncher(), told=told)
    lines = told.getvalue().splitlines()
    total = int(lines[0].split()[0])
    assert lines[-1].startswith(f"[{total}/{total}]")
    assert sum("round 2, lstm/single/1 (companion, batch 4): 160 tokens/s" in line for line in lines) == 1
    print_plan(plan)
    shown = " ".join(capsys.readouterr().out.split())
    assert "7 cells to measure and 4 companions, 36 launches" in shown
    assert "lstm/single/1 (companion, batch 4)" in shown
    print_plan(plan.unexplained())
    assert "companion" not in capsys.readouterr().out


@pytest.mark.parametrize("stop", [8, 20, 30])
def test_an_interrupted_run_goes_on_with_those_that_are_missing(stop: int, tmp_path: Path) -> None:
    plan, first, second = planned(tmp_path), FakeLauncher(interrupt_at=stop), FakeLauncher()
    with pytest.raises(KeyboardInterrupt):
        campaign(plan, tmp_path / "out", first)
    campaign(plan, tmp_path / "out", second, resume=True)
    launched = Counter((each.key, each.round) for each in companions_of(first) + companions_of(second))
    assert (len(launched), set(launched.values())) == (12, {1})


def test_a_run_can_be_explained_later_and_stays_so(tmp_path: Path) -> None:
    plain, explained = planned(tmp_path, "measure.explain=false"), planned(tmp_path)
    campaign(plain, tmp_path / "out", FakeLauncher())
    launcher, told = FakeLauncher(), io.StringIO()
    campaign(explained, tmp_path / "out", launcher, resume=True)
    assert {each.purpose for each in launcher.launched} == {"companion"}
    again = FakeLauncher()
    run = campaign(plain, tmp_path / "out", again, resume=True, told=told)
    assert again.launched == []
    assert "stay, unused" not in told.getvalue()
    assert {len(launch.companions.together) for launch in judge_cells(run)[2].launches} == {1}


def test_companions_of_cells_that_are_gone_are_said_to_be_unused(tmp_path: Path) -> None:
    campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    told = io.StringIO()
    campaign(planned(tmp_path).only("*/single/*", "*/ddp/*"), tmp_path / "out", FakeLauncher(), resume=True, told=told)
    # Both data_parallel and both model_parallel cells, and the two companions of the latter, in three rounds.
    assert "18 trials are of cells that are not planned any more" in told.getvalue()


def test_a_companion_that_fails_costs_its_cells_nothing(tmp_path: Path) -> None:
    class Failing(FakeLauncher):
        def launch(self, folder: Path, **how: object) -> object:  # type: ignore[override]
            ended = super().launch(folder, **how)  # type: ignore[arg-type]
            if self.launched[-1].purpose == "companion":
                (folder / "rank0.json").unlink()
                return type(ended)(exit_codes=(1,) * len(ended.exit_codes), wall_s=1.0)
            return ended

    run = campaign(planned(tmp_path), tmp_path / "out", Failing())
    assert set(cells_table(run)["status"]) == {"ok"}
    assert not any(launch.companions.alone for cell in judge_cells(run) for launch in cell.launches)


def test_arms_of_a_comparison_are_not_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launchers: list[FakeLauncher] = []
    monkeypatch.setattr(against, "servers", fake_servers(lambda _: launchers.append(FakeLauncher()) or launchers[-1]))
    with arms_against("itself") as arms:
        progress = PlainProgress(Console(file=io.StringIO()))
        against.run_arms(planned(tmp_path), arms, tmp_path / "run", progress, command=[])
    assert {each.purpose for launcher in launchers for each in launcher.launched} == {"measure", "proof", "reference"}
