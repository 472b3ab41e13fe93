import io
import json
import math
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from parbench.cli.main import cli
from parbench.errors import UsageError
from parbench.export.base import FORMATS, Document, Format, formats_of
from parbench.export.cells import cells_document, columns_of
from parbench.export.terminal import IMPORTANT, print_table
from parbench.results.tables import cells_table, columns
from parbench.text import plain, with_unit
from tests.support.records import cell, job, rank, reference, run, trial

STORED = Path(__file__).parents[2] / "results/stored/lstm_scaling-cpu-2-cores"

HOSTILE = [
    "</script><script>alert(1)</script>",
    "[/red][bold]x[/bold]",
    "[link=file:///etc/passwd]x",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://example.org\x07x",
    "\x9b2J",
    "\x00\x07\x08",
    "a\rb",
    "a\nb",
    "a\tb",
    "\u202egnp.exe",
    "a\uffffb",
    "=1+1",
    '=HYPERLINK("http://example.org","x")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "a|b",
    "`a`",
    "![x](http://example.org)",
    "a,b",
    'a"b',
    "a\\|b",
    "ünï – 漢字 🙂",
    "NaN",
    "None",
]

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def to_csv(table: pd.DataFrame) -> str:
    return FORMATS["csv"]().write(cells_document(table))


def to_json(table: pd.DataFrame) -> str:
    return FORMATS["json"]().write(cells_document(table))


def to_markdown(table: pd.DataFrame) -> str:
    return FORMATS["markdown"]().write(cells_document(table))


def to_parquet(table: pd.DataFrame) -> bytes:
    return FORMATS["parquet"]().write(cells_document(table))


def hostile_table(text: str) -> pd.DataFrame:
    """A table whose workload, label and reason are this text."""
    single = cell(workload=text, label=text)
    other = cell("ddp", 2, workload=text, label=text, reason=text)
    return cells_table(run([single, other], [reference(single), trial(single)]))


def ordinary_table() -> pd.DataFrame:
    single, ddp, failed = cell(), cell("ddp", 2), cell("fsdp", 2)
    trials = [trial(single, number, window_s=2.0 + number / 10) for number in range(3)]
    trials += [trial(ddp, number, window_s=1.0 + number / 20) for number in range(3)]
    trials += [trial(failed, number, status="out_of_memory", reason="rank 0 failed: no memory") for number in range(3)]
    return cells_table(run([single, ddp, failed], [reference(single), *trials], rounds=3))


def printed(table: pd.DataFrame, width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_table(table, console)
    return console.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_reaches_a_terminal_as_anything_but_text(text):
    output = printed(hostile_table(text))
    assert not CONTROL.search(output)
    assert plain(text) in output
    assert len(output.splitlines()) == len(printed(hostile_table("x")).splitlines())


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_colours_a_terminal(text):
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")
    print_table(hostile_table(text), console)
    without_style = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "\x1b" not in without_style
    assert "\x1b[31m" not in console.file.getvalue()
    assert plain(text) in without_style


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_is_a_formula_or_a_line_of_its_own_in_csv(text):
    table = to_csv(hostile_table(text))
    assert not CONTROL.search(table)
    assert len(table.splitlines()) == 3
    back = pd.read_csv(io.StringIO(table), keep_default_na=False)
    assert list(back.columns) == list(columns())
    for column in ("workload", "label"):
        assert set(back[column]) <= {plain(text), f"'{plain(text)}"}
        assert not back[column].str.match(r"[=+\-@\t\r\n]").any()
    assert not re.search(r'(^|,)"?[=+\-@](?!\d)', table, re.MULTILINE)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_name_is_whole_in_json_and_inert_where_it_is_printed(text):
    table = to_json(hostile_table(text))
    assert not CONTROL.search(table)
    rows = json.loads(table, parse_constant=pytest.fail)
    assert [(row["workload"], row["label"]) for row in rows] == [(text, text)] * 2
    assert rows[1]["reason"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_breaks_out_of_its_cell_in_markdown(text):
    table = to_markdown(hostile_table(text))
    assert not CONTROL.search(table)
    assert len(table.splitlines()) == 4
    assert not re.search(r"(?<!\\)(\\\\)*[<>`\[\]]", table)
    for line in table.splitlines():
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(columns_of(hostile_table(text))) + 1


@pytest.mark.parametrize("text", HOSTILE)
def test_every_name_is_whole_in_parquet(text):
    back = pd.read_parquet(io.BytesIO(to_parquet(hostile_table(text))))
    assert list(back["label"]) == [text, text]
    assert back["reason"][1] == text


def test_json_has_what_other_programs_rely_on():
    rows = json.loads(to_json(ordinary_table()), parse_constant=pytest.fail)
    assert len(rows) == 3
    for row in rows:
        assert row.keys() >= {
            "workload",
            "strategy",
            "label",
            "models",
            "devices",
            "status",
            "parity",
            "tokens_per_s",
            "tokens_per_s_ci_low",
            "tokens_per_s_ci_high",
            "speedup",
            "scaling_efficiency",
            "peak_memory_bytes",
            "step_time_s",
        }
    single, ddp, failed = rows
    assert ddp["speedup"] == pytest.approx(2.0)
    assert ddp["scaling_efficiency"] == pytest.approx(1.0)
    assert single["tokens_per_s_ci_low"] < single["tokens_per_s"] < single["tokens_per_s_ci_high"]
    assert (single["devices"], single["emulated"], single["steady"]) == (1, False, True)
    assert [failed[key] for key in ("tokens_per_s", "speedup", "step_time_s", "parity", "steady")] == [None] * 5


def test_json_writes_an_infinite_figure_as_null():
    diverged = trial(ranks=(rank(jobs=(job(validation_loss=1e6),)),))
    table = cells_table(run([cell()], [reference(), diverged]))
    assert table["validation_perplexity"][0] == math.inf
    assert json.loads(to_json(table), parse_constant=pytest.fail)[0]["validation_perplexity"] is None


def test_csv_and_parquet_read_back_as_the_table():
    table = ordinary_table()
    from_csv = pd.read_csv(io.StringIO(to_csv(table)))
    from_parquet = pd.read_parquet(io.BytesIO(to_parquet(table)))
    for back in (from_csv, from_parquet):
        assert list(back.columns) == list(columns())
        assert list(back["label"]) == ["single", "ddp", "fsdp"]
        for figure in ("tokens_per_s", "tokens_per_s_ci_low", "speedup", "step_time_s"):
            assert list(back[figure][:2]) == pytest.approx(list(table[figure][:2]))
            assert math.isnan(back[figure][2])
    assert list(from_parquet["devices"]) == [1, 2, 2]


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'parbench\[parquet\]'"):
        to_parquet(ordinary_table())


def test_the_table_for_people():
    lines = printed(ordinary_table()).splitlines()
    assert lines[0].strip() == "lstm: strong scaling, global batch 8 × 64 tokens"
    ddp = next(line for line in lines if "ddp" in line)
    for value in ("2.00×", "100 %", "105.0 ms", "148.41", "ok"):
        assert value in ddp
    assert re.search(r"4,8\d\d \[\d,\d{3}, \d,\d{3}\]", ddp)
    assert lines[-1] == "fsdp on 2: out_of_memory: rank 0 failed: no memory"


def in_a_terminal(table: pd.DataFrame, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_table(table, console)
    return console.file.getvalue()


def long_table() -> pd.DataFrame:
    """As many columns as a run can have, and labels that no terminal has room for."""
    pipe = cell("pipe", 2, label="pipe(schedule=interleaved_1f1b, micro_batches=4)", oversubscribed=True, models=2)
    cells = [cell(), pipe, cell("fsdp", 2)]
    trials = [trial(cells[0], number, window_s=2.0 + number / 10) for number in range(3)]
    for number in range(3):
        jobs = (job(window_s=1.0 + number / 20, compute_s=0.5, compile_s=3.0, stopped_s=2.0),)
        trials.append(trial(pipe, number, ranks=(rank(jobs=jobs),)))
    trials.append(trial(cells[2], status="out_of_memory", reason="rank 0 failed: no memory"))
    return cells_table(run(cells, [reference(), *trials], rounds=3))


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("show", [in_a_terminal, printed])
def test_a_narrow_table_shows_whole_what_matters_most(show, width):
    table, note = show(long_table(), width).split("No room for ")
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    for word in ("tokens/s", "speedup", "status", "reference", "out_of_memory", "micro_batches=4)", "2.00×"):
        assert word in table
    assert re.search(r"\[\d,\d{3}, \d,\d{3}\]", table)
    assert bool(re.search(r"\n +\[\d", table)) == (width == 80)  # intervals have a line of their own if they must
    # What is said to be missing is, and the other way round.
    absent = " ".join(note.partition(":")[0].split()).split(", ")
    shown = set(re.split(r" {2,}", lines[1].strip()))
    assert {re.sub(r" \(.* in all\)", "", name) for name in absent} == set(columns_of(long_table())) - shown
    assert {"val ppl", "compile"} <= set(absent)
    assert "parbench table --wide shows all." in " ".join(note.split())


def test_a_column_that_says_the_same_of_every_cell_goes_first():
    table = cells_table(run([cell(), cell("ddp", 2)], [reference(), trial(), trial(cell("ddp", 2), window_s=1.0)]))
    output = " ".join(printed(table, 90).split())
    assert "status (ok in all)" in output
    assert "2.00×" in output


def test_what_matters_is_a_column():
    assert {*IMPORTANT} <= columns_of(long_table()).keys()


def test_a_terminal_with_room_leaves_nothing_out():
    output = in_a_terminal(ordinary_table(), 200)
    assert "No room" not in output
    assert "val ppl" in output


def test_elsewhere_the_table_is_text_without_frames():
    output = printed(ordinary_table())
    assert not re.search(r"[\u2500-\u257f+|]", output)
    assert all(title in output for title in columns_of(ordinary_table()))


def test_a_single_round_is_shown_without_an_interval():
    assert "[" not in printed(cells_table(run([cell()], [reference(), trial()])))


def test_memory_is_shown_in_mebibytes():
    from parbench.records.trial import MemoryRecord

    ranks = (rank(memory=MemoryRecord(resident_growth=300 * 2**20)),)
    assert "300 MiB" in printed(cells_table(run([cell()], [reference(), trial(ranks=ranks)])))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 MiB"),
        (1536, "bytes", "1.5 KiB"),
        (2.5 * 2**20, "bytes", "2.5 MiB"),
        (300 * 2**20, "bytes", "300 MiB"),
        (200 * 2**30, "bytes", "200.0 GiB"),
        (8.0, "calls", "8"),
        (1250.5, "calls", "1,250.5"),
        (25_165_824.0, "FLOP", "25.2 MFLOP"),
    ],
)
def test_small_amounts_are_not_rounded_away(value, unit, text):
    assert with_unit(value, unit) == text


def test_each_workload_and_scaling_is_a_table_of_its_own():
    weak = [cell("ddp", devices, scaling="weak", global_batch=8 * devices) for devices in (2, 4)]
    cells = [cell(), cell(workload="gpt"), *weak]
    output = printed(cells_table(run(cells, [trial(each) for each in cells])))
    assert [line.strip() for line in output.splitlines() if "scaling," in line] == [
        "lstm: strong scaling, global batch 8 × 64 tokens",
        "gpt: strong scaling, global batch 8 × 64 tokens",
        "lstm: weak scaling, global batch 8 per device × 64 tokens",
    ]


@pytest.mark.parametrize("write", [printed, to_markdown], ids=["text", "markdown"])
def test_emulated_and_oversubscribed_cells_say_so(write):
    output = write(cells_table(run([cell("ddp", 8, emulated=True, oversubscribed=True)])))
    assert "ddp (emulated, oversubscribed)" in output


def test_a_long_reason_is_not_cut_off():
    reason = "word " * 100 + "end"
    assert f"skipped: {reason}\n" in printed(cells_table(run([cell(reason=reason)])), width=80)


@pytest.mark.parametrize("write", [printed, to_csv, to_json, to_markdown, to_parquet])
def test_a_run_without_figures_can_be_written(write):
    failed = cells_table(run([cell()], [trial(status="failed", reason="fell over")]))
    assert write(failed)
    assert isinstance(write(cells_table(run())), str | bytes)


def test_a_format_is_known_to_the_command_line_once_it_is_defined(monkeypatch):
    monkeypatch.setattr(FORMATS, "_classes", dict(FORMATS.classes()))

    class Lines(Format):
        name = "lines"
        needs = "rows"

        def write(self, document: Document) -> str:
            return "\n".join(" ".join(row) for row in document.rows)

    assert formats_of(("rows", "data", "frame")) == ["csv", "json", "lines", "markdown", "parquet"]
    assert formats_of(("rows", "data", "cases")) == ["json", "junit", "lines", "markdown"]
    ended = CliRunner().invoke(cli, ["table", str(STORED), "--format", "lines"])
    assert ended.output.startswith("single 1 1")
