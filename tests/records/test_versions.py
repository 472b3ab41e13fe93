"""What other versions of parbench have written, and will write."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from parbench.check import baselines
from parbench.check.compare import against_baseline, spec_of
from parbench.launch.trial_folder import read_ranks
from parbench.records.assignment import Assignment
from parbench.records.corpus import Corpus
from parbench.records.curves import CurvesRecord, SampleRecord
from parbench.records.energy import EnergyRecord, GpuReadings, PackageReadings, counted
from parbench.records.memory_account import GrowthRecord, HeldRecord, MemoryAccountRecord, MemoryPartsRecord
from parbench.records.node import NodeRecord
from parbench.records.routing import RoutingRecord
from parbench.records.trial import (
    DeviceMemory,
    Failure,
    GenerationRecord,
    GpuSurroundings,
    MemoryRecord,
    RankRecord,
    SurroundingsRecord,
    TrafficRecord,
)
from parbench.results.seal import seal
from parbench.results.store import RUN_FILE, TRIALS_FILE, read_run
from parbench.results.tables import cells_table
from tests.support import records
from tests.support.check_runs import run as checked_run

RESULTS = Path(__file__).parents[2] / "results"
CORPUS = Corpus(path="tokens", sha256="0" * 64, tokens=1000, vocab_size=16, dtype="int32")
RANK = records.rank(
    jobs=(records.job(generation=GenerationRecord(sequences=("a",))),),
    memory=MemoryRecord(devices=(DeviceMemory(allocated_peak=1, reserved_peak=2),)),
    surroundings=SurroundingsRecord(gpus=(GpuSurroundings(uuid="GPU-0"),)),
    energy=EnergyRecord(
        seconds=2.0,
        gpus=(GpuReadings(uuid="GPU-0", energy_j=counted(1.0)),),
        packages=PackageReadings(machine="m"),
    ),
    traffic=TrafficRecord(calls=1.0, given_bytes=2.0),
    routing=RoutingRecord(choices=((1, 2),)),
    curves=CurvesRecord(samples=(SampleRecord(operation="p2p", size=1024, seconds=(1.0,)),)),
    memory_account=MemoryAccountRecord(
        largest=MemoryPartsRecord(parameters=1),
        at_peak=MemoryPartsRecord(rest=1),
        expected=HeldRecord(),
        whole=HeldRecord(),
        growth=GrowthRecord(setup=1),
    ),
    failure=Failure(error="x", traceback="y", out_of_memory=False, at=1.0),
)
TRIAL = records.trial(ranks=(RANK,))
RUN = records.run_record(
    [records.cell()], corpora={"lstm": CORPUS}, nodes=(NodeRecord(node=0, host="a", address="b", machine="c"),)
)
ASSIGNMENT = Assignment(
    purpose="measure",
    cell="lstm/single/1",
    key="0",
    round=0,
    workload={},
    strategy="single",
    options={},
    device_kind="cpu",
    devices=1,
    threads=1,
    cores=(),
    corpus=CORPUS,
    seed=0,
    warmup="auto",
    window_s=1.0,
    validation_batches=1,
    deadline_s=1.0,
)


def with_more(value: Any) -> Any:
    """The value as plain data, with a field more in every record."""
    if isinstance(value, BaseModel):
        return {**{name: with_more(each) for name, each in value}, "of_tomorrow": [1]}
    if isinstance(value, dict):
        return {name: with_more(each) for name, each in value.items()}
    return [with_more(each) for each in value] if isinstance(value, tuple) else value


def newer(record: BaseModel) -> str:
    """The record as a parbench writes it whose records have a field more."""
    return json.dumps(with_more(record))


@pytest.mark.parametrize("record", [RANK, TRIAL, RUN, ASSIGNMENT], ids=lambda record: type(record).__name__)
def test_a_record_of_a_newer_parbench_is_read_without_what_is_new(record: BaseModel) -> None:
    assert "of_tomorrow" in newer(record)
    assert type(record).model_validate_json(newer(record)) == record


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    content = RANK.model_dump(mode="json")
    del content["jobs"][0]["steady"]
    (tmp_path / "rank0.json").write_text(json.dumps(content))
    (record,) = read_ranks(tmp_path, 1)
    assert record.failure is not None
    assert "jobs.0.steady: Field required" in record.failure.error


def test_a_newer_record_may_not_have_another_type() -> None:
    with pytest.raises(ValidationError, match="threads"):
        RankRecord.model_validate_json(json.dumps({**json.loads(newer(RANK)), "threads": "two"}))


def test_a_run_of_a_newer_parbench_is_read_and_its_seals_hold(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(seal(newer(RUN)))
    (tmp_path / TRIALS_FILE).write_text(
        seal(newer(TRIAL)) + "\n" + seal(newer(TRIAL)).replace('"ok"', '"failed"') + "\n"
    )
    run = read_run(tmp_path)
    assert (run.record, run.trials) == (RUN, (TRIAL,))
    assert len(run.problems) == 1
    assert "line 2 is left out" in run.problems[0]


def test_a_scenario_that_a_newer_parbench_has_read_can_be_checked() -> None:
    spec = spec_of(checked_run(check={"margin": 0.03, "of_tomorrow": True}))
    assert spec.margin == 0.03


def test_a_baseline_of_a_newer_parbench_is_read_unless_it_was_edited(tmp_path: Path) -> None:
    kept = baselines.save(checked_run(), "mine", tmp_path)
    content = kept.model_dump(mode="json", exclude={"digest"})
    for session in content["sessions"]:
        session["of_tomorrow"] = [1]
        for cell in session["cells"].values():
            cell["metrics"]["metric_of_tomorrow"] = [1.0]
    content["digest"] = baselines.digest_of(content)
    (tmp_path / "mine.json").write_text(json.dumps(content))
    found = baselines.load("mine", tmp_path)
    assert against_baseline(checked_run("second"), found).exit_code(strict=False) == 0
    assert any("metric_of_tomorrow" in line for line in json.dumps(found.model_dump(mode="json")).split(","))
    (tmp_path / "mine.json").write_text(json.dumps(content).replace('"of_tomorrow": [1]', '"of_tomorrow": [2]'))
    with pytest.raises(baselines.BaselineError, match="edited"):
        baselines.load("mine", tmp_path)


def stored_runs() -> list[str]:
    return sorted(path.parent.name for path in RESULTS.glob(f"stored/*/{RUN_FILE}"))


@pytest.mark.parametrize("name", stored_runs())
def test_every_stored_run_is_read_whole(name: str) -> None:
    run = read_run(RESULTS / "stored" / name)
    assert run.problems == ()
    assert len(run.trials) == len((run.folder / TRIALS_FILE).read_text().splitlines())
    assert len(cells_table(run)) == len(run.record.cells)
    assert spec_of(run).gate


def test_every_stored_baseline_is_read() -> None:
    folder = RESULTS / "baselines"
    for name in baselines.list_baselines(folder):
        assert baselines.load(name, folder).keys


def test_there_are_stored_runs() -> None:
    assert len(stored_runs()) > 5
