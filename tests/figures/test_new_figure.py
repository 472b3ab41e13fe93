"""The page on adding a figure, followed to the letter: its code in one file, and the figure is everywhere."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
RUN = REPOSITORY / "results/stored/lstm_scaling-cpu-2-cores"
NAME, TITLE = "bytes_per_parameter", "bytes/parameter"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, with the page's two blocks in the file that it names."""
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(REPOSITORY / "parbench", copy / "parbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(RUN, copy / "run")
    formula, figures = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/new-figure.md").read_text(), re.DOTALL)
    file = copy / "parbench/figures/memory.py"
    *before, last = file.read_text().splitlines(keepends=True)
    assert last.startswith("FIGURES = (")
    file.write_text("".join([*before, formula, "\n", figures]))
    return copy


def parbench(house: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(house)}
    command = [sys.executable, "-m", "parbench", *arguments]
    return subprocess.run(command, cwd=house, env=environment, check=True, capture_output=True, text=True).stdout


def test_it_is_a_column_of_the_table_and_of_its_exports(house: Path) -> None:
    (row, *_) = csv.DictReader(io.StringIO(parbench(house, "table", "run", "--format", "csv")))
    assert 4 < float(row[NAME]) < float(row["peak_memory_bytes"])
    assert TITLE in parbench(house, "table", "run", "--format", "markdown")


def test_it_has_a_chart_and_an_entry_in_the_glossary(house: Path) -> None:
    page = (house / parbench(house, "report", "run", "--out", "page").strip()).read_text()
    assert "lstm-strong-bytes-per-parameter" in page
    assert "Peak memory of a rank ÷ the parameters that it holds" in page


def test_check_keeps_and_compares_it_and_a_scenario_can_name_it(house: Path) -> None:
    parbench(house, "baseline", "save", "run", "--name", "mine")
    stored = json.loads((house / "results/baselines/mine.json").read_text())
    (session,) = stored["sessions"]
    assert all(NAME in cell["metrics"] for cell in session["cells"].values())
    schema = json.loads(parbench(house, "schema"))
    assert NAME in schema["$defs"]["CheckSpec"]["properties"]["gate"]["items"]["enum"]
