"""Smoothing parameters by generalised cross-validation, or by UBRE where the dispersion is known.

    GCV  = n D / (n - tr F)^2            D = sum_i w_i d_i, the deviance; tr F the total edf
    UBRE = D / n + 2 tr F / n - 1        (dispersion 1: AIC up to constants)

of generalised linear models, at a given dispersion: sp does not depend on it. Minimised by BFGS in
log sp from the optimum of the marginal likelihood, with central differences of fits that start from
the last one. REML undersmooths less often (Reiss & Ogden 2009,
doi:10.1111/j.1467-9868.2008.00695.x) and stays the default.

Reference: Wood (2008), doi:10.1111/j.1467-9868.2007.00646.x, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.optimize

from deepregress.disk.arrow import Arrow, ArrowFactor
from deepregress.errors import FitError
from deepregress.linalg import Vector
from deepregress.marginal import PenaltyTraces, Point, Problem
from deepregress.solvers.newton import State, evaluate

Information = Callable[[Problem, State], Arrow]

DIFFERENCE = 1e-3
"""Half-width of the central differences in log sp."""
GRADIENT = 1e-7
"""Largest slope, relative to the criterion, at its minimum."""
LARGEST_MOVE = 25.0
"""A straight term has no finite sp: its log sp goes no further from where REML left it."""


def check_criterion(point: Point) -> None:
    """Refuse models that have no deviance of one mean.

    Raises
    ------
    FitError
        The family is no exponential family, or more than the mean has covariates.
    """
    problem = point.problem
    family, response = problem.objective.family, problem.objective.response
    one = len(problem.held) == family.n_units - 1
    if not (family.exponential and one and response.plain):
        raise FitError(
            f"method='GCV' needs a generalised linear model with one predictor and no censoring; "
            f"family {family.name!r} with its formulas is none: use method='REML'"
        )


def total_edf(point: Point, information: Information) -> float:
    """tr F of the information I instead of the Hessian, as it is reported."""
    problem = point.problem
    layout = problem.layout
    H = information(problem, point.state).restrict(layout)
    factor = ArrowFactor.of(H + problem.S(point.lam).restrict(layout)) or point.factor
    return PenaltyTraces(problem, factor.inverse()).total_edf(point.lam)


def prediction_error(point: Point, information: Information) -> float:
    """GCV, or UBRE where no dispersion is estimated."""
    objective = point.problem.objective
    family, response = objective.family, objective.response
    mean = family.mean(objective.eta(point.state.coef))
    deviance = float(response.weights @ family.unit_deviance(response.lower, mean))
    n, edf = objective.n_obs, total_edf(point, information)
    if point.problem.dispersion is None:
        return deviance / n + 2.0 * edf / n - 1.0
    return n * deviance / (n - edf) ** 2


def minimise(start: Point, information: Information) -> Point:
    """The point with the least prediction error.

    Parameters
    ----------
    start : Point
        At the optimum of V.
    information : callable
        The information of which the degrees of freedom are reported.

    Returns
    -------
    Point
        Its `value` is minus the criterion.
    """
    check_criterion(start)
    problem = start.problem
    estimated = np.array([p.estimated for p in problem.penalties], dtype=bool)
    centre = np.log(start.lam[estimated])
    last = start

    def at(log_lam: Vector) -> Point:
        lam = start.lam.copy()
        lam[estimated] = np.exp(log_lam)
        return Point.at(problem, lam, evaluate(problem.objective, last.state.coef))

    def value(log_lam: Vector) -> float:
        nonlocal last
        last = at(log_lam)
        return prediction_error(last, information)

    def gradient(log_lam: Vector) -> Vector:
        rises = [
            prediction_error(at(log_lam + h), information)
            - prediction_error(at(log_lam - h), information)
            for h in DIFFERENCE * np.eye(len(log_lam))
        ]
        return np.array(rises) / (2.0 * DIFFERENCE)

    if not estimated.any():
        return replace(start, value=-prediction_error(start, information))
    found = scipy.optimize.minimize(
        value,
        centre,
        jac=gradient,
        method="L-BFGS-B",
        bounds=[(c - LARGEST_MOVE, c + LARGEST_MOVE) for c in centre],
        options={
            "ftol": 1e-13,
            "gtol": GRADIENT * abs(prediction_error(start, information)),
            "maxiter": 200,
        },
    )
    best = at(found.x)
    return replace(best, value=-prediction_error(best, information))
