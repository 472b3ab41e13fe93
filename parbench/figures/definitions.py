"""All figures by name, in the order in which people read them. Each is defined beside its formula."""

from parbench.figures import (
    account,
    energy,
    generation,
    losses,
    memory,
    memory_account,
    parity,
    routing,
    several_models,
    speed,
    traffic,
    utilisation,
)
from parbench.figures.base import Figure

SUBJECTS = (
    speed, memory, energy, losses, utilisation, several_models, traffic, routing, account, memory_account,
    generation, parity,
)  # fmt: skip

FIGURES: dict[str, Figure] = {figure.name: figure for subject in SUBJECTS for figure in subject.FIGURES}


def gated_figures() -> dict[str, Figure]:
    """The figures that `check` compares, by name: the metrics of a scenario's `check` section."""
    return {name: figure for name, figure in FIGURES.items() if figure.gate != "none"}
