"""Newton with exact constraints: means freed of protected covariates (METHODS 5).

    maximise  l(b) - 1/2 b' S b - t' b    subject to   c(b) = A' h(eta_0(b)) = 0

h is the inverse link of the first predictor eta_0 = X b + offset, A (n_obs, q) holds centred
covariates times weights, and t a linear tilt. f is the negative of what is maximised, J = dc/db and
B = d2 f / db2 + sum_k nu_k d2 c_k / db2. Coefficients count in units of diag(H + S)^(-1/2) and
constraints in standard errors, so that J (H + S)^-1 J' = 1 at the start.

1. augmented Lagrangian: Newton on f + nu' c + rho / 2 |c|^2, then nu <- nu + rho c, until c is
   small; from the free maximum it leads to the constrained one without getting lost
2. multipliers nu: least squares solution of J' nu = -df
3. step d = -J^+ c + Z e,  Z a basis of the null space of J, (Z' B Z) e = -Z' (df - B J^+ c), with
   Z' B Z made positive definite where it is not
4. the longest of d, d / 2, ... that lowers f + pi |c|_1 enough, pi > |nu|; where d itself fails, d
   with c corrected for its curvature is tried first
5. converged when c is zero to rounding and 1/2 e' Z' B Z e, the likelihood still to be gained, is
   negligible; else from 2.

References: Nocedal & Wright, "Numerical Optimization", 2nd ed. 2006, sec. 17.3 (augmented
Lagrangian) and 18.2-18.4 (sequential quadratic programming); Ruegamer, Kolb et al. (2024), ICML,
arXiv 2405.02475 (the constraint).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import tensorflow as tf

from deepregress.bijectors import Link
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.solvers.newton import DECREMENT

MAX_STEPS = 200
MAX_HALVINGS = 40
FEASIBLE = 1e-12
"""Largest c at convergence, relative to the sum of the sizes of its terms."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must bring."""
DEPENDENT = 1e-10
"""Singular values of J below this share of the largest are zero."""
LEAST_CURVATURE = 1e-10
"""Smallest curvature assumed in a direction, relative to the largest."""
NEAR, MAX_ROUNDS = 1e-2, 15
"""Standard errors of c at which the augmented Lagrangian ends, and its largest number of rounds."""
ROUND_DECREMENT = 1e-3
"""Decrement at which a round of it ends."""
GROWTH, SHRINKAGE = 4.0, 0.25
"""Of its penalty rho, in a round that leaves more than this share of c."""


@dataclass(frozen=True)
class Balance:
    """The constraint A' h(eta_0) = 0.

    Parameters
    ----------
    A : Matrix, (n_obs, q)
        Of full column rank.
    link : Link
        Of the first predictor, whose inverse is h.
    """

    A: Matrix
    link: Link

    def value(self, mean: Vector) -> Vector:
        """A' mean, (q,)."""
        return np.asarray(self.A.T @ mean)

    def size(self, mean: Vector) -> float:
        """Sum of the sizes of the terms of the largest constraint: what rounding is relative to."""
        return float((np.abs(self.A).T @ np.abs(mean)).max())


def slopes(link: Link, eta: Vector) -> tuple[Vector, Vector, Vector]:
    """h(eta), dh / deta and d2h / deta2 of an inverse link, each (n_obs,)."""
    first = tf.constant(eta, tf.float64)
    none = tf.UnconnectedGradients.ZERO
    with tf.GradientTape() as outer:
        outer.watch(first)
        with tf.GradientTape() as inner:
            inner.watch(first)
            mean = link.inverse(first)
        slope = inner.gradient(mean, first, unconnected_gradients=none)
    bend = outer.gradient(slope, first, unconnected_gradients=none)
    return mean.numpy(), slope.numpy(), bend.numpy()


@dataclass(frozen=True)
class Constrained:
    """A constrained maximum.

    Parameters
    ----------
    coef : Vector, (n_coef,)
    multipliers : Vector, (q,)
        Nu, log-likelihood per unit of c.
    jacobian : Matrix, (q, n_coef)
        J at `coef`.
    steps : int
    feasible : bool
        Whether the constraint holds to rounding.
    converged : bool
    """

    coef: Vector
    multipliers: Vector
    jacobian: Matrix
    steps: int
    feasible: bool
    converged: bool


@dataclass(frozen=True)
class _Problem:
    """What is to be maximised; free coefficients count in units of `scale`, c in those of `T`."""

    objective: Objective
    balance: Balance
    S: Matrix
    tilt: Vector
    free: Array
    scale: Vector
    T: Matrix

    @classmethod
    def of(
        cls,
        objective: Objective,
        start: Vector,
        balance: Balance,
        *,
        S: Matrix,
        tilt: Vector,
        free: Array,
    ) -> _Problem:
        """Choose the units at the start."""
        q = balance.A.shape[1]
        plain = cls(objective, balance, S, tilt, free, np.ones(len(free)), np.eye(q))
        point = plain.at(start)
        diagonal = np.abs(np.diagonal(point.hessian))
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        J = point.J * scale
        values, vectors = _convex(scale[:, None] * point.hessian * scale)
        sizes, turned = np.linalg.eigh(((J @ vectors) / values) @ (J @ vectors).T)
        sizes = np.maximum(sizes, DEPENDENT * sizes.max() + np.finfo(float).tiny)
        return cls(objective, balance, S, tilt, free, scale, (turned / np.sqrt(sizes)).T)

    def at(self, coef: Vector) -> _Point:
        derivatives = self.objective.derivatives(coef)
        first = self.objective.units[0]
        mean, slope, bend = slopes(
            self.balance.link, first.X @ coef[self.objective.slices[0]] + first.offset
        )
        smooth = self.S @ coef
        J = np.zeros((self.balance.A.shape[1], len(coef)))
        J[:, self.objective.slices[0]] = (self.balance.A * slope[:, None]).T @ first.X
        unbalanced = self.balance.value(mean)
        hessian = (derivatives.H + self.S)[np.ix_(self.free, self.free)]
        return _Point(
            coef=coef,
            value=-derivatives.value + 0.5 * float(coef @ smooth) + float(self.tilt @ coef),
            gradient=self.scale * (-derivatives.gradient + smooth + self.tilt)[self.free],
            hessian=self.scale[:, None] * hessian * self.scale,
            c=self.T @ unbalanced,
            feasible=float(np.abs(unbalanced).max()) <= FEASIBLE * self.balance.size(mean),
            J=self.T @ J[:, self.free] * self.scale,
            bend=bend,
        )

    def curvature(self, point: _Point, multipliers: Vector) -> Matrix:
        """B: of f and of the constraints."""
        X, index = self.objective.units[0].X, self.objective.slices[0]
        every = np.zeros_like(self.S)
        bend = point.bend * (self.balance.A @ (self.T.T @ multipliers))
        every[index, index] = (X * bend[:, None]).T @ X
        own = every[np.ix_(self.free, self.free)]
        return np.asarray(point.hessian + self.scale[:, None] * own * self.scale)

    def moved(self, point: _Point, step: Vector) -> _Point:
        coef = point.coef.copy()
        coef[self.free] += self.scale * step
        return self.at(coef)

    def slack(self, point: _Point) -> float:
        """Rounding of a sum over the rows: a rise below that is none."""
        return 1e-13 * (abs(point.value) + self.objective.n_obs)


@dataclass(frozen=True)
class _Point:
    """Value and derivatives of f and c; gradient, Hessian and J over the free coefficients."""

    coef: Vector
    value: float
    gradient: Vector
    hessian: Matrix
    c: Vector
    feasible: bool
    J: Matrix
    bend: Vector

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.isfinite(self.c).all())

    def merit(self, penalty: float) -> float:
        return self.value + penalty * float(np.abs(self.c).sum())

    def augmented(self, multipliers: Vector, rho: float) -> float:
        return self.value + float(multipliers @ self.c) + 0.5 * rho * float(self.c @ self.c)


def _convex(B: Matrix) -> tuple[Vector, Matrix]:
    """Eigenvalues, made positive, and eigenvectors."""
    values, vectors = scipy.linalg.eigh(B)
    sizes = np.abs(values)
    return np.maximum(sizes, LEAST_CURVATURE * sizes.max(initial=1.0)), vectors


@dataclass(frozen=True)
class _Step:
    """Steps 2 and 3: direction, multipliers after it, likelihood to be gained, J^+."""

    direction: Vector
    multipliers: Vector
    decrement: float
    inverse: Matrix


def maximise(
    objective: Objective,
    start: Vector,
    balance: Balance,
    *,
    S: Matrix,
    tilt: Vector,
    free: Array,
) -> Constrained:
    """Penalised maximum likelihood under the constraint, over the coefficients `free`.

    Parameters
    ----------
    objective : Objective
        Without columns by level.
    start : Vector, (n_coef,)
    balance : Balance
    S : Matrix, (n_coef, n_coef)
        Total penalty.
    tilt : Vector, (n_coef,)
        t: the gradient of l - 1/2 b' S b that counts as zero.
    free : array of int
    """
    problem = _Problem.of(objective, start, balance, S=S, tilt=tilt, free=free)
    point, penalty, steps = _approach(problem, problem.at(start)), 0.0, 0
    while True:
        step = _step(problem, point)
        converged = point.feasible and step.decrement < DECREMENT
        penalty = max(penalty, 2.0 * float(np.abs(step.multipliers).max()))
        better = None if converged or steps == MAX_STEPS else _search(problem, point, step, penalty)
        if better is None:
            J = np.zeros((len(point.J), len(start)))
            J[:, free] = point.J / problem.scale
            multipliers = problem.T.T @ step.multipliers
            return Constrained(point.coef, multipliers, J, steps, point.feasible, converged)
        point, steps = better, steps + 1


def _approach(problem: _Problem, point: _Point) -> _Point:
    """Step 1: a point whose c is small."""
    multipliers, rho = np.zeros(len(point.c)), 1.0
    for _ in range(MAX_ROUNDS):
        size = float(np.abs(point.c).max())
        if size < NEAR:
            break
        point = _round(problem, point, multipliers, rho)
        multipliers = multipliers + rho * point.c
        if np.abs(point.c).max() > SHRINKAGE * size:
            rho *= GROWTH
    return point


def _round(problem: _Problem, point: _Point, multipliers: Vector, rho: float) -> _Point:
    """Newton on the augmented Lagrangian for given multipliers."""
    for _ in range(MAX_STEPS):
        towards = multipliers + rho * point.c
        B = problem.curvature(point, towards) + rho * point.J.T @ point.J
        sizes, vectors = _convex(B)
        slope = vectors.T @ (point.gradient + point.J.T @ towards)
        direction, gain = -vectors @ (slope / sizes), float(np.sum(slope**2 / sizes))
        if 0.5 * gain < ROUND_DECREMENT:
            break
        before = point.augmented(multipliers, rho) + problem.slack(point)
        for halving in range(MAX_HALVINGS):
            length = 0.5**halving
            trial = problem.moved(point, length * direction)
            lower = before - SUFFICIENT * length * gain
            if trial.finite and trial.augmented(multipliers, rho) <= lower:
                break
        else:
            break
        point = trial
    return point


def _step(problem: _Problem, point: _Point) -> _Step:
    """Steps 2 and 3."""
    left, values, right = np.linalg.svd(point.J)
    kept = int((values > DEPENDENT * values.max(initial=0.0)).sum())
    inverse = right[:kept].T @ (left[:, :kept] / values[:kept]).T
    Z = right[kept:].T
    B = problem.curvature(point, -inverse.T @ point.gradient)
    towards = -inverse @ point.c
    along, decrement = np.zeros(len(towards)), 0.0
    if Z.shape[1]:
        sizes, vectors = _convex(Z.T @ B @ Z)
        slope = vectors.T @ (Z.T @ (point.gradient + B @ towards))
        along = Z @ (vectors @ (-slope / sizes))
        decrement = 0.5 * float(np.sum(slope**2 / sizes))
    direction = towards + along
    after = -inverse.T @ (point.gradient + B @ direction)
    return _Step(direction, after, decrement, inverse)


def _search(problem: _Problem, point: _Point, step: _Step, penalty: float) -> _Point | None:
    """Step 4: the next point, None where no step helps."""
    before = point.merit(penalty)
    slope = float(point.gradient @ step.direction) - penalty * float(np.abs(point.c).sum())
    slack = problem.slack(point)

    def accepted(trial: _Point, length: float) -> bool:
        allowed = before + SUFFICIENT * length * min(slope, 0.0) + slack
        return trial.finite and trial.merit(penalty) <= allowed

    for halving in range(MAX_HALVINGS):
        length = 0.5**halving
        trial = problem.moved(point, length * step.direction)
        if accepted(trial, length):
            return trial
        if halving == 0 and trial.finite:
            corrected = problem.moved(point, step.direction - step.inverse @ trial.c)
            if accepted(corrected, length):
                return corrected
    return None
