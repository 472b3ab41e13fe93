"""Bad input: what a scenario can do wrong, and bytes that are nothing at all."""

import contextlib
import csv
import json
import resource
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from parbench.check.baselines import load
from parbench.errors import ParbenchError
from parbench.launch.trial_folder import read_ranks
from parbench.models.base import FAMILIES
from parbench.plan.reading import read_plan
from parbench.records.assignment import Assignment
from parbench.results.seal import seal
from parbench.results.store import Store, read_run
from parbench.system.devices import detect
from tests.conftest import CommandLine
from tests.faults.scenarios import scenario
from tests.support.records import cell, reference, run_record, trial

GOOD = scenario("single", "ddp").replace("{kind: bag}", "{kind: lstm, layers: 2, d_model: 8}")
HOSTILE = ["</script><script>alert(1)</script>", "[/red]", "\x1b[31mred\x1b[0m", "=1+1", "{{ 7 * 7 }}"]
FORMS_OF_CHECK = ("text", "json", "junit", "markdown")
ROOM = 2**31


def plan(parbench: CommandLine, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`parbench plan`, in little memory."""
    (parbench.folder / "bad.yaml").write_text(text)
    return subprocess.run(
        parbench.command("plan", "bad.yaml", *arguments),
        cwd=parbench.folder,
        env=parbench.environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM)),
    )


def refused(ended: subprocess.CompletedProcess[str], *sentences: str) -> None:
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    for sentence in sentences:
        assert sentence in ended.stderr


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system [touch exploded]", "!!python/name:os.system", "!mine x", "!!binary aGk="]
)
def test_row_18_tags(parbench: CommandLine, value: str) -> None:
    refused(plan(parbench, GOOD.replace("name: faults", f"name: {value}")), "bad.yaml:2")
    assert not (parbench.folder / "exploded").exists()


def test_row_19_an_alias_bomb(parbench: CommandLine) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    refused(plan(parbench, bomb), "bad.yaml")


def test_row_19_deep_nesting(parbench: CommandLine) -> None:
    refused(plan(parbench, GOOD + "check: " + "[" * 3000 + "]" * 3000), "bad.yaml:13", "nest")


def test_row_19_a_file_of_100_mb(parbench: CommandLine) -> None:
    text = "x: [" + "1, " * 33_333_333 + "1]\n"
    refused(plan(parbench, text), "bad.yaml: cannot be read: it has 100,000,006 bytes, and at most 1,000,000 are read")


def test_row_20_every_mistake_at_once(parbench: CommandLine) -> None:
    text = (
        "name: 1:30\n"
        "workloads:\n"
        "  a:\n"
        "    model: {kind: lstm, layers: no, d_modle: 8}\n"
        "    optimizer: {kind: sgd, lr: 1e-3}\n"
        "    seq_len: '4'\n"
        "    global_batch: 8\n"
        "strategies: [single, dpd]\n"
        "measure: {rounds: 1.5, window: 2}\n"
        "devices: {oversubscribe: no}\n"
    )
    refused(
        plan(parbench, text),
        "bad.yaml:4: workloads.a.model.layers:",
        "bad.yaml:4: workloads.a.model.d_modle: unknown key; did you mean 'd_model'?",
        "bad.yaml:6: workloads.a.seq_len:",
        "bad.yaml:8: strategies.1: there is no strategy 'dpd'; did you mean 'ddp'?",
        "bad.yaml:9: measure.rounds:",
        "bad.yaml:9: measure.window: unknown key; did you mean 'window_s'?",
        "bad.yaml:10: devices.oversubscribe:",
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "bad.yaml:1: is empty"),
        ("- name: x\n", "bad.yaml:1: must be a mapping"),
        (GOOD + "name: again\n", "bad.yaml:13"),
        (GOOD.replace("window_s: 0.001", "window_s: .nan"), "bad.yaml:12: measure.window_s"),
        (GOOD.replace("window_s: 0.001", "window_s: 1:30"), "bad.yaml:12: measure.window_s"),
    ],
)
def test_row_20_one_mistake(parbench: CommandLine, text: str, sentence: str) -> None:
    refused(plan(parbench, text), sentence)


def test_row_20_1e_3_is_a_number(parbench: CommandLine) -> None:
    ended = plan(parbench, GOOD.replace("window_s: 0.001", "window_s: 1e-3"))
    assert ended.returncode == 0, ended.stderr


def test_row_22_names_are_inert_in_every_output(parbench: CommandLine) -> None:
    cells = [cell(workload=name, id=f"{name}/single/1", key=name, label=name) for name in HOSTILE]
    with Store.locked(parbench.folder / "results" / "mine") as store:
        store.begin(run_record(cells, scenario={"name": HOSTILE[0]}, command=("parbench", *HOSTILE)))
        for each in cells:
            store.append(reference(each))
            store.append(trial(each, status="failed", reason=each.label, log_tail=each.label))
    forms = {form: parbench("table", "mine", "--format", form) for form in ("text", "csv", "json", "markdown")}
    report = parbench("report", "mine")
    for ended in (*forms.values(), report, parbench("list", "runs")):
        assert ended.returncode == 0, ended.stderr
        assert "\x1b" not in ended.stdout + ended.stderr
    for row in csv.reader(StringIO(forms["csv"].stdout)):
        assert not any(value.startswith(("=", "+", "-", "@")) for value in row)
    assert len(json.loads(forms["json"].stdout)) == len(HOSTILE)
    assert "[/red]" in forms["text"].stdout
    page = (parbench.folder / report.stdout.strip()).read_text()
    for harmful in ("<script>alert", "\x1b", "{{"):
        assert harmful not in page.replace("{{ 7 * 7 }}", "")


def test_row_22_names_are_inert_in_every_output_of_check(parbench: CommandLine) -> None:
    cells = [cell(workload=name, id=f"{name}/single/1", key=name, label=name) for name in HOSTILE]
    environment = {"speed": {"physical_cores": 2}}
    for run, window_s in (("before", 2.0), ("now", 3.0)):
        with Store.locked(parbench.folder / "results" / run) as store:
            store.begin(run_record(cells, rounds=5, id=run, scenario={"name": HOSTILE[0]}, environment=environment))
            for each in cells:
                store.append(reference(each))
                for number in range(5):
                    failed = {"status": "failed", "reason": each.label} if run == "now" and each is cells[-1] else {}
                    store.append(trial(each, number, window_s=window_s + number / 100, **failed))
    assert parbench("baseline", "save", "before", "--name", "kept").returncode == 0
    told = {form: parbench("check", "now", "--baseline", "kept", "--format", form) for form in FORMS_OF_CHECK}
    for ended in told.values():
        assert ended.returncode == 1, ended.stderr
        assert "\x1b" not in ended.stdout + ended.stderr
    assert "[/red]/single/1" in told["text"].stdout
    assert "[/red]/single/1" in json.dumps(json.loads(told["json"].stdout))
    junit = ElementTree.fromstring(told["junit"].stdout)  # noqa: S314 - parbench's own
    assert any("</script><script>" in str(case.attrib) for case in junit.iter("testcase"))
    for form in ("junit", "markdown"):
        assert "<script>" not in told[form].stdout
    for line in told["text"].stdout.splitlines() + told["markdown"].stdout.splitlines():
        assert not line.startswith("=")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--set", "devices.counts=[64]", "--set", "devices.oversubscribe=false"], 2, "64 devices, but there are"),
        (["--set", "workloads.bag.global_batch=7", "--set", "strategies=[ddp]"], 2, "7"),
        (["--set", "workloads.bag.model={kind: transformer, d_model: 9, heads: 2, layers: 2}"], 2, "heads"),
        (["--set", "strategies=[single, {model_parallel: {schedule: interleaved_1f1b}}]",
          "--set", "workloads.bag.model.layers=1"], 0, "stages"),
        (["--set", "strategies=[single, tensor_parallel]", "--set", "workloads.bag.phase=generate"], 0, "skipped"),
    ],
)  # fmt: skip
def test_row_25_what_cannot_be_laid_out(parbench: CommandLine, arguments: list[str], code: int, sentence: str) -> None:
    ended = plan(parbench, GOOD, *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert sentence in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_row_40_a_window_longer_than_the_deadline(parbench: CommandLine) -> None:
    ended = plan(parbench, GOOD.replace("window_s: 0.001", "window_s: 5000"))
    refused(ended, "bad.yaml:12: measure.window_s: window_s 5000 leaves no time", "must be less than deadline_s 600")


def test_row_40_a_workload_that_is_not_there(parbench: CommandLine) -> None:
    ended = plan(parbench, GOOD, "--set", "workloads.nope.seq_len=3")
    refused(ended, "--set workloads.nope.seq_len: workloads.nope: there is no workload 'nope'; known are bag")


def test_row_40_a_batch_of_one(parbench: CommandLine) -> None:
    ended = plan(parbench, GOOD, "--set", "workloads.bag.global_batch=1")
    assert ended.returncode == 0, ended.stderr
    assert "skipped: a global batch of 1 does not divide into 2 equal data shards" in ended.stdout
    assert "1 cells to measure" in ended.stdout


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["single", "ddp", "auto", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "lr", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    "name", "workloads.bag", "workloads.bag.model", "workloads.bag.model.layers", "workloads.bag.seq_len",
    "workloads.bag.global_batch", "workloads.bag.optimizer", "workloads.bag.data", "strategies", "devices",
    "devices.counts", "measure", "measure.rounds", "measure.window_s", "check", "exclude", "nowhere",
]  # fmt: skip


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(PLACES), VALUES, min_size=1, max_size=3))
def test_row_32_random_scenarios(tmp_path: Path, changes: dict[str, Any]) -> None:
    FAMILIES.names()
    path = tmp_path / "random.yaml"
    path.write_text(GOOD)
    with contextlib.suppress(ParbenchError):
        read_plan(path, detect(), [f"{place}={json.dumps(value)}" for place, value in changes.items()])


BYTES = st.binary(max_size=200) | st.builds(
    lambda text, at, other: text[:at] + other + text[at + 1 :],
    st.sampled_from([trial().model_dump_json().encode(), run_record([cell()]).model_dump_json().encode()]),
    st.integers(0, 3000),
    st.binary(max_size=3),
)


@FUZZ
@given(content=BYTES)
def test_row_32_random_bytes(tmp_path: Path, content: bytes) -> None:
    for name in ("run.json", "trials.jsonl", "rank0.json", "kept.json", "random.yaml", "cell.json"):
        (tmp_path / name).write_bytes(content)
    for read in (
        lambda: read_run(tmp_path),
        lambda: load("kept", tmp_path),
        lambda: read_plan(tmp_path / "random.yaml", detect(), ()),
        lambda: read_ranks(tmp_path, 1),
    ):
        with contextlib.suppress(ParbenchError):
            read()
    with pytest.raises(ValidationError):
        Assignment.model_validate_json((tmp_path / "cell.json").read_bytes())
    (tmp_path / "run.json").write_text(seal(run_record([cell()]).model_dump_json()))
    with contextlib.suppress(ParbenchError):  # of another schema version
        assert bool(read_run(tmp_path).problems) == bool(content)


RECORDS = {"run.json": run_record([cell()]), "trials.jsonl": trial()}


@FUZZ
@given(
    name=st.sampled_from(list(RECORDS)),
    changes=st.dictionaries(st.sampled_from([*trial().model_dump(), "cells", "corpora", "x"]), VALUES, max_size=3),
)
def test_row_32_random_values_in_sealed_records(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    """The digest is right, so that it is the record's own model which has to refuse them."""
    for each, record in RECORDS.items():
        content = {**json.loads(record.model_dump_json()), **(changes if each == name else {})}
        (tmp_path / each).write_text(seal(json.dumps(content)))
    with contextlib.suppress(ParbenchError):
        run = read_run(tmp_path)
        assert bool(run.trials) != bool(run.problems)


@FUZZ
@given(
    name=st.sampled_from(list(RECORDS)), opening=st.sampled_from(["[", '{"a":', '{"schema_version":1,"a":[']),
    depth=st.integers(1, 50_000),
)  # fmt: skip
def test_row_32_nesting_of_any_depth(tmp_path: Path, name: str, opening: str, depth: int) -> None:
    for each, record in RECORDS.items():
        (tmp_path / each).write_text(opening * depth if each == name else seal(record.model_dump_json()))
    with contextlib.suppress(ParbenchError):
        assert read_run(tmp_path).problems
