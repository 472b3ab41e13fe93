"""What `--confirm` makes of made-up campaigns: which alarms stay, by the rule that parbench has and by others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr
from scipy.stats import ttest_ind

from parbench.check.significance import detectable_effect
from parbench.check.two_arms import is_gated
from parbench.figures.definitions import FIGURES
from parbench.scenario.specs import CheckSpec
from tests.support.simulation import Noise, Paired, Slowdown, Values, campaigns

SPEC = CheckSpec()
OF_SUSPECTS = SPEC.alpha / 6
"""The level of the second run's own tests: a suspect and its reference, three figures each."""


@dataclass(frozen=True)
class Tested:
    """Every cell's change in campaigns × cells, its standard error and the degrees of freedom of its test."""

    change: np.ndarray
    error: np.ndarray
    df: np.ndarray

    def p_worse(self, margin: float) -> np.ndarray:
        """The p-value of a change beyond the margin."""
        return stdtr(self.df, -(self.change - np.log1p(margin)) / self.error)

    def p_not_worse(self, margin: float) -> np.ndarray:
        """That of a change below it."""
        return stdtr(self.df, (self.change - np.log1p(margin)) / self.error)


def paired(old: np.ndarray, new: np.ndarray) -> Tested:
    """Two arms in turns."""
    compared = Paired.of(np.stack([old, new], axis=1))
    return Tested(compared.change, compared.error, compared.df)


def rounds_against_rounds(old: np.ndarray, new: np.ndarray) -> Tested:
    """A run and a stored session."""
    welch = ttest_ind(new, old, axis=1, equal_var=False)
    change = new.mean(axis=1) - old.mean(axis=1)
    return Tested(change, change / welch.statistic, welch.df)


def stays(sessions: np.ndarray, margin: float, level: float, *, arms: bool) -> Mapping[str, np.ndarray]:
    """For every campaign and cell whether an alarm is raised, and whether it stays under each rule.

    The sessions are the base and the new one, twice; a baseline is the same both times.
    """
    old, new, old_again, new_again = sessions.swapaxes(0, 1)
    test = paired if arms else rounds_against_rounds
    first, second = test(old, new), test(old_again if arms else old, new_again)
    both = test(np.concatenate([old, old_again], axis=1) if arms else old, np.concatenate([new, new_again], axis=1))
    raised = first.p_worse(margin) < level
    effect = detectable_effect(float(second.df.mean()), OF_SUSPECTS, SPEC.power)
    is_sharp = np.log1p(margin) + effect * second.error <= np.log1p(SPEC.min_effect)
    looks_fine = (second.change <= np.log1p(margin)) | (is_sharp & (second.p_worse(margin) >= OF_SUSPECTS))
    return {
        "without --confirm": raised,
        "cleared if the second estimate is within the margin, or its test finds nothing": raised & ~looks_fine,
        "cleared if the second run shows a change within the margin (p < 0.05)": raised
        & (second.p_not_worse(margin) >= 0.05),
        "cleared unless both runs together find it again": raised & (both.p_worse(margin) < level),
    }


def confirmed_shares(
    seed: int, size: tuple[int, int], rounds: int, noise: Noise, share: float, *, arms: bool
) -> dict[str, float]:
    """By rule the share of campaigns in which an alarm stays: any, or, where the first cell is slowed, that cell's."""
    values = _slowed(np.random.default_rng(seed), size, rounds, noise, share, arms=arms)
    metrics = [metric for metric in SPEC.gate if metric in values and (not arms or is_gated(FIGURES[metric], SPEC))]
    level = SPEC.alpha / sum(values[metric].shape[-1] for metric in metrics)
    kept: dict[str, np.ndarray] = {}
    for metric in metrics:
        margin = max(SPEC.margin_of(metric), 0.0 if arms else SPEC.margin_few_sessions)
        for rule, alarms in stays(values[metric], margin, level, arms=arms).items():
            kept[rule] = kept.get(rule, np.zeros(size[0], dtype=bool)) | (alarms[:, 0] if share else alarms.any(axis=1))
    return {rule: float(each.mean()) for rule, each in kept.items()}


def _slowed(
    rng: np.random.Generator, size: tuple[int, int], rounds: int, noise: Noise, share: float, *, arms: bool
) -> Values:
    """Base and new session, and both again on the same day; in the new ones the first cell is slower by `share`."""
    count, cells = size
    calm = replace(noise, day=0.0, session=0.0) if arms else replace(noise, day=0.0)
    values = campaigns(rng, (count, 4, rounds, cells), calm, Slowdown())
    day = 0.0 if arms else rng.normal(0, noise.day, (count, 2, 1, 1))[:, [0, 1, 0, 1]]
    for metric in values.keys() - {"peak_memory_bytes"}:
        values[metric][:, 1::2, :, 0] += np.log1p(share)
        values[metric] += 0.0 if metric == "relative_step_time" else day
    return values
