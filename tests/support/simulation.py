"""Made-up campaigns with the nested noise of real ones: between sessions, between launches, between steps.

Every step time is base × session × launch × step. A launch is luckier or unluckier as a whole, and a share of its
steps, another one in each launch, runs beside somebody else's load. With these sizes a launch's fastest step varies by
3.6 %, its 10 % quantile by 4.7 %, its median by 5.9 % and its throughput by 4.4 %; on a shared virtual machine they
were 2.6 to 4 %, 4 %, 7 % and 6 %. Peak memory varies by 3 % from launch to launch; there by 1 to 4.5 %. The last cell
is the reference of all others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp, ttest_ind

from parbench.check.baselines import Baseline, CellValues, Session
from parbench.check.compare import judge_sessions
from parbench.check.observations import Observation
from parbench.check.verdicts import Finding
from parbench.scenario.specs import CheckSpec, MetricName

STEPS = 20
Shape = tuple[int, int, int]
MEMORY_NOISE = 0.03
Values = dict[MetricName, np.ndarray]
"""The log of each metric in sessions × rounds × cells, turned so that more is worse."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations on the log scale; `load` is how much slower a disturbed step is."""

    day: float = 0.01
    session: float = 0.01
    launch: float = 0.025
    step: float = 0.02
    load: float = 0.12


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """How much longer the first cell takes in the last session, all in one of `every` steps."""

    share: float = 0.0
    every: int = 1


def step_times(rng: np.random.Generator, shape: Shape, noise: Noise, slow: Slowdown) -> np.ndarray:
    """The logs of step times in `shape` sessions × rounds × cells, each of `STEPS` steps."""
    sessions, rounds, cells = shape
    day = rng.normal(0, noise.day, (sessions, 1, 1, 1))
    session = rng.normal(0, noise.session, (sessions, 1, cells, 1))
    launch = rng.normal(0, noise.launch, (sessions, rounds, cells, 1))
    disturbed = rng.random((*shape, STEPS)) < rng.random((*shape, 1))
    times = day + session + launch + np.abs(rng.normal(0, noise.step, (*shape, STEPS))) + noise.load * disturbed
    times[-1, :, 0, :: slow.every] += np.log1p(slow.share * slow.every)
    return times


OF_STEPS: dict[MetricName, Callable[[np.ndarray], np.ndarray]] = {
    "step_time_min_s": lambda times: times.min(axis=-1),
    "step_time_p10_s": lambda times: np.quantile(times, 0.1, axis=-1),
    "step_time_s": lambda times: np.quantile(times, 0.5, axis=-1),
    # The reference has no ratio to itself.
    "relative_step_time": lambda times: (times.min(axis=-1) - times[..., -1:, :].min(axis=-1))[..., :-1],
    "tokens_per_s": lambda times: np.log(np.exp(times).mean(axis=-1)),
}
"""What parbench makes of the step times of a launch."""


def metrics(rng: np.random.Generator, times: np.ndarray, wanted: Collection[MetricName]) -> Values:
    """Of a campaign's step times the metrics that are wanted, and peak memory, which has nothing to do with them."""
    values = {metric: of(times) for metric, of in OF_STEPS.items() if metric in wanted}
    return {**values, "peak_memory_bytes": rng.normal(0, MEMORY_NOISE, times.shape[:-1])}


def campaign(rng: np.random.Generator, shape: Shape, slow: Slowdown, wanted: Collection[MetricName]) -> Values:
    """Stored sessions and a new one, the last."""
    return metrics(rng, step_times(rng, shape, Noise(), slow), wanted)


def arms(rng: np.random.Generator, shape: Shape, slow: Slowdown, wanted: Collection[MetricName]) -> Values:
    """Two arms, the candidate last; what a day and a session do, the arms share."""
    return metrics(rng, step_times(rng, shape, Noise(day=0, session=0), slow), wanted)


def between_sessions_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The p-value of every cell at once, by the test that `decide.between_sessions` makes of each."""
    means = values.mean(axis=1)
    return ttest_ind(means[-1:] - np.log1p(margin), means[:-1], axis=0, alternative="greater").pvalue


def within_run_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The same for `decide.within_run`."""
    old = values[:-1].reshape(-1, values.shape[-1])
    return ttest_ind(values[-1] - np.log1p(margin), old, axis=0, equal_var=False, alternative="greater").pvalue


def paired_p(values: np.ndarray, margin: float) -> np.ndarray:
    """The same for `decide.paired`, where a session's two arms take turns."""
    return ttest_1samp(values[1] - values[0], np.log1p(margin), axis=0, alternative="greater").pvalue


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

    def found(
        self, rng: np.random.Generator, cells: int, gates: Collection[CheckSpec], slow: Slowdown
    ) -> list[np.ndarray]:
        """By gate, for every cell whether any metric of it is called regressed where Holm's first step decides."""
        wanted = {metric for spec in gates for metric in spec.gate}
        values = self.drawn(rng, (self.sessions, self.rounds, cells), slow, wanted)
        return [self._regressed(values, spec, cells) for spec in gates]

    def _regressed(self, values: Values, spec: CheckSpec, cells: int) -> np.ndarray:
        tested = [metric for metric in spec.gate if metric in values]
        level = spec.alpha / sum(values[metric].shape[-1] for metric in tested)
        regressed = np.zeros(cells, dtype=bool)
        for metric in tested:
            fell = self.test(values[metric], self.margin(spec, metric)) < level
            regressed[: len(fell)] |= fell
        return regressed


def judged(values: Values, spec: CheckSpec) -> list[Finding]:
    """What parbench says of the campaign."""
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
        for index in range(len(values["step_time_min_s"]) - 1)
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
            metric: [float(each) for each in np.exp(logs[session, :, number])]
            for metric, logs in turned.items()
            if number < logs.shape[-1]
        }
        for number in range(count)
    ]
