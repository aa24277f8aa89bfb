"""Uncertainty of the smoothing parameters, and the covariance corrected for it (METHODS 4).

    rho   = (log sp, log dispersion, extra parameters)      at the maximum of V
    V_rho = (-d2V / drho2)^-1,   J = dcoef / drho
    V_c   = V_p + J V_rho J' + sum_jk (dR / drho_j)' (dR / drho_k) V*_rho,jk

The second part is the uncertainty of the estimate, the third that of the spread around it: with
L L' = P and R = L^-1, coef + R' z has covariance V_p for standard normal z. R moves with P through
the penalties only, dP / dlog sp_j = lam_j S_j, and V*_rho has a weak normal prior on rho, without
which a term that is all but straight would have no bound: both as in mgcv. The Hessian of V comes
from central differences of its exact gradient.

References: Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986, sections 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from deepregress.errors import FitError
from deepregress.inference.covariance import Inference
from deepregress.linalg import Factor, Matrix, Vector, one_blas_thread
from deepregress.marginal import Point, Problem, Slope
from deepregress.objective import Objective, Unit
from deepregress.penalty import as_matrix
from deepregress.solvers.base import Solution
from deepregress.solvers.newton import evaluate

DIFFERENCE = 0.01
"""Step in rho of the central differences."""
DECREMENT = 1e-14
"""Log-likelihood left to gain at which the coefficients count as maximal there."""
FLAT = 1e-5
"""Curvature of V below which a direction of rho is one to infinity: the coefficients do not move
along it any more."""
PRIOR_PRECISION, PRIOR_PRECISION_SEVERAL = 0.1, 0.02
"""Of rho in V*_rho where one predictor is modelled, and where several are, as in mgcv."""
MAX_STEPS = 20
LARGEST = 5000
"""Coefficients up to which V_c is computed: it is dense, and so is the root of P."""


@dataclass(frozen=True, eq=False)
class SmoothingUncertainty:
    """What is known of rho, and how the coefficients hang on it.

    Parameters
    ----------
    estimated : tuple of int
        Penalties whose smoothing parameter was estimated: the first entries of rho.
    hessian : Matrix, (n_hyper, n_hyper)
        -d2V / drho2.
    J : Matrix, (n_coef, n_hyper)
        Derivatives of the coefficients.
    penalties : tuple of (slice, Matrix or Vector)
        Coefficients and lam_j S_j, or its diagonal, of each estimated smoothing parameter.
    prior : float
        Precision of the prior on rho in the third part of V_c.
    phi : float
        Dispersion where V is maximal; 1 without one. Larger by degrees of freedom is what a fit by
        ML reports.
    """

    estimated: tuple[int, ...]
    hessian: Matrix
    J: Matrix
    penalties: tuple[tuple[slice, Matrix | Vector], ...]
    prior: float
    phi: float

    @classmethod
    def of(cls, objective: Objective, solution: Solution) -> SmoothingUncertainty:
        """Differentiate V around a solution; a few passes over the data per entry of rho.

        Raises
        ------
        FitError
            Smoothing parameters were not chosen by a marginal likelihood.
        """
        if solution.criterion not in ("REML", "ML"):
            raise FitError(
                "the uncertainty of smoothing parameters needs method='REML' or 'ML', this model "
                f"was fitted by {solution.criterion}"
            )
        estimated = tuple(
            j
            for j, p in enumerate(Problem.of(objective, method=solution.criterion).penalties)
            if p.estimated
        )
        if not estimated and not solution.held:
            n = len(solution.coef)
            return cls((), np.zeros((0, 0)), np.zeros((n, 0)), (), PRIOR_PRECISION, 1.0)
        with one_blas_thread():
            hyper = _Hyperparameters.of(objective, solution, estimated)
            centre = hyper.maximum(hyper.point_at(solution))
            J = hyper.slope(hyper.point_at(solution)).coef
            hessian = hyper.hessian(centre)
        predictors = sum(unit.n_coef > 0 for unit in objective.units) - len(solution.held)
        prior = PRIOR_PRECISION if predictors == 1 else PRIOR_PRECISION_SEVERAL
        phi = hyper.problem.phi(centre.state.coef)
        return cls(estimated, hessian, J, hyper.weighted(solution.lam), prior, phi)

    def root(self) -> tuple[Matrix, Matrix]:
        """Directions of rho in which V is flat, and A with V_rho = A A' in all others.

        Returns
        -------
        flat : Matrix, (n_hyper, n_flat)
        A : Matrix, (n_hyper, n_hyper - n_flat)
        """
        values, vectors = scipy.linalg.eigh(self.hessian)
        known = values > FLAT
        return vectors[:, ~known], vectors[:, known] / np.sqrt(values[known])

    def added(self, V_p: Matrix) -> Matrix:
        """V_c - V_p, (n_coef, n_coef).

        Parameters
        ----------
        V_p : Matrix, (n_coef, n_coef)
        """
        if not self.estimated:
            return np.zeros_like(V_p)
        moves = self.J @ self.root()[1]
        values, vectors = scipy.linalg.eigh(self.hessian)
        bounded = 1.0 / (np.maximum(values, 0.0) + self.prior)
        V_prior = (vectors * bounded) @ vectors.T
        return np.asarray(moves @ moves.T + self._of_spread(V_p, V_prior))

    def _of_spread(self, V_p: Matrix, V_rho: Matrix) -> Matrix:
        """sum_jk (dR / drho_j)' (dR / drho_k) V_rho,jk with dR_j = -Phi_j R."""
        factor = Factor.of(V_p)
        P = np.linalg.inv(V_p) if factor is None else factor.inverse()
        R = scipy.linalg.solve_triangular(
            scipy.linalg.cholesky(P, lower=True), np.eye(len(P)), lower=True
        )
        total = np.zeros_like(P)
        Phi = []
        for index, S in self.penalties:
            half = np.tril(R[:, index] @ as_matrix(S) @ R[:, index].T)
            half[np.diag_indices_from(half)] *= 0.5
            Phi.append(half)
        for j, left in enumerate(Phi):
            weighted = sum(V_rho[j, k] * right for k, right in enumerate(Phi))
            total += left.T @ weighted
        return np.asarray(R.T @ total @ R)


@dataclass(frozen=True, eq=False)
class CorrectedInference:
    """Covariance and degrees of freedom that allow for the uncertainty of rho.

    Parameters
    ----------
    cov : Matrix, (n_coef, n_coef)
        V_c.
    edf : Vector, (n_coef,)
        diag(V_c H), in sum at most edf1 = tr(2 F - F F): beyond it they are edf1, as in mgcv.
    """

    cov: Matrix
    edf: Vector

    @classmethod
    def of(
        cls, uncertainty: SmoothingUncertainty, solution: Solution, inference: Inference
    ) -> CorrectedInference:
        """Correct V_p and the degrees of freedom of a solution.

        Raises
        ------
        FitError
            There are more than LARGEST coefficients.
        """
        if uncertainty.estimated and len(solution.coef) > LARGEST:
            raise FitError(
                f"the covariance corrected for smoothing parameters is dense: it is computed for "
                f"{LARGEST} coefficients at most, this model has {len(solution.coef)}"
            )
        if not uncertainty.estimated:
            return cls(inference.cov, inference.edf)
        added = uncertainty.added(inference.cov)
        factor = Factor.of(inference.cov)
        P = np.linalg.inv(inference.cov) if factor is None else factor.inverse()
        edf = inference.edf + np.sum(added * (P - solution.S), axis=1)
        if edf.sum() > inference.edf1.sum():
            edf = inference.edf1
        return cls(inference.cov + added, edf)


@dataclass(frozen=True, eq=False)
class _Hyperparameters:
    """V as a function of rho = (log sp, log phi, extra), by way of lam = sp / phi."""

    problem: Problem
    estimated: tuple[int, ...]

    @classmethod
    def of(
        cls, objective: Objective, solution: Solution, estimated: tuple[int, ...]
    ) -> _Hyperparameters:
        # with fixed sp, too, lam moves with the dispersion: V is differentiated in all of them
        units = tuple(_all_estimated(unit) for unit in objective.units)
        problem = Problem.of(replace(objective, units=units), method=solution.criterion)
        return cls(problem, estimated)

    def weighted(self, lam: Vector) -> tuple[tuple[slice, Matrix | Vector], ...]:
        chosen = [(j, self.problem.penalties[j]) for j in self.estimated]
        return tuple((p.index, lam[j] * p.given.S) for j, p in chosen)

    def point_at(self, solution: Solution) -> Point:
        state = evaluate(self.problem.objective, solution.coef)
        return Point.at(self.problem, solution.lam, state, tolerance=DECREMENT)

    def slope(self, point: Point) -> Slope:
        """Derivatives of V in rho."""
        raw, T = Slope.at(point), self._transform(point)
        return Slope(raw.gradient @ T, T.T @ raw.hessian @ T, raw.coef @ T)

    def _transform(self, point: Point) -> Matrix:
        """d(log lam, constants) / drho, (n_penalties + n_constants, n_hyper)."""
        n_lam, n_est = len(self.problem.penalties), len(self.estimated)
        n_held = len(self.problem.held)
        T = np.zeros((n_lam + n_held, n_est + n_held))
        T[list(self.estimated), range(n_est)] = 1.0
        T[n_lam:, n_est:] = np.eye(n_held)
        if self.problem.dispersion is not None:
            T[:n_lam, n_est] = -1.0
            T[n_lam, n_est] = 1.0 / self.problem.kappa(point.state.coef)
        return T

    def moved(self, point: Point, shift: Vector) -> tuple[Point, Vector]:
        """The point at rho + shift, and the shift that it really is."""
        problem, n_est = self.problem, len(self.estimated)
        made = shift.copy()
        coef = point.state.coef + self.slope(point).coef @ shift
        coef[problem.held] = point.state.coef[problem.held] + shift[n_est:]
        log_phi = 0.0
        if problem.dispersion is not None:
            step = shift[n_est] / problem.kappa(point.state.coef)
            coef[problem.dispersion] = point.state.coef[problem.dispersion] + step
            log_phi = float(np.log(problem.phi(coef) / problem.phi(point.state.coef)))
            made[n_est] = log_phi
        log_lam = np.log(point.lam) - log_phi
        log_lam[list(self.estimated)] += shift[:n_est]
        state = evaluate(problem.objective, coef)
        return Point.at(problem, np.exp(log_lam), state, tolerance=DECREMENT), made

    def maximum(self, point: Point) -> Point:
        """The point where V is maximal in the dispersion: ML reports a larger, unbiased one."""
        if self.problem.dispersion is None or self.problem.integrated is None:
            return point
        n_est = len(self.estimated)
        for _ in range(MAX_STEPS):
            slope = self.slope(point)
            shift = np.zeros(len(slope.gradient))
            shift[n_est] = -slope.gradient[n_est] / slope.hessian[n_est, n_est]
            point, made = self.moved(point, shift)
            if abs(made[n_est]) < DIFFERENCE**2:
                break
        return point

    def hessian(self, point: Point) -> Matrix:
        """-d2V / drho2 by central differences of the gradient."""
        n = len(self.estimated) + len(self.problem.held)
        H = np.zeros((n, n))
        for k in range(n):
            step = np.zeros(n)
            step[k] = DIFFERENCE
            above, up = self.moved(point, step)
            below, down = self.moved(point, -step)
            rise = self.slope(above).gradient - self.slope(below).gradient
            H[k] = -rise / (up[k] - down[k])
        return (H + H.T) / 2.0


def _all_estimated(unit: Unit) -> Unit:
    return replace(unit, penalties=tuple(replace(p, sp=None, df=None) for p in unit.penalties))
