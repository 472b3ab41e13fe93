"""Made-up campaigns with the nested noise of real ones: between sessions, between launches, between steps.

Every step time is base × session × launch × step. A launch is luckier or unluckier as a whole, and a share of its
steps, another one in each launch, runs beside somebody else's load. What the steps add to a launch does not depend on
the rest, so it is drawn from a bank of launches. The last cell is the reference of all others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr
from scipy.stats import ttest_ind

from parbench.check.baselines import Baseline, CellValues, Session
from parbench.check.compare import judge_sessions
from parbench.check.looks import Looks
from parbench.check.moderation import prior_of
from parbench.check.observations import Observation
from parbench.check.significance import detectable_effect
from parbench.check.two_arms import is_gated
from parbench.check.verdicts import Finding
from parbench.figures.definitions import FIGURES
from parbench.scenario.specs import CheckSpec, MetricName

STEPS = 20
BANK = 20_000
Shape = tuple[int, int, int, int]
Values = dict[MetricName, np.ndarray]
"""The log of each metric in campaigns × sessions × rounds × cells, turned so that more is worse."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations on the log scale; `load` is how much slower a disturbed step is.

    `cells` is the standard deviation of the logarithm of the cells' own noise between launches, whose median is
    `launch`: with 0 all cells are alike.
    """

    day: float = 0.01
    session: float = 0.01
    launch: float = 0.025
    step: float = 0.02
    load: float = 0.12
    memory: float = 0.03
    cells: float = 0.0


QUIET = Noise()
"""A launch's fastest step varies by 3.6 %, its 10 % quantile by 4.7 %, its median by 5.9 %, its throughput by 4.4 %."""

STORED = Noise(launch=0.048)
"""As in the runs under results/stored: the fastest step varies by 5.5 %, throughput by 6 %."""

UNEQUAL = Noise(launch=0.04, cells=0.5)
"""As different as stored cells: fastest steps vary by 4.7 % in the median, by 6.3 % and more in a quarter of them."""


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """How much longer the first cell takes in the last session, all in one of `every` steps."""

    share: float = 0.0
    every: int = 1


OF_STEPS: dict[MetricName, Callable[[np.ndarray], np.ndarray]] = {
    "step_time_min_s": lambda times: times.min(axis=-1),
    "step_time_p10_s": lambda times: np.quantile(times, 0.1, axis=-1),
    "step_time_s": lambda times: np.quantile(times, 0.5, axis=-1),
    "tokens_per_s": lambda times: np.log(np.exp(times).mean(axis=-1)),
}
"""What parbench makes of the step times of a launch."""


@lru_cache
def bank(noise: Noise, slow: Slowdown) -> Values:
    """What the steps add to the logs of launches' metrics."""
    rng = np.random.default_rng(1)
    disturbed = rng.random((BANK, STEPS)) < rng.random((BANK, 1))
    times = np.abs(rng.normal(0, noise.step, (BANK, STEPS))) + noise.load * disturbed
    times[:, :: slow.every] += np.log1p(slow.share * slow.every)
    return {metric: of(times) for metric, of in OF_STEPS.items()}


def campaigns(rng: np.random.Generator, shape: Shape, noise: Noise, slow: Slowdown) -> Values:
    """Stored sessions and a new one, the last."""
    count, sessions, _, cells = shape
    own = noise.launch * np.exp(noise.cells * rng.normal(0, 1, (count, 1, 1, cells)))
    shift = rng.normal(0, noise.day, (count, sessions, 1, 1)) + rng.normal(
        0, noise.session, (count, sessions, 1, cells)
    )
    shift = shift + own * rng.normal(0, 1, shape)
    drawn = rng.integers(BANK, size=shape)
    values: Values = {}
    for metric, of_launches in bank(noise, Slowdown()).items():
        values[metric] = shift + of_launches[drawn]
        values[metric][:, -1, :, 0] = shift[:, -1, :, 0] + bank(noise, slow)[metric][drawn[:, -1, :, 0]]
    fastest = values["step_time_min_s"]
    # The reference has no ratio to itself.
    values["relative_step_time"] = (fastest - fastest[..., -1:])[..., :-1]
    values["peak_memory_bytes"] = rng.normal(0, noise.memory, shape)
    return values


def arms(rng: np.random.Generator, shape: Shape, noise: Noise, slow: Slowdown) -> Values:
    """Two arms, the candidate last; what a day and a session do, the arms share."""
    alike = Noise(**{**vars(noise), "day": 0.0, "session": 0.0})
    return campaigns(rng, shape, alike, slow)


def between_sessions_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The p-value of every cell at once, by the test that `significance.between_sessions` makes of each."""
    means = values.mean(axis=2)
    return ttest_ind(means[:, -1:] - np.log1p(margin), means[:, :-1], axis=1, alternative="greater").pvalue


def within_run_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The same for `significance.within_run`."""
    count, *_, cells = values.shape
    old = values[:, :-1].reshape(count, -1, cells)
    return ttest_ind(values[:, -1] - np.log1p(margin), old, axis=1, equal_var=False, alternative="greater").pvalue


@dataclass(frozen=True)
class Paired:
    """Every cell's change in so many rounds of two arms, with its standard error, as `significance.paired` has them."""

    change: np.ndarray
    error: np.ndarray
    df: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, *, moderated: bool = True) -> "Paired":
        """Of values in campaigns × two arms × rounds × cells."""
        changes = values[:, 1] - values[:, 0]
        rounds, variance = changes.shape[1], changes.var(axis=1, ddof=1)
        own = rounds - 1
        priors = [prior_of(list(each), own) for each in variance] if moderated else []
        df = np.full(len(variance), float(own))
        if priors:
            weight = np.array([min(each.df, own) for each in priors])
            usual = np.array([each.variance for each in priors])
            df = own + weight
            variance = (own * variance + (weight * usual)[:, None]) / df[:, None]
        return cls(changes.mean(axis=1), np.sqrt(variance / rounds), df[:, None])

    def p_worse(self, margin: float, more: float = 1.0) -> np.ndarray:
        """The p-value of every cell; with `more` times the rounds, should all go on as it was."""
        return stdtr(self.df * more, -(self.change - np.log1p(margin)) / self.error * np.sqrt(more))

    def detectable(self, margin: float, level: float, power: float) -> np.ndarray:
        """The least change that would be found, on the log scale."""
        effects = np.array([[detectable_effect(float(df), level, power)] for (df,) in self.df])
        return np.log1p(margin) + effects * self.error


def paired_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The p-values of two arms in turns."""
    return Paired.of(values).p_worse(margin)


def unmoderated_paired_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The same, each cell by its own variance alone."""
    return Paired.of(values, moderated=False).p_worse(margin)


@dataclass(frozen=True, kw_only=True)
class Design:
    """How many sessions (the new one is the last; or the two arms) of how many rounds, and which test is made."""

    sessions: int
    rounds: int
    drawn: Callable[..., Values]
    test: Callable[[np.ndarray, float], np.ndarray]

    def margin(self, spec: CheckSpec, metric: MetricName) -> float:
        """What is no regression yet, as parbench decides it."""
        few = spec.margin_few_sessions if self.test is within_run_p else 0.0
        return max(few, spec.margin_of(metric))

    def gated(self, spec: CheckSpec, values: Values) -> list[MetricName]:
        """The metrics that are tested and decide: between two arms no ratio."""
        among = [metric for metric in spec.gate if metric in values]
        return [metric for metric in among if self.drawn is campaigns or is_gated(FIGURES[metric], spec)]

    def draw_regressed(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        gates: Collection[CheckSpec],
        noise: Noise = QUIET,
        slow: Slowdown = Slowdown(),
    ) -> np.ndarray:
        """By gate, for every one of `size` campaigns × cells, whether Holm's first step calls any metric regressed."""
        count, cells = size
        values = self.drawn(rng, (count, self.sessions, self.rounds, cells), noise, slow)
        return np.array([self._regressed(values, spec) for spec in gates])

    def _regressed(self, values: Values, spec: CheckSpec) -> np.ndarray:
        tested = self.gated(spec, values)
        level = spec.alpha / sum(values[metric].shape[-1] for metric in tested)
        regressed = np.zeros(values["step_time_min_s"].shape[::3], dtype=bool)
        for metric in tested:
            fell = self.test(values[metric], self.margin(spec, metric)) < level
            regressed[:, : fell.shape[1]] |= fell
        return regressed


@dataclass(frozen=True)
class Sequential:
    """Two arms that get more rounds at each look, until every verdict is decided."""

    looks: Looks
    spec: CheckSpec

    def draw_regressed(
        self, rng: np.random.Generator, size: tuple[int, int], noise: Noise, slow: Slowdown
    ) -> tuple[np.ndarray, np.ndarray]:
        """For campaigns × cells whether they are called regressed, and the rounds of every campaign."""
        count, cells = size
        values = arms(rng, (count, 2, self.looks.rounds[-1], cells), noise, slow)
        metrics = [metric for metric in self.spec.gate if metric in values and is_gated(FIGURES[metric], self.spec)]
        alpha = self.spec.alpha / (cells * len(metrics))
        levels = self.looks.levels(alpha)
        regressed, taken = np.zeros((len(metrics), count, cells), dtype=bool), np.zeros(count, dtype=int)
        for look, rounds in enumerate(self.looks.rounds):
            going = taken == 0
            undecided = np.zeros(count, dtype=bool)
            for index, metric in enumerate(metrics):
                margin = self.spec.margin_of(metric)
                compared = Paired.of(values[metric][:, :, :rounds])
                regressed[index] |= going[:, None] & (compared.p_worse(margin) <= levels[look])
                foreseen = compared.p_worse(margin, self.looks.rounds[-1] / rounds) <= levels[-1]
                blunt = compared.detectable(margin, levels[look], self.spec.power) > np.log1p(self.spec.min_effect)
                undecided |= ((foreseen | blunt) & ~regressed[index]).any(axis=1)
            last = self.looks.is_last(look)
            taken[going & (~undecided | last)] = rounds
        return regressed.any(axis=0), taken


def judged(values: Values, spec: CheckSpec) -> list[Finding]:
    """What parbench says of the first campaign."""
    names = [f"cell {number}" for number in range(values["step_time_min_s"].shape[-1])]
    sessions = [
        Session(
            run=str(index),
            created_at="",
            commit=None,
            parbench=None,
            scenario="",
            scenario_sha256="",
            cells={
                name: CellValues(key="", metrics={key: tuple(by_round) for key, by_round in cell.items()})
                for name, cell in zip(names, _cells(values, index, len(names)), strict=True)
            },
        )
        for index in range(values["step_time_min_s"].shape[1] - 1)
    ]
    fresh = {
        name: Observation(name, "", "ok", None, {key: dict(enumerate(by_round)) for key, by_round in cell.items()})
        for name, cell in zip(names, _cells(values, -1, len(names)), strict=True)
    }
    baseline = Baseline(name="made-up", environment={}, sessions=tuple(sessions))
    return list(judge_sessions(fresh, dict.fromkeys(names, ""), baseline, spec))


def _cells(values: Values, session: int, count: int) -> list[Mapping[MetricName, list[float]]]:
    """What each cell measured in a session, by metric."""
    turned = {metric: -logs if metric == "tokens_per_s" else logs for metric, logs in values.items()}
    return [
        {
            metric: [float(each) for each in np.exp(logs[0, session, :, number])]
            for metric, logs in turned.items()
            if number < logs.shape[-1]
        }
        for number in range(count)
    ]
