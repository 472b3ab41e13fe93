"""What there is: strategies, model families, scenarios, runs, and the cells of a plan."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from parbench.cells import Plan
from parbench.check.baselines import list_baselines
from parbench.results.export import plain
from parbench.results.store import list_runs, read_run
from parbench.strategies.base import STRATEGIES
from parbench.workloads.base import FAMILIES

SCENARIOS = Path("scenarios")


def lines(what: str, results: Path) -> Iterator[str]:
    """A line for each of `what`: strategies, workloads, scenarios, runs or baselines."""
    match what:
        case "strategies":
            yield from _classes(STRATEGIES.classes(), STRATEGIES.broken, "strategy")
        case "workloads":
            yield from _classes(FAMILIES.classes(), FAMILIES.broken, "model family")
        case "scenarios":
            yield from (str(path) for path in sorted(SCENARIOS.glob("*.yaml")))
        case "baselines":
            yield from list_baselines(results / "baselines")
        case "runs":
            for folder in list_runs(results):
                run = read_run(folder)
                yield f"{folder.name}  {run.record.created_at}  {len(run.record.cells)} cells, {len(run.trials)} trials"


def plan_table(plan: Plan) -> Table:
    """The cells of a plan with their layout, and the reason of each that is skipped."""
    table = Table(
        title=Text(plain(f"{plan.scenario.name}: {len(plan.runnable)} cells to measure")), title_justify="left"
    )
    for column in ("workload", "scaling", "strategy", "devices", "layout", "global batch", "models", "notes"):
        table.add_column(column)
    for cell in plan.cells:
        record = cell.record
        layout = record.layout or "–"
        notes = [note for note in ("emulated", "oversubscribed") if getattr(record, note)]
        values = (
            record.workload,
            record.scaling,
            record.label,
            f"{record.devices} {record.device_kind}",
            layout,
            record.global_batch,
            record.models,
            f"skipped: {record.reason}" if record.reason else ", ".join(notes),
        )
        table.add_row(*(Text(plain(value)) for value in values), style="dim" if record.reason else "")
    return table


def _classes(classes: Mapping[str, type], broken: Mapping[str, str], what: str) -> Iterator[str]:
    width = max(map(len, [*classes, *broken]), default=0)
    for name, cls in sorted(classes.items()):
        options: type[BaseModel] = getattr(cls, "options_type", cls)
        fields = [field for field in options.model_fields if field != "kind"]
        takes = f"  [{', '.join(fields)}]" if fields else ""
        yield f"{name:{width}}  {(inspect.getdoc(cls) or '').partition(chr(10))[0]}{takes}"
    for name, reason in sorted(broken.items()):
        yield f"{name:{width}}  this {what} could not be imported: {reason}"
