"""Baselines on disk, and what they are refused for."""

import json
from pathlib import Path

import pytest

from parbench.check import baselines
from parbench.errors import BaselineError, NothingMeasuredError, ResultsError, UsageError
from tests.support import records
from tests.support.check_runs import SINGLE, SPEED, check, run


def test_a_baseline_is_small_readable_and_comes_back(tmp_path: Path) -> None:
    kept = baselines.save(run(), "mine", tmp_path)
    text = (tmp_path / "mine.json").read_text()
    assert '"step_time_min_s": [0.2, 0.202, 0.198, 0.204, 0.196]' in text
    assert "first" not in json.loads(text)["environment"]
    assert baselines.load("mine", tmp_path) == kept
    assert baselines.list_baselines(tmp_path) == ["mine"]
    assert "session first" in "\n".join(baselines.summarise_contents(kept))


def test_sessions_are_added_and_the_oldest_drops_out(tmp_path: Path) -> None:
    for number in range(baselines.MAX_SESSIONS + 2):
        kept = baselines.save(run(f"run {number}"), "mine", tmp_path)
    assert kept.sessions[0].run == "run 2"
    assert len(kept.sessions) == baselines.MAX_SESSIONS
    assert not list(tmp_path.glob("*.tmp"))


def damaged(path: Path, how: str) -> None:
    text = path.read_text()
    content = json.loads(text)
    match how:
        case "missing":
            path.unlink()
        case "empty":
            path.write_text("")
        case "truncated":
            path.write_text(text[: len(text) // 2])
        case "edited":
            path.write_text(text.replace("0.202", "0.302"))
        case "newer":
            path.write_text(json.dumps({**content, "schema_version": 2}))
        case "nan":
            path.write_text(text.replace("0.202", "NaN"))
        case "list":
            path.write_text("[1]")
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
        case "field":
            path.write_text(json.dumps({**content, "sessions": 3}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "there is no baseline 'mine'"),
        ("empty", "is empty"),
        ("truncated", "cut off"),
        ("edited", "digest is not that of its content"),
        ("newer", "schema version 2"),
        ("nan", "damaged at sessions.0.cells"),
        ("list", "no baseline"),
        ("binary", "cannot be read"),
        ("field", "damaged at sessions"),
    ],
)
def test_a_baseline_that_cannot_be_trusted_is_said(how: str, words: str, tmp_path: Path) -> None:
    baselines.save(run(), "mine", tmp_path)
    damaged(tmp_path / "mine.json", how)
    with pytest.raises(BaselineError, match=words):
        baselines.load("mine", tmp_path)


@pytest.mark.parametrize("name", ["../mine", "/etc/passwd", "", ".hidden", "a/b", "a\0b", "n" * 101, "é", "-x"])
def test_a_name_never_becomes_another_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name for a baseline"):
        baselines.save(run(), name, tmp_path)
    with pytest.raises(UsageError, match="no name for a baseline"):
        baselines.load(name, tmp_path)


def test_what_cannot_be_saved_is_refused_with_a_sentence(tmp_path: Path) -> None:
    baselines.save(run(), "mine", tmp_path)
    with pytest.raises(UsageError, match="already"):
        baselines.save(run(), "mine", tmp_path)
    with pytest.raises(UsageError, match="another environment"):
        baselines.save(run("second", speed={**SPEED, "torch": "1"}), "mine", tmp_path)
    with pytest.raises(NothingMeasuredError, match="nothing to keep"):
        baselines.save(run("third", trials=[]), "mine", tmp_path)
    with pytest.raises(ResultsError, match="environment"):
        baselines.save(records.run([SINGLE], run().trials, rounds=5), "other", tmp_path)


def test_the_price_of_a_device_is_no_other_scenario() -> None:
    priced = run()
    for cost in (None, {"per_device_hour": 2.5}):
        priced.record.scenario["cost"] = cost
        assert baselines.scenario_sha256(priced) == baselines.scenario_sha256(run())
    priced.record.scenario["name"] = "other"
    assert baselines.scenario_sha256(priced) != baselines.scenario_sha256(run())


def test_a_run_is_not_checked_against_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measure again"):
        check(run("first"), tmp_path)


def test_a_baseline_from_before_a_field_is_of_the_same_environment(tmp_path: Path) -> None:
    later = {**SPEED, "network": [], "nccl": None, "gpu_links": {}}
    assert check(run("second", speed=later), tmp_path / "a").exit_code(strict=False) == 0
    assert check(run("second", speed={**SPEED, "nccl": "2.28.9"}), tmp_path / "b").foreign == ()
    nodes = check(run("second", speed={**SPEED, "network": ["eth0"]}), tmp_path / "c")
    assert [str(each) for each in nodes.foreign] == ['network: nothing in the baseline, ["eth0"] now']
    other = baselines.foreign_fields({"nccl": "2.27.5"}, {"nccl": "2.28.9"})
    assert [each.field for each in other] == ["nccl"]
