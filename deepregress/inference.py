"""Inference for structured terms: covariances, effective degrees of freedom, tests (METHODS 4).

    P    = H + S
    V_p  = P^-1              Bayesian covariance: bands with good frequentist coverage
    V_e  = P^-1 H P^-1       frequentist covariance of the estimator
    F    = P^-1 H            edf of a term: sum of its diagonal entries; edf1 = tr(2 F - F F)

A smooth term f = X c is tested by T = c' (V_f)^r- c, the Wald statistic in the r = edf1 best determined
directions of f; with k = floor(r), nu = r - k the null distribution is that of

    chi2(k - 1) + nu_1 chi2(1) + nu_2 chi2(1),   nu_1,2 = (1 + nu +- sqrt(1 - nu^2)) / 2,

over a chi2 of the residual degrees of freedom where a dispersion is estimated.

References: Wood (2013), doi:10.1093/biomet/ass048; Wood, Pya & Saefken (2016),
doi:10.1080/01621459.2016.1180986; Imhof (1961), doi:10.1093/biomet/48.3-4.419;
Kuonen (1999), doi:10.1093/biomet/86.4.929 (saddlepoint tail).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.stats

from deepregress.errors import FitError
from deepregress.linalg import Factor, Matrix, Vector
from deepregress.solvers.base import Solution

IMHOF_FLOOR = 1e-6
"""Below this Imhof's integral is mostly rounding; the saddlepoint tail has relative accuracy there."""


@dataclass(frozen=True)
class Inference:
    """Covariances and degrees of freedom at a solution.

    Parameters
    ----------
    cov : Matrix, (n_coef, n_coef)
        V_p.
    cov_frequentist : Matrix, (n_coef, n_coef)
        V_e.
    edf, edf1 : Vector, (n_coef,)
        Effective degrees of freedom of each coefficient; sum over a term's.
    """

    cov: Matrix
    cov_frequentist: Matrix
    edf: Vector
    edf1: Vector

    @classmethod
    def of(cls, solution: Solution) -> Inference:
        """Invert the penalised Hessian of a solution.

        Raises
        ------
        FitError
            If it is not positive definite: a direction of the coefficients is not identified.
        """
        H, S, d = solution.H.copy(), solution.S, solution.dispersion
        if d is not None:
            # estimated with the smoothing parameters, not with the coefficients (METHODS 4)
            own = H[d, d]
            H[d, :] = 0.0
            H[:, d] = 0.0
            H[d, d] = own
        factor = Factor.of(H + S)
        if factor is None:
            raise FitError(
                "the penalised Hessian is singular at the solution: some coefficients are not "
                "identified (a separated response, or covariates that determine each other)"
            )
        V = factor.inverse()
        F = V @ H
        edf = np.diagonal(F).copy()
        edf1 = 2.0 * edf - np.sum(F * F.T, axis=1)
        return cls(V, F @ V, edf, edf1)


@dataclass(frozen=True)
class Test:
    """A test of one term: its statistic, reference degrees of freedom and p-value.

    `residual_df` is None for a chi-squared statistic; else `statistic` is an F.
    """

    statistic: float
    df: float
    residual_df: float | None
    p_value: float


def wald_test(coef: Vector, cov: Matrix, residual_df: float | None) -> Test:
    """Joint test of unpenalised coefficients, c' V^-1 c (chi-squared, or F over their number)."""
    df = len(coef)
    statistic = float(coef @ np.linalg.solve(cov, coef))
    if residual_df is None:
        return Test(statistic, df, None, float(scipy.stats.chi2.sf(statistic, df)))
    p_value = float(scipy.stats.f.sf(statistic / df, df, residual_df))
    return Test(statistic / df, df, residual_df, p_value)


def smooth_test(
    coef: Vector, cov: Matrix, information: Matrix, *, edf1: float, residual_df: float | None
) -> Test:
    """Test that a smooth term is zero.

    Parameters
    ----------
    coef : Vector, (p,)
        The term's coefficients.
    cov : Matrix, (p, p)
        Their block of V_p.
    information : Matrix, (p, p)
        Their block of H, the metric in which directions of the term are ranked.
    edf1 : float
        Reference degrees of freedom r.
    residual_df : float or None
        Where a dispersion is estimated.
    """
    values, vectors = scipy.linalg.eigh((information + information.T) / 2.0)
    R = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    spread, directions = scipy.linalg.eigh(R @ cov @ R.T)
    spread, directions = spread[::-1], directions[:, ::-1]
    usable = int(np.sum(spread > spread[0] * np.finfo(float).eps ** 0.9))
    rank = min(max(edf1, 1.0), float(usable))
    whole = int(np.floor(rank + 1e-10))
    part = max(rank - whole, 0.0)
    z = (directions.T @ (R @ coef)) / np.sqrt(np.maximum(spread, np.finfo(float).tiny))
    statistics = [float(z[:whole] @ z[:whole])]
    weights = np.ones(whole)
    if part > 1e-10:
        statistics = [_fractional(z, whole, part, sign) for sign in (1.0, -1.0)]
        root = np.sqrt(max(1.0 - part**2, 0.0))
        weights = np.concatenate(
            [np.ones(whole - 1), [(1.0 + part + root) / 2.0, (1.0 + part - root) / 2.0]]
        )
    p_values = [_tail(t, weights, residual_df) for t in statistics]
    statistic = statistics[0] if residual_df is None else statistics[0] / rank
    return Test(statistic, rank, residual_df, float(np.mean(p_values)))


def _fractional(z: Vector, whole: int, part: float, sign: float) -> float:
    """Wald statistic of rank whole + part: the last two directions share 1 + part between them."""
    cross = np.sqrt(part * (1.0 - part) / 2.0)
    a, b = z[whole - 1], sign * z[whole]
    return float(z[: whole - 1] @ z[: whole - 1] + a * a + 2.0 * cross * a * b + part * b * b)


def _tail(statistic: float, weights: Vector, residual_df: float | None) -> float:
    """P(sum_i weights_i chi2(1) > statistic), with statistic scaled by chi2(df) / df if df is given."""
    if np.allclose(weights, 1.0):
        m = len(weights)
        if residual_df is None:
            return float(scipy.stats.chi2.sf(statistic, m))
        return float(scipy.stats.f.sf(statistic / m, m, residual_df))
    if residual_df is None:
        return weighted_chi2_sf(statistic, weights, np.ones(len(weights)))
    return weighted_chi2_sf(
        0.0,
        np.append(weights, -statistic / residual_df),
        np.append(np.ones(len(weights)), residual_df),
    )


def weighted_chi2_sf(x: float, weights: Vector, df: Vector) -> float:
    """P(sum_i weights_i chi2(df_i) > x), by Imhof's integral or, far in the tail, a saddlepoint.

    Parameters
    ----------
    x : float
    weights : Vector, (m,)
        Of either sign.
    df : Vector, (m,)
    """

    def integrand(u: float) -> float:
        angle = 0.5 * float(df @ np.arctan(weights * u)) - 0.5 * x * u
        log_rho = 0.25 * float(df @ np.log1p((weights * u) ** 2))
        return float(np.sin(angle) * np.exp(-log_rho) / u)

    integral, _ = scipy.integrate.quad(
        integrand, 0.0, np.inf, limit=500, epsabs=1e-10, epsrel=1e-8
    )
    p = 0.5 + integral / np.pi
    if p > IMHOF_FLOOR:
        return float(min(p, 1.0))
    return _saddlepoint_sf(x, weights, df)


def _saddlepoint_sf(x: float, weights: Vector, df: Vector) -> float:
    """Lugannani-Rice tail of a weighted sum of chi-squared variables."""

    def k1(s: float) -> float:
        return float(np.sum(df * weights / (1.0 - 2.0 * s * weights))) - x

    top = 1.0 / (2.0 * weights.max())
    s = float(scipy.optimize.brentq(k1, 0.0, top * (1.0 - 1e-12)))
    cumulant = -0.5 * float(np.sum(df * np.log1p(-2.0 * s * weights)))
    k2 = float(np.sum(2.0 * df * weights**2 / (1.0 - 2.0 * s * weights) ** 2))
    w = np.sqrt(2.0 * (s * x - cumulant))
    v = s * np.sqrt(k2)
    return float(scipy.stats.norm.sf(w + np.log(v / w) / w))


def normal_quantile(level: float) -> float:
    """Half-width, in standard errors, of a central interval of probability `level`."""
    return float(scipy.stats.norm.ppf(0.5 + level / 2.0))


def row_variance(X: Matrix, cov: Matrix) -> Vector:
    """Variances of the rows of X c, (n_obs,), without an n x n array."""
    return np.maximum(np.einsum("ij,ij->i", X @ cov, X), 0.0)


def term_sum(values: Vector, slices: Sequence[slice]) -> Vector:
    """Sums of per-coefficient values over the terms' slices."""
    return np.array([float(values[index].sum()) for index in slices])
