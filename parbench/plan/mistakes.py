"""Mistakes of a scenario that only show when it is laid out over devices."""

from collections.abc import Sequence
from typing import NamedTuple

from parbench.errors import Unsupported
from parbench.scenario.document import DataPath
from parbench.scenario.loader import Draft
from parbench.scenario.specs import StrategySpec


class Attempts(NamedTuple):
    """A strategy as the scenario names it, and for each of its cells why that is refused; None where it is not."""

    strategy: StrategySpec
    refusals: Sequence[Unsupported | None]


def add_mistakes(draft: Draft, workload: str, attempts: Sequence[Attempts]) -> None:
    """Adds a mistake for each field that stands in the way of a strategy at every device count, or at one in the file.

    Otherwise the cell is only skipped. So it is for a field of the workload, which all strategies share, where any of
    its cells can be measured.
    """
    scenario = draft.scenario
    are_counts_explicit = scenario is not None and scenario.devices.counts != "auto"
    is_any_measured = any(refusal is None for _, refusals in attempts for refusal in refusals)
    for strategy, refusals in attempts:
        is_always_refused = all(refusal and refusal.field for refusal in refusals)
        for refusal in refusals:
            if not refusal or not refusal.field or not (are_counts_explicit or is_always_refused):
                continue
            if not is_any_measured or refusal.field.startswith("options."):
                path = _field_path(refusal.field, workload, strategy, draft)
                draft.mistake(path, f"{strategy.label}: {refusal}")


def _field_path(field: str, workload: str, strategy: StrategySpec, draft: Draft) -> DataPath:
    """Where the field stands in the scenario's file."""
    option = field.removeprefix("options.")
    if option != field:
        return (*draft.strategy_paths[strategy.label], strategy.name, option)
    return (*draft.workload_paths[workload], field)
