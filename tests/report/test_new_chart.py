"""A chart is one file: a copy of the package in which a file was added draws it, and nothing else was edited."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import parbench
from tests.report.test_page import STORED

CHART = '''
from matplotlib.figure import Figure

from parbench.report.charts.base import PanelChart
from parbench.report.drawing.canvas import report_style
from parbench.report.drawing.chart import Chart


class Rounds(PanelChart):
    """How many rounds each cell has."""

    name = "rounds"
    order = 25

    @classmethod
    def draw(cls, panel, prefix):
        with report_style():
            figure = Figure(figsize=(5.6, 3.2))
            figure.subplots().bar([cell.place for cell in panel.cells], [len(cell.trials) for cell in panel.cells])
        rows = [[cell.name, str(len(cell.trials))] for cell in panel.cells]
        yield Chart(id=f"{prefix}-rounds", name="Rounds", subject=panel.title, caption="Rounds of every cell.",
                    alt="Bars of rounds.", header=("strategy", "rounds"), rows=rows, figure=figure)
'''


def test_a_chart_file_that_is_added_is_on_the_page_and_named_nowhere_else(tmp_path):
    shutil.copytree(Path(parbench.__file__).parent, tmp_path / "parbench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "parbench/report/charts/rounds.py").write_text(CHART)
    subprocess.run(
        [sys.executable, "-m", "parbench", "report", str(STORED), "--out", str(tmp_path / "out"), "--format", "html"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    page = (tmp_path / "out/index.html").read_text()
    memory, rounds, steps = (
        int(re.search(rf'<figure id="lstm-strong-{name}" style="order:(\d+)"', page)[1])
        for name in ("memory", "rounds", "steps")
    )
    assert memory < rounds < steps
    assert "Rounds of every cell." in page
