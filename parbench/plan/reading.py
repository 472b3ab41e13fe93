"""Reads a scenario's file: into a scenario for any machine, or into the plan for one. Starts nothing."""

from collections.abc import Sequence
from pathlib import Path

from parbench.errors import ScenarioError
from parbench.models.base import FAMILIES
from parbench.plan.cells import Plan
from parbench.plan.companions import with_companions
from parbench.plan.planner import Planner
from parbench.scenario.document import read_document
from parbench.scenario.loader import Catalogue, Draft, draft_scenario
from parbench.scenario.specs import Scenario
from parbench.strategies.base import STRATEGIES
from parbench.system.devices import Machine


def read_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario at `path`, for a machine that is not known yet. Raises `ScenarioError` with every mistake."""
    draft = _read_draft(path, overrides)
    if draft.mistakes or draft.scenario is None:
        raise ScenarioError(draft.mistakes)
    return draft.scenario


def read_plan(path: Path, machine: Machine, overrides: Sequence[str] = ()) -> Plan:
    """The plan of the scenario at `path`. Raises `ScenarioError` with every mistake, on this machine too."""
    draft = _read_draft(path, overrides)
    scenario = draft.scenario
    cells = tuple(Planner(scenario, machine, draft).cells()) if scenario else ()
    if draft.mistakes or scenario is None:
        raise ScenarioError(draft.mistakes)
    cells = with_companions(cells, scenario, machine)
    return Plan(scenario=scenario, machine=machine, folder=path.parent, cells=cells)


def catalogue() -> Catalogue:
    """All model families and strategies that can be named in a scenario here."""
    options = {name: strategy.options_type for name, strategy in sorted(STRATEGIES.classes().items())}
    families = dict(sorted(FAMILIES.classes().items()))
    return Catalogue(families=families, options=options, broken=FAMILIES.broken, unimported=STRATEGIES.broken)


def _read_draft(path: Path, overrides: Sequence[str]) -> Draft:
    document = read_document(path).override(overrides)
    return draft_scenario(document, catalogue(), default_name=path.stem, folder=path.parent)
