"""The tables of accuracy, as Markdown."""

from collections.abc import Sequence
from typing import Any

from parbench.predict.judge import Judged, Judgement, summary


def accuracy_table(judgement: Judgement) -> str:
    """A line for all rows and one a source."""
    data = judgement.as_data()
    lines = [
        "| rows | n | median error | p90 error | bias | tau | coverage |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in {"all": data, **data["by_source"]}.items():
        lines.append(_line(name, figures))
    return "\n".join(lines)


def figures_row(name: str, rows: Sequence[Judged]) -> str:
    """The line of some rows."""
    return _line(name, summary(rows))


def _line(name: str, figures: dict[str, Any]) -> str:
    shares = (percent(figures[key]) for key in ("median_error", "p90_error", "bias"))
    tau = "–" if figures["tau"] is None else f"{figures['tau']:.2f}"
    return f"| {name} | {figures['n']} | {' | '.join(shares)} | {tau} | {percent(figures['coverage'])} |"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
