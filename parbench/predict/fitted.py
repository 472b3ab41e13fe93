"""What the published rows say: the fitted constants, those without each source, and how far left-out sources lay off.

`make calibrate` writes the file.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from parbench.predict.calibrate import fit, residuals
from parbench.predict.cases import Case
from parbench.predict.constants import Constants

FILE = "fitted.json"
NOMINAL = 0.8
"""The share of measurements that intervals are to hold."""

EXTRAPOLATION = 2.0
"""Times the largest number of devices that was fitted, beyond which every figure is extrapolated."""

WIDER = 1.25
"""For each reason to be less sure: an unseen generation of devices, extrapolation, inputs that a row leaves open."""

OPEN = frozenset({"micro_batch", "global_batch", "act_ckpt", "seq_len", "layers"})
"""The inputs that decide most, where they had to be assumed."""


@dataclass(frozen=True)
class Fitted:
    """`constants` are fitted to all rows, `without` to those of all other sources. `errors` are the absolute logarithms
    of predicted over measured of each row under the constants without its source, by source; of rows that leave inputs
    open, over `WIDER`. `identities` are the rows
    that were fitted, with their source, `generations` and `most_devices` what they were measured on. For the nominal
    share of pairs of layouts of one model, the logarithm of their ratio is off by at most `pair_reach`.
    """

    constants: Constants
    without: Mapping[str, Constants]
    errors: Mapping[str, Sequence[float]]
    identities: Mapping[str, str]
    generations: frozenset[str]
    most_devices: int
    pair_reach: float

    def reach(self, leave_out: str | None = None) -> float:
        """Half the width of the interval, as a logarithm: of what another source measures of the same."""
        others = [errors for fold, errors in self.errors.items() if fold != leave_out]
        return float(np.quantile(np.concatenate(others), NOMINAL))


def openness(case: Case) -> float:
    """How much wider an interval has to be because a row leaves inputs open."""
    return WIDER if OPEN.intersection(case.assumed) else 1.0


def fit_all(cases: Sequence[Case]) -> Fitted:
    """Fits the constants to all cases, and to those of all but one source in turn."""
    folds = sorted({case.fold for case in cases})
    without = {fold: fit([case for case in cases if case.fold != fold]) for fold in folds}
    errors = {
        fold: [abs(float(residuals([case], without[fold])[0])) / openness(case) for case in cases if case.fold == fold]
        for fold in folds
    }
    return Fitted(
        constants=fit(cases),
        without=without,
        errors=errors,
        identities={case.row_id: case.fold for case in cases},
        generations=frozenset(case.generation for case in cases),
        most_devices=max(case.devices for case in cases),
        pair_reach=_pair_reach(cases, without),
    )


def _pair_reach(cases: Sequence[Case], without: Mapping[str, Constants]) -> float:
    """What a source measures of two layouts of one model is off alike: only the rest counts."""
    groups: dict[object, list[float]] = defaultdict(list)
    for case in cases:
        groups[case.group].append(float(residuals([case], without[case.fold])[0]))
    differences = [abs(first - second) for group in groups.values() for first, second in combinations(group, 2)]
    return float(np.quantile(differences, NOMINAL))


def write_fitted(fitted: Fitted, path: Path) -> None:
    """Writes the file that comes with parbench."""
    content = {
        "constants": fitted.constants._asdict(),
        "without": {fold: constants._asdict() for fold, constants in fitted.without.items()},
        "errors": {fold: [round(error, 4) for error in errors] for fold, errors in fitted.errors.items()},
        "identities": dict(fitted.identities),
        "generations": sorted(fitted.generations),
        "most_devices": fitted.most_devices,
        "pair_reach": round(fitted.pair_reach, 4),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@cache
def published_fit() -> Fitted:
    """What comes with parbench."""
    text = resources.files("parbench.predict").joinpath(FILE).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return Fitted(
        constants=Constants(**content["constants"]),
        without={fold: Constants(**values) for fold, values in content["without"].items()},
        errors=content["errors"],
        identities=content["identities"],
        generations=frozenset(content["generations"]),
        most_devices=content["most_devices"],
        pair_reach=content["pair_reach"],
    )
