"""A figure with its interval."""

from collections.abc import Callable, Mapping
from typing import Any

from parbench.figures.definitions import FIGURES
from parbench.text import is_number


def with_interval(name: str, row: Mapping[Any, Any]) -> str:
    """A figure of a table's row as it is written everywhere, with its confidence interval where it has one."""
    figure = FIGURES[name]
    low, high = row.get(f"{name}_ci_low"), row.get(f"{name}_ci_high")
    if not is_number(row[name]) or not is_number(low) or low == high:
        return figure.shown(row[name])
    unit = figure.shown(row[name]).lstrip("0123456789.,")
    return (
        f"{figure.shown(row[name])} [{figure.shown(low).removesuffix(unit)}, {figure.shown(high).removesuffix(unit)}]"
    )


def _figure(name: str) -> Callable[[Mapping[Any, Any]], str]:
    return lambda row: with_interval(name, row)
