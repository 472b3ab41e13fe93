"""Mistakes of a scenario that only laying it out shows."""

from collections.abc import Sequence

from parbench.errors import Unsupported
from parbench.scenario.document import DataPath
from parbench.scenario.loader import Draft
from parbench.scenario.specs import StrategySpec


def _note_mistakes(
    refusals: Sequence[tuple[StrategySpec, Sequence[Unsupported | None]]], name: str, draft: Draft
) -> None:
    """A field that stands in the way at counts the user wrote, or at every count, is a mistake and not a skip.

    A field of the workload, which all strategies share, is none where any of its cells can be measured with it.
    """
    scenario = draft.scenario
    explicit = scenario is not None and scenario.devices.counts != "auto"
    measured = any(refusal is None for _, each in refusals for refusal in each)
    for strategy, mine in refusals:
        for refusal in mine:
            if not refusal or not refusal.field or not (explicit or all(each and each.field for each in mine)):
                continue
            if not measured or refusal.field.startswith("options."):
                draft.mistake(_field_path(refusal.field, name, strategy, draft), f"{strategy.label}: {refusal}")


def _field_path(field: str, name: str, strategy: StrategySpec, draft: Draft) -> DataPath:
    option = field.removeprefix("options.")
    if option != field:
        return (*draft.strategy_paths[strategy.label], strategy.name, option)
    return (*draft.workload_paths[name], field)
