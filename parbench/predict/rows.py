"""Tables of published rows: one measurement a line, blank where its source does not say."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from parbench.errors import UsageError
from parbench.system.reading import read_whole

PUBLISHED = "parbench.predict.published"
MAX_BYTES = 50_000_000
INDEX = ("row_id", "file", "fold")
"""The columns of a table that names rows of other tables."""

NEEDED = ("row_id", "source", "gpu", "n_gpus")
"""Columns without which nothing can be predicted, or said where a row is from."""

THROUGHPUT = ("tokens_per_s_total", "tokens_per_s_per_gpu", "seqs_per_s_total", "iter_time_s", "tflops_per_gpu", "mfu")
"""Columns of which a table needs one."""

MULTIPLES = {"": 0, "k": 1, "m": 2, "b": 3, "t": 4}
"""Powers of a thousand or, of lengths of sequences, of 1,024."""


@dataclass(frozen=True)
class Row:
    """One measured row: its texts by column, and the source that is left out together with it."""

    texts: Mapping[str, str]
    fold: str

    @property
    def row_id(self) -> str:
        """Its name, which is unique among the published rows."""
        return self.text("row_id")

    @property
    def repository(self) -> str:
        """Where it was published: the first word of its source."""
        return (self.text("source").split() or ["unknown"])[0]

    def text(self, column: str) -> str:
        """What stands in a column; nothing where the table does not have it."""
        text = self.texts.get(column, "").strip()
        return "" if text.lower().startswith("not stated") else text

    def number(self, column: str, kilo: float = 1e3) -> float | None:
        """The number that a column begins with, such as `250k` or `1,024`; None where there is none."""
        text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", self.text(column).lower())
        match = re.match(r"~?([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)(?![a-z])", text)
        return float(match[1]) * kilo ** MULTIPLES[match[2]] if match else None

    def words(self) -> str:
        """What its source says besides numbers, in lower case."""
        return " ".join(self.text(column) for column in ("software", "notes", "flags", "gpu", "interconnect")).lower()


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, or those that it names: in the tables beside it, or else among the published ones.

    Raises `UsageError` with what is wrong with it.
    """
    records = _records(_text_of(path), str(path))
    columns = set(records[0]) if records else set()
    if not records:
        raise UsageError(f"{path}: has no rows")
    if set(INDEX) <= columns and "gpu" not in columns:
        return _named_rows(path, records)
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        raise UsageError(f"{path}: lacks the columns {', '.join(missing)}")
    if not columns.intersection(THROUGHPUT):
        raise UsageError(f"{path}: has no throughput: it needs one of the columns {', '.join(THROUGHPUT)}")
    rows = [Row(record, "") for record in records]
    return [Row(row.texts, row.text("fold") or row.repository) for row in rows]


def published_rows(index: str = "accuracy_rows") -> list[Row]:
    """The rows that parbench is calibrated with, or those of another table of the package."""
    with resources.as_file(resources.files(PUBLISHED).joinpath(f"{index}.csv")) as path:
        return read_rows(path)


def _named_rows(path: Path, records: Sequence[Mapping[str, str]]) -> list[Row]:
    tables: dict[str, dict[str, Mapping[str, str]]] = {}
    rows, absent = [], []
    for record in records:
        name = record["file"]
        if name not in tables:
            tables[name] = {each["row_id"]: each for each in _records(_find(path.parent, name), name)}
        if record["row_id"] in tables[name]:
            rows.append(Row(tables[name][record["row_id"]], record["fold"]))
        else:
            absent.append(record["row_id"])
    if absent:
        raise UsageError(f"{path}: names {len(absent)} rows that their tables do not have, such as {absent[0]}")
    return rows


def _find(folder: Path, name: str) -> str:
    """The text of a table that an index names. Raises `UsageError` where there is none."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UsageError(f"{folder}: {name!r} is not the name of a table")
    beside = folder / f"{name}.csv"
    if beside.exists():
        return _text_of(beside)
    shipped = resources.files(PUBLISHED).joinpath(f"{name}.csv")
    if not shipped.is_file():
        raise UsageError(f"{beside}: is named by an index, and is neither there nor among the published tables")
    return shipped.read_text(encoding="utf-8")


def _records(text: str, source: str) -> list[dict[str, str]]:
    try:
        records = list(csv.DictReader(io.StringIO(text), restkey="", restval="", strict=True))
    except csv.Error as error:
        raise UsageError(f"{source}: is not CSV: {error}") from None
    return [{str(key): value for key, value in record.items() if isinstance(value, str)} for record in records]


def _text_of(path: Path) -> str:
    try:
        return read_whole(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
