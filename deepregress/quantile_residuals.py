"""Quantile residuals of exact, censored and truncated rows (METHODS 11).

    r_i = Phi^-1(u_i),  u_i = F(y_i), uniform between the ends of what is known of Y_i otherwise:
    a count      F(y_i - 1) to F(y_i), a point with a mass likewise from the left of it
    censored     F(lower_i) to F(upper_i)
    truncated    all of them given entry_i < Y_i <= exit_i

Standard normal when the model is right, whatever the family. F and S = 1 - F are kept on the log
scale and the smaller one is transformed, so that far tails have residuals too.

References: Dunn & Smyth (1996), doi:10.1080/10618600.1996.10474708.
"""

from __future__ import annotations

import numpy as np
import scipy.special
import tensorflow as tf

from deepregress.data import Response
from deepregress.families import censoring
from deepregress.families.base import Family
from deepregress.linalg import Matrix, Vector


def quantile_residuals(family: Family, response: Response, eta: Matrix, *, seed: int) -> Vector:
    """Quantile residuals, (n_obs,).

    Parameters
    ----------
    family : Family
        Of one number.
    response : Response
    eta : Matrix, (n_obs, U)
    seed : int
        Of the uniform draws.
    """
    eta = family.with_known(eta, response.rows())
    lower, upper = response.lower, response.upper
    masses = family.discrete or np.isin(lower, family.atoms).any()
    if masses:
        lower = censoring.before(family, tf.constant(lower)).numpy()
    below, above = _tails(family, lower, eta), _tails(family, upper, eta)
    entry = -np.inf if response.entry is None else response.entry
    exit_ = np.inf if response.exit is None else response.exit
    if response.entry is not None or response.exit is not None:
        ends = [_tails(family, np.broadcast_to(end, lower.shape), eta) for end in (entry, exit_)]
        below, above = _given(below, ends), _given(above, ends)
    if response.exact and not masses:
        return _normal_scores(*above)
    share = np.random.default_rng(seed).uniform(size=len(lower))
    return _normal_scores(_between(below[0], above[0], share), _between(below[1], above[1], share))


Tails = tuple[Vector, Vector]
"""log F and log S at one value of each row."""


def _tails(family: Family, y: Vector, eta: Matrix) -> Tails:
    log_survival = family.logsurvival(y, eta)
    lost = np.isneginf(log_survival) & family.in_support(y)
    if not family.discrete and lost.any():
        log_survival[lost] = _far_survival(family, y[lost], eta[lost])
    return family.logcdf(y, eta), log_survival


def _far_survival(family: Family, y: Vector, eta: Matrix) -> Vector:
    """log S(y) where it is lost to rounding, of a family without a tail on the log scale.

    log f(y) minus the log of the local rate -d log f / dy, which is exact for exponential tails and
    the leading order of Mills' ratio for others.
    """
    step = np.cbrt(np.finfo(float).eps) * np.maximum(1.0, np.abs(y))
    rate = (family.logpdf(y - step, eta) - family.logpdf(y + step, eta)) / (2.0 * step)
    return np.asarray(family.logpdf(y, eta) - np.log(rate))


def _given(at: Tails, ends: list[Tails]) -> Tails:
    """Tails of the distribution between two ends."""
    (F_a, S_a), (F_b, S_b) = ends
    # log P(a < Y <= b), P(a < Y <= y) and P(y < Y <= b), each from the smaller tail
    whole = _difference((F_a, S_a), (F_b, S_b))
    return _difference((F_a, S_a), at) - whole, _difference(at, (F_b, S_b)) - whole


def _difference(a: Tails, b: Tails) -> Vector:
    """log P(a < Y <= b)."""
    upper_tail = a[1] < b[0]
    larger, smaller = np.where(upper_tail, a[1], b[0]), np.where(upper_tail, b[1], a[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(np.isneginf(smaller), -np.inf, smaller - larger)
        return np.asarray(np.where(gap < 0.0, larger + np.log(-np.expm1(gap)), -np.inf))


def _between(below: Vector, above: Vector, share: Vector) -> Vector:
    """log of (1 - share) exp(below) + share exp(above)."""
    return np.asarray(np.logaddexp(below + np.log1p(-share), above + np.log(share)))


def _normal_scores(log_cdf: Vector, log_survival: Vector) -> Vector:
    lower_half = log_cdf < log_survival
    return np.asarray(
        np.where(
            lower_half,
            scipy.special.ndtri_exp(np.minimum(log_cdf, 0.0)),
            -scipy.special.ndtri_exp(np.minimum(log_survival, 0.0)),
        )
    )
