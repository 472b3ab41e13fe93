"""How a run was measured: its environment, the scenario with its defaults, the command, the noise between rounds."""

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from parbench.report.panels import CellView, RunView
from parbench.results.store import Run
from parbench.system.environment import Accelerator
from parbench.text import plain

_UNKNOWN = ("–", "none")


def environment(run: Run) -> dict[str, str]:
    """Every field of the environment's fingerprint as text, in the record's order."""
    return dict(_flatten(run.record.environment.get("speed", {}), ""))


def fold_unknown(fields: Mapping[str, str]) -> dict[str, str]:
    """Joins the names of all fields whose value is none or unknown into one field at the end."""
    unknown = [name for name, value in fields.items() if value in _UNKNOWN]
    rest = {name: value for name, value in fields.items() if value not in _UNKNOWN}
    return {**rest, "none or unknown": ", ".join(unknown)} if unknown else rest


def context(run: Run) -> dict[str, str]:
    """Where and when the run was measured, which is no part of the environment's fingerprint."""
    nodes = {f"node {node.node}": plain(f"{node.host}, {node.address}, {node.link}") for node in run.record.nodes}
    launcher = {"launcher": plain(run.record.launcher)} if nodes else {}
    return {**dict(_flatten(run.record.environment.get("context", {}), "")), **launcher, **nodes}


def scenario_yaml(scenario: Mapping[str, Any]) -> str:
    """Writes the scenario with all defaults as YAML, from which `parbench run` makes the same scenario."""
    content = _without_nulls(dict(scenario))
    if "strategies" in content:
        content["strategies"] = [_short_strategy(entry) for entry in content["strategies"]]
    for workload in content.get("workloads", {}).values():
        # What custom code builds is no part of the YAML: it is examined again when the scenario is read.
        workload.get("model", {}).pop("found", None)
    yaml, buffer = YAML(), StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.dump(content, buffer)
    return "\n".join(plain(line) for line in buffer.getvalue().split("\n"))


def command(run: Run) -> str:
    """The command line that started the run, quoted for a shell."""
    return plain(shlex.join(run.record.command))


def noise(cell: CellView) -> float | None:
    """The standard deviation of the logarithm of tokens/s over rounds, which is nearly a share; None of one round."""
    return statistics.stdev(map(math.log, cell.speeds)) if len(cell.speeds) > 1 else None


def noise_rows(view: RunView) -> list[list[str]]:
    """A row for each measured cell: its number of rounds, their noise, and tokens/s in each."""
    return [
        [
            cell.place if len(view.panels) == 1 else f"{plain(cell.record.workload)}: {cell.place}",
            str(len(cell.speeds)),
            "–" if (deviation := noise(cell)) is None else f"{deviation:.1%}",
            ", ".join(f"{speed:,.0f}" for speed in cell.speeds),
        ]
        for cell in view.cells
        if cell.speeds
    ]


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Fields of nested mappings, with dotted names, as text."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{plain(key)}.")
        else:
            yield f"{prefix}{plain(key)}", _write_value(value)


def _write_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_write_value(item) for item in value) or "none"
    if isinstance(value, Mapping):
        try:
            return plain(Accelerator.model_validate(value)) if value else "none"
        except ValidationError:
            return plain(dict(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else plain(value)


def _without_nulls(value: Any) -> Any:
    """Leaves out nulls. They are defaults, and another version of parbench may not know the field."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def _short_strategy(entry: Any) -> Any:
    """A strategy as people write it: its name, or its name with options."""
    if not isinstance(entry, Mapping) or "name" not in entry:
        return entry
    return {entry["name"]: dict(entry["options"])} if entry.get("options") else entry["name"]
