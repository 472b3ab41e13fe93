"""Fits the constants to measured rows: robustly, with priors, and without one source at a time."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from parbench.predict.cases import Case
from parbench.predict.constants import Constants, from_logarithms, prior_constants, spreads, to_logarithms
from parbench.predict.cost import step_costs
from parbench.predict.problem import Array, Problem

NOISE = 0.08
"""Standard deviation of the logarithm of what is measured: software differs by as much from source to source."""

OUTLIER = 2.0
"""In units of the noise: residuals beyond it count linearly (soft L1)."""

FULL_WEIGHT = 20
"""Rows of a source that count in full; those of a larger one share that weight: their errors are not independent."""


def predicted(problem: Problem, constants: Constants) -> Array:
    """Tokens per second of all devices."""
    return problem.step_tokens / step_costs(problem, constants).step


def residuals(cases: Sequence[Case], constants: Constants) -> Array:
    """The logarithm of predicted over measured, for each case."""
    problem = Problem.stacked([case.numbers for case in cases])
    measured = np.array([case.tokens_per_s for case in cases])
    errors: Array = np.log(predicted(problem, constants) / measured)
    return errors


def fit(cases: Sequence[Case], prior: Constants | None = None, tightness: float = 1.0) -> Constants:
    """The constants that these cases and the prior make most likely; a prior is trusted `tightness` times its spread's
    inverse."""
    start = np.array(to_logarithms(prior or prior_constants()))
    spread = np.array(spreads()) / tightness
    problem = Problem.stacked([case.numbers for case in cases])
    measured = np.log([case.tokens_per_s for case in cases])
    weights = _weights(cases)

    def misfit(logarithms: Array) -> Array:
        errors = np.log(predicted(problem, from_logarithms(logarithms.tolist()))) - measured
        return np.concatenate([weights * _softened(errors / NOISE), (logarithms - start) / spread])

    return from_logarithms(least_squares(misfit, start, method="trf", x_scale=spread).x.tolist())


def left_out(cases: Sequence[Case]) -> Array:
    """The residual of each case under constants that were fitted without its source."""
    folds = [case.fold for case in cases]
    result = np.zeros(len(cases))
    for fold in sorted(set(folds)):
        chosen = np.array([each == fold for each in folds])
        constants = fit([case for case in cases if case.fold != fold])
        result[chosen] = residuals([case for case in cases if case.fold == fold], constants)
    return result


def _weights(cases: Sequence[Case]) -> Array:
    folds = [case.fold for case in cases]
    return np.array([min(1.0, FULL_WEIGHT / folds.count(fold)) ** 0.5 for fold in folds])


def _softened(errors: Array) -> Array:
    """Errors of which least squares make a soft L1 loss."""
    squares = 2 * OUTLIER**2 * (np.sqrt(1 + (errors / OUTLIER) ** 2) - 1)
    return np.sign(errors) * np.sqrt(squares)
