"""What is lost of the ideal speedup, as a table; from made-up records, and from real launches."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from parbench.export.base import FORMATS
from parbench.export.waterfall import print_waterfall, waterfall_document
from parbench.results.sessions import pool_sessions
from parbench.results.store import Run, read_run
from parbench.results.waterfall import COLUMNS, waterfall_table
from tests.conftest import CommandLine
from tests.support.records import cell
from tests.support.waterfalls import COMPANIONS, explained

LOSSES = ("batch", "contention", "communication", "waiting", "pipeline", "data", "remainder")


def row_of(run: Run) -> dict[str, float]:
    (row,) = waterfall_table(run).to_dict(orient="records")
    return {str(name): value for name, value in row.items()}


def printed(run: Run, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_waterfall(waterfall_table(run), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_cell_is_related_to_its_companions_of_the_same_round() -> None:
    row = row_of(explained(spread=(1.0,)))
    assert (row["label"], row["devices"], row["ideal"], row["speedup"]) == ("ddp", 2, 2, pytest.approx(1.44))
    expected = (0.10, 0.05, 0.27, 0.0, 0.09, 0.0, 0.05)
    assert [row[loss] for loss in LOSSES] == [pytest.approx(each) for each in expected]
    assert math.isnan(row["unsplit"])
    assert tuple(row) == COLUMNS


def test_losses_add_up_to_what_the_table_of_cells_says_is_missing() -> None:
    row = row_of(explained())
    assert sum(row[loss] for loss in LOSSES) == pytest.approx(2 - row["speedup"])
    assert row["communication_ci_low"] < row["communication"] < row["communication_ci_high"]
    assert row["batch_ci_low"] == row["batch"] == row["batch_ci_high"], "its launches do not differ"


def test_without_companions_one_column_has_what_they_would_tell_apart() -> None:
    row = row_of(explained(together=None))
    assert math.isnan(row["batch"])
    assert row["unsplit"] + sum(row[part] for part in ("communication", "pipeline")) == pytest.approx(
        2 - row["speedup"]
    )
    text = printed(explained(together=None))
    assert "batch, contention, rest" in text
    assert "measure.explain: true tells apart" in text


def test_cells_that_nothing_explains_have_no_row() -> None:
    table = waterfall_table(explained(alone=None, parts=None))
    assert table.empty
    assert list(table.columns) == list(COLUMNS)
    assert "Nothing explains a cell's speedup" in printed(explained(alone=None, parts=None))


def test_people_read_losses_with_half_of_their_intervals_and_no_column_of_nothing() -> None:
    lines = printed(explained(of=cell("ddp", 2, companions=COMPANIONS, oversubscribed=True))).splitlines()
    assert lines[0].startswith("lstm: strong scaling, what is lost on the way from ideal to measured speedup")
    assert lines[1].split("  ")[0].strip() == "strategy"
    for title in ("ideal", "smaller batch", "contention", "exposed", "bubble", "rest", "speedup"):
        assert title in lines[1]
    assert "waiting" not in lines[1]
    assert "ddp (oversubscribed) on 2" in lines[2]
    assert "0.10 ±0.00" in lines[2]
    assert "0.27 ±0.00" in lines[2]
    assert lines[2].endswith(" 1.44×")
    assert max(map(len, lines[1:3])) <= 120


def test_a_gain_has_a_sign_and_a_zero_has_none() -> None:
    text = printed(explained(alone=1.0, together=1.7, spread=(1.0,)))
    assert " -0.10 " in text
    zero = printed(explained(measured=1.2, alone=1.0001, together=1.5, spread=(1.0,)))
    assert "-0.00" not in zero


@pytest.mark.parametrize("name", ["csv", "json", "markdown", "parquet"])
def test_every_format_can_write_it(name: str) -> None:
    written = FORMATS[name]().write(waterfall_document(waterfall_table(explained())))
    assert "contention" in (written if isinstance(written, str) else written.decode("latin-1"))


def test_sessions_that_are_pooled_have_the_companions_of_all() -> None:
    first, second = explained(), explained(measured=1.6)
    runs = [
        Run(run.folder, run.record.model_copy(update={"id": name, "code": "same"}), code_of(run), ())
        for name, run in (("monday", first), ("tuesday", second))
    ]
    (pooled,) = pool_sessions(runs)
    row = row_of(pooled)
    assert row["speedup"] == pytest.approx((1.44 * 1.6) ** 0.5, rel=0.01)
    assert row["batch"] == pytest.approx(0.1)
    assert sum(row[loss] for loss in LOSSES) == pytest.approx(2 - row["speedup"])


def code_of(run: Run) -> tuple:
    return tuple(trial.model_copy(update={"code": "same"}) for trial in run.trials)


SCENARIO = """
name: explained
workloads:
  train:
    model: {kind: transformer, layers: 2, d_model: 32, heads: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 16
    global_batch: 8
strategies:
  - single
  - ddp
  - tensor_parallel
  - model_parallel: {schedule: gpipe, micro_batches: 4}
  - task_pool
devices: {kind: cpu, counts: [1, 2], oversubscribe: true}
measure: {rounds: 2, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600, explain: true}
exclude: [{devices: 1, strategy: [ddp, tensor_parallel, model_parallel, task_pool]}]
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    parbench = CommandLine(tmp_path_factory.mktemp("explained"))
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    return parbench


def test_real_launches_are_explained(measured: CommandLine) -> None:
    run = read_run(Path(measured.folder / "out"))
    companions = [trial for trial in run.trials if trial.purpose == "companion"]
    assert {trial.status for trial in companions} == {"ok"}
    assert sorted(trial.cell for trial in companions if trial.round == 1) == [
        "train/single/1 (companion, batch 4)",
        "train/single/1 (companion, batch 8 in 4 parts)",
        "train/task_pool/2 (companion, batch 4)",
        "train/task_pool/2 (companion, batch 8 in 4 parts)",
    ]
    assert len(companions) == 8
    assert {rank.account for trial in companions for rank in trial.ranks} == {None}


def test_the_command_prints_what_adds_up(measured: CommandLine) -> None:
    rows = json.loads(measured("table", "out", "--waterfall", "--format", "json").stdout)
    assert [row["strategy"] for row in rows] == ["ddp", "tensor_parallel", "model_parallel"]
    for row in rows:
        assert sum(row[loss] for loss in LOSSES) == pytest.approx(2 - row["speedup"])
        assert row["unsplit"] is None
        assert row["contention"] is not None
    ddp, split, pipeline = rows
    assert ddp["communication"] > 0
    assert split["batch"] == 0, "every device takes the whole batch, as the base does"
    assert (ddp["pipeline"], pipeline["pipeline"] > 0) == (0, True)
    cells = json.loads(measured("table", "out", "--format", "json").stdout)
    assert [cell["label"] for cell in cells if cell["devices"] == 2] == [row["label"] for row in rows] + ["task_pool"]
    text = measured("table", "out", "--waterfall").stdout
    assert "smaller batch" in text
    assert "measured with independent copies" in text


def test_one_table_at_a_time(measured: CommandLine) -> None:
    ended = measured("table", "out", "--waterfall", "--breakdown")
    assert ended.returncode == 2
    assert "ask for one of them" in ended.stderr
