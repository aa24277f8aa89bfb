"""Standard errors of quantiles and probabilities by the delta method (METHODS 4).

    q = Q(p; eta):   dq / deta = -(dF / deta)(q) / f(q),     p above 1/2: (dS / deta)(q) / f(q)
    F(y; eta), S(y; eta), hazards: by central differences
    se^2 = g' Cov(eta) g

Limits are symmetric on the scale without bounds: that of h of a model P(Y <= y) = F(h), as a
transformation model or one of the logarithm of a time, for F, S and the cumulative hazard alike;
else the logit of a probability, the log of a hazard; the log of a quantile of a positive response,
the quantile itself where the response has no bounds.

References: Oehlert (1992), doi:10.2307/2684406.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from deepregress.errors import PredictionError
from deepregress.families.base import Family
from deepregress.families.standard import Latent
from deepregress.linalg import Array, Matrix, Vector
from deepregress.quantities import AT_ONCE, Error, at_values, by_key, gradient

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
LATENT = ("cdf", "survival", "cumhazard")
"""Functions of h alone in a model P(Y <= y) = F(h)."""


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
    if which in JUMPING and family.discrete:
        raise PredictionError(
            f"predict(which={which!r}) of the discrete family {family.name!r} has no se= and "
            "interval=: it jumps where the predictors move."
        )
    kind = "quantile" if which == "median" else which
    estimates = at_values(family, kind, eta, at)
    se = _standard_errors(family, kind, (eta, cov), np.asarray(at, dtype=float), estimates)
    limits = limits_of(family, kind, estimates, se, error)
    return tabulated(at, estimates, se, limits, error)


def tabulated(
    at: Array, estimates: Array, se: Array, limits: tuple[Array, Array], error: Error
) -> pd.DataFrame:
    """Columns estimate, se, lower, upper, below the value of `at` where there are several."""
    if estimates.ndim == 1:
        return error.table(estimates, se, limits)
    columns: dict[tuple[str, ...], Vector] = {}
    for j in range(estimates.shape[1]):
        own = error.table(estimates[:, j], se[:, j], (limits[0][:, j], limits[1][:, j]))
        name = f"{np.asarray(at, dtype=float)[j]:g}" if np.ndim(at) == 1 else str(j)
        columns |= {(name, str(each)): own[each].to_numpy() for each in own}
    return by_key(columns)


def _standard_errors(
    family: Family, which: str, predicted: tuple[Matrix, Matrix], at: Array, estimates: Array
) -> Array:
    """Of estimates (n_obs,) or (n_obs, m) at predictors and their covariance."""
    eta, cov = predicted
    shape = (len(eta), estimates.size // max(len(eta), 1))
    values, found = np.broadcast_to(at, estimates.shape).reshape(shape), estimates.reshape(shape)
    se = np.empty(shape)
    # several columns in one call: a call costs more than a thousand rows
    width = max(1, AT_ONCE // max(len(eta), 1))
    for start in range(0, shape[1], width):
        block = slice(start, start + width)
        y, own = values[:, block].ravel(), found[:, block]
        repeated = np.repeat(eta, own.shape[1], axis=0)
        if which == "quantile":
            slope = _quantile_slope(family, repeated, y, own.ravel())
        else:
            slope = gradient(_at(family, which, y), repeated)
        # what is known of a row stands after its predictors
        slope = slope[:, : cov.shape[1]].reshape(*own.shape, cov.shape[1])
        variance = np.einsum("iju,iuv,ijv->ij", slope, cov, slope)
        se[:, block] = np.sqrt(np.maximum(variance, 0.0))
    return se.reshape(estimates.shape)


def limits_of(
    family: Family, which: str, estimate: Array, se: Array, error: Error
) -> tuple[Array, Array]:
    """Confidence limits of quantiles or probabilities, each of the shape of `estimate`."""
    latent = family.latent_scale
    if latent is not None and which in LATENT:
        return latent_limits(latent, which, estimate, error.width(se))
    bounds = family.bounds if which == "quantile" else BOUNDS[which]
    return _limits(estimate, error.width(se), bounds)


def latent_limits(latent: Latent, which: str, estimate: Array, width: Array) -> tuple[Array, Array]:
    """Limits of F, S or -log S that are symmetric in z, F = F(z)."""
    if which == "cumhazard":
        alive, dead = np.exp(-estimate), -np.expm1(-estimate)
    else:
        alive, dead = (estimate, 1.0 - estimate)[:: 1 if which == "survival" else -1]
    inside = (alive > 0.0) & (dead > 0.0)
    alive, dead = np.where(inside, alive, 0.5), np.where(inside, dead, 0.5)
    lower_tail = dead < alive
    least = np.where(lower_tail, dead, alive)
    z = np.where(lower_tail, latent.quantile(least), latent.upper_quantile(least))
    slope = np.exp(np.asarray(latent.log_density(z)))
    if which == "cumhazard":
        slope = slope / alive
    flat = slope <= 0.0
    move = np.where(flat, 0.0, width / np.where(flat, 1.0, slope))
    tail = latent.log_cdf if which == "cdf" else latent.log_survival
    ends = np.sort([np.asarray(tail(z - move)), np.asarray(tail(z + move))], axis=0)
    lower, upper = 0.0 - ends[::-1] if which == "cumhazard" else np.exp(ends)
    return np.where(inside, lower, estimate), np.where(inside, upper, estimate)


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


def _limits(estimate: Array, width: Array, bounds: tuple[float, float]) -> tuple[Array, Array]:
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
