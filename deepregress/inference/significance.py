"""Tests that terms are zero (METHODS 4).

Linear terms: Wald, T = c' V^-1 c. A smooth term f = X c: T = c' (V_f)^r- c, the Wald statistic in
the r = edf1 best determined directions of f; with k = floor(r), nu = r - k the null distribution is

    chi2(k - 1) + nu_1 chi2(1) + nu_2 chi2(1),   nu_1,2 = (1 + nu +- sqrt(1 - nu^2)) / 2.

A term c that its penalties can shrink to zero is a random effect of variance zero or more, and zero
lies on the edge. With the other variances at their estimates, the likelihood ratio is a quadratic
form in c, whose distribution follows from that of c without the effect, N(0, C):

    T = c' M c ~ sum_i w_i chi2(1),    w_i the eigenvalues of C M            (module `term_tests`)

All are over a chi2 of the residual degrees of freedom where a dispersion is estimated.

References: Wood (2013), doi:10.1093/biomet/ass048; Wood (2013), doi:10.1093/biomet/ast038 (random
effects); Rice (1980), doi:10.1137/0901032 (tail probabilities of quadratic forms by integration
through the saddlepoint).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats

from deepregress.linalg import Matrix, Vector

LEAST_SADDLE = 0.05
"""Distance of the contour from the pole at 0, at least, in units of the nearest branch point."""
CONTOUR_STEP, CONTOUR_END = 0.01, 12.0


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
    R = np.asarray(np.linalg.qr(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T, mode="r"))
    spread, directions = scipy.linalg.eigh(R @ cov @ R.T)
    spread, directions = spread[::-1], directions[:, ::-1]
    # the statistic of a fractional rank depends on the signs of two directions: as in mgcv, their
    # first entries in triangular coordinates are positive; the p-value averages over the signs
    directions = directions * np.where(directions[0] < 0.0, -1.0, 1.0)
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


def random_effect_test(
    coef: Vector, metric: Matrix, null_cov: Matrix, *, rank: int, residual_df: float | None
) -> Test:
    """Test that a term without unpenalised directions is zero.

    Parameters
    ----------
    coef : Vector, (p,)
        The term's coefficients.
    metric : Matrix, (p, p)
        M, positive definite.
    null_cov : Matrix, (p, p)
        C, the covariance of the coefficients where the effect is zero.
    rank : int
        Number of directions that the data inform about, the reference degrees of freedom.
    residual_df : float or None
        Where a dispersion is estimated.
    """
    L = scipy.linalg.cholesky((metric + metric.T) / 2.0, lower=True)
    weights = np.maximum(scipy.linalg.eigvalsh(L.T @ null_cov @ L)[::-1][:rank], 0.0)
    statistic = float(np.sum((L.T @ coef) ** 2))
    if not rank or weights[0] == 0.0:
        return Test(0.0, rank, residual_df, 1.0)
    p_value = _tail(statistic / weights[0], weights / weights[0], residual_df)
    if residual_df is not None:
        statistic /= rank
    return Test(statistic, rank, residual_df, p_value)


def _tail(statistic: float, weights: Vector, residual_df: float | None) -> float:
    """P(sum_i weights_i chi2(1) > statistic), or times chi2(df) / df where df is given."""
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
    """P(sum_i weights_i chi2(df_i) > x), with relative accuracy in the tail.

    The inversion integral  1 / (2 pi i) int exp(K(s) - s x) / s ds,  K the cumulant generating
    function, along s(t) = c + h (i sinh t + cosh t - 1) through (or right of) the saddlepoint c:
    the integrand decays doubly exponentially and the trapezoidal rule is exact to rounding.

    Parameters
    ----------
    x : float
    weights : Vector, (m,)
        Of either sign, the largest positive.
    df : Vector, (m,)
    """
    top = 1.0 / (2.0 * float(weights.max()))

    def mean_at(s: float) -> float:
        return float(np.sum(df * weights / (1.0 - 2.0 * s * weights))) - x

    lowest = LEAST_SADDLE * top
    c = lowest
    if mean_at(lowest) < 0:
        c = float(scipy.optimize.brentq(mean_at, lowest, top * (1.0 - 1e-14)))
    h = 1.0 / np.sqrt(np.sum(2.0 * (df * weights**2) / (1.0 - 2.0 * c * weights) ** 2))
    t = np.arange(0.0, CONTOUR_END, CONTOUR_STEP)
    s = c + h * (1j * np.sinh(t) + np.cosh(t) - 1.0)
    ds = h * (1j * np.cosh(t) + np.sinh(t))
    cumulant = -0.5 * (df @ np.log(1.0 - 2.0 * weights[:, None] * s))
    values = np.imag(np.exp(cumulant - s * x) / s * ds)
    integral = CONTOUR_STEP * (values.sum() - 0.5 * values[0])
    return float(np.clip(integral / np.pi, 0.0, 1.0))
