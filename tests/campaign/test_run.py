import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from parbench.campaign.run import new_folder, run_campaign
from parbench.campaign.tasks import Task, assign, shuffled_rounds
from parbench.cli.progress import LiveProgress, PlainProgress
from parbench.data.corpus import prepare
from parbench.errors import ResultsError, UnwrittenError, UsageError
from parbench.launch import code_digest
from parbench.launch.base import Outcome
from parbench.measure.journal import EXIT_UNWRITTEN
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.records.assignment import Assignment
from parbench.records.trial import Failure, RankRecord
from parbench.results.store import Run, read_run
from parbench.results.tables import cells_table
from parbench.system.devices import Machine
from tests.support.fake_launcher import WARMUP_STEPS, WINDOW_STEPS, FakeLauncher
from tests.support.scenarios import TINY_LSTM

SCENARIO = (
    "\nname: campaign"
    + TINY_LSTM
    + """strategies: [single, ddp, data_parallel, task_pool]
devices: {kind: cpu, counts: [1, 2]}
scaling: [strong, weak]
measure: {rounds: 3}
"""
)
MACHINE = Machine(cores=((0,), (1,), (2, 3)))


def planned(folder: Path, *overrides: str, here: Machine = MACHINE) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "campaign.yaml").write_text(SCENARIO)
    return read_plan(folder / "campaign.yaml", here, overrides)


def campaign(plan: Plan, folder: Path, launcher: FakeLauncher, *, resume: bool = False) -> Run:
    progress = PlainProgress(Console(file=StringIO()))
    return run_campaign(plan, folder, launcher, progress, command=["test"], resume=resume)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return cells_table(read_run(folder)).to_dict(orient="records")


def launched_by(plan: Plan, folder: Path) -> list[Assignment]:
    launcher = FakeLauncher()
    campaign(plan, folder / "out", launcher)
    return launcher.launched


def test_every_round_launches_every_measurement_between_proofs_and_references(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    launched = launched_by(plan, tmp_path)
    timed = [index for index, each in enumerate(launched) if each.purpose == "measure"]
    before, between, after = launched[: timed[0]], launched[timed[0] : timed[-1] + 1], launched[timed[-1] + 1 :]
    proofs = {proof.key for cell in plan.runnable for proof in cell.record.proofs or ()}
    assert {each.key for each in before if each.purpose == "proof"} == proofs
    assert Counter(each.key for each in after) == Counter({cell.record.reference for cell in plan.runnable})
    rounds = [[each.key for each in between if each.round == number] for number in range(3)]
    assert all(Counter(keys) == Counter(plan.launches_a_round) for keys in rounds)
    assert len({tuple(keys) for keys in rounds}) > 1, "rounds are shuffled"
    order = [(task.key, task.repeat) for task in shuffled_rounds(plan)]
    assert order == [(each.key, each.repeat) for each in between], "the same for the same seed"


def test_a_reference_trains_as_many_models_as_any_cell_that_it_serves(tmp_path: Path) -> None:
    launched = launched_by(planned(tmp_path), tmp_path)
    models = {each.key: each.workload["models"] for each in launched if each.purpose == "reference"}
    assert sorted(models.values()) == [1, 1, 2, 2], "a pool of two trains two; the weak batch of two devices, one"


def test_a_reference_goes_as_far_as_the_longest_trial_and_is_validated_where_any_ended(tmp_path: Path) -> None:
    last = launched_by(planned(tmp_path), tmp_path)[-1]
    steps = WARMUP_STEPS + WINDOW_STEPS
    assert (last.purpose, last.steps, last.validate_at) == ("reference", steps, (0, steps))


def test_beyond_the_cap_every_cell_is_launched_once_more_and_validated_there(tmp_path: Path) -> None:
    plan = planned(tmp_path, "measure.verify_steps=8", "scaling=strong")
    launched = launched_by(plan, tmp_path)
    capped = [each for each in launched if each.purpose == "proof" and each.steps == 8]
    assert {each.key for each in capped} == {cell.record.key for cell in plan.runnable}
    assert {each.validate_at for each in capped} == {(8,)}
    assert (launched[-1].steps, launched[-1].validate_at) == (8, (0, 8))
    assert {row["verified_steps"] for row in rows_of(tmp_path / "out")} == {8}


def test_a_proof_that_does_not_fit_in_fp32_is_taken_with_half_the_batch(tmp_path: Path) -> None:
    class Small(FakeLauncher):
        """Has no room for a whole batch in fp32."""

        def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
            outcome = super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
            workload = self.launched[-1].workload
            if workload["precision"] == "bf16" or workload["global_batch"] <= 4:
                return outcome
            failure = Failure(error="no room", traceback="", out_of_memory=True, at=0.0)
            record = RankRecord(rank=0, host="fake", pid=1, failure=failure)
            (folder / "rank0.json").write_text(record.model_dump_json())
            return Outcome(exit_codes=(1,), wall_s=1.0)

    plan = planned(tmp_path, "workloads.lstm.precision=bf16", "scaling=strong", 'strategies=["single", "ddp"]')
    launcher = Small()
    campaign(plan, tmp_path / "out", launcher)
    batches = [each.workload["global_batch"] for each in launcher.launched if each.purpose != "measure"]
    assert batches == [8, 4, 4, 4, 4, 8], "ddp runs on one and two devices; the last one is of the timed steps"
    assert {row["parity"] for row in rows_of(tmp_path / "out")} == {"reference", "ok"}


def test_ranks_get_disjoint_cores_and_as_many_threads(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    spec = plan.scenario.workloads["lstm"]
    corpus = prepare(spec.data, seq_len=4, seed=0, folder=tmp_path)
    task = next(task for task in shuffled_rounds(plan) if task.cell.record.id == "lstm/ddp/2")
    assignment = assign(plan, task, corpus)
    assert assignment.cores == ((0,), (1,))
    assert assignment.threads == 1
    wide = planned(tmp_path, "devices.cores_per_device=3", "devices.counts=1")
    assignment = assign(wide, shuffled_rounds(wide)[-1], corpus)
    assert assignment.cores == ((0, 1, 2, 3),)
    assert assignment.threads == 3, "hardware threads are no cores"


def test_ranks_that_share_a_gpu_share_its_machines_cores(tmp_path: Path) -> None:
    here = Machine(cores=tuple((core,) for core in range(8)), gpus=1, compute_capability=(9, 0))
    plan = planned(
        tmp_path, "devices={kind: cuda}", "strategies=[single, {task_pool: {tasks_per_device: 4}}]", here=here
    )
    spec = plan.scenario.workloads["lstm"]
    corpus = prepare(spec.data, seq_len=4, seed=0, folder=tmp_path)
    threads = {task.cell.record.strategy: assign(plan, task, corpus).threads for task in shuffled_rounds(plan)}
    assert threads == {"single": 8, "task_pool": 2}


def test_ranks_go_through_mps_where_their_layout_says_so_and_their_reference_does_not(tmp_path: Path) -> None:
    class Warned(FakeLauncher):
        """Has something to say of each launch."""

        def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
            outcome = super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
            return replace(outcome, warnings=("it was served",))

    here = Machine(cores=((0,), (1,)), gpus=1, compute_capability=(9, 0), no_mps=None)
    plan = planned(
        tmp_path,
        "devices={kind: cuda}",
        "scaling=strong",
        "strategies=[single, {task_pool: {tasks_per_device: 2, sharing: [time, mps]}}]",
        here=here,
    )
    launcher = Warned()
    run = campaign(plan, tmp_path / "out", launcher)
    asked = {(each.strategy, each.options.get("sharing"), each.mps) for each in launcher.launched}
    assert asked == {("single", None, False), ("task_pool", "time", False), ("task_pool", "mps", True)}
    assert {trial.warnings for trial in run.trials} == {("it was served",)}


def test_ranks_on_gpus_are_pinned_beside_them_with_as_many_threads_as_the_fewest_cores(tmp_path: Path) -> None:
    nodes = (tuple(range(12)), tuple(range(12, 16)))
    here = Machine(
        cores=tuple((core,) for core in range(16)),
        gpus=2,
        compute_capability=(9, 0),
        gpu_cpus=nodes,
    )
    on_gpus = ("devices={kind: cuda, counts: [1, 2]}", "strategies=[single, ddp]", "scaling=strong")
    plan = planned(tmp_path, *on_gpus, here=here)
    corpus = prepare(plan.scenario.workloads["lstm"].data, seq_len=4, seed=0, folder=tmp_path)
    tasks = {task.cell.record.id: task for task in shuffled_rounds(plan)}
    two, one = (assign(plan, tasks[name], corpus) for name in ("lstm/ddp/2", "lstm/single/1"))
    assert (two.rank_cores, two.threads, two.cores) == (nodes, 4, ())
    assert (one.rank_cores, one.threads) == (nodes[:1], 12)
    reference = Task(purpose="reference", cell=tasks["lstm/ddp/2"].cell, key="k", models=1)
    assert assign(plan, reference, corpus).rank_cores == nodes[:1]
    on_cpu = planned(tmp_path, here=here)
    assert all(assign(on_cpu, task, corpus).rank_cores == () for task in shuffled_rounds(on_cpu))


def test_what_becomes_of_freed_memory_is_the_same_in_every_rank_of_a_campaign(tmp_path: Path) -> None:
    for policy in ("default", "trim"):
        launcher = FakeLauncher()
        campaign(planned(tmp_path, f"measure.malloc={policy}", "measure.rounds=1"), tmp_path / policy, launcher)
        assert {each.malloc for each in launcher.launched} == {policy}


def test_timed_launches_compile_as_the_scenario_says_and_the_others_with_what_is_there(tmp_path: Path) -> None:
    for setting, changes in (("fresh", ()), ("kept", ("measure.compile_cache=kept",))):
        launcher = FakeLauncher()
        campaign(planned(tmp_path, *changes, "measure.rounds=1"), tmp_path / setting, launcher)
        found = {(each.purpose == "measure", each.compile_cache) for each in launcher.launched}
        assert found == {(True, setting), (False, "kept")}


def test_what_ranks_compiled_is_gone_after_their_trial_however_it_ends(tmp_path: Path) -> None:
    class Compiling(FakeLauncher):
        """Leaves a folder of compiled code, also where it is interrupted."""

        def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
            (folder / "rank0-compiled-x").mkdir()
            (folder / "rank0-compiled-x" / "code.so").write_text("")
            return super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)

    with pytest.raises(KeyboardInterrupt):
        campaign(planned(tmp_path, "measure.rounds=1"), tmp_path / "out", Compiling(interrupt_at=9))
    assert list((tmp_path / "out").rglob("rank0.json"))
    assert not list((tmp_path / "out").rglob("*compiled*"))


def test_the_table_has_a_row_for_every_cell_and_measurements_shared_by_scalings_in_both(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    run = campaign(planned(tmp_path), tmp_path / "out", launcher)
    table = cells_table(run)
    assert len(table) == 2 * 7
    assert set(table["status"]) == {"ok"}
    assert list(table["rounds"]) == [3] * 14
    single = table[table["strategy"] == "single"]
    assert list(single["tokens_per_s"]) == [pytest.approx(10 * 8 * 4)] * 2
    timed = [each for each in launcher.launched if each.strategy == "single" and each.purpose == "measure"]
    assert Counter(each.round for each in timed) == {0: 3, 1: 3, 2: 3}, "nine other measurements have it as their base"
    assert set(single["launches"]) == {9}


@settings(max_examples=15)
@given(stops=st.lists(st.integers(0, 30), max_size=4))
def test_resuming_measures_everything_and_nothing_twice(
    stops: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    plan, launched = planned(folder), []
    wanted = launched_by(plan, folder / "whole")
    for stop in stops:
        launcher = FakeLauncher(interrupt_at=stop)
        if len(launched) + stop >= len(wanted):
            break
        with pytest.raises(KeyboardInterrupt):
            campaign(plan, folder / "out", launcher, resume=True)
        launched += launcher.launched
        assert len(read_run(folder / "out").trials) == len(launched)
    last = FakeLauncher()
    campaign(plan, folder / "out", last, resume=True)
    launched += last.launched
    assert Counter((a.purpose, a.key, a.round, a.repeat) for a in launched) == Counter(
        (a.purpose, a.key, a.round, a.repeat) for a in wanted
    )


def test_a_changed_scenario_measures_what_changed_and_keeps_the_rest(tmp_path: Path) -> None:
    campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    launcher = FakeLauncher()
    run = campaign(planned(tmp_path, "measure.rounds=4"), tmp_path / "out", launcher, resume=True)
    assert {assignment.round for assignment in launcher.launched} == {3}
    assert set(cells_table(run)["rounds"]) == {4}
    changed = FakeLauncher()
    campaign(planned(tmp_path, "workloads.lstm.seq_len=5"), tmp_path / "out", changed, resume=True)
    assert len(changed.launched) == len(launched_by(planned(tmp_path), tmp_path / "whole"))


def test_a_reference_with_too_few_models_for_new_cells_is_computed_anew(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    campaign(plan.only("*/single/*"), tmp_path / "out", FakeLauncher())
    launcher = FakeLauncher()
    campaign(plan, tmp_path / "out", launcher, resume=True)
    models = [each.workload["models"] for each in launcher.launched if each.purpose == "reference"]
    assert max(models) > 1
    assert set(cells_table(read_run(tmp_path / "out"))["parity"]) == {"reference", "ok"}


def test_an_interrupted_run_is_undecided_until_its_steps_are_verified(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    whole = launched_by(plan, tmp_path / "whole")
    timed = [index for index, each in enumerate(whole) if each.purpose == "measure"]
    with pytest.raises(KeyboardInterrupt):
        campaign(plan, tmp_path / "out", FakeLauncher(interrupt_at=timed[-1] + 1))
    assert {row["parity"] for row in rows_of(tmp_path / "out")} == {"undecided"}
    assert all("--resume" in row["reason"] for row in rows_of(tmp_path / "out"))
    campaign(plan, tmp_path / "out", FakeLauncher(), resume=True)
    assert {row["parity"] for row in rows_of(tmp_path / "out")} == {"reference", "ok"}


def test_the_folder_of_another_scenario_is_not_gone_on_with(tmp_path: Path) -> None:
    campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    with pytest.raises(ResultsError, match="holds a run of scenario"):
        campaign(planned(tmp_path, "name=other"), tmp_path / "out", FakeLauncher(), resume=True)


def test_a_run_that_is_gone_on_with_began_when_it_began(tmp_path: Path) -> None:
    first = campaign(planned(tmp_path), tmp_path / "out", FakeLauncher()).record.created_at
    time.sleep(1.1)
    assert campaign(planned(tmp_path), tmp_path / "out", FakeLauncher(), resume=True).record.created_at == first


def test_a_folder_with_a_run_is_not_written_into_by_accident(tmp_path: Path) -> None:
    campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    with pytest.raises(ResultsError, match="--resume"):
        campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())


def test_changed_data_cannot_be_resumed(tmp_path: Path) -> None:
    text = 'workloads.lstm.data={source: text, path: "words.txt"}'
    (tmp_path / "words.txt").write_text("to be or not to be" * 10)
    campaign(planned(tmp_path, text), tmp_path / "out", FakeLauncher())
    (tmp_path / "words.txt").write_text("that is the question" * 10)
    with pytest.raises(ResultsError, match="the data of lstm is not what"):
        campaign(planned(tmp_path, text), tmp_path / "out", FakeLauncher(), resume=True)


def test_a_run_goes_on_with_its_own_launcher_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign(planned(tmp_path), tmp_path / "out", FakeLauncher())
    before = (tmp_path / "out" / "run.json").read_bytes()
    monkeypatch.setattr(FakeLauncher, "name", "another")
    with pytest.raises(
        ResultsError, match=r"was measured with launcher fake, .*; go on with --launcher fake, or start"
    ):
        campaign(planned(tmp_path, "measure.rounds=4"), tmp_path / "out", FakeLauncher(), resume=True)
    assert (tmp_path / "out" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "measures"),
    [
        ("models/stages.py", True),
        ("launch/local/launcher.py", True),
        ("measure/clock.py", True),
        ("report/page.py", False),
    ],
)
def test_only_code_that_measures_tells_runs_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, measures: bool
) -> None:
    copy = tmp_path / "parbench"
    shutil.copytree(Path(code_digest.__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "__file__", str(copy / "launch" / "code_digest.py"))
    before = code_digest.sources_digest([])
    with (copy / name).open("a") as file:
        file.write("# another edition\n")
    assert (code_digest.sources_digest([]) != before) == measures


def test_missing_data_is_said_before_anything_starts(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    plan = planned(tmp_path, 'workloads.lstm.data={source: text, path: "absent.txt"}')
    with pytest.raises(UsageError, match=r"absent\.txt cannot be read"):
        campaign(plan, tmp_path / "out", launcher)
    assert launcher.launched == []


@pytest.mark.parametrize("name", ["../../x", "/etc", "a\0b", "n" * 300, "…", "</script>"])
def test_a_name_never_leads_out_of_the_results_folder(name: str, tmp_path: Path) -> None:
    folder = new_folder(tmp_path, name)
    assert folder.parent == tmp_path
    assert len(folder.name) < 70
    assert folder.resolve().is_relative_to(tmp_path.resolve())


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    ready = threading.Barrier(16)

    def made(_: int) -> Path:
        ready.wait()
        return new_folder(tmp_path / "results", "x")

    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(made, range(16)))
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"results cannot be kept in .*--out"):
        new_folder(tmp_path / "file", "x")


def test_live_progress_shows_failures_and_speeds_and_draws_nothing_by_itself(tmp_path: Path) -> None:
    stream = StringIO()
    progress = LiveProgress(Console(file=stream, force_terminal=True, width=120))
    run_campaign(planned(tmp_path), tmp_path / "out", FakeLauncher(), progress, command=["test"])
    assert "tokens/s so far" in stream.getvalue()
    assert "320" in stream.getvalue()
    assert not progress.live.auto_refresh


class FullDiskElsewhere(FakeLauncher):
    """From launch number 3 on, the first rank cannot write its record where it runs; here, there is room."""

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        outcome = super().launch(folder, processes=processes, deadline_s=deadline_s, nodes=nodes)
        if len(self.launched) < 3:
            return outcome
        (folder / "rank0.json").unlink()
        return Outcome(exit_codes=(EXIT_UNWRITTEN, *outcome.exit_codes[1:]), wall_s=1.0)


def test_a_rank_that_could_not_write_its_record_ends_the_campaign_and_is_no_result(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with pytest.raises(UnwrittenError, match="rank 0 could not write its record"):
        campaign(plan, tmp_path / "out", FullDiskElsewhere())
    assert [trial.status for trial in read_run(tmp_path / "out").trials] == ["ok", "ok"]
    launcher = FakeLauncher()
    run = campaign(plan, tmp_path / "out", launcher, resume=True)
    whole = launched_by(plan, tmp_path / "whole")
    assert len(launcher.launched) == len(whole) - 2
    assert {trial.status for trial in run.trials} == {"ok"}
