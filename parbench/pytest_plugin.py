"""`pytest --scenario FILE`: every cell a test with pytest-benchmark's records, and with a baseline a gate a cell.

All cells of a scenario are measured in one campaign, interleaved, when the first of them is run. What was measured is
then replayed to pytest-benchmark through a clock that tells measured time, a round for each launch.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from parbench.check.baselines import Baseline
    from parbench.check.verdicts import Report
    from parbench.plan.cells import Cell, Plan
    from parbench.results.store import Run

RESULTS = Path("results")
PLANNED = pytest.StashKey[set[str]]()
"""The ids of the cells of all scenarios, also of items that were not selected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of parbench."""
    group = parser.getgroup("parbench")
    group.addoption(
        "--scenario", action="append", default=[], metavar="FILE", help="Measure the cells of this scenario."
    )
    group.addoption("--parbench-baseline", metavar="NAME", help="Check every cell of the scenarios against a baseline.")
    group.addoption(
        "--parbench-results", default=str(RESULTS), metavar="DIR", help="Where runs and baselines are kept."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Scenarios are collected like files named on the command line, and alone where no other was named."""
    scenarios = [str(Path(path).absolute()) for path in config.getoption("--scenario")]
    if scenarios and (hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None)):
        raise pytest.UsageError(
            "--scenario measures, and pytest-xdist's workers would disturb each other: leave out -n"
        )
    if scenarios:
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, *scenarios]
    elif config.getoption("--parbench-baseline"):
        raise pytest.UsageError("--parbench-baseline needs --scenario FILE")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | None":
    """Collects the scenarios of `--scenario`, and no other YAML files."""
    scenarios = {Path(path).resolve() for path in parent.config.getoption("--scenario")}
    return ScenarioFile.from_parent(parent, path=file_path) if file_path.resolve() in scenarios else None


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Adds what changes speed on this machine to pytest-benchmark's records."""
    if config.getoption("--scenario"):
        from parbench.system.environment import capture

        machine_info["parbench"] = capture().speed.model_dump(mode="json")


class Replay:
    """A clock that only `advance` moves, each time by the next measured time."""

    def __init__(self) -> None:
        self.now, self.left = 0.0, list[float]()

    def __call__(self) -> float:
        """The time by this clock."""
        return self.now

    def advance(self) -> None:
        """Moves the clock by the time of the next launch."""
        self.now += self.left.pop(0)


class ScenarioFile(pytest.File):
    """A scenario and its one campaign."""

    _run: "Run | None" = None
    _report: "Report | None" = None

    def collect(self) -> Iterator[pytest.Item]:
        """An item for every cell, also the skipped ones, and with a baseline a gate for each of them."""
        from parbench.errors import ParbenchError
        from parbench.plan.reading import read_plan
        from parbench.system.devices import detect

        try:
            self.plan: Plan = read_plan(self.path, detect())
        except ParbenchError as error:
            raise self.CollectError(_plain_lines(str(error))) from None
        self.config.stash.setdefault(PLANNED, set()).update(cell.record.id for cell in self.plan.cells)
        for cell in self.plan.cells:
            yield CellItem.from_parent(self, name=cell.record.id, callobj=_replay, cell=cell)
        if self.config.getoption("--parbench-baseline"):
            for cell in self.plan.cells:
                yield GateItem.from_parent(self, name=f"gate:{cell.record.id}", cell=cell)
            yield VanishedItem.from_parent(self, name="gate: every cell of the baseline")

    @property
    def results(self) -> Path:
        """Where runs are kept."""
        return Path(self.config.getoption("--parbench-results"))

    @property
    def run(self) -> "Run":
        """The campaign of the selected cells and their references, which the first item that needs it runs."""
        if self._run is None:
            from dataclasses import replace

            from parbench.campaign.gate import Bench
            from parbench.campaign.progress import Progress

            selected = {item.cell.record.id for item in self.session.items if isinstance(item, CellItem | GateItem)}
            cells = tuple(cell for cell in self.plan.cells if cell.record.id in selected or cell.record.is_reference)
            self._run = Bench(self.results, Progress).run(replace(self.plan, cells=cells))
        return self._run

    @property
    def report(self) -> "Report":
        """The check of the campaign against the baseline."""
        if self._report is None:
            from parbench.check.compare import against_baseline

            self._report = against_baseline(self.run, self.baseline)
        return self._report

    @property
    def baseline(self) -> "Baseline":
        """What the campaign is checked against."""
        from parbench.check.baselines import load

        return load(self.config.getoption("--parbench-baseline"), self.results / "baselines")


class CellItem(pytest.Function):
    """A cell; it passes where it was measured successfully."""

    def __init__(self, *, cell: "Cell", **rest: Any) -> None:
        super().__init__(**rest)
        self.cell = cell
        self.clock = Replay()
        if self.config.pluginmanager.hasplugin("benchmark"):
            group = f"{cell.record.workload} ({cell.record.scaling})"
            self.add_marker(pytest.mark.benchmark(group=group, timer=self.clock, warmup=False, disable_gc=False))


class GateItem(pytest.Item):
    """A cell's verdicts; it fails where something regressed, and skips where the check cannot decide."""

    parent: ScenarioFile

    def __init__(self, *, cell: "Cell", **rest: Any) -> None:
        super().__init__(**rest)
        self.cell = cell

    def runtest(self) -> None:
        """Judges the cell among all others: the correction is for the whole campaign."""
        from parbench.check.rows import sentence

        with _sentences():
            report = self.parent.report
        if report.problem:
            pytest.fail(_plain_lines(report.problem), pytrace=False)
        mine = [finding for finding in report.findings if finding.gated and finding.cell == self.cell.record.id]
        bad = [each for each in mine if each.verdict in ("regressed", "failed", "missing", "not comparable")]
        if bad:
            pytest.fail("\n".join(map(sentence, bad)), pytrace=False)
        unsure = [finding for finding in mine if finding.verdict in ("inconclusive", "new")]
        if unsure or not mine:
            why = "; ".join(map(sentence, unsure)) or self.cell.record.reason or "nothing to compare"
            pytest.skip(_plain_lines(why))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the item comes from."""
        return self.path, None, self.name


class VanishedItem(pytest.Item):
    """Fails where the baseline has cells that no scenario has any more: they have no item of their own."""

    parent: ScenarioFile

    def runtest(self) -> None:
        """Compares names; nothing is measured for it."""
        from parbench.text import plain

        with _sentences():
            gone = [name for name in self.parent.baseline.keys if name not in self.config.stash[PLANNED]]
        if gone:
            pytest.fail("\n".join(plain(f"missing: no scenario has {name} any more") for name in gone), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the item comes from."""
        return self.path, None, self.name


def _replay(request: pytest.FixtureRequest) -> None:
    """A cell's test: runs the campaign, if no other item has, and replays the cell's times to pytest-benchmark."""
    from parbench.check.observations import observe

    item: Any = request.node
    if item.cell.layout is None:
        pytest.skip(_plain_lines(item.cell.record.reason))
    with _sentences():
        observed = observe(item.parent.run)[item.cell.record.id]
    if observed.status != "ok":
        pytest.fail(_plain_lines(f"{observed.id}: {observed.reason}"), pytrace=False)
    if not item.config.pluginmanager.hasplugin("benchmark"):
        return
    benchmark = request.getfixturevalue("benchmark")
    steps = list(observed.metrics["step_time_s"].values())
    item.clock.left = list(steps)
    benchmark.pedantic(item.clock.advance, rounds=len(steps), iterations=1)
    benchmark.extra_info.update({name: list(by_round.values()) for name, by_round in observed.metrics.items()})


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Shows errors that the user can fix as a sentence, without a traceback."""
    from parbench.errors import ParbenchError

    try:
        yield
    except ParbenchError as error:
        pytest.fail(_plain_lines(str(error)), pytrace=False)


def _plain_lines(text: str) -> str:
    """The text without control characters, but with its line ends; a scenario or a plug-in may have written it."""
    from parbench.text import plain

    return "\n".join(map(plain, text.splitlines()))
