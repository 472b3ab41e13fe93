"""How numbers, and texts that come from elsewhere, are written in tables, messages and pages."""

import math
import re
from collections.abc import Callable

KIB, MIB, GIB = 2**10, 2**20, 2**30


CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, marks that override the direction of text, and what XML forbids: noncharacters and halves of
surrogate pairs. Tab and line feed are none of them."""


def plain(text: object) -> str:
    """Text on one line in which each control character is replaced, so that no escape sequence reaches a terminal."""
    return CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\n", " ").replace("\t", " "))


def with_unit(value: object, unit: str) -> str:
    """A number with its unit, such as `61.2 ms` for 0.0612 s; `–` where there is none.

    A unit without a format of its own stands behind three significant digits.
    """
    if not is_number(value):
        return "–"
    number = float(value)  # type: ignore[arg-type]
    if math.isinf(number):
        return "∞"
    return _FORMATS[unit](number) if unit in _FORMATS else f"{significant(number)} {unit}"


def with_reach(value: object, low: object, high: object) -> str:
    """A number with half the width of its interval, where that is known: `0.12 ±0.03`; `–` where there is none."""
    if not is_number(value):
        return "–"
    # Adding zero takes the sign off a zero that is what rounding leaves of a small negative number.
    text = f"{round(float(value), 2) + 0.0:.2f}"  # type: ignore[arg-type]
    if not is_number(low) or not is_number(high):
        return text
    return f"{text} ±{(float(high) - float(low)) / 2:.2f}"  # type: ignore[arg-type]


def is_number(value: object) -> bool:
    """Whether a table's field holds a number: tables have NaN, or None, where a figure is unknown."""
    return isinstance(value, int | float) and not math.isnan(value)


def significant(number: float) -> str:
    """A number with three significant digits, and with separators where it is long."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{number:,.{max(digits, 0)}f}" if -4 < digits < 7 or number > 1 else f"{number:.2g}"


def with_prefix(number: float, unit: str) -> str:
    """A number with an SI prefix before its unit: `61.2 GFLOP/s` for 6.12e10, `112 µs` for 0.000112 s."""
    power = math.floor(math.log10(abs(number)) / 3) if number and math.isfinite(number) else 0
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    return f"{significant(number / 1000.0**power)} {_PREFIXES[power]}{unit}"


def _format_seconds(number: float) -> str:
    if abs(number) < 1:
        return f"{number * 1000:,.1f} ms"
    return f"{number:,.2f} s" if abs(number) < 10 else f"{number:,.1f} s"


def _format_bytes(number: float) -> str:
    if abs(number) < MIB:
        return f"{number / KIB:,.1f} KiB" if number else "0 MiB"
    if abs(number) < 100 * GIB:
        return f"{number / MIB:,.0f} MiB" if abs(number) >= 10 * MIB else f"{number / MIB:.1f} MiB"
    return f"{number / GIB:,.1f} GiB"


_PREFIXES = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P"}


_FORMATS: dict[str, Callable[[float], str]] = {
    "tokens/s": lambda number: f"{number:,.0f}",
    "s": _format_seconds,
    "×": lambda number: f"{number:.2f}×",
    "%": lambda number: f"{number * 100:.0f} %",
    "bytes": _format_bytes,
    "perplexity": lambda number: f"{number:,.2f}" if number < 1e6 else f"{number:.2e}",
    "nats": lambda number: f"{number:.2g}",
    "tolerances": lambda number: f"{number:,.0f}" if number >= 10 else f"{number:.2g}",
    "steps": lambda number: f"{number:,.0f}",
    "models/h": lambda number: f"{number:,.1f}",
    "sequences": lambda number: f"{number:,.0f}",
    "J": lambda number: f"{significant(number * 1000)} mJ" if abs(number) < 1 else f"{significant(number)} J",
    "cost": significant,
    "FLOP": lambda number: with_prefix(number, "FLOP"),
    "B/s": lambda number: with_prefix(number, "B/s"),
    "calls": lambda number: f"{number:,.1f}".removesuffix(".0"),
}
