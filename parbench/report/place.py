"""Where a report lies: known without drawing one."""

from collections.abc import Sequence
from pathlib import Path

from parbench.report.panels import slugify
from parbench.results.store import Run

PAGE = "index.html"
REPORTS = Path("report")


def folder_name(runs: Sequence[Run]) -> str:
    """The name of a report's folder, made of the runs' ids."""
    names = [slugify(run.record.id) for run in runs]
    return "_vs_".join(names) if len(names) < 3 else f"{names[0]}_vs_{len(names) - 1}_more"
