"""The page's warnings: everything that should lower a reader's trust in a run, each with what to do about it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from parbench.figures.memory import devices_in_a_rank
from parbench.report.panels import CellView, RunView
from parbench.report.provenance import noise
from parbench.results.store import Run
from parbench.text import plain
from parbench.verdict.warnings import warnings_on

MAX_LOAD = 0.25
"""The load average per physical core from which other processes are suspected."""


MAX_NOISE = 0.10
"""The standard deviation of the logarithm of tokens/s over rounds, beyond which a cell is called noisy."""


MAX_CLOCK_OFFSET_S = 1.0


_MAX_NAMES = 6


class Caution(NamedTuple):
    """A warning, what to do about it, and the single cases where they are too many for its text."""

    text: str
    hint: str
    cases: Sequence[str] = ()


def collect_cautions(view: RunView) -> list[Caution]:
    """Collects what is suspicious about a run: its files, its trials, its nodes and its cells."""
    return [
        *(Caution(plain(problem), "It is left out; all other records are used.") for problem in view.run.problems),
        *_check_trials(view.run),
        *(caution for session in view.run.sessions for caution in _check_load(session)),
        *_check_nodes(view.run),
        *_check_precision(view),
        *_check_cells(view),
    ]


def _check_trials(run: Run) -> Iterator[Caution]:
    counted = [trial for trial in run.trials if run.counts(trial)]
    foreign = len(run.trials) - len(counted)
    if foreign:
        yield Caution(
            f"{foreign} trials were taken in another environment, or by other code, and do not count.",
            "parbench run --resume measures them anew.",
        )
    disturbed = [
        f"round {trial.round + 1} of {plain(trial.cell)}: {plain('; '.join(trial.warnings))}"
        for trial in counted
        if trial.warnings
    ]
    if disturbed:
        yield Caution(
            f"{len(disturbed)} of {len(counted)} trials were disturbed.",
            "Measure again when nothing else runs. parbench check --against is fair even so: it alternates versions.",
            disturbed,
        )
    failed = [
        f"round {trial.round + 1} of {plain(trial.cell)}: {trial.status}: {plain(trial.reason)}"
        for trial in counted
        if trial.purpose == "companion" and trial.status != "ok"
    ]
    if failed:
        yield Caution(
            f"{len(failed)} launches that were to explain cells did not run to the end.",
            "No cell fails for that, but the waterfall of what it loses has fewer rounds, or fewer parts.",
            failed,
        )


def _check_load(run: Run) -> Iterator[Caution]:
    environment = run.record.environment
    load = (environment.get("context", {}).get("load_average") or [0])[0]
    cores = environment.get("speed", {}).get("physical_cores") or 1
    if load > MAX_LOAD * cores:
        yield Caution(
            f"The load average was {load:.1f} on {cores} cores when the run began: something else may have used them.",
            "parbench doctor tells what disturbs a measurement.",
        )


def _check_nodes(run: Run) -> Iterator[Caution]:
    if run.record.emulated_nodes:
        yield Caution(
            "The hosts are emulated: they are parts of one machine and share its cores and memory. Only the network "
            "between them has the rate that is written here.",
            "They show how strategies depend on the network, not how fast real hosts are.",
        )
    for node in run.record.nodes:
        if node.differs:
            yield Caution(
                f"Node {node.node} ({plain(node.host)}) differs from node 0 in {plain(', '.join(node.differs))}.",
                "The slowest node decides how fast a cell is.",
            )
        if abs(node.clock_offset_s) > MAX_CLOCK_OFFSET_S:
            yield Caution(
                f"The clock of node {node.node} ({plain(node.host)}) is {node.clock_offset_s:+.0f} s from node 0's.",
                "Only the times in its logs are wrong: durations are measured by the monotonic clock of one node.",
            )


def _check_cells(view: RunView) -> Iterator[Caution]:
    for applies, text, hint in _CELL_CHECKS:
        yield from _on_cells(text, hint, [cell.place for cell in view.cells if applies(cell)])


def _check_precision(view: RunView) -> Iterator[Caution]:
    """What weakens every verdict on the run."""
    places = {cell.record.id: cell.place for cell in view.cells}
    for warning in warnings_on([cell.judged for cell in view.cells]):
        if warning.cells:
            yield from _on_cells(warning.text, warning.hint, [places[cell.record.id] for cell in warning.cells])
        else:
            yield Caution(f"{warning.text}.", warning.hint)


def _on_cells(text: str, hint: str, places: Sequence[str]) -> Iterator[Caution]:
    if len(places) > _MAX_NAMES:
        yield Caution(f"{text}: {len(places)} cells.", hint, places)
    elif places:
        yield Caution(f"{text}: {'; '.join(places)}.", hint)


_CELL_CHECKS: tuple[tuple[Callable[[CellView], bool], str, str], ...] = (
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
        "Parity is undecided",
        "They are left out of every ranking; the table has each one's reason.",
    ),
    (
        lambda cell: cell.record.emulated,
        "Emulated, because the strategy has no effect on this kind of device",
        "On CUDA devices the strategy itself is measured.",
    ),
    (
        lambda cell: any(devices_in_a_rank(trial, cell.record) > 1 for trial in cell.trials),
        "One rank drives all devices, and its memory/rank is that of all of them together",
        "Compare it with the sum over another strategy's ranks.",
    ),
    (
        lambda cell: cell.record.oversubscribed,
        "More devices than core shares",
        "They show that a strategy runs, not how it scales.",
    ),
    (
        lambda cell: (noise(cell) or 0) > MAX_NOISE,
        f"Rounds differ by more than {MAX_NOISE * 100:.0f} %",
        "More rounds narrow the intervals; a machine on which nothing else runs needs fewer.",
    ),
)
"""Which cells a warning is about, its text, and what to do about it."""
