"""`parbench predict` as people call it."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parbench.cli.main import cli, explain
from parbench.errors import ParbenchError
from tests.cli.test_main import without_torch
from tests.predict.test_ranking import SCENARIO

PUBLISHED = Path(__file__).parents[2] / "parbench" / "predict" / "published"


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    return str(path)


def predict(*arguments: str) -> tuple[int, Result]:
    """The exit code and what was printed: errors that a user can fix become codes as `main` makes them."""
    result = CliRunner().invoke(cli, ["predict", *arguments], standalone_mode=False)
    if isinstance(result.exception, ParbenchError):
        return explain(result.exception), result
    assert result.exception is None, result.exception
    return result.return_value, result


def test_the_best_layouts_are_shown_for_each_number_of_devices(scenario: str):
    code, result = predict(scenario, "--cluster", "dgx-a100-80", "--devices", "1,8", "--top", "3")
    assert code == 0
    assert "gpt on 1 × A100" in result.stdout
    assert "gpt on 8 × A100" in result.stdout
    assert "Assumed: attention is fused" in result.stdout


def test_a_layout_is_explained(scenario: str):
    code, result = predict(scenario, "--cluster", "dgx-a100-80", "--devices", "8", "--explain", "first")
    assert code == 0
    assert "compute" in result.stdout
    assert "activations" in result.stdout
    code, result = predict(scenario, "--cluster", "dgx-a100-80", "--devices", "8", "--explain", "nonsense")
    assert (code, str(result.exception)[:18]) == (2, "--explain nonsense")


def test_programs_get_csv_json_and_a_page(scenario: str):
    question = (scenario, "--cluster", "dgx-a100-80", "--devices", "8", "--top", "4", "--format")
    rows = list(csv.DictReader(io.StringIO(predict(*question, "csv")[1].stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    data = json.loads(predict(*question, "json")[1].stdout)
    assert [row["tokens_per_s"] for row in data[0]["predictions"]] == [float(row["tokens_per_s"]) for row in rows]
    assert predict(*question, "html")[1].stdout.startswith("<!doctype html>")


def test_nothing_that_fits_is_exit_code_3(scenario: str, tmp_path: Path):
    small = tmp_path / "small.yaml"
    small.write_text(
        "name: small\ndevices_per_node: 2\n"
        "device: {name: thing, memory_gib: 0.01, memory_bandwidth: 1e12, matmul_flops: {bf16: 1e14}}\n"
        "links: {node: {bandwidth: 1e11}, network: {bandwidth: 1e10}}\n"
    )
    code, result = predict(scenario, "--cluster", str(small))
    assert code == 3
    assert "fits into the memory of a device" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "say which SCENARIO"),
        (("SCENARIO",), "say which SCENARIO"),
        (("SCENARIO", "--against", "x.csv"), "leave SCENARIO and --cluster out"),
        (("SCENARIO", "--cluster", "dgx-a100-80", "--devices", "many"), "write numbers with commas"),
        (("SCENARIO", "--cluster", "dgx-a100-80", "--devices", "0"), "must be at least 1"),
        (("SCENARIO", "--cluster", "dgx-a100-80", "--devices", "12"), "12 devices do not fill nodes"),
        (("SCENARIO", "--cluster", "dgx"), "neither a file nor a cluster"),
        (("--against", "nowhere.csv"), "cannot be read"),
    ],
)
def test_what_cannot_be_answered_is_told(arguments: tuple[str, ...], problem: str, scenario: str):
    code, result = predict(*(scenario if each == "SCENARIO" else each for each in arguments))
    assert code == 2
    assert problem in str(result.exception)


def test_the_planner_is_judged_on_a_table():
    table = str(PUBLISHED / "internevo_7b_scaling.csv")
    code, result = predict("--against", table, "--format", "json")
    data = json.loads(result.stdout)
    assert code == 0
    assert {"n", "median_error", "p90_error", "tau", "coverage", "by_source"} <= set(data)
    assert data["n"] == 24
    assert sum(each["n"] for each in data["by_source"].values()) == 24
    rows = list(csv.DictReader(io.StringIO(predict("--against", table, "--format", "csv")[1].stdout)))
    assert len(rows) == 24
    assert "median error" in predict("--against", table)[1].stdout


def test_predicting_needs_no_torch(scenario: str, tmp_path: Path):
    ended = without_torch("predict", scenario, "--cluster", "dgx-h100", "--devices", "8", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    judged = without_torch("predict", "--against", str(PUBLISHED / "torchtitan.csv"), cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr


def test_rows_that_cannot_be_predicted_are_told(tmp_path: Path):
    table = tmp_path / "table.csv"
    lines = (PUBLISHED / "internevo_7b_scaling.csv").read_text().splitlines()
    table.write_text(os.linesep.join([*lines[:3], lines[3].replace("A100-SXM4 80GB", "Frob 1")]) + "\n")
    code, result = predict("--against", str(table))
    assert code == 0
    assert "IE-003: left out: no cluster that comes with parbench has its device Frob 1" in result.stderr


def test_editors_get_the_schema_of_a_cluster():
    result = CliRunner().invoke(cli, ["schema", "--cluster"])
    assert set(json.loads(result.stdout)["properties"]) >= {"device", "links", "devices_per_node"}
