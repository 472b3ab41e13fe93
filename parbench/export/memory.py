"""The account of every cell's memory as people read it, and as a document that every format can write."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.export.base import Document
from parbench.export.cells import name_of
from parbench.export.json import as_json
from parbench.figures.memory import DEVICE_MEMORY_BYTES, PEAK_MEMORY_BYTES
from parbench.figures.memory_account import PART_MEANINGS, PART_TITLES, TENSOR_PEAK_BYTES
from parbench.records.memory_account import MemoryPart
from parbench.results.memory import KEPT, PARTS
from parbench.text import is_number, plain, with_unit

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[Any, Any]
Texts = dict[str, list[str]]
"""What stands in a table, column by column."""

MEASURED = {
    PEAK_MEMORY_BYTES.title: "peak_memory_bytes",
    "reserved": "reserved_bytes",
    DEVICE_MEMORY_BYTES.title: "device_memory_bytes",
}
"""Columns of what was measured beside the account. They are the first to go where a terminal is too narrow."""

TOTAL = TENSOR_PEAK_BYTES.title

LARGEST_DENOMINATOR = 64
"""Shares that are exact are written as fractions up to this one, such as 1/64."""

_NAME, _GAP = 20, 2
"""Characters that a line of a name gets at least, and those between two columns."""


def memory_document(table: "pd.DataFrame") -> Document:
    """The table of a run's accounts, as `results.memory` makes it; people see ranks together that hold the same."""
    rows = table.to_dict(orient="records")
    texts = {"workload": [], "scaling": [], **_write(rows)}
    for row in _merge(rows):
        texts["workload"].append(str(row[0]["workload"]))
        texts["scaling"].append(str(row[0]["scaling"]))
    return Document(
        command="memory",
        header=list(texts),
        rows=[list(row) for row in zip(*texts.values(), strict=True)],
        data=[as_json(row) for row in rows],
        sentences=[*_check_arithmetic(rows)],
        frame=table,
    )


def print_memory(table: "pd.DataFrame", console: Console) -> None:
    """What each cell's ranks hold at their peak, a table a workload; below it, whether arithmetic agrees."""
    if table.empty:
        console.print(Text("No cell has an account of its memory: an older version measured."), soft_wrap=True)
        return
    for (workload, scaling), group in table.groupby(["workload", "scaling"], sort=False):
        title = f"{plain(workload)}: {scaling} scaling, what a rank's tensors hold at their peak"
        console.print(Text(title, style="bold"), soft_wrap=True)
        rows = group.to_dict(orient="records")
        texts = _write(rows)
        left_out = _fit(texts, console.width)
        console.print(_draw(texts, width=console.width, framed=console.is_terminal))
        if left_out:
            note = f"No room for {', '.join(left_out)}: --wide shows all."
            console.print(Text(note, style="dim"), soft_wrap=True)
        for line in _check_arithmetic(rows):
            console.print(Text(line), soft_wrap=True)
        console.print()
    for line in _explain(table):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _write(rows: Sequence[Row]) -> Texts:
    """A line for all ranks of a cell that read alike; of what was measured on them, the largest."""
    lines = _merge(rows)
    texts = {
        "strategy": [plain(f"{name_of(ranks[0])} on {ranks[0]['devices']}") for ranks in lines],
        "ranks": [_write_numbers([row["rank"] for row in ranks]) for ranks in lines],
    }
    for title, name in MEASURED.items():
        largest = [max((row[name] for row in ranks if is_number(row[name])), default=None) for ranks in lines]
        if any(size is not None for size in largest):
            texts[title] = [with_unit(size, "bytes") for size in largest]
    texts[TOTAL] = [with_unit(ranks[0]["tensor_peak_bytes"], "bytes") for ranks in lines]
    return texts | {PART_TITLES[part]: [_write_part(ranks[0], part) for ranks in lines] for part in PARTS}


def _merge(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each cell's ranks, together where their parts read alike."""
    alike: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        cell = [row[name] for name in ("workload", "scaling", "label", "devices", "nodes")]
        alike.setdefault((*cell, *(_write_part(row, part) for part in PARTS)), []).append(row)
    return list(alike.values())


def _write_numbers(numbers: Sequence[int]) -> str:
    """Rising numbers in short, such as `0–2, 5`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _write_part(row: Row, part: MemoryPart) -> str:
    """What there is at the peak; of what the rank keeps, also all of it and the share of a whole model's."""
    at_peak = with_unit(row[part], "bytes")
    if part not in KEPT or not is_number(row[f"held_{part}"]):
        return at_peak
    held = with_unit(row[f"held_{part}"], "bytes")
    if is_number(row[part]) and row[part] < row[f"held_{part}"]:
        held = f"{at_peak if row[part] else 0} of {held}"
    share = _write_share(row[f"held_{part}"], row[f"whole_{part}"])
    return f"{held} ({share})" if share else held


def _write_share(part: float, whole: object) -> str:
    """The share as a fraction where it is exactly one, such as `1/2`; else rounded. Empty where it is the whole."""
    if not is_number(whole) or not whole or part == whole:
        return ""
    share = Fraction(int(part), int(whole))  # type: ignore[call-overload]
    if share.denominator == 1:
        return f"{share}×"
    if share < 1 and share.denominator <= LARGEST_DENOMINATOR:
        return str(share)
    return with_unit(float(share), "%" if share < 1 else "×")


def _fit(texts: Texts, width: int) -> list[str]:
    """Breaks lines where they are too long for the width, and then takes columns out; the names of these."""
    if _width(texts) <= width:
        return []
    for name in texts:
        # Between a number and what stands beside it, and never within one.
        texts[name] = [text.replace(" of ", " of\n").replace(" (", "\n(") for text in texts[name]]
    order = [*reversed([*MEASURED]), *reversed([PART_TITLES[part] for part in PARTS])]
    left_out = []
    for name in (name for name in order if name in texts):
        if _width(texts, name_width=_NAME) <= width:
            break
        del texts[name]
        left_out.append(name)
    return left_out


def _draw(texts: Texts, *, width: int, framed: bool) -> Table:
    """Only names are folded: they have what the other columns leave."""
    left = width - _width(texts, name_width=0)
    # A frame has a divider between two columns.
    padding = (0, _GAP - framed, 0, 0)
    view = Table(box=box.SIMPLE_HEAD if framed else None, show_edge=False, pad_edge=False, padding=padding)
    for name in texts:
        if name == "strategy":
            view.add_column(name, overflow="fold", max_width=max(_NAME, left))
        else:
            view.add_column(name, justify="right", no_wrap=True, min_width=_widest(name, texts[name]))
    for row in zip(*texts.values(), strict=True):
        view.add_row(*map(Text, row))
    return view


def _width(texts: Texts, name_width: int | None = None) -> int:
    """The table's width, where names have lines of that width instead of their own."""
    widths = {name: _widest(name, column) for name, column in texts.items()}
    if name_width is not None:
        widths["strategy"] = name_width
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _widest(name: str, column: Sequence[str]) -> int:
    return max(cell_len(line) for text in (name, *column) for line in text.split("\n"))


def _check_arithmetic(rows: Sequence[Row]) -> Iterator[str]:
    """Where a rank holds something else than its strategy's arithmetic says, or that none does."""
    checked = [row for row in rows if is_number(row["expected_parameters"])]
    differing = [
        f"{name_of(row)} on {row['devices']}, rank {row['rank']}: {PART_TITLES[part]} take "
        f"{row[f'held_{part}']:,.0f} bytes, and {row[f'expected_{part}']:,.0f} by arithmetic"
        for row in checked
        for part in KEPT
        if row[f"held_{part}"] != row[f"expected_{part}"]
    ]
    yield from differing
    if checked and not differing:
        yield "Parameters, gradients and optimizer state are to the byte what each strategy's arithmetic says."


def _explain(table: "pd.DataFrame") -> Iterator[str]:
    yield f"{TOTAL}: the most bytes that a rank's tensors take at one moment of a step; the parts add up to it"
    yield (
        "x of y: at that moment, of all that the rank has of it; in brackets all that as a share of a whole model's on "
        "one device, exact where it is a fraction"
    )
    for part in PARTS:
        if (table[part] > 0).any():
            yield f"{PART_TITLES[part]}: {PART_MEANINGS[part]}"
