"""The verdict on a panel as HTML. What it says is decided in `parbench.verdict`."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from parbench.report.panels import Panel
from parbench.text import plain
from parbench.verdict.lines import Line
from parbench.verdict.verdict import verdict_on

MAX_NAMES = 4


def write_verdict(panel: Panel) -> list[Markup]:
    """The sentences on one workload in one run, the most important first. Names in them are escaped."""
    emulated_hosts = any(cell.row.get("emulated_hosts") for cell in panel.cells)
    verdict = verdict_on([cell.judged for cell in panel.cells], emulated_hosts=emulated_hosts)
    return [as_markup(line) for line in verdict.lines]


def as_markup(line: Line) -> Markup:
    """A line in which each name from the scenario is an element of its own."""
    return Markup("").join(escape(part) if isinstance(part, str) else as_code(part.text) for part in line.parts)


def as_code(name: str) -> Markup:
    """A name from a scenario as an HTML element."""
    return Markup("<code>{}</code>").format(plain(name))


def join_words(words: Sequence[Markup | str], limit: int = MAX_NAMES) -> Markup:
    """Joins words as `a, b and c`. Beyond `limit` it gives their number: `a, b and 3 more`."""
    parts = list(words[:limit])
    if len(words) > limit:
        parts.append(f"{len(words) - limit} more")
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])
