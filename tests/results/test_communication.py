"""The table of what cells exchange, in the terminal, in every format, and beside a machine's own bandwidths."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from parbench.cli.main import cli
from parbench.errors import ScenarioError, UsageError
from parbench.export.communication import communication_document, print_communication
from parbench.records.account import AccountRecord, ExchangeRecord
from parbench.results.communication import COLUMNS, communication_table
from parbench.results.store import Run
from parbench.scenario.machine import write_machine
from tests.figures.test_communication import MACHINE
from tests.support.records import cell, rank, reference, run, trial

STORED = Path(__file__).parents[2] / "results/stored/lstm_scaling-cpu-2-cores"


def exchanging(axis: str | None = None) -> Run:
    """ddp on four devices, where a rank hands 200 kB to two calls, and receives something that nobody counted."""
    ddp = cell("ddp", 4)
    records = (
        ExchangeRecord(name="all_reduce", axis=axis, ranks=4, calls=2, seconds=2e-3, given_bytes=2e5),
        ExchangeRecord(name="recv", calls=1, seconds=1e-3),
    )
    account = AccountRecord(steps=3, profiled_s=1.0, parts={"forward": 1.0}, exchanges=records)
    ranks = tuple(rank(index, account=account) for index in range(4))
    return run([cell(), ddp], [reference(cell()), trial(cell()), trial(ddp, ranks=ranks)])


def text_of(table) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_communication(table, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_row_says_how_fast_calls_are_beside_what_the_machine_reaches() -> None:
    table = communication_table(exchanging(), MACHINE)
    assert list(table.columns) == list(COLUMNS)
    reduce, receive = table.to_dict(orient="records")
    assert (reduce["exchange"], reduce["bus_bandwidth"]) == ("all_reduce", pytest.approx(1.5e8))
    assert reduce["machine_bus_bandwidth"] == pytest.approx(1e9)
    assert reduce["share_of_machine"] == pytest.approx(0.15)
    assert receive["exchange"] == "recv"
    assert table[["given_bytes", "bus_bandwidth", "share_of_machine"]].isna().all(axis=1).tolist() == [False, True]


def test_people_see_units_and_what_columns_mean() -> None:
    text = text_of(communication_table(exchanging(), MACHINE))
    assert "ddp on 4" in text
    assert "all-reduce" in text
    assert "150 MB/s" in text
    assert "15 %" in text
    assert "share: of the machine's" in text
    assert "axis" not in text


def test_columns_that_nothing_is_known_of_are_left_out() -> None:
    text = text_of(communication_table(exchanging(axis="data")))
    assert "axis: of the mesh" in text
    assert "share" not in text
    assert "machine" not in text


def test_formats_get_the_same_rows() -> None:
    document = communication_document(communication_table(exchanging()))
    assert document.command == "communication"
    assert [row["exchange"] for row in document.data] == ["all_reduce", "recv"]
    assert document.data[1]["given_bytes"] is None


def test_a_run_without_exchanges_says_so() -> None:
    assert "No cell exchanges anything" in text_of(communication_table(run([cell()], [trial(cell())])))


def test_a_machines_file_belongs_to_this_table(tmp_path: Path) -> None:
    write_machine(MACHINE, tmp_path / "machine.yaml")
    stored = str(STORED)
    arguments = ["table", stored, "--machine", str(tmp_path / "machine.yaml")]
    refused = CliRunner().invoke(cli, arguments)
    assert isinstance(refused.exception, UsageError)
    assert "ask for that table as well" in str(refused.exception)
    assert CliRunner().invoke(cli, [*arguments, "--communication"]).exit_code == 0
    (tmp_path / "machine.yaml").write_text("schema_version: 1\n")
    damaged = CliRunner().invoke(cli, [*arguments, "--communication"])
    assert isinstance(damaged.exception, ScenarioError)
    assert "machine.yaml" in str(damaged.exception)
