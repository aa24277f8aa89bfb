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

from deepregress.disk.arrow import Arrow, ArrowFactor, Inverse
from deepregress.errors import FitError
from deepregress.linalg import Array, Matrix, Vector, nearest_semidefinite
from deepregress.solvers.base import Solution

LEAST_CURVATURE = 1e-8
"""Of a constant extra parameter's predictor: a standard error of 10,000 at most."""


@dataclass(frozen=True)
class Inference:
    """Covariances and degrees of freedom at a solution.

    Parameters
    ----------
    V : Inverse
        V_p.
    frequentist : Matrix or None, (n_coef, n_coef)
        V_e; None where coefficients are kept by level: then it is made of V_p and S when asked for.
    penalty : Arrow
        S.
    edf, edf1 : Vector, (n_coef,)
        Effective degrees of freedom of each coefficient; sum over a term's.
    """

    V: Inverse
    frequentist: Matrix | None
    penalty: Arrow
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
        H, S = _independent(solution), solution.penalty
        if H.layout.entire:
            nearest = nearest_semidefinite(H.A, S.A)
            if nearest is None:
                raise FitError(
                    "the information about some coefficients is zero or infinite at the solution: "
                    "the response is fitted exactly, or it says nothing about them"
                )
            H = Arrow.dense(nearest)
        factor = ArrowFactor.of(H + S)
        # a pivot next to zero factors, but its reciprocal may leave the floats
        with np.errstate(over="ignore", invalid="ignore"):
            inverse = None if factor is None else factor.inverse()
        if inverse is None or not np.isfinite(inverse.V).all():
            why = solution.status.warning or (
                "some coefficients are not identified (a separated response, or covariates that "
                "determine each other)"
            )
            raise FitError(f"the penalised Hessian is singular at the solution: {why}")
        if not H.layout.entire:
            return cls(inverse, None, S, *_degrees_of_freedom(inverse, S))
        F = inverse.V @ H.A
        edf = np.diagonal(F).copy()
        edf1 = 2.0 * edf - np.sum(F * F.T, axis=1)
        return cls(inverse, F @ inverse.V, S, edf, edf1)

    @property
    def cov(self) -> Matrix:
        """V_p as an array, (n_coef, n_coef).

        Raises
        ------
        PredictionError
            It would be larger than 2 GiB.
        """
        return self.V.matrix()

    @property
    def cov_frequentist(self) -> Matrix:
        """V_e as an array, (n_coef, n_coef); of so many coefficients as `cov` can have."""
        every = np.arange(len(self.edf))
        return self.frequentist_block(every) if self.frequentist is None else self.frequentist

    def frequentist_block(self, places: Array) -> Matrix:
        """V_e of some coefficients, V_p - V_p S V_p, (m, m)."""
        if self.frequentist is not None:
            return np.asarray(self.frequentist[np.ix_(places, places)])
        every = np.arange(len(self.edf))
        columns = self.V.block(every, places)
        weighted = np.stack([self.penalty.times(column) for column in columns.T], axis=1)
        return np.asarray(columns[places] - columns.T @ weighted)


def _degrees_of_freedom(V: Inverse, S: Arrow) -> tuple[Vector, Vector]:
    """edf = 1 - diag(V S) and edf1 = 1 - diag(V S V S), as F = V H = I - V S.

    With V = G + E W E' (module `arrow`), T = E' S E and N = C W C', the blocks of V S V are W T W
    and, for each level, G S G + G S N + N S G + C W T W C'. The information of a level may have
    negative directions, which the prior covers; it is taken as it is.
    """
    layout, W = V.layout, V.V
    blocks, own = V.level_blocks(), S.D
    C, shape = V.C, (layout.levels.size, len(layout.dense))
    T = S.A + C.reshape(shape).T @ (own @ C).reshape(shape)
    N = blocks - V.G
    GS = V.G @ own
    middle = (V.CV @ T) @ V.CV.transpose(0, 2, 1)
    cross = GS @ N
    VSV = GS @ V.G + cross + cross.transpose(0, 2, 1) + middle
    first = layout.join(np.sum(W * S.A, axis=1), np.sum(blocks * own, axis=2))
    second = layout.join(np.sum((W @ T @ W) * S.A, axis=1), np.sum(VSV * own, axis=2))
    return 1.0 - first, 1.0 - second


def _independent(solution: Solution) -> Arrow:
    """H in which coefficients estimated with the smoothing parameters are independent of others.

    A dispersion keeps its own curvature; the extra parameters get that of the likelihood in which
    the other coefficients follow them, so that their standard errors allow for these.
    """
    H, held = solution.information, np.array(solution.held, dtype=int)
    if not len(held):
        return H
    at = H.layout.dense_at(held)
    own = np.diag(np.diagonal(H.A)[at])
    if solution.extra:
        own[-len(solution.extra) :, -len(solution.extra) :] = _curvature_of_extra(solution)
    A = H.A.copy()
    A[at, :] = 0.0
    A[:, at] = 0.0
    A[np.ix_(at, at)] = own
    B = None
    if H.B is not None:
        B = H.B.copy()
        B[:, :, at] = 0.0
    return Arrow(H.layout, A, B, H.D)


def _curvature_of_extra(solution: Solution) -> Matrix:
    """-d2l of the extra parameters where the other coefficients follow them."""
    H, c = solution.information, np.array(solution.extra, dtype=int)
    free = H.layout.restrict(np.delete(np.arange(H.layout.n_coef), solution.held))
    columns = np.stack([H.column(j) for j in solution.extra], axis=1)
    factor = ArrowFactor.of((H + solution.penalty).restrict(free))
    K = columns[c]
    if factor is not None:
        follow = np.stack([factor.solve(column) for column in columns.T], axis=1)
        K = K - columns.T @ follow
    values, vectors = scipy.linalg.eigh((K + K.T) / 2.0)
    # a parameter on its way to the edge has no curvature left: its error is huge, not a failure
    return np.asarray((vectors * np.maximum(values, LEAST_CURVATURE)) @ vectors.T)


def normal_quantile(level: float) -> float:
    """Half-width, in standard errors, of a central interval of probability `level`."""
    return float(scipy.stats.norm.ppf(0.5 + level / 2.0))
