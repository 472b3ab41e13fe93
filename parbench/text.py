"""How values and texts of other people are written."""

import math
import re
from collections.abc import Callable

KIB, MIB, GIB = 2**10, 2**20, 2**30


def shown(value: object, unit: str) -> str:
    """A value with its unit, such as `61.2 ms`; `–` where it is unknown. A unit not known here is written after it."""
    if not known(value):
        return "–"
    number = float(value)  # type: ignore[arg-type]
    if math.isinf(number):
        return "∞"
    return _WRITERS[unit](number) if unit in _WRITERS else f"{significant(number)} {unit}"


def known(value: object) -> bool:
    """Whether a table's field holds a number."""
    return isinstance(value, int | float) and not math.isnan(value)


def significant(number: float) -> str:
    """Three significant digits, with separators where the number is long."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{number:,.{max(digits, 0)}f}" if -4 < digits < 7 or number > 1 else f"{number:.2g}"


def _seconds(number: float) -> str:
    if abs(number) < 1:
        return f"{number * 1000:,.1f} ms"
    return f"{number:,.2f} s" if abs(number) < 10 else f"{number:,.1f} s"


def _bytes(number: float) -> str:
    if abs(number) < MIB:
        return f"{number / KIB:,.1f} KiB" if number else "0 MiB"
    if abs(number) < 100 * GIB:
        return f"{number / MIB:,.0f} MiB" if abs(number) >= 10 * MIB else f"{number / MIB:.1f} MiB"
    return f"{number / GIB:,.1f} GiB"


_WRITERS: dict[str, Callable[[float], str]] = {
    "tokens/s": lambda number: f"{number:,.0f}",
    "s": _seconds,
    "×": lambda number: f"{number:.2f}×",
    "%": lambda number: f"{number * 100:.0f} %",
    "bytes": _bytes,
    "perplexity": lambda number: f"{number:,.2f}" if number < 1e6 else f"{number:.2e}",
    "nats": lambda number: f"{number:.2g}",
    "tolerances": lambda number: f"{number:,.0f}" if number >= 10 else f"{number:.2g}",
    "steps": lambda number: f"{number:,.0f}",
    "models/h": lambda number: f"{number:,.1f}",
    "sequences": lambda number: f"{number:,.0f}",
    "calls": lambda number: f"{number:,.1f}".removesuffix(".0"),
}


# Also what no XML may hold: noncharacters, and halves of a surrogate pair.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: object) -> str:
    """Text without control characters: no escape sequence reaches a terminal, no direction is overridden."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\n", " ").replace("\t", " "))
