"""What `list`, `run` and `table` print to stdout."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from parbench.check.baselines import list_baselines
from parbench.cli.console import PLAIN_WIDTH, console, say_problems, table_console, write_out
from parbench.cli.verdicts import print_verdicts
from parbench.errors import UsageError
from parbench.export.base import FORMATS, Document
from parbench.export.breakdown import breakdown_document, print_breakdown
from parbench.export.cells import cells_document
from parbench.export.communication import communication_document, print_communication
from parbench.export.memory import memory_document, print_memory
from parbench.export.terminal import print_table
from parbench.export.waterfall import print_waterfall, waterfall_document
from parbench.models.base import FAMILIES, Family
from parbench.results.breakdown import breakdown_table
from parbench.results.communication import communication_table
from parbench.results.memory import memory_table
from parbench.results.sessions import say_coverage, what_differs
from parbench.results.store import Run, list_runs, readable_runs
from parbench.results.tables import cells_table
from parbench.results.waterfall import waterfall_table
from parbench.scenario.machine import read_machine
from parbench.strategies.base import STRATEGIES, Strategy
from parbench.text import plain

if TYPE_CHECKING:
    import pandas as pd

SCENARIOS = Path("scenarios")


def list_lines(what: str, results: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Lines on all strategies, workloads, scenarios, runs or baselines; `say` is called with what is left out."""
    match what:
        case "strategies":
            for name, strategy in sorted(STRATEGIES.classes().items()):
                yield from _strategy_lines(name, strategy)
            yield from _broken(STRATEGIES.broken, "strategy")
        case "workloads":
            for name, family in sorted(FAMILIES.classes().items()):
                yield from _family_lines(name, family)
            yield from _broken(FAMILIES.broken, "model family")
        case "scenarios":
            yield from (str(path) for path in sorted(SCENARIOS.rglob("*.yaml")))
        case "baselines":
            yield from list_baselines(results / "baselines")
        case "runs":
            for run in readable_runs(list_runs(results), say):
                record = run.record
                yield f"{run.folder.name}  {record.created_at}  {len(record.cells)} cells, {len(run.trials)} trials"


def print_runs(runs: Sequence[Run], output_format: str, show: Callable[..., object], *, wide: bool = False) -> None:
    """Prints the tables of several runs below each other, each as `show` does it.

    Raises `UsageError` for a format that programs read, of which one document holds one table.
    """
    if len(runs) > 1 and output_format != "text":
        reasons = what_differs(runs[0], runs[1])
        why = f"they differ in {', '.join(reasons)}" if reasons else "--each keeps them apart"
        raise UsageError(
            f"--format {output_format} holds one table, and {runs[0].record.id} and {runs[1].record.id} are not pooled "
            f"({why}): write each with a command of its own"
        )
    for run in runs:
        if len(runs) > 1:
            console().print(Text(plain(run.record.id), style="bold underline"), soft_wrap=True)
        show(run, output_format, wide=wide)


def print_run(run: Run, output_format: str, *, wide: bool = False) -> bool:
    """Prints the run's table and, as text, what weakens it and the verdict.

    Returns whether all cells that can run here were measured well, and at least one was.
    """
    say_problems(run.problems)
    cells = cells_table(run)
    if output_format == "text":
        print_table(cells, table_console(wide=wide))
        console().print(Text(say_coverage(run), style="dim"), soft_wrap=True)
        print_verdicts(run, console(width=PLAIN_WIDTH))
    else:
        write_out(FORMATS[output_format]().write(cells_document(cells)))
    statuses, parities = set(cells["status"].tolist()), set(cells["parity"].tolist())
    return "ok" in statuses and statuses <= {"ok", "skipped"} and "failed" not in parities


@dataclass(frozen=True)
class View:
    """Another table of a run than that of its figures: how it is made, printed, and exported."""

    table: Callable[[Run], "pd.DataFrame"]
    show: Callable[["pd.DataFrame", Console], None]
    document: Callable[["pd.DataFrame"], Document]

    def __call__(self, run: Run, output_format: str, *, wide: bool = False) -> None:
        """Prints it."""
        say_problems(run.problems)
        table = self.table(run)
        if output_format == "text":
            self.show(table, table_console(wide=wide))
        else:
            write_out(FORMATS[output_format]().write(self.document(table)))


VIEWS = {
    "breakdown": View(breakdown_table, print_breakdown, breakdown_document),
    "waterfall": View(waterfall_table, print_waterfall, waterfall_document),
    "memory": View(memory_table, print_memory, memory_document),
    "communication": View(communication_table, print_communication, communication_document),
}
"""By the names of their options."""


def view_beside(machine_file: Path) -> View:
    """The view of exchanges beside a machine's own bandwidths. Raises `ScenarioError` for what is no machine's file."""
    table = partial(communication_table, machine=read_machine(machine_file))
    return replace(VIEWS["communication"], table=table)


def _strategy_lines(name: str, strategy: type[Strategy[Any]]) -> Iterator[str]:
    yield f"{name}: {_first_line(strategy)}"
    yield f"    phases {', '.join(strategy.phases)}; devices {', '.join(strategy.device_kinds)}; {_exactness(strategy)}"
    yield from _options(strategy.options_type)


def _family_lines(name: str, family: type[Family]) -> Iterator[str]:
    yield f"{name}: {_first_line(family)}"
    if family.presets:
        yield f"    presets {', '.join(family.presets)}"
    yield from _options(family)


def _exactness(strategy: type[Strategy[Any]]) -> str:
    if not strategy.exact:
        return "inexact: its deviation is reported"
    depends = strategy.is_exact.__func__ is not Strategy.is_exact.__func__  # type: ignore[attr-defined]
    return "exact" + " unless options round" * depends + ": losses must match the reference's"


def _options(model: type[BaseModel]) -> Iterator[str]:
    # The schema leaves out the fields that are not for users to write.
    fields = model.model_json_schema()["properties"]
    options = [f"{name}{_default_and_choices(field)}" for name, field in fields.items() if name != "kind"]
    if options:
        yield f"    options {', '.join(options)}"


def _default_and_choices(field: Mapping[str, Any]) -> str:
    """A field's default and, of a choice, all its values, as they are written in YAML."""
    choices = [each for part in (field, *field.get("anyOf", ())) for each in part.get("enum", ())]
    default = field.get("default")
    text = "" if default is None else f"={str(default).lower() if isinstance(default, bool) else default}"
    return text + (f" ({' | '.join(map(str, choices))})" if choices else "")


def _broken(broken: Mapping[str, str], what: str) -> Iterator[str]:
    for name, reason in sorted(broken.items()):
        yield f"{name}: this {what} could not be imported: {reason}"


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
