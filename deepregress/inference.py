"""Inference for structured terms: covariances and effective degrees of freedom (METHODS 4).

    P    = H + S
    V_p  = P^-1              Bayesian covariance: bands with good frequentist coverage
    V_e  = P^-1 H P^-1       frequentist covariance of the estimator
    F    = P^-1 H            edf of a term: sum of its diagonal entries; edf1 = tr(2 F - F F)

Tests of terms are in module `significance`, the covariance corrected for the uncertainty of the
smoothing parameters in module `corrected`.

References: Wood (2013), doi:10.1093/biomet/ass048; Wood, Pya & Saefken (2016),
doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.stats

from deepregress.errors import FitError
from deepregress.linalg import Factor, Matrix, Vector
from deepregress.solvers.base import Solution

LEAST_CURVATURE = 1e-8
"""Of a constant extra parameter's predictor: a standard error of 10,000 at most."""


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
        H, S = _independent(solution), solution.S
        H = nearest_semidefinite(H, S)
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


def _independent(solution: Solution) -> Matrix:
    """H in which coefficients estimated with the smoothing parameters are independent of others.

    A dispersion keeps its own curvature; the extra parameters get that of the likelihood in which
    the other coefficients follow them, so that their standard errors allow for these.
    """
    H, S, held = solution.H.copy(), solution.S, np.array(solution.held, dtype=int)
    c = np.array(solution.extra, dtype=int)
    if not len(held):
        return H
    free = np.delete(np.arange(len(H)), held)
    own = np.diag(np.diagonal(H)[held])
    if len(c):
        factor = Factor.of((H + S)[np.ix_(free, free)])
        follow = np.zeros((len(free), len(c)))
        if factor is not None:
            follow = factor.solve(H[np.ix_(free, c)])
        K = H[np.ix_(c, c)] - H[np.ix_(c, free)] @ follow
        values, vectors = scipy.linalg.eigh((K + K.T) / 2.0)
        # a parameter on its way to the edge has no curvature left: its error is huge, not a failure
        own[-len(c) :, -len(c) :] = (vectors * np.maximum(values, LEAST_CURVATURE)) @ vectors.T
    H[held, :] = 0.0
    H[:, held] = 0.0
    H[np.ix_(held, held)] = own
    return H


def nearest_semidefinite(H: Matrix, S: Matrix) -> Matrix:
    """H with its negative eigenvalues raised to zero, in the metric diag(H + S).

    At a penalised maximum H + S is positive definite but H need not be; a negative information
    would give negative degrees of freedom. mgcv raises them too.
    """
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(H + S), np.finfo(float).tiny))
    values, vectors = scipy.linalg.eigh(d[:, None] * H * d)
    if values.size == 0 or values[0] >= 0.0:
        return H
    root = (np.sqrt(np.maximum(values, 0.0)) * vectors) / d[:, None]
    return np.asarray(root @ root.T)


def normal_quantile(level: float) -> float:
    """Half-width, in standard errors, of a central interval of probability `level`."""
    return float(scipy.stats.norm.ppf(0.5 + level / 2.0))


def row_variance(X: Matrix, cov: Matrix) -> Vector:
    """Variances of the rows of X c, (n_obs,), without an n x n array."""
    return np.asarray(np.maximum(np.einsum("ij,ij->i", X @ cov, X), 0.0))
