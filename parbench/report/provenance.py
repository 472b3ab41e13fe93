"""How it was measured: environment, scenario as resolved, noise between rounds, and every warning."""

import math
import shlex
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML

from parbench.figures.definitions import FIGURES
from parbench.report.panels import CellView, RunView
from parbench.report.verdict import overlap
from parbench.results.store import Run
from parbench.system.environment import Accelerator
from parbench.text import plain

BUSY_LOAD = 0.25


NOISY = 0.10


CLOCKS_DIFFER_S = 1.0


_NOTHING = ("–", "none")


_FEW = 6


class Warning(NamedTuple):  # noqa: A001 - it is what a reader calls it
    """What to be careful about, what to do about it, and each case where there are several."""

    text: str
    hint: str
    cases: Sequence[str] = ()


def warnings(view: RunView) -> list[Warning]:
    """All that should lower a reader's trust in this run."""
    return [
        *(Warning(plain(problem), "Good records are used; this one is not.") for problem in view.run.problems),
        *_about_the_run(view.run),
        *_about_the_nodes(view.run),
        *_about_the_cells(view),
    ]


def environment(run: Run) -> dict[str, str]:
    """Every field of the environment's fingerprint in words, in its own order."""
    return dict(_fields(run.record.environment.get("speed", {}), ""))


def told(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that say something, and in one line the names of those that do not."""
    silent = [name for name, value in fields.items() if value in _NOTHING]
    found = {name: value for name, value in fields.items() if value not in _NOTHING}
    return {**found, "none or unknown": ", ".join(silent)} if silent else found


def context(run: Run) -> dict[str, str]:
    """Where and when: not part of the fingerprint."""
    nodes = {f"node {node.node}": plain(f"{node.host}, {node.address}, {node.link}") for node in run.record.nodes}
    launcher = {"launcher": plain(run.record.launcher)} if nodes else {}
    return {**dict(_fields(run.record.environment.get("context", {}), "")), **launcher, **nodes}


def differences(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    """What the environments of several runs differ in: a field and its value in each run."""
    found = [environment(view.run) | {"parbench": context(view.run).get("parbench", "–")} for view in runs]
    names = dict.fromkeys(name for fields in found for name in fields)
    values = [(name, [fields.get(name, "–") for fields in found]) for name in names]
    return [(name, each) for name, each in values if len(set(each)) > 1]


def scenario_yaml(scenario: Mapping[str, Any]) -> str:
    """The scenario with every default filled in, as YAML that `parbench run` takes."""
    content = _without_nulls(dict(scenario))
    if "strategies" in content:
        content["strategies"] = [_strategy(entry) for entry in content["strategies"]]
    for workload in content.get("workloads", {}).values():
        workload.get("model", {}).pop("found", None)  # of custom code, which is looked at whenever the scenario is read
    yaml, buffer = YAML(), StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.dump(content, buffer)
    return "\n".join(plain(line) for line in buffer.getvalue().split("\n"))


def command(run: Run) -> str:
    """What was typed."""
    return plain(shlex.join(run.record.command))


def noise(cell: CellView) -> float | None:
    """How much tokens/s differs between rounds: the standard deviation of its logarithm, nearly a percentage."""
    return statistics.stdev(map(math.log, cell.speeds)) if len(cell.speeds) > 1 else None


def noise_rows(view: RunView) -> list[list[str]]:
    """A row for each measured cell: how far its rounds lie apart, and what each of them said."""
    return [
        [
            cell.place if len(view.panels) == 1 else f"{plain(cell.record.workload)}: {cell.place}",
            str(len(cell.speeds)),
            "–" if (spread := noise(cell)) is None else f"{spread:.1%}",
            ", ".join(f"{speed:,.0f}" for speed in cell.speeds),
        ]
        for cell in view.cells
        if cell.speeds
    ]


def compared(runs: Sequence[RunView]) -> list[list[str]]:
    """A row for each cell that two runs or more have: its speed in each, and how it compares with the first's."""
    cells = [{_identity(cell): cell for cell in view.cells} for view in runs]
    every = dict.fromkeys(key for found in cells for key in found)
    shared = [key for key in every if sum(key in found for found in cells) > 1]
    return [
        [
            *map(plain, key),
            *(_speed(found.get(key)) for found in cells),
            *(_against(cells[0].get(key), found.get(key)) for found in cells[1:]),
        ]
        for key in shared
    ]


def _about_the_run(run: Run) -> Iterator[Warning]:
    record = run.record
    foreign = sum(not run.counts(trial) for trial in run.trials)
    if foreign:
        yield Warning(
            f"{foreign} trials were taken in another environment, or by other code, and do not count.",
            "parbench run --resume measures them anew.",
        )
    if record.rounds < 3:
        yield Warning(
            f"Only {record.rounds} round{'s' * (record.rounds > 1)}: intervals are missing or very wide.",
            "Use --rounds 5 or more.",
        )
    counted = [trial for trial in run.trials if run.counts(trial)]
    disturbed = [
        f"round {trial.round + 1} of {plain(trial.cell)}: {plain('; '.join(trial.warnings))}"
        for trial in counted
        if trial.warnings
    ]
    if disturbed:
        yield Warning(
            f"{len(disturbed)} of {len(counted)} trials were disturbed.",
            "Measure again when nothing else runs; parbench check --against compares two arms fairly even so.",
            disturbed,
        )
    load = (record.environment.get("context", {}).get("load_average") or [0])[0]
    cores = record.environment.get("speed", {}).get("physical_cores") or 1
    if load > BUSY_LOAD * cores:
        yield Warning(
            f"The load average was {load:.1f} on {cores} cores when the run began: something else may have used them.",
            "parbench doctor tells what disturbs a measurement.",
        )


def _about_the_nodes(run: Run) -> Iterator[Warning]:
    if run.record.emulated_nodes:
        yield Warning(
            "The hosts are emulated: they are parts of one machine, whose cores and memory they share. Only their "
            "network is as slow as it says.",
            "What they show is how strategies answer to a network, not how fast any real one is.",
        )
    for node in run.record.nodes:
        if node.differs:
            yield Warning(
                f"Node {node.node} ({plain(node.host)}) differs from node 0 in {plain(', '.join(node.differs))}.",
                "The slowest node decides how fast a cell is.",
            )
        if abs(node.clock_offset_s) > CLOCKS_DIFFER_S:
            yield Warning(
                f"The clock of node {node.node} ({plain(node.host)}) is {node.clock_offset_s:+.0f} s from node 0's.",
                "Only the times in its logs are wrong: every duration is of one node's own steady clock.",
            )


def _about_the_cells(view: RunView) -> Iterator[Warning]:
    for holds, what, hint in _KINDS_OF_CELLS:
        cells = [cell.place for cell in view.cells if holds(cell)]
        if cells:
            few = len(cells) <= _FEW
            yield Warning(f"{what}: {'; '.join(cells) if few else f'{len(cells)} cells'}.", hint, () if few else cells)


_KINDS_OF_CELLS: tuple[tuple[Callable[[CellView], bool], str, str], ...] = (
    (
        lambda cell: cell.row["status"] not in ("ok", "skipped"),
        "Did not run to the end",
        "The table has each one's reason; a trial's folder can be run again by hand.",
    ),
    (
        lambda cell: cell.row["parity"] == "failed",
        "Computed something else than the reference",
        "They are left out of every ranking.",
    ),
    (
        lambda cell: cell.row["status"] == "ok" and not isinstance(cell.row["parity"], str),
        "Could not be checked against the reference",
        "They are left out of every ranking.",
    ),
    (
        lambda cell: cell.row["parity"] == "undecided",
        "Could not be told from a mistake, or not yet",
        "They are shown, and left out of every ranking; the table has each one's reason.",
    ),
    (
        lambda cell: cell.record.emulated,
        "Emulated, because what they name does nothing on this kind of device",
        "On CUDA the real thing is measured.",
    ),
    (
        lambda cell: cell.record.oversubscribed,
        "More devices than core shares",
        "They show that it runs, not how it scales.",
    ),
    (
        lambda cell: cell.row["steady"] is False,
        "Step times were not steady yet when warm-up ended, in one round at least",
        "Raise measure.warmup, or look at the steps in order.",
    ),
    (
        lambda cell: (noise(cell) or 0) > NOISY,
        f"Rounds differ by more than {NOISY * 100:.0f} %",
        "More rounds narrow the intervals; a quiet machine does it sooner.",
    ),
)


def _fields(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, f"{prefix}{plain(key)}.")
        else:
            yield f"{prefix}{plain(key)}", _word(value)


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_word(item) for item in value) or "none"
    if isinstance(value, Mapping):
        try:
            return plain(Accelerator.model_validate(value)) if value else "none"
        except ValidationError:
            return plain(dict(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else plain(value)


def _without_nulls(value: Any) -> Any:
    """A null is a default: what is left out means the same, also to editions with other defaults' names."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def _strategy(entry: Any) -> Any:
    """An entry as one writes it: the name, or the name with its options."""
    if not isinstance(entry, Mapping) or "name" not in entry:
        return entry
    return {entry["name"]: dict(entry["options"])} if entry.get("options") else entry["name"]


def _identity(cell: CellView) -> tuple[str, ...]:
    record = cell.record
    return record.workload, record.scaling, record.label, str(record.devices)


def _speed(cell: CellView | None) -> str:
    return "–" if cell is None else FIGURES["tokens_per_s"].with_interval(cell.row)


def _against(before: CellView | None, after: CellView | None) -> str:
    """How a later run's speed compares with the first's, where both did the same work and did it right."""
    if before is None or after is None:
        return "–"
    if before.record.key != after.record.key:
        return "other work"
    if not (before.comparable and after.comparable):
        return "not comparable"
    old, new = before.value("tokens_per_s"), after.value("tokens_per_s")
    around, now = before.interval("tokens_per_s"), after.interval("tokens_per_s")
    if old is None or new is None:
        return "–"
    if around is None or now is None:
        return f"{new / old:.2f}× (one round: unknown)"
    return f"{new / old:.2f}× ({'tie' if overlap(around, now) else 'faster' if new > old else 'slower'})"
