"""The table of what memory holds, as people read it and as programs do."""

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

from parbench.cli.main import cli
from parbench.export.base import FORMATS
from parbench.export.memory import memory_document, print_memory
from parbench.records.memory_account import MemoryAccountRecord, MemoryPartsRecord
from parbench.records.trial import DeviceMemory, MemoryRecord
from parbench.results.memory import COLUMNS, memory_table
from parbench.results.store import Run
from tests.support.memory import MIB, account, accounted
from tests.support.records import cell, rank, reference, run, trial

WHOLE = (96, 96, 192)


def run_of(*, expected: tuple[int, int, int] | None = None) -> Run:
    """Replicas, shards and stages; `expected` is what the second stage has to hold."""
    single, fsdp, pipe, old = cell(), cell("fsdp", 4), cell("pipe", 2), cell("old", 2)
    one = account(whole=WHOLE, parameters=96, optimizer_state=192, gradients=96, activations=10)
    shard = account(whole=WHOLE, parameters=24, optimizer_state=48, gradients=24, activations=3, buffers=5)
    first = account(whole=WHOLE, parameters=60, optimizer_state=120, gradients=60, rest=1)
    second = account(whole=WHOLE, expected=expected, parameters=36, optimizer_state=72, gradients=36, rest=7)
    trials = [
        reference(single),
        trial(single, ranks=(accounted(0, 410, one),)),
        trial(fsdp, ranks=tuple(accounted(number, 110 + number, shard) for number in range(4))),
        trial(pipe, ranks=(accounted(0, 250, first), accounted(1, 160, second))),
        trial(old),
    ]
    return run([single, fsdp, pipe, old], trials)


def printed(of: Run, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_memory(memory_table(of), console)
    return console.file.getvalue()


def line_of(text: str, name: str) -> list[str]:
    """The fields of a line: what stands between at least two spaces."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return [field.strip() for field in line.split("  ") if field.strip()]


def test_ranks_that_hold_the_same_are_one_line_with_the_largest_that_was_measured() -> None:
    text = printed(run_of())
    assert line_of(text, "fsdp") == [
        *("fsdp on 4", "0–3", "113 MiB", "104 MiB"),
        *("24 MiB (1/4)", "48 MiB (1/4)", "24 MiB (1/4)", "3.0 MiB", "5.0 MiB", "0 MiB"),
    ]
    assert line_of(text, "single")[3:7] == ["394 MiB", "96 MiB", "192 MiB", "96 MiB"]
    assert text.count("pipe on 2") == 2
    assert "old on 2" not in text


def test_the_table_says_whether_arithmetic_agrees_or_where_not() -> None:
    agrees = "are to the byte what each strategy's arithmetic says"
    assert agrees in printed(run_of())
    text = printed(run_of(expected=(36, 36, 70)))
    assert agrees not in text
    assert f"pipe on 2, rank 1: optimizer take {72 * MIB:,} bytes, and {70 * MIB:,} by arithmetic" in text


def test_what_is_not_there_at_the_peak_is_named_beside_all_of_it() -> None:
    at_peak = MemoryPartsRecord(parameters=96 * MIB, gradients=10 * MIB)
    largest = MemoryPartsRecord(parameters=96 * MIB, gradients=96 * MIB)
    partly = MemoryAccountRecord(largest=largest, at_peak=at_peak)
    single = cell()
    text = printed(run([single], [reference(single), trial(single, ranks=(accounted(0, 200, partly),))]))
    assert line_of(text, "single")[-4:-3] == ["10 MiB of 96 MiB"]
    assert "arithmetic says" not in text


def test_without_a_peak_there_is_what_is_kept() -> None:
    hidden = MemoryAccountRecord(largest=MemoryPartsRecord(parameters=96 * MIB, gradients=96 * MIB))
    single = cell()
    text = printed(run([single], [reference(single), trial(single, ranks=(accounted(0, 200, hidden),))]))
    assert line_of(text, "single")[3:] == ["–", "96 MiB", "0 MiB", "96 MiB", "–", "–", "–"]


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [
        (96, 96, ""),
        (48, 96, " (1/2)"),
        (36, 96, " (3/8)"),
        (95, 96, " (99 %)"),
        (192, 96, " (2×)"),
        (100, 96, " (1.04×)"),
    ],
)
def test_a_share_is_a_fraction_where_it_is_exact(part: int, whole: int, share: str) -> None:
    single = cell()
    held = account(whole=(whole, 0, 0), parameters=part)
    text = printed(run([single], [reference(single), trial(single, ranks=(accounted(0, 9, held),))]))
    assert line_of(text, "single")[4] == f"{part} MiB{share}"


@pytest.mark.parametrize("width", [200, 120, 100, 80, 40])
def test_no_number_is_cut_and_what_has_no_room_is_named(width: int) -> None:
    text = printed(run_of(), width)
    table = text[: text.index("Parameters, gradients")].splitlines()[1:]
    body = [line for line in table if not line.startswith("No room")]
    assert all(len(line) <= width for line in body) or width < 60
    assert "…" not in text
    titles = ["memory/rank", "tensor peak", "parameters", "activations", "rest"]
    missing = [title for title in titles if title not in body[0]]
    note = next((line for line in table if line.startswith("No room")), "")
    assert all(title in note for title in missing)
    assert bool(note) is bool(missing)


def test_gpus_show_what_was_reserved_and_what_the_device_used() -> None:
    single = cell(device_kind="cuda")
    device = DeviceMemory(allocated_peak=50 * MIB, reserved_peak=70 * MIB, device_used=900 * MIB)
    memory = MemoryRecord(devices=(device,))
    ranks = (rank(memory=memory, memory_account=account(parameters=20, rest=30)),)
    text = printed(run([single], [reference(single), trial(single, ranks=ranks)]))
    assert line_of(text, "single")[2:6] == ["50 MiB", "70 MiB", "900 MiB", "50 MiB"]


def test_a_run_of_an_older_version_has_no_account() -> None:
    single = cell()
    assert "No cell has an account" in printed(run([single], [reference(single), trial(single)]))


def test_programs_get_a_row_for_each_rank() -> None:
    table = memory_table(run_of())
    assert list(table.columns) == list(COLUMNS)
    rows = json.loads(FORMATS["json"]().write(memory_document(table)))
    assert [(row["label"], row["rank"]) for row in rows] == [
        ("single", 0), *(("fsdp", number) for number in range(4)), ("pipe", 0), ("pipe", 1),
    ]  # fmt: skip
    parts = ("parameters", "optimizer_state", "gradients", "activations", "buffers", "rest")
    assert all(sum(row[part] for part in parts) == row["tensor_peak_bytes"] for row in rows)
    assert rows[1]["whole_parameters"] == 4 * rows[1]["held_parameters"] == 4 * rows[1]["expected_parameters"]
    assert rows[0]["growth_setup"] is None
    for name in ("csv", "markdown", "parquet"):
        assert FORMATS[name]().write(memory_document(table))


def test_a_stored_run_without_accounts_is_printed_as_such() -> None:
    ended = CliRunner().invoke(cli, ["table", "results/stored/zero1-cpu-2-cores", "--memory"])
    assert ended.exit_code == 0, ended.output
    assert "No cell has an account of its memory" in ended.output
