"""Faults in ranks: one campaign in which a strategy from another package goes wrong in every way there is."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.faults.scenarios import alive, offspring, scenario, trials_of, under_deadline

# In which every fault of `misbehaving` has its test; `hold` needs a parent that is killed, in test_parent.py.
FAULTS = [
    *("before_group", "import", "setup", "raise", "exit", "leave", "kill", "memory", "hang", "stubborn", "offspring"),
    *("nan_loss", "infinite_loss", "nan_time", "infinite_time", "drift", "close"),
]
# Those that show before anything starts, and what is said of them.
UNPLANNABLE = {
    "misbehaving(how=layout)": "layout failed: RuntimeError: the layout fails (parbench_foreign.py:",
    "misbehaving(how=layout_exit)": "layout failed: SystemExit: 7 (parbench_foreign.py:",
    "misbehaving(how=no_layout)": "layout failed: TypeError: must return a Layout, not None (",
    "misbehaving(how=variants)": "variants failed: ZeroDivisionError: division by zero (parbench_foreign.py:",
    "misbehaving(how=is_exact)": "is_exact failed: ZeroDivisionError: division by zero (parbench_foreign.py:",
    "absent": "could not be imported: ModuleNotFoundError: No module named 'parbench_foreign.absent'; "
    "'parbench_foreign' is not a package (package parbench-foreign, ",
}
SECRET = "a secret of the environment"  # noqa: S105


@dataclass
class Campaign:
    """The finished campaign: what was printed, its table, and its trials."""

    code: int
    errors: str
    rows: dict[str, dict[str, Any]]
    trials: dict[str, dict[str, Any]]
    folder: Path
    left_over: list[Any]

    def failed(self, how: str) -> tuple[str, str, dict[str, Any]]:
        """Status and reason of the cell that goes wrong by `how`, and its trial."""
        label = f"misbehaving(how={how})"
        row, trial = self.rows[label], self.trials[f"bag/{label}/2"]
        assert (row["status"], row["speedup"]) == (trial["status"], None)
        assert row["reason"] in self.errors
        assert not any(alive(rank["pid"], time.time()) for rank in trial["ranks"] if rank["pid"])
        return row["status"], row["reason"], trial


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, foreign_package: Path) -> Campaign:
    parbench = CommandLine(tmp_path_factory.mktemp("campaign"), packages=foreign_package)
    parbench.environment["AWS_SECRET_ACCESS_KEY"] = SECRET
    unplannable = [name.removeprefix("misbehaving(how=").removesuffix(")") for name in UNPLANNABLE if name != "absent"]
    strategies = ["single", "averaging", "absent", {"misbehaving": {"how": [*FAULTS, *unplannable]}}]
    (parbench.folder / "faults.yaml").write_text(scenario(*strategies))
    ended: list[subprocess.CompletedProcess[str]] = []

    def run(deadline_s: float) -> Path:
        shutil.rmtree(parbench.folder / "out", ignore_errors=True)
        ended.append(parbench("run", "faults.yaml", "--out", "out", "--set", f"measure.deadline_s={deadline_s}"))
        return parbench.folder / "out"

    # Four of these faults are hangs, and wait for it.
    out = under_deadline(run, 8)
    left_over = offspring()
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    return Campaign(
        code=ended[-1].returncode,
        errors=ended[-1].stderr,
        rows={row["label"]: row for row in rows if row["devices"] == 2 or row["strategy"] == "single"},
        trials={trial["cell"]: trial for trial in trials_of(out)},
        folder=parbench.folder,
        left_over=left_over,
    )


def test_row_01_a_rank_raises(campaign: Campaign) -> None:
    status, reason, trial = campaign.failed("raise")
    assert status == "failed"
    assert reason == "rank 1 failed in warm-up: RuntimeError: the third step always fails"
    assert "in misbehave" in trial["ranks"][1]["failure"]["traceback"]
    assert "in misbehave" in trial["log_tail"]
    # All that was asked for was measured, and what went well is comparable.
    assert campaign.code == 3
    assert "Traceback" not in campaign.errors
    assert len(campaign.rows) == len(FAULTS) + len(UNPLANNABLE) + 2
    assert [campaign.rows[name]["parity"] for name in ("single", "averaging")] == ["reference", "ok"]
    assert campaign.rows["averaging"]["speedup"] > 0


def test_row_02_a_rank_is_killed(campaign: Campaign) -> None:
    status, reason, _ = campaign.failed("kill")
    assert (status, reason) == ("killed", "rank 1 was ended by SIGKILL in warm-up")


def test_row_03_out_of_memory(campaign: Campaign) -> None:
    status, reason, trial = campaign.failed("memory")
    assert status == "out_of_memory"
    assert "can't allocate memory" in reason
    peak = trial["ranks"][1]["memory"]["resident_growth"]
    assert peak > 2**27
    assert f"(its peak was {peak / 2**20:,.0f} MiB)" in reason


def test_row_04_a_hang_before_the_process_group_forms(campaign: Campaign) -> None:
    status, reason, trial = campaign.failed("before_group")
    assert status == "timed_out"
    assert reason.endswith("rank 1 was in start")
    assert "in layout" in trial["log_tail"]


def test_row_05_a_hang_in_a_collective(campaign: Campaign) -> None:
    status, reason, trial = campaign.failed("hang")
    assert status == "timed_out"
    assert reason.endswith("was in warm-up")
    first, second = trial["log_tail"].split("[rank 1]")
    assert "all_reduce" in first
    assert "in misbehave" in second


def test_row_06_a_worker_that_ignores_signals(campaign: Campaign) -> None:
    status, _, trial = campaign.failed("stubborn")
    assert status == "timed_out"
    assert "in misbehave" not in trial["log_tail"].partition("[rank 1]")[2]


def test_row_07_grandchildren(campaign: Campaign) -> None:
    status, _, _ = campaign.failed("offspring")
    assert status == "timed_out"
    assert campaign.left_over == []


@pytest.mark.parametrize(("how", "told"), [("nan", "nan"), ("infinite", "inf")])
def test_row_15_a_loss_or_time_that_is_not_finite(campaign: Campaign, how: str, told: str) -> None:
    status, reason, _ = campaign.failed(f"{how}_loss")
    assert status == "failed"
    assert f"FloatingPointError: the loss of step 2 is {told}" in reason
    status, reason, _ = campaign.failed(f"{how}_time")
    assert status == "failed"
    assert f"FloatingPointError: the time that the strategy says it waited is {told}" in reason


def test_row_15_json_stays_standard_json(campaign: Campaign) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for path in (campaign.folder / "out").rglob("*.json*"):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)


def test_row_27_secrets_in_the_environment(campaign: Campaign) -> None:
    files = [path for path in campaign.folder.rglob("*") if path.is_file()]
    assert len(files) > len(FAULTS)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("import", "rank 1 failed in setup: ModuleNotFoundError: No module named 'parbench_foreign.absent'"),
        ("setup", "rank 1 failed in setup: RuntimeError: the set-up fails"),
        ("close", ": RuntimeError: closing fails"),
        ("exit", "rank 1 failed in warm-up: SystemExit: 7"),
    ],
)
def test_row_29_a_plug_in_that_fails(campaign: Campaign, how: str, reason: str) -> None:
    status, told, trial = campaign.failed(how)
    assert status == "failed"
    assert reason in told
    assert "parbench_foreign.py" in trial["ranks"][1]["failure"]["traceback"]


@pytest.mark.parametrize("label", UNPLANNABLE)
def test_row_29_a_plug_in_that_cannot_be_planned_with(campaign: Campaign, label: str) -> None:
    row = campaign.rows[label]
    assert (row["status"], row["rounds"]) == ("skipped", 0)
    assert row["reason"].startswith(UNPLANNABLE[label])


def test_row_29_what_cannot_be_planned_with_is_said_and_is_no_success(parbench_with_plugins: CommandLine) -> None:
    parbench = parbench_with_plugins
    broken = ["absent", {"absent": {"how": ["this", "that"]}}, {"misbehaving": {"how": "layout"}}]
    (parbench.folder / "broken.yaml").write_text(scenario("single", *broken))
    plan = parbench("plan", "broken.yaml")
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.count("skipped: could not be imported: ModuleNotFoundError") == 3
    assert "skipped: layout failed: RuntimeError: the layout fails" in plan.stdout
    ended = parbench("run", "broken.yaml")
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "single" in ended.stdout, "the table of the rest"


def test_a_rank_that_leaves_without_a_word(campaign: Campaign) -> None:
    status, reason, _ = campaign.failed("leave")
    assert (status, reason) == ("failed", "rank 1 ended with exit code 0 in warm-up, without an error message")


def test_losses_that_drift_are_not_comparable(campaign: Campaign) -> None:
    row = campaign.rows["misbehaving(how=drift)"]
    assert (row["status"], row["parity"], row["speedup"]) == ("ok", "failed", None)
    assert "not comparable: losses differ from the reference by" in row["reason"]
