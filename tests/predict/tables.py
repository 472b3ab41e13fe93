"""The tables of accuracy, as Markdown."""

from parbench.predict.judge import Judgement


def accuracy_table(judgement: Judgement) -> str:
    """A line for all rows and one a source."""
    data = judgement.as_data()
    lines = [
        "| rows | n | median error | p90 error | bias | tau | coverage |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in {"all": data, **data["by_source"]}.items():
        shares = (percent(figures[key]) for key in ("median_error", "p90_error", "bias"))
        tau = "–" if figures["tau"] is None else f"{figures['tau']:.2f}"
        lines.append(f"| {name} | {figures['n']} | {' | '.join(shares)} | {tau} | {percent(figures['coverage'])} |")
    return "\n".join(lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
