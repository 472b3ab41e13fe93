"""Made-up campaigns with the nested noise of real ones: between sessions, between launches, between steps.

Every step time is base × session × launch × step. A launch is luckier or unluckier as a whole, and a share of its
steps, another one in each launch, runs beside somebody else's load. With these sizes a launch's fastest step varies by
3.6 %, its 10 % quantile by 4.5 % and its median by 5.9 %; on a shared virtual machine they were 2.5 % and more, and 5
to 7 %.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp, ttest_ind

from parbench.check.baselines import Baseline, CellValues, Session
from parbench.check.compare import judge_sessions
from parbench.check.metrics import Observed
from parbench.check.verdicts import Finding
from parbench.scenario import CheckSpec, MetricName

STEPS = 20
QUANTILES: dict[MetricName, float] = {"step_time_min_s": 0.0, "step_time_p10_s": 0.1, "step_time_s": 0.5}


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations on the log scale; `load` is how much slower a disturbed step is."""

    day: float = 0.01
    session: float = 0.01
    launch: float = 0.025
    step: float = 0.02
    load: float = 0.12


def launches(rng: np.random.Generator, shape: tuple[int, int, int], noise: Noise, metric: MetricName) -> np.ndarray:
    """The log of a metric in `shape` sessions × rounds × cells."""
    sessions, rounds, cells = shape
    day = rng.normal(0, noise.day, (sessions, 1, 1, 1))
    session = rng.normal(0, noise.session, (sessions, 1, cells, 1))
    launch = rng.normal(0, noise.launch, (sessions, rounds, cells, 1))
    disturbed = rng.random((*shape, STEPS)) < rng.random((*shape, 1))
    steps = np.abs(rng.normal(0, noise.step, (*shape, STEPS))) + noise.load * disturbed
    return np.quantile(day + session + launch + steps, QUANTILES[metric], axis=-1)


def campaign(
    rng: np.random.Generator, shape: tuple[int, int, int], metric: MetricName, slowdown: float = 0.0
) -> np.ndarray:
    """Logs of stored sessions and of a new one, the last, in which the first cell has become slower."""
    values = launches(rng, shape, Noise(), metric)
    values[-1, :, 0] += np.log1p(slowdown)
    return values


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


def arms(rng: np.random.Generator, shape: tuple[int, int], metric: MetricName, slowdown: float = 0.0) -> np.ndarray:
    """Logs of two arms, rounds and cells; what a day and a session do, the arms share."""
    values = launches(rng, (2, *shape), Noise(day=0, session=0), metric)
    values[1, :, 0] += np.log1p(slowdown)
    return values


def judged(values: np.ndarray, spec: CheckSpec) -> list[Finding]:
    """What parbench says of the campaign."""
    metric = spec.gate[0]
    names = [f"cell {number}" for number in range(values.shape[-1])]
    sessions = [
        Session(
            run=str(index),
            created_at="",
            commit=None,
            parbench=None,
            scenario="",
            scenario_sha256="",
            cells={
                name: CellValues(key="", metrics={metric: tuple(map(float, np.exp(session[:, number])))})
                for number, name in enumerate(names)
            },
        )
        for index, session in enumerate(values[:-1])
    ]
    fresh = {
        name: Observed(name, "", "ok", None, {metric: dict(enumerate(np.exp(values[-1][:, number])))})
        for number, name in enumerate(names)
    }
    baseline = Baseline(name="made-up", environment={}, sessions=tuple(sessions))
    return list(judge_sessions(fresh, dict.fromkeys(names, ""), baseline, spec))
