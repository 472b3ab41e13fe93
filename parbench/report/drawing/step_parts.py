"""How the parts of a step look: work in cool colours, time in which nothing is computed in warm ones."""

from collections.abc import Mapping
from typing import Any

from matplotlib.patches import Patch

from parbench.figures.account import PART_MEANINGS, CellPart
from parbench.report.drawing.canvas import FAINT, MUTED

NAMES: Mapping[CellPart, str] = {
    **{part: part for part in PART_MEANINGS},
    "other": "other operators",
    "communication": "exposed communication",
    "waiting": "waiting for ranks",
    "pipeline": "bubble",
    "data": "data wait",
    "host": "host overhead",
}

STYLES: Mapping[CellPart, dict[str, Any]] = {
    "forward": {"facecolor": "#5a9bd4"},
    "loss": {"facecolor": "#1f5f99"},
    "backward": {"facecolor": "#7b86cf"},
    "optimizer": {"facecolor": "#3f9f86"},
    "other": {"facecolor": "#93c3b5"},
    "communication": {"facecolor": "#cc4455"},
    "waiting": {"facecolor": "#ee9a5b"},
    "pipeline": {"facecolor": "#e5c54f"},
    "data": {"facecolor": "#b07aa1"},
    "host": {"facecolor": "#98a2ad"},
    "unexplained": {"facecolor": FAINT, "hatch": "////", "edgecolor": MUTED},
}


def make_patch(part: CellPart) -> Patch:
    """A legend's handle for a part."""
    return Patch(**{"edgecolor": "none", "linewidth": 0.0, **STYLES[part]})
