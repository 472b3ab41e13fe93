"""What `parbench predict` prints to stdout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.cli.console import PLAIN_WIDTH, console, say, write_out
from parbench.errors import UsageError
from parbench.export.base import FORMATS, Document
from parbench.export.json import as_json
from parbench.plan.reading import read_scenario
from parbench.predict.clusters import Cluster, find_cluster
from parbench.predict.fitted import NOMINAL, published_fit
from parbench.predict.judge import Judgement, judge
from parbench.predict.page import predictions_page
from parbench.predict.ranking import Prediction, Ranking, rank
from parbench.predict.rows import read_rows
from parbench.predict.table import judgement_table, predictions_table, rankings_data
from parbench.text import plain, with_unit


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the command line asks."""

    scenario: Path
    cluster: str
    devices: str | None
    overrides: tuple[str, ...]
    top: int
    explain: str | None


def print_predictions(question: Question, output_format: str) -> bool:
    """Prints the best layouts of each workload on each number of devices. Returns whether there is one of each."""
    scenario = read_scenario(question.scenario, question.overrides)
    cluster = find_cluster(question.cluster)
    rankings = [
        rank(name, workload, cluster.with_devices(count), published_fit(), question.top)
        for name, workload in scenario.workloads.items()
        for count in _counts(question.devices, cluster)
    ]
    _write(rankings, output_format, question.explain)
    for ranking in rankings:
        if not ranking.predictions:
            say(_why_nothing(ranking))
    return all(ranking.predictions for ranking in rankings)


def print_judgement(table: Path, output_format: str) -> None:
    """Prints how wrong the planner is on the rows of a table. Raises `UsageError` where none can be predicted."""
    judgement = judge(read_rows(table), published_fit())
    if not judgement.rows:
        reasons = "; ".join(f"{row}: {reason}" for row, reason in list(judgement.refused.items())[:3])
        raise UsageError(f"{table}: no row can be predicted: {reasons}")
    match output_format:
        case "json":
            write_out(FORMATS["json"]().write(_document(judgement.as_data())))
        case "csv":
            write_out(FORMATS["csv"]().write(_document(None, judgement_table(judgement))))
        case "html":
            raise UsageError("--against has no page: ask for --format text, json or csv")
        case _:
            _print_judgement(judgement)


def _counts(text: str | None, cluster: Cluster) -> list[int]:
    if text is None:
        return [cluster.devices]
    try:
        counts = [int(each) for each in text.split(",")]
    except ValueError:
        raise UsageError(f"--devices {text}: write numbers with commas between them, such as 64,512") from None
    if min(counts) < 1:
        raise UsageError(f"--devices {text}: every number must be at least 1")
    return counts


def _write(rankings: Sequence[Ranking], output_format: str, explain: str | None) -> None:
    match output_format:
        case "json":
            rows = [
                {**each, "predictions": [_with_layout(row) for row in each["predictions"]]}
                for each in rankings_data(rankings)
            ]
            write_out(FORMATS["json"]().write(_document(rows)))
        case "csv":
            write_out(FORMATS["csv"]().write(_document(None, predictions_table(rankings))))
        case "html":
            write_out(predictions_page(rankings))
        case _:
            for ranking in rankings:
                _print_ranking(ranking, explain, console(width=PLAIN_WIDTH))


def _with_layout(row: dict[str, object]) -> dict[str, object]:
    layout = row["layout"]
    return {**as_json(row), "layout": as_json(layout) if isinstance(layout, dict) else layout}


def _document(data: object, frame: pd.DataFrame | None = None) -> Document:
    return Document(command="predict", header=(), rows=(), data=data, frame=frame)


def _print_ranking(ranking: Ranking, explain: str | None, out: Console) -> None:
    title = f"{ranking.workload} on {ranking.devices} × {ranking.cluster.device.name}"
    out.print(Text(plain(title), style="bold"), soft_wrap=True)
    out.print(Text(f"{ranking.layouts:,} layouts, of which {ranking.fitting:,} fit. Predicted from published rows."))
    if not ranking.predictions:
        return
    table = Table(box=box.SIMPLE if not out.is_terminal else box.ROUNDED, pad_edge=False)
    for name in ("rank", "layout", "tokens/s", f"{NOMINAL:.0%} within", "MFU", "step", "memory", "fits"):
        table.add_column(name, justify="left" if name in ("layout", "fits") else "right")
    for place, each in enumerate(ranking.predictions, start=1):
        table.add_row(*(Text(plain(cell)) for cell in _cells(place, each)))
    out.print(table)
    out.print(Text("=: not surely slower than the first. Assumed: " + "; ".join(ranking.assumed) + "."), soft_wrap=True)
    if any(each.extrapolated for each in ranking.predictions):
        out.print(Text("Extrapolated: nothing on as many devices has been fitted."), soft_wrap=True)
    if explain is not None:
        _print_explanation(_chosen(ranking, explain), out)
    out.print()


def _cells(place: int, each: Prediction) -> tuple[str, ...]:
    return (
        f"{place}{'=' if each.tie else ''}",
        each.words,
        with_unit(each.tokens_per_s, "tokens/s"),
        f"{each.low:,.0f}–{each.high:,.0f}",
        with_unit(each.mfu, "%"),
        with_unit(each.step_s, "s"),
        with_unit(sum(each.memory.values()), "bytes"),
        each.fits,
    )


def _chosen(ranking: Ranking, explain: str) -> Prediction:
    """The layout that is called `first`, or by its rank or its words. Raises `UsageError`."""
    names = {"first": 1, **{str(place): place for place in range(1, len(ranking.predictions) + 1)}}
    if explain in names:
        return ranking.predictions[names[explain] - 1]
    prediction = next((each for each in ranking.predictions if each.words == explain), None)
    if prediction is None:
        raise UsageError(f"--explain {explain}: name a layout by its rank, or as the table does; first is the best one")
    return prediction


def _print_explanation(each: Prediction, out: Console) -> None:
    out.print(Text(plain(each.words), style="bold"), soft_wrap=True)
    for name, share in sorted(each.shares.items(), key=lambda item: -item[1]):
        if share > 0:
            out.print(Text(f"  {name:10} {with_unit(share * each.step_s, 's'):>10}  {share:6.1%}"))
    for name, size in each.memory.items():
        out.print(Text(f"  {name:12} {with_unit(size, 'bytes'):>12}"))
    need = sum(each.memory.values())
    out.print(Text(f"  of {with_unit(each.capacity, 'bytes')} are needed {with_unit(need, 'bytes')}: fits {each.fits}"))


def _print_judgement(judgement: Judgement) -> None:
    data = judgement.as_data()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("rows", "n", "median error", "p90 error", "bias", "tau", "coverage"):
        table.add_column(name, justify="left" if name == "rows" else "right")
    for name, figures in {"all": data, **data["by_source"]}.items():
        shares = [f"{figures[key]:.1%}" for key in ("median_error", "p90_error", "bias")]
        tau = "–" if figures["tau"] is None else f"{figures['tau']:.2f}"
        cells = (name, str(figures["n"]), *shares, tau, f"{figures['coverage']:.0%}")
        table.add_row(*(Text(plain(cell)) for cell in cells))
    console(width=PLAIN_WIDTH).print(table)
    for row_id, reason in judgement.refused.items():
        say(f"{row_id}: left out: {reason}")


def _why_nothing(ranking: Ranking) -> str:
    where = f"{ranking.workload} on {ranking.devices} devices of {ranking.cluster.name}"
    if ranking.layouts:
        return f"{where}: none of {ranking.layouts:,} layouts fits into the memory of a device"
    reason = max(ranking.refusals, key=lambda each: ranking.refusals[each], default="there is none")
    return f"{where}: no layout is possible; most often because {reason}"
