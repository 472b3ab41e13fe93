"""The figures of the README and the pages are those of the stored runs."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from parbench.cli.main import cli
from tests.docs.blocks import PAGES, REPOSITORY

MARKED = re.compile(r"^<!-- table of: (?P<run>\S+) -->\n\n(?P<table>(?:\|.*\n)+)", re.MULTILINE)
STRATEGIES = (REPOSITORY / "docs/strategies.md").read_text()
NUMBERS = (REPOSITORY / "docs/numbers.md").read_text()

Rows = list[dict[str, str]]
Table = Callable[[str, str], str]


@pytest.fixture
def stored(capsys: pytest.CaptureFixture[str]) -> Table:
    """A stored run's table as `parbench table` prints it."""

    def table(run: str, form: str) -> str:
        capsys.readouterr()
        assert cli.main(
            ["table", str(REPOSITORY / "results/stored" / run), "--format", form], "parbench", standalone_mode=False
        ) in (0, None)
        return capsys.readouterr().out

    return table


def without_notes(cell: str) -> str:
    """A cell without markup and what stands in parentheses after a space, such as `(emulated)`."""
    return re.sub(r" \([^)]*\)", "", cell.replace("\\", "").replace("`", "")).strip()


def rows_of(table: str) -> Rows:
    titles, _, *lines = (
        [without_notes(cell) for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("|")
    )
    return [dict(zip(titles, line, strict=True)) for line in lines]


def table_after(text: str, heading: str) -> Rows:
    """The first table after a heading or sentence."""
    found = re.search(r"(?:^\|.*\n)+", text[text.index(heading) :], re.MULTILINE)
    assert found
    return rows_of(found[0])


MARKED_TABLES = [
    pytest.param(match["run"], match["table"], id=f"{page.name}-{match['run']}")
    for page in PAGES
    for match in MARKED.finditer(page.read_text())
]


@pytest.mark.parametrize(("run", "table"), MARKED_TABLES)
def test_every_row_of_a_table_is_one_of_the_stored_run(run: str, table: str, stored: Table) -> None:
    known = rows_of(stored(run, "markdown"))
    rows = rows_of(table)
    shared = rows[0].keys() & known[0].keys()
    assert {"strategy", "memory/rank"} <= shared
    for row in rows:
        assert {title: row[title] for title in shared} in [{title: each[title] for title in shared} for each in known]


def test_the_headline_table_is_complete(stored: Table) -> None:
    marked = MARKED.search((REPOSITORY / "README.md").read_text())
    assert marked
    assert len(rows_of(marked["table"])) == len(rows_of(stored(marked["run"], "markdown")))


def test_the_table_of_slow_networks_is_that_of_the_stored_runs(stored: Table) -> None:
    rows = table_after(STRATEGIES, "## What a slow network")
    for rate in ("10 Gbit/s", "1 Gbit/s", "200 Mbit/s", "50 Mbit/s"):
        run = f"slow_network-{rate.replace(' ', '').removesuffix('/s').lower()}-2-hosts"
        known = {row["strategy"]: row["speedup"] for row in rows_of(stored(run, "markdown"))}
        assert {row["strategy"]: row[rate] for row in rows}.items() <= known.items()


def test_the_table_of_inference_is_that_of_the_stored_run(stored: Table) -> None:
    known = [row for row in rows_of(stored("inference_scaling-cpu-2-cores", "markdown")) if row["devices"] == "2"]
    speed = {(row["workload"], row["strategy"]): row for row in known}
    for row in table_after(STRATEGIES, "Its Transformer on two devices"):
        score, generate = (
            speed.get((f"transformer(phase={phase})", row["strategy"])) for phase in ("score", "generate")
        )
        assert score
        assert row["score"] == score["speedup"]
        if generate and row["generate"] != "–":
            expected = (generate[title] for title in ("speedup", "first token", "per token p50", "per token p99"))
            assert [row[title] for title in ("generate", "first token", "per token p50", "p99")] == list(expected)


def test_the_table_of_parity_power_is_that_of_the_stored_run(stored: Table) -> None:
    rows: list[dict[str, Any]] = json.loads(stored("parity_power-cpu-2-cores", "json"))
    optimizers = ["adam, lr=0.001", "adam, lr=0.0003", "adamw, ", "sgd, lr=0.1", "sgd, lr=1e-05"]
    for words, row in zip(optimizers, table_after(NUMBERS, "| optimizer |"), strict=True):
        for precision in ("fp32", "bf16", "fp16"):
            (power,) = (
                each["parity_power"]
                for each in rows
                if each["workload"].startswith(f"gpt(precision={precision}, name={words}")
                and (each["strategy"], each["devices"]) == ("ddp", 2)
            )
            assert row[precision].removesuffix(": undecided") == f"{power:.{1 if power < 10 else 0}f}"
