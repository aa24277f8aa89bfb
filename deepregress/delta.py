"""Standard errors of quantiles and probabilities by the delta method (METHODS 4).

    q = Q(p; eta):   dq / deta = -(dF / deta)(q) / f(q),     p above 1/2: (dS / deta)(q) / f(q)
    F(y; eta), S(y; eta), hazards: by central differences
    se^2 = g' Cov(eta) g

Limits are symmetric on the scale without bounds: the logit of a probability, the log of a hazard
and of a quantile of a positive response, the quantile itself where the response has no bounds.

References: Oehlert (1992), doi:10.2307/2684406.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from deepregress.errors import PredictionError
from deepregress.families.base import Family
from deepregress.families.cox import CoxPH
from deepregress.linalg import Array, Matrix, Vector
from deepregress.quantities import Error, at_values, by_key, gradient

JUMPING = ("quantile", "median")
"""Quantities of a discrete response that are steps in the predictors."""
BOUNDS = {
    "cdf": (0.0, 1.0),
    "survival": (0.0, 1.0),
    "hazard": (0.0, np.inf),
    "cumhazard": (0.0, np.inf),
    "rmst": (0.0, np.inf),
}
"""Of what is not a quantile, whose bounds are the family's."""


def with_error(
    family: Family, which: str, eta: Matrix, cov: Matrix, *, at: Array, error: Error
) -> pd.DataFrame:
    """Quantiles or probabilities with standard errors and limits.

    Parameters
    ----------
    family : Family
    which : {"quantile", "median", "cdf", "survival", "hazard", "cumhazard", "rmst"}
    eta : Matrix, (n_obs, U)
    cov : Matrix, (n_obs, U, U)
    at : array
        A number, (m,) for each row, or (n_obs, m): probabilities of a quantile, else responses.
    error : Error

    Returns
    -------
    DataFrame
        estimate, se, lower, upper; below the value of `at` where there are several.

    Raises
    ------
    PredictionError
        The quantile of a discrete response.
    """
    if isinstance(family, CoxPH):
        raise PredictionError(
            f"predict(which={which!r}): family 'coxph' has no standard errors of its baseline; "
            "family='cox', the full likelihood, has them"
        )
    if which in JUMPING and family.discrete:
        raise PredictionError(
            f"predict(which={which!r}) of the discrete family {family.name!r} has no se= and "
            "interval=: it jumps where the predictors move."
        )
    kind = "quantile" if which == "median" else which
    estimates = at_values(family, kind, eta, at)
    if estimates.ndim == 1:
        column = np.broadcast_to(np.asarray(at, dtype=float), (len(eta),))
        return _table(family, kind, eta, cov, column, estimates, error)
    values = np.broadcast_to(np.asarray(at, dtype=float), estimates.shape)
    columns: dict[tuple[str, ...], Vector] = {}
    for j in range(estimates.shape[1]):
        table = _table(family, kind, eta, cov, values[:, j], estimates[:, j], error)
        name = f"{values[0, j]:g}" if np.ndim(at) == 1 else str(j)
        columns |= {(name, str(each)): table[each].to_numpy() for each in table}
    return by_key(columns)


def _table(
    family: Family,
    which: str,
    eta: Matrix,
    cov: Matrix,
    at: Vector,
    estimate: Vector,
    error: Error,
) -> pd.DataFrame:
    if which == "quantile":
        slope = _quantile_slope(family, eta, at, estimate)
    else:
        slope = gradient(_at(family, which, at), eta)
    slope = slope[:, : cov.shape[1]]  # what is known of a row stands after its predictors
    se = np.sqrt(np.maximum(np.einsum("iu,iuv,iv->i", slope, cov, slope), 0.0))
    bounds = family.bounds if which == "quantile" else BOUNDS[which]
    return error.table(estimate, se, _limits(estimate, error.width(se), bounds))


def _at(family: Family, which: str, at: Vector) -> Callable[[Matrix], Vector]:
    return lambda eta: np.asarray(at_values(family, which, eta, at[:, None])[:, 0])


def _quantile_slope(family: Family, eta: Matrix, p: Vector, q: Vector) -> Matrix:
    """dq / deta, (n_obs, U); zero at the ends of the support, where mass may sit."""
    below, above = gradient(_at(family, "cdf", q), eta), np.zeros_like(eta)
    upper = p > 0.5
    if upper.any():
        rows = np.flatnonzero(upper)
        at = q[rows]
        above[rows] = gradient(lambda moved: family.survival(at, moved), eta[rows])
    density = np.exp(family.logpdf(q, eta))
    inside = (q > family.bounds[0]) & (q < family.bounds[1]) & (density > 0.0)
    moved = np.where(upper[:, None], above, -below)
    return np.where(inside[:, None], moved / np.where(inside, density, 1.0)[:, None], 0.0)


def _limits(estimate: Vector, width: Vector, bounds: tuple[float, float]) -> tuple[Vector, Vector]:
    """estimate -+ width on the scale that takes finite bounds to infinity."""
    low, high = bounds
    if np.isinf(low) and np.isinf(high):
        return estimate - width, estimate + width
    inside = (estimate > low) & (estimate < high)
    y = np.where(inside, estimate, 1.0 + low if np.isinf(high) else high - 1.0)
    if np.isinf(high):
        above = y - low
        factor = np.exp(width / above)
        lower, upper = low + above / factor, low + above * factor
    elif np.isinf(low):
        below = high - y
        factor = np.exp(width / below)
        lower, upper = high - below * factor, high - below / factor
    else:
        y = np.where(inside, y, 0.5 * (low + high))
        above, below = y - low, high - y
        factor = np.exp(width * (high - low) / (above * below))
        lower = low + (high - low) * above / (above + below * factor)
        upper = low + (high - low) * above / (above + below / factor)
    return np.where(inside, lower, estimate), np.where(inside, upper, estimate)
